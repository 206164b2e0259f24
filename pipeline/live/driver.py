"""A driver met for the first time: who they are is learned while they perform."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from capture.frame import FaceObservation, Frame
from models.code import FaceCode, Person
from models.head import look_in_camera
from models.prior.face import AnnyPrior
from pipeline.encoding import Who, shipped_encoder
from pipeline.fitting import FrameFitter, LandmarkModel, inter_ocular
from pipeline.shot import fit_person, frame_fitter
from pipeline.smoothing import CodeSmoother
from pipeline.tracking import MISFIT, SMALLEST_FACE, Keyframes

_LEARN_AT = (1, 12, 45, 150)  # frames seen after which the driver's shape and rest are fitted anew
_KEYFRAMES = 16
_LOOKS = 300


class LiveDriver:
    """Turns what the tracker sees into smoothed codes, learning who the driver is while they perform.

    The first face in view stands for the source's own pose until `calibrate` is called. With `background`, later fits of the
    driver run beside the loop and take effect when they are done; without, they happen in place, and the same frames always
    give the same codes.
    """

    def __init__(self, prior: AnnyPrior, smoothing: float = 1.0, background: bool = False):
        self.smoothing, self.steps = smoothing, 2  # steps of the fit for each frame
        self._model = LandmarkModel.of(prior)
        self._pool = ThreadPoolExecutor(1) if background else None
        self._encoder = shipped_encoder()
        self.version = 0  # rises whenever person or reference change
        self._forget()

    def calibrate(self) -> None:
        """Forgets the driver with the next frame: the face in it is met afresh. May be called from another thread."""
        self._afresh = True

    def _forget(self) -> None:
        self._afresh = False
        self.person: Person | None = None
        self.reference: FaceCode | None = None
        self._size: tuple[int, int] | None = None  # width and height of the frames the driver was met in
        self._seen = 0
        self._keyframes = Keyframes(_KEYFRAMES)
        self._looks: list[np.ndarray] = []
        self._fitter: FrameFitter | None = None
        self._smoother = CodeSmoother(self.smoothing)
        self._reference_landmarks: np.ndarray | None = None
        self._pending: Future | None = None

    def nothing(self) -> None:
        """No frame came, or no face was in it."""
        if self._fitter is not None:
            self._fitter.forget()
            self._smoother.forget()

    def __call__(self, seen: FaceObservation | None, frame: Frame) -> FaceCode | None:
        """The driver's code in a frame; None while their face is lost or too small to tell."""
        if seen is None or not seen.found or float(inter_ocular(seen.landmarks)) < SMALLEST_FACE:
            return self.nothing()
        size = (frame.width, frame.height)
        if self._afresh or (self._size is not None and frame.width * self._size[1] != frame.height * self._size[0]):
            self._forget()  # another shape of picture is another camera
        self._size = self._size or size
        landmarks = seen.landmarks * np.float32(self._size[1] / frame.height)  # the same camera at another resolution
        self._learn(landmarks, partial(self._encoder.who, frame.image, seen.landmarks))
        assert self._fitter is not None
        self._fitter.steps = self.steps
        code = self._fitter(landmarks)
        error = np.linalg.norm(self._fitter.landmarks(code) - landmarks[:, :2], axis=1).mean() / inter_ocular(landmarks)
        self._looks = [*self._looks[-_LOOKS:], look_in_camera(code.rotation, code.gaze)]
        self._smoother.strength = self.smoothing
        return self._smoother(replace(code, confidence=float(np.clip(1 - error / MISFIT, 0, 1))), frame.time)

    def _learn(self, landmarks: np.ndarray, look: Callable[[], Who]) -> None:
        self._seen += 1
        if self._seen <= _LEARN_AT[-1]:  # later ones would teach nothing more
            self._keyframes.offer(landmarks, look)
        if self._reference_landmarks is None:
            self._reference_landmarks = landmarks
        if self._pending is not None and self._pending.done():
            self._adopt(self._pending.result())
            self._pending = None
        if self._seen not in _LEARN_AT:
            return
        work = (self._keyframes.landmarks, self._keyframes.looks, self._size)
        if self._pool is None or self.person is None:
            self._adopt(self._fitted(*work))
        elif self._pending is None:
            self._pending = self._pool.submit(self._fitted, *work)

    def _fitted(self, landmarks: np.ndarray, looks: list[Who], size: tuple[int, int]) -> Person:
        return fit_person(self._model, landmarks, *size, self._encoder.expected(looks))

    def _adopt(self, person: Person) -> None:
        self.reference = frame_fitter(self._model, person)(self._reference_landmarks)
        looks = self._looks or [look_in_camera(self.reference.rotation, self.reference.gaze)]
        self.person = replace(person, neutral_look=np.median(looks, 0))
        self._fitter = frame_fitter(self._model, self.person)
        self.version += 1

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
