"""What an avatar is learned from: frames of one shot with codes and mattes, small enough for memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from capture.frame import at_size
from capture.matte import SelfieMatte
from capture.media import Excerpt, Media
from models.code import FaceCode, Person, at_height
from models.prior.face import AnnyPrior
from pipeline.alignment import align
from pipeline.avatar.shots import by_length, complaints, survey
from pipeline.errors import Refusal
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.source import pick_person
from pipeline.tracking import track

SIZE = 512  # pixels of an avatar's longer side
LEAST_FRAMES = 50
_STILL = 0.03  # largest deviation of any expression below which a face counts as still
MOST_FRAMES = 480  # kept to learn from; of a longer clip, that many spread evenly


@dataclass(frozen=True, eq=False)
class Footage:
    """Frames at the avatar's size.

    Attributes:
        person: fitted to frames that may be learned from, with the camera at that size.
        images: N x H x W x 3 uint8 sRGB; mattes: N x H x W uint8, 255 on people.
        codes: N.
        numbers: N, of the frames in their clip; clip: N, which of the clips that is.
    """

    person: Person
    images: np.ndarray
    mattes: np.ndarray
    codes: list[FaceCode]
    numbers: np.ndarray
    clip: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.images.shape[1:3]

    def some(self, count: int) -> Footage:
        """At most `count` frames, spread evenly."""
        if len(self) <= count:
            return self
        chosen = np.unique(np.linspace(0, len(self) - 1, count).round().astype(int))
        return replace(
            self, images=self.images[chosen], mattes=self.mattes[chosen], codes=[self.codes[k] for k in chosen],
            numbers=self.numbers[chosen], clip=self.clip[chosen],
        )  # fmt: skip


def avatar_size(media: Media) -> tuple[int, int]:
    """Height and width, both even, the longer at most 512."""
    scale = min(1.0, SIZE / max(media.width, media.height))
    return tuple(max(16, 2 * round(side * scale / 2)) for side in (media.height, media.width))


def read_clips(
    clips: Sequence[Media], prior: AnnyPrior, holdout: float = 0.0, person_id: int = 0, listen: Listener = silent
) -> tuple[Footage, list[int], list[str]]:
    """The frames to learn from; for each clip the number of the first that is held out (its length where none is); warnings.

    Args:
        clips: of one person before one camera; the first one's fit stands for all.
        holdout: share of each clip's end that is not looked at.

    Raises:
        Refusal: too few frames that show the face, or clips that don't belong together.
    """
    parts: list[Footage] = []
    ends, warnings = [], []
    for media in clips:
        if media.is_photo:
            raise Refusal(f"{media.path}: a photo, expected a video. An avatar needs at least {LEAST_FRAMES} frames.")
        if parts and avatar_size(media) != parts[0].size:
            raise Refusal(
                f"{media.path}: {media.width}x{media.height}, expected the shape of {clips[0].path}. Give clips of one camera."
            )
        kept, cuts = survey(media, holdout, listen)
        if kept < LEAST_FRAMES:
            raise Refusal(
                f"{media.path}: too few frames to learn from: {kept}, expected at least {LEAST_FRAMES}. Give a longer clip."
            )
        shots = [(first, last) for first, last in by_length(kept, cuts) if last - first >= LEAST_FRAMES]
        if not shots:
            first, last = by_length(kept, cuts)[0]
            raise Refusal(
                f"{media.path}: cuts at frames {', '.join(map(str, cuts[:8]))}; the longest shot has {last - first} frames, "
                f"expected at least {LEAST_FRAMES}. Give a clip without cuts."
            )
        for first, last in shots:
            part = Excerpt(media, first, last)
            try:
                tracked = track(part, prior, person_id + 1, listen=listen)
                break
            except Refusal:  # a title, say: the next longest may show the person
                if (first, last) == shots[-1]:
                    raise
        if cuts:
            warnings.append(
                f"{media.path}: {len(cuts)} cuts; frames {first} to {last - 1}, the longest shot with a face, are learned from."
            )
        performance = pick_person(tracked.performances, person_id, media.path)
        if len(tracked.performances) > 1:
            warnings.append(
                f"{media.path}: {len(tracked.performances)} people; person {person_id} is learned, --person takes another."
            )
        if parts:
            known = replace(parts[0].person, camera=at_height(parts[0].person.camera, media.height, media.width))
            performance = tracked.performance_of(person_id, known, prior)
        usable = np.flatnonzero(performance.tracked)
        if len(usable) < LEAST_FRAMES:
            raise Refusal(
                f"{media.path}: {len(usable)} of {last - first} frames show the face, expected at least {LEAST_FRAMES}. "
                "Give a longer clip, or one whose face stays in view."
            )
        if performance.expression[usable].std(0).max() < _STILL:
            warnings.append(f"{media.path}: the face hardly moves, so that few expressions can be learned. Let the person speak.")
        most = MOST_FRAMES // len(clips)
        usable = usable[np.unique(np.linspace(0, len(usable) - 1, min(most, len(usable))).round().astype(int))]
        made = footage_of(part, align(part, performance, prior, listen=listen), usable, listen)
        warnings.extend(f"{media.path}: {line}" for line in complaints(made, prior))
        parts.append(replace(made, numbers=made.numbers + first, clip=np.full(len(made), len(parts))))
        ends.append(kept)
    return _joined(parts), ends, warnings


def _joined(parts: list[Footage]) -> Footage:
    if len(parts) == 1:
        return parts[0]
    arrays = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("images", "mattes", "numbers", "clip")}
    return Footage(parts[0].person, codes=[code for p in parts for code in p.codes], **arrays)


def footage_of(media: Media, performance: Performance, numbers: np.ndarray, listen: Listener = silent) -> Footage:
    """Chosen frames of a media with what is known of them, at the avatar's size."""
    height, width = avatar_size(media)
    person = replace(performance.person, camera=at_height(performance.person.camera, height, width))
    images, mattes = pictures_of(media, numbers, (height, width), listen)
    numbers = numbers[: len(images)]
    return Footage(person, images, mattes, [performance.code(int(k)) for k in numbers], numbers, np.zeros(len(images), int))


def pictures_of(
    media: Media, numbers: np.ndarray, size: tuple[int, int], listen: Listener = silent
) -> tuple[np.ndarray, np.ndarray]:
    """Chosen frames of a media and their mattes, as `Footage` holds them; fewer where it ends before.

    Args:
        numbers: of the frames, rising; size: height and width.
    """
    height, width = size
    wanted, last = set(numbers.tolist()), int(numbers.max(initial=-1)) + 1
    images = np.empty((len(numbers), height, width, 3), np.uint8)
    mattes = np.empty((len(numbers), height, width), np.uint8)
    filled = 0
    with SelfieMatte() as matte:
        for index, frame in enumerate(counted(media, "mattes", last, listen)):
            if index not in wanted:
                continue
            images[filled] = at_size(frame.image, height, width)
            mattes[filled] = np.round(255 * matte(images[filled]))
            filled += 1
            if filled == len(numbers):
                break
    return images[:filled], mattes[:filled]
