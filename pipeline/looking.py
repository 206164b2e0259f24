"""A photo or a video looked at once before it is relit: who is there, what they do, and in which light."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np

from capture.frame import FaceObservation
from capture.media import Media
from models.colour import DECODE
from models.light.harmonics import LUMINANCE
from models.light.lights import Light
from models.prior.face import AnnyPrior
from models.prior.reflectance import load_reflectance
from pipeline.close_tracking import track_closely
from pipeline.errors import Refusal
from pipeline.performance import Performance
from pipeline.progress import Listener, silent
from pipeline.relighting import Look, Relit
from pipeline.tracking import Tracked

MOST = 4  # people who are relit, the largest
_STEADY = 0.4  # seconds over which light is taken to stay
_VARIES = 0.15  # of the logarithm, above which a shot's light is said to vary
_LOOKS = 8  # frames of a shot that tell its light
_LOOK_SIDE = 960  # pixels of a video's longer side in them
_OFTEN = 0.25  # seconds between frames whose light is foretold
_SKIN = [4, 5, 195, 197, 6, 8, 9, 151, 108, 337, 69, 299, 50, 280, 101, 330, 36, 266, 205, 425, 187, 411, 118, 347, 117, 346]


@dataclass(frozen=True)
class Shot:
    """A photo or a video whose people are known, ready to be relit.

    Attributes:
        people: each with their light, and what they do, the largest first.
        gains: N x 3, by how much the light of each frame differs from the shot's; None where it stays.
    """

    people: list[tuple[Relit, Performance]]
    gains: np.ndarray | None

    @property
    def source(self) -> Light:
        """The light that the largest stands in."""
        return self.people[0][0].source

    def apart(self) -> Shot:
        """The same, where what a device remembers of a film's last frame is nobody else's."""
        return self if self.device == "cpu" else replace(self, people=[(one.apart(), done) for one, done in self.people])

    @property
    def device(self) -> str:
        """Where its pictures are made."""
        return self.people[0][0].device


def look_at(
    media: Media, prior: AnnyPrior, source: Light | None = None, people: int = MOST, smoothing: float = 1.0,
    listen: Listener = silent, device: str = "cpu",
) -> Shot:  # fmt: skip
    """Looks at a photo or a video once: who is there, what they do, and in which light.

    Args:
        source: the light they stand in, where it is known.
        device: where they will be relit.

    Raises:
        Refusal: where nobody is seen, or too little of them to tell the light.
    """
    kept = _Kept()
    watch = None if media.is_photo else kept.watch
    tracked = track_closely(media, prior, people=people, smoothing=smoothing, listen=listen, watch=watch)
    numbers = sorted(tracked.performances)[:people]
    first = tracked.performances[numbers[0]]
    relit: list[tuple[Relit, Performance]] = []
    for number, k in enumerate(numbers, 1):
        person = tracked.performances[k].person
        looks = kept.looks(media, tracked, k)
        try:
            one = Relit(person, prior, looks, source, fine=media.is_photo, device=device)
        except Refusal:  # too dark or too bright a face among others: it stands in the same light
            if not relit:
                raise
            one = Relit(person, prior, looks, relit[0][0].source, fine=media.is_photo, device=device)
        relit.append((one, replace(tracked.performances[k], person=one.person)))
        listen("light", number, len(numbers))
    known = source is not None or media.is_photo
    return Shot(relit, None if known else _light_over_time(relit[0][0], first, kept.skin(numbers[0], len(tracked.times))))


class _Kept:
    """What is kept of a video while it is tracked: some of its frames, and how bright faces are in each."""

    def __init__(self) -> None:
        self._every, self._frames = 1, {}
        self._skin: dict[int, dict[int, np.ndarray]] = {}

    def watch(self, index: int, image: np.ndarray, faces: list[FaceObservation]) -> None:
        if index % self._every == 0:
            scale = _LOOK_SIDE / max(image.shape[:2])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            self._frames[index] = small
            if len(self._frames) > 3 * _LOOKS:
                self._every *= 2
                self._frames = {k: frame for k, frame in self._frames.items() if k % self._every == 0}
        for face in faces:
            if face.found:
                self._skin.setdefault(face.id, {})[index] = _skin_colour(image, face.landmarks)

    def looks(self, media: Media, tracked: Tracked, number: int) -> list[Look]:
        """Frames spread over a shot, the surest of each stretch, that show somebody."""
        performance = tracked.performances[number]
        if media.is_photo:
            return [Look(next(iter(media)).image, performance.code(0), tracked.keyframes[number][0])]
        seen = np.array([k for k in self._frames if k < len(performance) and performance.tracked[k]], int)
        if not len(seen):  # so short a time that none of the frames kept shows them
            index = int(np.argmax(performance.tracked))
            self._frames[index] = next(islice(iter(media), index, None)).image
            seen = np.array([index])
        stretches = np.array_split(seen, min(_LOOKS, len(seen)))
        chosen = [int(one[np.argmax(performance.confidence[one])]) for one in stretches]
        return [Look(self._frames[k], performance.code(k), tracked.landmarks_of(number, k)) for k in chosen]

    def skin(self, number: int, count: int) -> np.ndarray:
        """`count` x 3 linear: the colour of somebody's skin in each frame, NaN where they are not seen."""
        out = np.full((count, 3), np.nan)
        for index, colour in self._skin.get(number, {}).items():
            out[index] = colour
        return out


def _skin_colour(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """3 linear: the median of cheeks, nose and brow; NaN where these are out of the picture."""
    x, y = landmarks[_SKIN, 0].astype(int), landmarks[_SKIN, 1].astype(int)
    inside = (x >= 1) & (y >= 1) & (x < image.shape[1] - 1) & (y < image.shape[0] - 1)
    if inside.sum() < len(_SKIN) // 2:
        return np.full(3, np.nan)
    near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    patches = np.concatenate([DECODE[image[y[inside] + dy, x[inside] + dx]] for dy, dx in near])
    return np.median(patches, axis=0) / 65535 + 1e-4


def _light_over_time(relit: Relit, performance: Performance, skin: np.ndarray) -> np.ndarray | None:
    """N x 3 gains on the shot's light, smooth in time; None where it hardly varies."""
    seen = np.flatnonzero(np.isfinite(skin).all(1))
    if len(seen) < 3:
        return None
    chosen = np.flatnonzero(load_reflectance(relit.shader.lit.prior).skin > 0)[::4]
    times = performance.times[seen]
    apart = seen[np.unique(np.searchsorted(times, np.arange(times[0], times[-1] + _OFTEN, _OFTEN)).clip(max=len(seen) - 1))]
    told = np.array([relit.shader.irradiance(performance.code(int(i)), relit.source)[chosen].mean(0) for i in apart])
    expected = np.stack([np.interp(times, performance.times[apart], told[:, c]) for c in range(3)], 1)
    gain = np.log(skin[seen] / np.maximum(expected, 1e-6))
    width = _STEADY
    smooth = np.empty_like(gain)
    for row, time in enumerate(times):
        weight = np.exp(-0.5 * ((times - time) / width) ** 2)
        smooth[row] = weight @ gain / weight.sum()
    smooth -= np.median(smooth, axis=0)
    if np.ptp(smooth @ LUMINANCE) < _VARIES:
        return None
    return np.exp(np.stack([np.interp(performance.times, times, smooth[:, c]) for c in range(3)], 1))
