"""From one person's motion to another's: expression against each one's own rest, pose by choice, gains by region."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from models.code import Camera, FaceCode, Person
from models.head import gaze_in_head, look_in_camera, with_look
from models.prior.face import EXPRESSIONS
from pipeline.smoothing import nearest_rotation

PoseMode = Literal["relative", "absolute", "off"]
_FARTHEST = np.array([0.65, 0.42])  # radians an eye turns in its head: yaw, pitch
HOLD = 0.5  # seconds a lost face is held before the fade begins
FADE = 0.7  # seconds of the fade to rest, and of the way back
EASE = 0.5  # seconds over which another reading of the driver is taken up

_BROWS = np.array([n.startswith("brow") for n in EXPRESSIONS])
_EYES = np.array([n.startswith(("eye", "cheekSquint")) for n in EXPRESSIONS])
# how much of what a single photo shows is the person's rest rather than an expression: open eyes and a brow's height
# are mostly the person; an open or smiling mouth is an expression
_PHOTO_REST = np.where(_BROWS, 0.7, np.where(_EYES, 0.6, 0.0))


@dataclass(frozen=True)
class Gains:
    """Factors on the driver's deviations from rest; 1 copies them."""

    brows: float = 1.0
    eyes: float = 1.0
    mouth: float = 1.0
    head: float = 1.0
    gaze: float = 1.0

    def of_expressions(self) -> np.ndarray:
        return np.where(_BROWS, self.brows, np.where(_EYES, self.eyes, self.mouth))


def photo_rest(code: FaceCode) -> np.ndarray:
    """The resting expression guessed from the only picture there is of a person."""
    return code.expression * _PHOTO_REST


def carry_expression(value: np.ndarray, rest_from: np.ndarray, rest_to: np.ndarray) -> np.ndarray:
    """Maps [0, rest_from, 1] to [0, rest_to, 1] in each channel, so that a closed eye closes whatever the rests are."""
    above = rest_to + (value - rest_from) * (1 - rest_to) / np.maximum(1 - rest_from, 1e-6)
    below = rest_to * value / np.maximum(rest_from, 1e-6)
    return np.where(value >= rest_from, above, below)


def rotation_power(rotation: np.ndarray, power: float) -> np.ndarray:
    """A rotation by `power` times its angle about the same axis."""
    if power == 1.0:
        return rotation
    import cv2

    return cv2.Rodrigues(cv2.Rodrigues(rotation)[0] * power)[0]


def blend_codes(a: FaceCode, b: FaceCode, share: float) -> FaceCode:
    """`a` at share 0, `b` at share 1, smoothly between; rotations by the nearest rotation of the mean."""
    if share <= 0:
        return a
    if share >= 1:
        return b
    mix = lambda x, y: (1 - share) * x + share * y
    return FaceCode(
        mix(a.expression, b.expression), nearest_rotation(mix(a.rotation, b.rotation)), mix(a.translation, b.translation),
        mix(a.gaze, b.gaze), mix(a.confidence, b.confidence),
    )  # fmt: skip


@dataclass(frozen=True)
class Retargeter:
    """Turns the driver's codes into the source's.

    Attributes:
        source, driver: the people.
        source_rest: 52, the source's resting expression.
        driver_reference: the driver's code that stands for the source's own pose in relative mode.
        pose: `relative` adds the driver's head motion to the source's pose, `absolute` takes the driver's pose in the
            picture, `off` keeps the source's.
        same_person: source and driver are one person: nothing is translated.
    """

    source: Person
    driver: Person
    source_rest: np.ndarray
    driver_reference: FaceCode
    pose: PoseMode = "relative"
    gains: Gains = field(default_factory=Gains)
    same_person: bool = False

    def camera(self) -> Camera:
        """The camera the result is seen through."""
        mine = self.source.camera
        if self.pose != "absolute":
            return mine
        theirs = self.driver.camera
        return Camera(theirs.focal * mine.height / theirs.height, mine.width, mine.height)

    def rest(self, source: FaceCode) -> FaceCode:
        """The source at rest in its own pose: what is shown before the driver is seen and after they are lost for good."""
        gaze = gaze_in_head(source.rotation, self.source.neutral_look)
        return replace(source, expression=with_look(self.source_rest, gaze), gaze=np.clip(gaze, -_FARTHEST, _FARTHEST))

    def __call__(self, driver: FaceCode, source: FaceCode) -> FaceCode:
        """The source's code for a driver's code; `source` is the code of the picture that is to move."""
        rest_from = self.driver.neutral
        if self.same_person:
            expression = driver.expression
            around = rest_from
        else:
            expression = carry_expression(driver.expression, rest_from, self.source_rest)
            around = self.source_rest
        expression = np.clip(around + self.gains.of_expressions() * (expression - around), 0, 1)
        rotation, translation = self._pose(driver, source)
        gaze = self._gaze(driver, rotation)
        return FaceCode(with_look(expression, gaze), rotation, translation, gaze, driver.confidence)

    def _gaze(self, driver: FaceCode, rotation: np.ndarray) -> np.ndarray:
        """Looks are carried over in camera axes: who meets the camera's eye does so with the head turned another way, too."""
        if self.pose == "absolute" and self.gains.gaze == 1.0:
            return driver.gaze
        away = look_in_camera(driver.rotation, driver.gaze) - self.driver.neutral_look
        gaze = gaze_in_head(rotation, self.source.neutral_look + self.gains.gaze * away)
        return np.clip(gaze, -_FARTHEST, _FARTHEST)

    def _pose(self, driver: FaceCode, source: FaceCode) -> tuple[np.ndarray, np.ndarray]:
        if self.pose == "off":
            return source.rotation, source.translation
        if self.pose == "absolute":
            return driver.rotation, driver.translation
        turned = rotation_power(driver.rotation @ self.driver_reference.rotation.T, self.gains.head)
        moved = driver.translation - self.driver_reference.translation
        # metres are shared: every head has the same distance between its eyes, so size and distance never mix into expression
        return turned @ source.rotation, source.translation + self.gains.head * moved


@dataclass(frozen=True)
class Ease:
    """Goes over from one way of reading a driver to another (a better fit of them, other gains) without a jump.

    What lay between the two when they changed is added, and fades.
    """

    since: float  # seconds
    expression: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    gaze: np.ndarray

    @classmethod
    def between(cls, before: FaceCode, after: FaceCode, time: float) -> Ease:
        return cls(
            time, before.expression - after.expression, before.rotation @ after.rotation.T,
            before.translation - after.translation, before.gaze - after.gaze,
        )  # fmt: skip

    def __call__(self, code: FaceCode, time: float) -> FaceCode | None:
        """The code with what is left of the difference; None once nothing is."""
        gone = (time - self.since) / EASE
        if not 0 <= gone < 1:
            return None
        left = 1 - gone * gone * (3 - 2 * gone)
        return replace(
            code, expression=np.clip(code.expression + left * self.expression, 0, 1),
            rotation=rotation_power(self.rotation, left) @ code.rotation, translation=code.translation + left * self.translation,
            gaze=code.gaze + left * self.gaze,
        )  # fmt: skip


class LossGuard:
    """Fails closed: holds the last code through a loss, then fades to rest, and eases back in when the face returns."""

    def __init__(self) -> None:
        self._share = 1.0  # of rest; a stream starts at rest
        self._last: FaceCode | None = None
        self._lost_at: float | None = None
        self._time: float | None = None

    def __call__(self, code: FaceCode | None, rest: FaceCode, time: float) -> FaceCode:
        """The code to show at a time; `code` is None while the driver's face is lost."""
        step = 0.0 if self._time is None else max(0.0, time - self._time)
        first = self._time is None
        self._time = time
        if code is not None:
            self._last = code
            self._lost_at = None
            self._share = 0.0 if first else max(0.0, self._share - step / (FADE / 2))
        else:
            if self._lost_at is None:
                self._lost_at = time
            if self._last is None or time - self._lost_at > HOLD:
                self._share = min(1.0, self._share + step / FADE)
        if self._last is None:
            return rest
        eased = self._share * self._share * (3 - 2 * self._share)
        return blend_codes(self._last, rest, eased)
