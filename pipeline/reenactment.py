"""One source driven by one driver, code by code: what batch, live and the page have in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from models.code import Camera, FaceCode, Person
from models.light.lights import Light
from models.matting import Matte
from models.portrait.view import Faceless, View
from pipeline.device import DeviceChoice
from pipeline.puppet import Puppet
from pipeline.retargeting import EASE, Ease, Gains, LossGuard, PoseMode, Retargeter

AudioChoice = Literal["driver", "source", "none"]
CastChoice = Literal["one", "all", "each"]


@dataclass(frozen=True)
class Settings:
    """How a performance is carried over.

    Attributes:
        pose, gains: see `pipeline.retargeting`.
        audio: whose sound goes along into a file.
        person: which of the driver's faces, from 0.
        cast: that face moves `one` person, the source's largest, or `all` in the source's picture; with `each`, every face of the
            driver's moves the source's of the same number.
        smoothing: strength; 0 is none.
        background: behind whoever is moved: `keep`, `blur`, `transparent` or a picture's path (`pipeline.backdrop`).
        light: under which whoever is moved is shown (`pipeline.lights`); None is their own.
        mark: whether the pictures of a file carry the visible mark; comment: what its metadata say.
        device: where pixels are made.
    """

    pose: PoseMode = "relative"
    gains: Gains = field(default_factory=Gains)
    audio: AudioChoice = "driver"
    person: int = 0
    cast: CastChoice = "one"
    smoothing: float = 1.0
    background: str = "keep"
    light: str | Light | None = None
    mark: bool = False
    comment: str | None = None
    device: DeviceChoice = "auto"


class Reenactment:
    """One source driven by one driver: code in, picture out. Holds no frame of the driver, so none can leak."""

    def __init__(
        self, puppet: Puppet, driver: Person, reference: FaceCode, settings: Settings, same_person: bool = False,
        previous: Reenactment | None = None,
    ):  # fmt: skip
        """Args:
        driver: who performs.
        reference: the driver's code that stands for the source's own pose.
        same_person: source and driver are one person, fitted as one.
        previous: goes on where this one stands (other settings, a better fit of the driver), without starting at rest.
        """
        self.puppet = puppet
        self.retargeter = Retargeter(puppet.person, driver, puppet.rest, reference, settings.pose, settings.gains, same_person)
        self.camera: Camera = self.retargeter.camera()
        goes_on = previous is not None and previous.puppet is puppet
        self._guard = previous._guard if goes_on else LossGuard()
        self._before = previous._shown if goes_on else None  # the last code by the way of reading before this one
        self._ease: Ease | None = None
        self._shown: tuple[FaceCode, float] | None = None  # the last code and its time

    def __call__(
        self, driver: FaceCode | None, time: float, plate: View | Faceless | None = None, matte: Matte = None
    ) -> np.ndarray:  # fmt: skip
        """The output picture (H x W x 3 uint8 sRGB, the source's size; with a matte x 4).

        Args:
            driver: the driver's code at `time`; None while their face is lost.
            plate: the source's frame that keeps its own motion (a video source with pose off).
        """
        own = self.puppet.base if plate is None else plate.code
        wanted = None if driver is None else self._eased(self.retargeter(driver, own), time)
        return self.puppet(self._guard(wanted, self.retargeter.rest(own), time), self.camera, time, plate, matte)

    def _eased(self, code: FaceCode, time: float) -> FaceCode:
        if self._before is not None:
            before, at = self._before
            self._ease = Ease.between(before, code, time) if 0 <= time - at < EASE else None
            self._before = None
        eased = self._ease(code, time) if self._ease is not None else None
        if eased is None:
            self._ease = None
        self._shown = (code if eased is None else eased, time)
        return self._shown[0]
