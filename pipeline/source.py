"""The picture that is to move, prepared once: a photo, or a video whose frames serve as plates and views."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from capture.frame import Frame
from capture.matte import selfie_matte
from capture.media import Media, StillPicture, open_media
from models.code import FaceCode, Person, at_height
from models.head import Head
from models.portrait.mouth import MouthView
from models.portrait.render import Portrait
from models.portrait.view import View
from models.prior.face import EXPRESSIONS, AnnyPrior
from pipeline.builtin import BUILTIN, builtin_portrait
from pipeline.errors import Refusal
from pipeline.fitting import LandmarkModel, inter_ocular
from pipeline.performance import Performance
from pipeline.progress import Listener, silent
from pipeline.retargeting import photo_rest
from pipeline.shot import frame_fitter
from pipeline.tracking import Tracked, track

VIEWS = 5  # source frames kept ready as textures, for the head turned this way and that
MOUTHS = 32  # mouths kept from a source video
SAME_PERSON = 0.0115  # of the inter-ocular distance: own first frames fit at most at 0.0104, others' at 0.0089 and up
_MOUTH = slice(EXPRESSIONS.index("jawForward"), EXPRESSIONS.index("noseSneerLeft"))  # jaw and mouth lie together
_LIDS = [EXPRESSIONS.index(f"eye{what}{side}") for what in ("Blink", "Squint", "Wide") for side in ("Left", "Right")]
_BORDER = 0.06  # of a face's width over which one person's part of a picture goes over into another's
_SETTLED = 24  # steps for a single picture, which has nothing before it to start from


@dataclass(frozen=True)
class Source:
    """Who is to be moved.

    Attributes:
        portrait: renders them.
        views: pictures of them, ready as textures; the first one, the calmest, is a photo's only one.
        mouths: their mouth in many shapes, from a video's own frames.
        rest: 52, their resting expression.
        performance: of every source frame, for a video.
        landmarks: 478 x 3 of the first view's picture.
        territory: H x W float32 in [0, 1], what of the picture is theirs, beside others in it; None where it is all of it.
    """

    portrait: Portrait
    views: list[View]
    rest: np.ndarray
    performance: Performance
    landmarks: np.ndarray
    mouths: list[MouthView] = field(default_factory=list)
    territory: np.ndarray | None = None

    @property
    def person(self) -> Person:
        return self.portrait.head.person

    @property
    def is_video(self) -> bool:
        return len(self.performance) > 1


def prepare_source(media: Media, prior: AnnyPrior, person_id: int = 0, listen: Listener = silent, device: str = "cpu") -> Source:
    """Fits a photo or a video of the source person and makes its textures.

    Raises:
        Refusal: where no (or not that) face is found.
    """
    tracked = track(media, prior, people=person_id + 1, smoothing=1.0, listen=listen)
    return _prepared(media, prior, tracked, person_id, _grounds(media, tracked).get(person_id), listen, device)


def prepare_everyone(media: Media, prior: AnnyPrior, listen: Listener = silent, device: str = "cpu") -> list[Source]:
    """`prepare_source` of everyone whom the first frame that shows anyone shows, the largest first."""
    tracked = track(media, prior, smoothing=1.0, listen=listen)
    grounds = _grounds(media, tracked)
    return [_prepared(media, prior, tracked, k, grounds.get(k), listen, device) for k in sorted(tracked.performances)]


def _grounds(media: Media, tracked: Tracked) -> dict[int, np.ndarray]:
    """The territory of each person, by number; none where there is only one."""
    numbers = sorted(tracked.performances)
    if len(numbers) < 2:
        return {}
    return dict(zip(numbers, territories([tracked.keyframes[k][0] for k in numbers], media.height, media.width)))


def territories(faces: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """K x H x W float32 that sum to 1: whose face each pixel lies nearest to, in widths of that face, eased over.

    Args:
        faces: K times 478 x 3 landmarks.
    """
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + 0.5
    away = []
    for face in faces:
        centre, size = face[:468, :2].mean(0), max(float(np.ptp(face[:468, 0])), 1.0)
        away.append(np.hypot(x - centre[0], y - centre[1]) / size)
    nearer = np.exp((np.min(away, 0) - np.array(away)) / _BORDER)
    return (nearer / nearer.sum(0)).astype(np.float32)


def _prepared(
    media: Media, prior: AnnyPrior, tracked: Tracked, person_id: int, territory: np.ndarray | None, listen: Listener, device: str
) -> Source:  # fmt: skip
    performance = pick_person(tracked.performances, person_id, media.path)
    theirs = 1 if territory is None else territory

    def mattes(image: np.ndarray) -> dict[str, np.ndarray]:
        everyone = selfie_matte(image)
        return {"matte": everyone * theirs, "alpha": everyone}

    portrait = Portrait(Head(prior, performance.person), device=device)
    if len(performance) == 1:
        frame = next(iter(media))
        code = performance.code(0)
        view = portrait.view(frame.image, code, **mattes(frame.image))
        return Source(portrait, [view], photo_rest(code), performance, tracked.keyframes[person_id][0], territory=territory)
    calm = _calmest(performance)
    poses = _spread(performance, head_feature, VIEWS, calm)
    shapes = set(_spread(performance, mouth_feature, MOUTHS, calm))
    open_eyed = _widest_eyed(performance, calm)
    frames, mouths = {}, []
    last = max(shapes.union(poses, [open_eyed]))
    for index, frame in enumerate(media):
        if index in poses or index == open_eyed:
            frames[index] = frame.image
        if index in shapes:
            mouth = portrait.mouth(frame.image, performance.code(index))
            mouths += [mouth] if mouth is not None else []
        listen("views", min(index, last) + 1, last + 1)
        if index >= last:
            break
    room = mouth_room(mouths)
    eyes = portrait.view(frames[open_eyed], performance.code(open_eyed), None, still=True)
    views = [
        portrait.view(frames[i], performance.code(i), **mattes(frames[i]), room=room, eyes_from=eyes)
        for i in poses if i in frames
    ]  # fmt: skip
    return Source(portrait, views, performance.person.neutral, performance, tracked.keyframes[person_id][0], mouths, territory)


def open_source(path: str) -> Media:
    """The media behind a source's name: a path, or `builtin` for the portrait that is always there."""
    return StillPicture(builtin_portrait(), BUILTIN) if path == BUILTIN else open_media(path)


def prepare_picture(image: np.ndarray, prior: AnnyPrior, name: str = "the picture", device: str = "cpu") -> Source:
    """`prepare_source` for an H x W x 3 uint8 sRGB picture in memory."""
    return prepare_source(StillPicture(image, name), prior, device=device)


def pick_person(performances: dict[int, Performance], person_id: int, path: str) -> Performance:
    if person_id not in performances:
        raise Refusal(
            f"person {person_id} not found in {path}: {len(performances)} face(s) seen, numbered from 0. "
            f"Use --person with a number up to {len(performances) - 1}."
        )
    return performances[person_id]


def as_same_person(source: Source, driver: Person, prior: AnnyPrior, frame: Frame) -> Source | None:
    """The source refitted as the driver's own person where the two prove to be one, else None.

    One picture leaves much of a face's depth open; where the driver's shot shows the same person from all sides, its
    identity is the better one. The picture itself decides: its landmarks must lie on the driver's head nearly as well as
    frames of the driver's own shot do.
    """
    mine = source.person.camera
    person = replace(driver, camera=at_height(driver.camera, mine.height, mine.width))
    model = LandmarkModel.of(prior)
    fitter = frame_fitter(model, person)
    fitter.steps = _SETTLED
    code = fitter(source.landmarks)
    error = np.linalg.norm(fitter.landmarks(code)[:468] - source.landmarks[:468, :2], axis=1).mean()
    if error / inter_ocular(source.landmarks) > SAME_PERSON:
        return None
    portrait = Portrait(Head(prior, person), source.portrait.layer, source.portrait.device)
    alpha = selfie_matte(frame.image)
    matte = alpha * (1 if source.territory is None else source.territory)
    view = portrait.view(frame.image, code, matte, alpha=alpha)
    performance = replace(
        source.performance, person=person, expression=code.expression[None], rotation=code.rotation[None],
        translation=code.translation[None], gaze=code.gaze[None],
    )  # fmt: skip
    return Source(portrait, [view], person.neutral, performance, source.landmarks, territory=source.territory)


def mouth_room(mouths: list[MouthView]) -> tuple[int, int]:
    """Height and width in which a source's mouths are lent; a much larger one (the head came near) is scaled down."""
    if not mouths:
        return 0, 0
    height, width = np.median([m.patch.shape[:2] for m in mouths], 0)
    return int(1.3 * height), int(1.3 * width)


def _calmest(performance: Performance) -> int:
    """Number of the frame nearest to rest, in a pose near the middle of the shot's."""
    seen = np.flatnonzero(performance.tracked)
    if len(seen) == 0:
        return 0
    away = np.abs(performance.expression[seen] - performance.person.neutral).sum(1)
    middle = np.median(performance.rotation[seen], 0)
    away = away + 4 * np.linalg.norm(performance.rotation[seen] - middle, axis=(1, 2))
    away = away + np.where(np.isfinite(performance.error[seen]), 30 * performance.error[seen], 0)
    return int(seen[np.argmin(away)])


def _widest_eyed(performance: Performance, otherwise: int) -> int:
    """Number of the frame that shows most of both eyeballs, from the front."""
    seen = np.flatnonzero(performance.tracked)
    if len(seen) == 0:
        return otherwise
    closed = performance.expression[seen][:, _LIDS] @ np.array([1, 1, 0.5, 0.5, -0.4, -0.4])
    aside = np.abs(performance.gaze[seen]).mean((1, 2)) + np.arccos(np.clip(performance.rotation[seen, 2, 2], -1, 1))
    return int(seen[np.argmin(closed + 1.5 * aside)])


def _spread(performance: Performance, feature: Callable[[FaceCode], np.ndarray], count: int, first: int) -> list[int]:
    """Numbers of the source frames that cover a feature best: farthest-point sampling from the first one."""
    seen = np.flatnonzero(performance.tracked)
    if len(seen) == 0:
        return [first]
    features = np.stack([feature(performance.code(int(i))) for i in seen])
    chosen = [first]
    distance = ((features - feature(performance.code(first))) ** 2).sum(1)
    while len(chosen) < min(count, len(seen)) and distance.max() > 1e-6:
        far = int(np.argmax(distance))
        chosen.append(int(seen[far]))
        distance = np.minimum(distance, ((features - features[far]) ** 2).sum(1))
    return chosen


def head_feature(code: FaceCode) -> np.ndarray:
    """Where a head points; 1 is about 20 degrees."""
    return 3.0 * code.rotation[:, 2]


def mouth_feature(code: FaceCode) -> np.ndarray:
    """What a mouth does, and a little of how it is seen."""
    return np.concatenate([code.expression[_MOUTH], 1.0 * code.rotation[:, 2]])
