"""Steady motion without lag where it can be had: codes are smoothed in motion space, never pixels.

The filter is the 1-euro filter (Casiez et al. 2012): a first-order low-pass whose cut-off rises with speed. `OneEuro` is the
causal mode of the live loop; `smooth_both_ways` runs it forwards and backwards and takes the mean, whose lags cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from models.code import FaceCode


@dataclass(frozen=True)
class Steadiness:
    """Cut-offs. `slow` Hz at rest; `gain` Hz for each unit of speed (units: `unit` per second)."""

    slow: float
    gain: float
    unit: float


# a unit is what the eye would notice: about half a degree, 2 mm, a twentieth of an expression, a degree of gaze
ROTATION = Steadiness(0.9, 1.2, 0.01)
TRANSLATION = Steadiness(0.9, 1.2, 0.002)
EXPRESSION = Steadiness(2.5, 2.5, 0.05)
GAZE = Steadiness(1.2, 1.0, 0.02)
_SPEED_CUTOFF = 4.0


class OneEuro:
    """Causal filter of an array; `strength` scales how much is smoothed (0 passes through, 1 as designed)."""

    def __init__(self, steadiness: Steadiness, strength: float = 1.0):
        self.steadiness, self.strength = steadiness, strength
        self._value: np.ndarray | None = None
        self._raw: np.ndarray | None = None
        self._speed = np.zeros(1)
        self._time = 0.0

    def __call__(self, value: np.ndarray, time: float) -> np.ndarray:
        if self._value is None or self._raw is None or self.strength <= 0:
            self._value, self._raw, self._speed, self._time = value.copy(), value.copy(), np.zeros_like(value), time
            return value
        step = max(time - self._time, 1e-4)
        blend = _alpha(_SPEED_CUTOFF, step)
        self._speed = self._speed + blend * ((value - self._raw) / step - self._speed)
        cutoff = (self.steadiness.slow + self.steadiness.gain * np.abs(self._speed) / self.steadiness.unit / 10) / self.strength
        self._value = self._value + _alpha(cutoff, step) * (value - self._value)
        self._raw, self._time = value.copy(), time
        return self._value.copy()


def _alpha(cutoff, step):
    return 1 / (1 + 1 / (2 * np.pi * cutoff * step))


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The rotation nearest to ... x 3 x 3 matrices (Frobenius norm)."""
    u, _, vt = np.linalg.svd(matrix)
    sign = np.sign(np.linalg.det(u @ vt))
    u[..., :, 2] *= sign[..., None]
    return u @ vt


class CodeSmoother:
    """Causal smoothing of a stream of codes."""

    def __init__(self, strength: float = 1.0):
        self._filters = [OneEuro(s, strength) for s in (ROTATION, TRANSLATION, EXPRESSION, GAZE)]
        self._strength = strength

    def forget(self) -> None:
        """Call after a loss or a cut, so that nothing is dragged across it."""
        self.__init__(self._strength)

    def __call__(self, code: FaceCode, time: float) -> FaceCode:
        rotation, translation, expression, gaze = self._filters
        # one gaze for both eyes' jitter: the mean is filtered with each eye's difference from it
        return replace(
            code,
            rotation=nearest_rotation(rotation(code.rotation, time)),
            translation=translation(code.translation, time),
            expression=np.clip(expression(code.expression, time), 0, 1),
            gaze=gaze(code.gaze, time),
        )


def smooth_both_ways(times, rotation, translation, expression, gaze, strength: float = 1.0):
    """Two-sided smoothing of N frames' arrays; returns the same four."""
    if len(times) < 3 or strength <= 0:
        return rotation, translation, expression, gaze

    def run(values: np.ndarray, steadiness: Steadiness) -> np.ndarray:
        forward, backward = OneEuro(steadiness, strength), OneEuro(steadiness, strength)
        a = np.stack([forward(v, t) for v, t in zip(values, times)])
        b = np.stack([backward(v, -t) for v, t in zip(values[::-1], times[::-1])])[::-1]
        return (a + b) / 2

    return (
        nearest_rotation(run(rotation, ROTATION)), run(translation, TRANSLATION),
        np.clip(run(expression, EXPRESSION), 0, 1), run(gaze, GAZE),
    )  # fmt: skip
