"""Track and encode: a video or a photo in, everyone's performance out.

Memory stays constant: landmarks are spooled to a temporary file, and keyframes for the shot's fit are kept as they come.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from capture.face_tracker import LANDMARKS, FaceMesh, FaceTracker
from capture.frame import FaceObservation
from capture.media import Media
from models.code import Person
from models.head import look_in_camera
from models.prior.face import AnnyPrior
from models.prior.reflectance import load_reflectance
from pipeline.ahead import ahead
from pipeline.dense import explained, frames_to_explain
from pipeline.encoding import FaceEncoder, Who, shipped_encoder
from pipeline.errors import Refusal
from pipeline.fitting import LandmarkModel, inter_ocular
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.shot import KEYFRAMES, fit_person, frame_fitter, shape_signature
from pipeline.smoothing import smooth_both_ways

SMALLEST_FACE = 12.0  # pixels between the outer eye corners; below, the mesh is a guess
SHORT_GAP = 0.35  # seconds of loss that are bridged by interpolation rather than held
_TO_THE_END = 8  # steps a frame where nobody waits
MISFIT = 0.05  # of the inter-ocular distance at which a fit deserves no confidence


MOST_PEOPLE = 20  # followed at once
_LOOKS = 10  # frames at the start that are searched for everyone


def people_at_start(media: Media, most: int = MOST_PEOPLE) -> tuple[int, int]:
    """How many faces the first frame that shows any shows (0 where none of the first ten does), and `FaceMesh.turns`."""
    finder = FaceMesh(most, still=True)
    try:
        for turns in (0, 2, 1, 3):
            finder.turns = turns
            for _, frame in zip(range(_LOOKS), media):
                faces = finder(frame.image)
                if faces:
                    return len(faces), turns
    finally:
        finder.close()
    return 0, 0


class Keyframes:
    """Keeps the landmarks that differ most from each other, as they come, and who their face looked like."""

    def __init__(self, count: int = KEYFRAMES):
        self._count = count
        self._landmarks: list[np.ndarray] = []
        self._looks: list[Who] = []
        self._shapes: list[np.ndarray] = []
        self._gaps = np.zeros((0, 0))

    def offer(self, landmarks: np.ndarray, look: Callable[[], Who] = lambda: _nobody) -> None:
        """Args:
        look: cuts the face out; called only where the landmarks are kept.
        """
        shape = shape_signature(landmarks)
        distance = np.array([np.abs(shape - other).mean() for other in self._shapes])
        if len(self._shapes) < self._count:
            size = len(self._shapes)
            gaps = np.full((size + 1, size + 1), np.inf)
            gaps[:size, :size] = self._gaps
            gaps[size, :size] = gaps[:size, size] = distance
            self._gaps = gaps
            self._shapes.append(shape)
            self._landmarks.append(landmarks)
            self._looks.append(look())
            return
        nearest = self._gaps.min(1)
        crowded = int(np.argmin(nearest))
        others = np.delete(distance, crowded)
        if others.min() > nearest[crowded]:  # the new one is farther from the rest than the most crowded one is
            self._shapes[crowded], self._landmarks[crowded] = shape, landmarks
            self._looks[crowded] = look()
            distance[crowded] = np.inf
            self._gaps[crowded] = self._gaps[:, crowded] = distance

    @property
    def landmarks(self) -> np.ndarray:
        return np.stack(self._landmarks)

    @property
    def looks(self) -> list[Who]:
        """At the face, each of them told when asked."""
        return list(self._looks)


def _nobody() -> None:
    """A look at nothing."""


@dataclass
class _Track:
    """One person's landmarks so far, on disk."""

    first: int  # number of the frame they were first seen in
    keyframes: Keyframes = field(default_factory=Keyframes)
    spool: object = field(default_factory=lambda: tempfile.TemporaryFile())
    found: list[bool] = field(default_factory=list)
    size: float = 0.0

    def add(self, landmarks: np.ndarray, found: bool, look: Callable[[], Who]) -> None:
        self.found.append(found)
        if found:
            self.spool.write(landmarks.astype(np.float32).tobytes())
            self.keyframes.offer(landmarks, look)
            self.size = max(self.size, float(inter_ocular(landmarks)))

    def at(self, frame: int) -> np.ndarray:
        """478 x 3 landmarks of a frame in which they were seen."""
        size = LANDMARKS * 3 * 4
        self.spool.seek(sum(self.found[: frame - self.first]) * size)
        return np.frombuffer(self.spool.read(size), np.float32).reshape(LANDMARKS, 3)

    def landmarks(self):
        self.spool.seek(0)
        size = LANDMARKS * 3 * 4
        while chunk := self.spool.read(size):
            yield np.frombuffer(chunk, np.float32).reshape(LANDMARKS, 3)


@dataclass(frozen=True)
class Tracked:
    """Everyone in a shot.

    Attributes:
        performances: by the person's id.
        times: of every frame, seconds.
        keyframes: by id, N x 478 x 3 landmarks that the person was fitted to.
        spooled: by id, their landmarks on disk.
    """

    performances: dict[int, Performance]
    times: np.ndarray
    keyframes: dict[int, np.ndarray]
    spooled: dict[int, _Track]

    def performance_of(self, number: int, person: Person, prior: AnnyPrior, smoothing: float = 1.0) -> Performance:
        """What person `number` did, told as `person`, who is known already: nothing of the shot is fitted but the codes."""
        one = self.performances[number]
        model = LandmarkModel.of(prior)
        told = _perform(model, person, self.spooled[number], one.times, one.durations, smoothing, steps=_TO_THE_END)
        return replace(told, person=person)

    def landmarks_of(self, number: int, frame: int) -> np.ndarray | None:
        """478 x 3 landmarks of a frame; None where that face was not seen."""
        return self.spooled[number].at(frame) if self.performances[number].tracked[frame] else None


def nobody(media: Media) -> Refusal:
    """What to say where no frame shows a face."""
    return Refusal(
        f"no face found in {media.path} ({media.width}x{media.height}). Use a picture where the face is at least 64 px wide and "
        "turned less than 60 degrees."
    )


def track(
    media: Media,
    prior: AnnyPrior,
    people: int = 1,
    smoothing: float = 1.0,
    listen: Listener = silent,
    encoder: FaceEncoder | None = None,
    watch: Callable[[int, np.ndarray, list[FaceObservation]], None] | None = None,
) -> Tracked:
    """Tracks a whole shot and fits everyone in it.

    Args:
        people: how many are followed at least, where they are there; everyone in the first frames is.
        smoothing: strength of the two-sided filter; 0 leaves the fits as they are.
        encoder: look at the pixels as well (`pipeline.dense`): skin and light, and a shape that explains them.
        watch: is shown each frame's number, pixels and faces as they pass.

    Raises:
        Refusal: where no frame shows a face, or every face is too small.
    """
    tracks: dict[int, _Track] = {}
    eyes = encoder or shipped_encoder()
    times, durations = [], []
    there, turns = people_at_start(media)
    with (
        FaceTracker(max(there, people), media.is_photo, turns) as tracker,
        closing(ahead(media)) as frames,
        closing(ahead((frame, tracker(frame)) for frame in frames)) as found,
    ):
        for frame, faces in counted(found, "track", media.frame_count_estimate, listen):
            if watch is not None:
                watch(len(times), frame.image, faces)
            for seen in faces:
                if seen.id not in tracks:
                    tracks[seen.id] = _Track(len(times))
                usable = seen.found and float(inter_ocular(seen.landmarks)) >= SMALLEST_FACE
                tracks[seen.id].size = max(tracks[seen.id].size, float(inter_ocular(seen.landmarks)) if seen.found else 0)
                tracks[seen.id].add(seen.landmarks, usable, partial(eyes.who, frame.image, seen.landmarks))
            times.append(frame.time)
            durations.append(frame.duration)
    name = f"{media.path} ({media.width}x{media.height})"
    if not tracks:
        raise nobody(media)
    usable = {k: t for k, t in tracks.items() if any(t.found)}
    if not usable:
        widest = max(t.size for t in tracks.values())
        raise Refusal(
            f"the face in {name} is too small: {widest:.0f} px between the eyes' outer corners, expected at least "
            f"{SMALLEST_FACE:.0f}. Use a closer or larger picture."
        )
    times_, durations_ = np.array(times), np.array(durations)
    model = LandmarkModel.of(prior)
    performances, keyframes = {}, {}
    for number, (k, one) in enumerate(usable.items(), 1):
        keyframes[k] = one.keyframes.landmarks
        who = fit_person(model, keyframes[k], media.width, media.height, eyes.expected(one.keyframes.looks))
        performances[k] = _perform(model, who, one, times_, durations_, smoothing)
        if encoder is not None:
            performances[k] = _densely(media, performances[k], one, prior, encoder, smoothing)
        listen("fit", number, len(usable))
    return Tracked(performances, times_, keyframes, usable)


def _densely(media, performance: Performance, one: _Track, prior: AnnyPrior, encoder: FaceEncoder, smoothing) -> Performance:
    """The same with skin and light, fitted to the end; in the pixels' shape where the landmarks agree with it as well."""
    landmarks = {int(index): one.at(int(index)) for index in frames_to_explain(performance)}
    dense, identity = explained(media, performance, landmarks, prior, load_reflectance(prior), encoder)
    model, best = LandmarkModel.of(prior), dense
    for person in (dense.person, replace(dense.person, identity=identity)):
        again = _perform(model, person, one, dense.times, dense.durations, smoothing, steps=_TO_THE_END)
        steadier = (_flicker(again) <= _flicker(performance) * (1 + 1e-9)).all()
        if np.nanmean(again.error) <= np.nanmean(best.error) and steadier:
            best = replace(again, light=dense.light)
    return best


def _flicker(performance: Performance) -> np.ndarray:
    """Mean second differences from frame to frame, of the head's rotation and of the expression."""
    if len(performance) < 3:
        return np.zeros(2)
    return np.array([np.abs(np.diff(v, 2, axis=0)).mean() for v in (performance.rotation, performance.expression)])


def _perform(model, person: Person, one: _Track, times, durations, smoothing: float, steps: int | None = None) -> Performance:
    count = len(times)
    tracked = np.zeros(count, bool)
    tracked[one.first :] = one.found
    fitter = frame_fitter(model, person)
    fitter.steps = steps or fitter.steps
    neutral = model.neutral(person)
    expression, rotation = np.zeros((count, 52)), np.tile(np.eye(3), (count, 1, 1))
    translation, gaze = np.zeros((count, 3)), np.zeros((count, 2, 2))
    error, confidence = np.full(count, np.nan), np.zeros(count)
    landmarks = one.landmarks()
    previous = -1
    for index in np.flatnonzero(tracked):
        points = next(landmarks)
        if previous >= 0 and index != previous + 1:
            fitter.forget()
        code = fitter(points)
        previous = index
        fitted = fitter.landmarks(code, neutral)
        error[index] = np.linalg.norm(fitted - points[:, :2], axis=1).mean() / inter_ocular(points)
        confidence[index] = np.clip(1 - error[index] / MISFIT, 0, 1)
        expression[index], rotation[index], translation[index], gaze[index] = (
            code.expression, code.rotation, code.translation, code.gaze,
        )  # fmt: skip
    return finished(
        Performance(person, times, durations, tracked, expression, rotation, translation, gaze, confidence, error), smoothing
    )


def finished(raw: Performance, smoothing: float) -> Performance:
    """A performance smoothed both ways, its losses held, with its person's mostly worn look."""
    tracked, times = raw.tracked, raw.times
    rotation, translation, expression, gaze = raw.rotation, raw.translation, raw.expression, raw.gaze
    seen = np.flatnonzero(tracked)
    arrays = smooth_both_ways(times[seen], rotation[seen], translation[seen], expression[seen], gaze[seen], smoothing)
    rotation[seen], translation[seen], expression[seen], gaze[seen] = arrays
    # before the first and through every loss the codes hold what was seen last (or first)
    held = seen[np.clip(np.searchsorted(seen, np.arange(len(times)), side="right") - 1, 0, None)]
    for values in (rotation, translation, expression, gaze, *(() if raw.light is None else (raw.light,))):
        values[:] = values[held]
    looks = [look_in_camera(rotation[index], gaze[index]) for index in seen]
    return replace(raw, person=replace(raw.person, neutral_look=np.median(looks, 0)))
