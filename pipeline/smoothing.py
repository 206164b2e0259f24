"""Steady motion without lag where it can be had: codes are smoothed in motion space, never pixels.

`OneEuro` is the causal mode of the live loop (Casiez et al. 2012): a first-order low-pass whose cut-off rises with speed.
`smooth_both_ways` knows what comes as well: a local Wiener filter (Lee 1980) around a wide Gaussian. What moves more than the
track's own noise, is kept as it is; a first-order filter run both ways would shorten every nod by pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

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
_WIDE, _LOCAL = 0.2, 0.1  # seconds: of what a still face is smoothed to, and of what counts as motion now
_THIRD = 20.0  # variance of a third difference of white noise


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

    @property
    def strength(self) -> float:
        return self._filters[0].strength

    @strength.setter
    def strength(self, value: float) -> None:
        for one in self._filters:
            one.strength = value

    def forget(self) -> None:
        """Call after a loss or a cut, so that nothing is dragged across it."""
        self.__init__(self.strength)

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
    """Two-sided smoothing of N frames' arrays; returns the same four.

    Args:
        strength: 0 leaves them as they are; width of the smoothing and share of the noise, 1 as measured.
    """
    if len(times) < 4 or strength <= 0:
        return rotation, translation, expression, gaze
    wide, local = (_gaussian(np.asarray(times, float), width * strength) for width in (_WIDE, _LOCAL))

    def run(values: np.ndarray, weigh: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        flat = values.reshape(len(values), -1)
        # robust: a face moves smoothly, so that third differences are the tracker's noise
        noise = strength * (np.median(np.abs(np.diff(flat, 3, axis=0)), 0) / 0.6745) ** 2 / _THIRD
        calm = wide @ flat
        kept = np.clip(1 - weigh(noise, local @ (flat - calm) ** 2), 0, 1)
        return (calm + kept * (flat - calm)).reshape(values.shape)

    return (
        nearest_rotation(run(rotation, _as_a_whole)), run(translation, _in_units_of_noise),
        np.clip(run(expression, _one_by_one), 0, 1), run(gaze, _in_units_of_noise),
    )  # fmt: skip


def _as_a_whole(noise, energy):
    return noise.sum() / np.maximum(energy.sum(1, keepdims=True), 1e-20)


def _in_units_of_noise(noise, energy):
    # depth is known ten times worse than what lies across
    return 1 / np.maximum((energy / np.maximum(noise, 1e-20)).mean(1, keepdims=True), 1e-20)


def _one_by_one(noise, energy):
    return noise / np.maximum(energy, 1e-20)


def _gaussian(times: np.ndarray, width: float) -> sp.csr_matrix:
    """N x N: rows sum to 1; of frames at `times` (s, rising), whatever their distances."""
    first, last = np.searchsorted(times, times - 3 * width), np.searchsorted(times, times + 3 * width, side="right")
    rows = np.repeat(np.arange(len(times)), last - first)
    columns = np.concatenate([np.arange(a, b) for a, b in zip(first, last)])
    weights = np.exp(-0.5 * ((times[columns] - times[rows]) / width) ** 2)
    matrix = sp.csr_matrix((weights, (rows, columns)), (len(times), len(times)))
    return sp.diags(1 / np.asarray(matrix.sum(1)).ravel()) @ matrix
