"""The causal front of the flow: a driver met for the first time, frame by frame, and the same reenactment behind it."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np

from capture.face_tracker import FaceTracker
from capture.frame import FaceObservation, Frame
from models.code import FaceCode, Person
from models.head import look_in_camera
from models.prior.face import AnnyPrior
from pipeline.encoding import shipped_encoder
from pipeline.fitting import FrameFitter, LandmarkModel, inter_ocular
from pipeline.flow import Reenactment, Settings
from pipeline.puppet import Puppet
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
        self._model = LandmarkModel.of(prior)
        self._strength = smoothing
        self._pool = ThreadPoolExecutor(1) if background else None
        self._encoder = shipped_encoder()
        self.calibrate()

    def calibrate(self) -> None:
        """Forgets the driver: the next face in view is met afresh."""
        self.person: Person | None = None
        self.reference: FaceCode | None = None
        self.version = 0  # rises whenever person or reference change
        self._seen = 0
        self._keyframes = Keyframes(_KEYFRAMES)
        self._looks: list[np.ndarray] = []
        self._fitter: FrameFitter | None = None
        self._smoother = CodeSmoother(self._strength)
        self._reference_landmarks: np.ndarray | None = None
        self._pending: Future | None = None

    def __call__(self, seen: FaceObservation | None, frame: Frame) -> FaceCode | None:
        """The driver's code in a frame; None while their face is lost or too small to tell."""
        if seen is None or not seen.found or float(inter_ocular(seen.landmarks)) < SMALLEST_FACE:
            if self._fitter is not None:
                self._fitter.forget()
                self._smoother.forget()
            return None
        self._learn(seen.landmarks, frame)
        assert self._fitter is not None
        code = self._fitter(seen.landmarks)
        error = np.linalg.norm(self._fitter.landmarks(code) - seen.landmarks[:, :2], axis=1).mean() / inter_ocular(seen.landmarks)
        self._looks = [*self._looks[-_LOOKS:], look_in_camera(code.rotation, code.gaze)]
        return self._smoother(replace(code, confidence=float(np.clip(1 - error / MISFIT, 0, 1))), frame.time)

    def _learn(self, landmarks: np.ndarray, frame: Frame) -> None:
        self._seen += 1
        if self._seen <= _LEARN_AT[-1]:  # later ones would teach nothing more
            self._keyframes.offer(landmarks, partial(self._encoder.identity, frame.image, landmarks))
        if self._reference_landmarks is None:
            self._reference_landmarks = landmarks
        if self._pending is not None and self._pending.done():
            self._adopt(self._pending.result())
            self._pending = None
        if self._seen not in _LEARN_AT:
            return
        expected = self._encoder.expected(self._keyframes.identities)
        work = (self._model, self._keyframes.landmarks, frame.width, frame.height, expected)
        if self._pool is None or self.person is None:
            self._adopt(fit_person(*work))
        elif self._pending is None:
            self._pending = self._pool.submit(fit_person, *work)

    def _adopt(self, person: Person) -> None:
        self.reference = frame_fitter(self._model, person)(self._reference_landmarks)
        looks = self._looks or [look_in_camera(self.reference.rotation, self.reference.gaze)]
        self.person = replace(person, neutral_look=np.median(looks, 0))
        self._fitter = frame_fitter(self._model, self.person)
        self.version += 1

    def reenactment(self, puppet: Puppet, settings: Settings, current: Reenactment | None) -> Reenactment | None:
        """`current` where it still holds, else one for the driver as known now; None before anyone was seen."""
        if self.person is None:
            return current
        key = (self.version, id(puppet), settings)
        if current is None or getattr(current, "key", None) != key:
            current = Reenactment(puppet, self.person, self.reference, settings, previous=current)
            current.key = key
        return current

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def rest_picture(puppet: Puppet) -> np.ndarray:
    """H x W x 3 uint8 sRGB: a source at rest, seen with no driver at all."""
    return puppet.again()(replace(puppet.base, expression=puppet.rest), puppet.person.camera, 0.0)


class LiveLoop:
    """Camera pictures in, reenacted pictures out. The driver's own pixels never reach the output.

    Before anyone was seen, and where a frame can't be worked on, the source's own rest is shown.
    """

    def __init__(self, prior: AnnyPrior, puppet: Puppet, settings: Settings = Settings(), background: bool = True):
        self.puppet, self.settings = puppet, settings
        self.driver = LiveDriver(prior, settings.smoothing, background)
        self._tracker = FaceTracker(settings.person + 1)
        self._reenactment: Reenactment | None = None
        self.seen = False

    def __call__(self, frame: Frame) -> np.ndarray:
        """H x W x 3 uint8 sRGB of the source's size."""
        people = {o.id: o for o in self._tracker(frame)}
        code = self.driver(people.get(self.settings.person), frame)
        self.seen = code is not None
        self._reenactment = self.driver.reenactment(self.puppet, self.settings, self._reenactment)
        if self._reenactment is None:
            return self.rest_picture()
        return self._reenactment(code, frame.time)

    def rest_picture(self) -> np.ndarray:
        """The source as it is at rest."""
        return rest_picture(self.puppet)

    def calibrate(self) -> None:
        """The driver's face of the next frame becomes the source's own pose."""
        self.driver.calibrate()

    def close(self) -> None:
        self.driver.close()
        self._tracker.close()
