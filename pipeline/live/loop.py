"""The causal front of the flow: drivers met for the first time, frame by frame, and the same reenactment behind it.

`LiveLoop.follow` tells what a frame shows of the drivers, without a pixel of theirs; `LiveLoop.draw` makes the picture from that.
Neither ever raises for what a camera, a face or a renderer does: they hold, then fade to the source's rest.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import cv2
import numpy as np

from capture.face_tracker import FaceTracker
from capture.frame import FaceObservation, Frame
from models.code import FaceCode, Person
from models.prior.face import AnnyPrior
from pipeline.backdrop import Backdrop
from pipeline.clock import StageClock
from pipeline.ensemble import Ensemble
from pipeline.live.driver import LiveDriver
from pipeline.puppet import Puppet
from pipeline.reenactment import Reenactment, Settings
from pipeline.retargeting import FADE, HOLD

log = logging.getLogger(__name__)
_LARGEST = 960  # pixels of a frame's longer side; the face mesh looks at 192 x 192 of it anyway
_QUIET = 10.0  # seconds in which the same failure is not logged again


@dataclass(frozen=True)
class Performing:
    """One driver at one moment.

    Attributes:
        code: what their face does; None while it is lost.
        person, reference: who they are as known by then, and their code that stands for the source's own pose; None before
            they were first seen.
        version: rises whenever these change.
    """

    code: FaceCode | None = None
    person: Person | None = None
    reference: FaceCode | None = None
    version: int = 0


@dataclass(frozen=True)
class Followed:
    """What a frame told: the drivers, by number, and no pixel.

    Attributes:
        time: seconds, the frame's own.
        duration: seconds until the next frame, as far as known.
        missed: whether no frame came, and this is about the moment alone.
    """

    time: float
    drivers: tuple[Performing, ...]
    duration: float = 0.0
    missed: bool = False

    @property
    def seen(self) -> bool:
        """Whether any driver's face was found."""
        return any(one.code is not None for one in self.drivers)


class LiveLoop:
    """Camera frames in, reenacted pictures out. The driver's own pixels never reach the output.

    Before anyone was seen, and where a frame can't be worked on, the source's own rest is shown. `follow` and `draw` may run in
    two threads, one each.
    """

    def __init__(
        self, prior: AnnyPrior, who: Puppet | Ensemble, settings: Settings = Settings(), background: bool = True
    ):  # fmt: skip
        """Args:
        who: is moved.
        background: later fits of a driver run beside the loop; without, the same frames always give the same pictures.
        """
        self.settings, self._prior, self._background = settings, prior, background
        self._tracker: FaceTracker | None = None
        self._drivers: dict[int, LiveDriver] = {}
        self._quiet_until, self._last_frame = 0.0, 0.0
        self.sparing = 0  # how much is left out to keep up (pipeline.live.shedding)
        self.faults = 0  # frames that could not be followed or drawn
        self.clock = StageClock()  # of the stages track, encode and draw
        self.choose(who)

    def choose(self, who: Puppet | Ensemble) -> None:
        """Goes over to others; the drivers stay known. Where these can't be drawn, raises why, and nothing changes."""
        self._stage = _Stage(who if isinstance(who, Ensemble) else Ensemble([who]), self.settings.background)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self._stage.backdrop.rest.shape[:2]

    def rest_picture(self) -> np.ndarray:
        """The source as it is at rest."""
        return self._stage.backdrop.rest

    def __call__(self, frame: Frame) -> np.ndarray:
        """H x W x 3 uint8 sRGB of the source's size."""
        return self.draw(self.follow(frame))

    def follow(self, frame: Frame | None, time: float | None = None) -> Followed:
        """Args:
        frame: None where none came in time.
        time: of the moment without a frame.
        """
        at = frame.time if frame is not None else float(time or 0.0)
        numbers = self._numbers()
        seen: dict[int, FaceObservation] = {}
        if frame is not None:
            self._last_frame = at
            frame = _not_too_large(frame)
            try:
                tracker = self._tracked_by(max(numbers) + 1)
                seen = {o.id: o for o in self.clock("track", lambda: tracker(frame))}
            except Exception:
                self._failed("a frame could not be tracked", at)
                self._close_tracker()  # a graph that has failed once stays failed
        drivers = []
        for number in numbers:
            if number not in self._drivers:
                self._drivers[number] = LiveDriver(self._prior, self.settings.smoothing, self._background)
            driver = self._drivers[number]
            driver.smoothing, driver.steps = self.settings.smoothing, 1 if self.sparing >= 2 else 2
            code = None
            try:
                if frame is None:
                    if at - self._last_frame > HOLD:  # a hiccup is bridged
                        driver.nothing()
                else:
                    code = self.clock("encode", lambda: driver(seen.get(number), frame))
            except Exception:
                self._failed("a face could not be fitted", at)
            drivers.append(Performing(code, driver.person, driver.reference, driver.version))
        return Followed(at, tuple(drivers), frame.duration if frame is not None else 0.0, frame is None)

    def draw(self, followed: Followed) -> np.ndarray:
        """H x W x 3 uint8 sRGB of the source's size."""
        stage = self._stage  # another may be chosen meanwhile
        try:
            return self.clock("draw", lambda: stage(followed, self.settings))
        except Exception:
            self._failed("a picture could not be drawn", followed.time)
            return stage.instead(followed.time)

    def calibrate(self) -> None:
        """The drivers' faces of the next frame stand for the source's own pose."""
        for driver in self._drivers.values():
            driver.calibrate()

    def close(self) -> None:
        for driver in self._drivers.values():
            driver.close()
        self._close_tracker()

    def _numbers(self) -> list[int]:
        several = self.settings.cast == "each"
        return list(range(len(self._stage.puppets))) if several else [self.settings.person]

    def _tracked_by(self, people: int) -> FaceTracker:
        if self._tracker is None or self._tracker.people < people:
            self._close_tracker()
            self._tracker = FaceTracker(people)
        return self._tracker

    def _close_tracker(self) -> None:
        tracker, self._tracker = self._tracker, None
        if tracker is not None:
            try:
                tracker.close()
            except Exception:
                log.debug("a failed tracker did not close", exc_info=True)

    def _failed(self, what: str, time: float) -> None:
        self.faults += 1
        if time >= self._quiet_until or time < self._quiet_until - 2 * _QUIET:
            log.exception(what)
            self._quiet_until = time + _QUIET


class _Stage:
    """Puppets, and what they showed last."""

    def __init__(self, ensemble: Ensemble, background: str):
        self.puppets, self._ensemble = ensemble.puppets, ensemble
        self._reenactments: list[Reenactment | None] = [None] * len(self.puppets)
        self._keys: list[tuple | None] = [None] * len(self.puppets)
        self.backdrop = Backdrop(background, ensemble)
        self._last, self._last_time = self.backdrop.rest, -np.inf

    def __call__(self, followed: Followed, settings: Settings) -> np.ndarray:
        if settings.background != self.backdrop.choice:
            self.backdrop = Backdrop(settings.background, self._ensemble)
            self._last = self.backdrop.rest
        pictures = []
        for k, puppet in enumerate(self.puppets):
            driver = followed.drivers[min(k, len(followed.drivers) - 1)]
            make = self._reenactment(k, puppet, driver, settings)
            rest = self.backdrop.rests[k]
            pictures.append(rest if make is None else make(driver.code, followed.time, matte=self.backdrop.matte))
        self._last, self._last_time = self.backdrop(self._ensemble.merged(pictures)), followed.time
        return self._last

    def _reenactment(self, k: int, puppet: Puppet, driver: Performing, settings: Settings) -> Reenactment | None:
        """The one in use where it still holds, else one for the driver as known now; None before they were seen."""
        if driver.person is not None and self._keys[k] != (driver.version, settings):
            self._reenactments[k] = Reenactment(
                puppet, driver.person, driver.reference, settings, previous=self._reenactments[k]
            )  # fmt: skip
            self._keys[k] = (driver.version, settings)
        return self._reenactments[k]

    def instead(self, time: float) -> np.ndarray:
        """Where nothing can be drawn: the last picture, then a fade to rest."""
        share = np.clip((time - self._last_time - HOLD) / FADE, 0, 1)
        if share <= 0:
            return self._last
        return cv2.addWeighted(self._last, float(1 - share), self.backdrop.rest, float(share), 0)


def _not_too_large(frame: Frame) -> Frame:
    scale = _LARGEST / max(frame.image.shape[:2])
    if scale >= 1:
        return frame
    size = round(frame.width * scale), round(frame.height * scale)
    return replace(frame, image=cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA))
