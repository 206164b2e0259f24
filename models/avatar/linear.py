"""Values that follow the code: a mean and a few blended bases, found by kernel ridge regression of reduced rank.

With Y the N examples' values less their mean, K the kernel between examples and A = (K + lambda I)^-1, the regression says
k(z)' A Y at a new code z. Its rank is reduced to r by the leading right singular vectors V of its fit K A Y, so that
k(z)' A Y V V' = w(z) V' with w(z) = k(z)' M, M = A Y V: r numbers blend r bases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from models.raster.cpu import PARALLEL

_CHUNK = 3 << 14  # columns at once
_BLOCK, _PLACES = 4096, 256
RIDGE = 0.5  # of the kernel's mean diagonal
POSE_HOLD, CODE_HOLD = 5.0, 1.0  # `hold` of what follows the pose alone, and of what follows the whole code
_FREE = np.finfo(np.float32).max


@dataclass(frozen=True, eq=False)
class Linear:
    """P values as mean + sum_k w_k(z) scale_k basis_k.

    Attributes:
        mean: P float32.
        basis: r x P int8.
        scale: r float32.
        mixing: N x r float32: w(z) = nearness(z) @ mixing, held
        within: 2 x r float32, between the least and the most.
    """

    mean: np.ndarray
    basis: np.ndarray
    scale: np.ndarray
    mixing: np.ndarray
    within: np.ndarray

    def weights(self, nearness: np.ndarray) -> np.ndarray:
        """r float32, of N nearnesses."""
        return np.clip(nearness @ self.mixing, *self.within).astype(np.float32) * self.scale

    def blend(self, nearness: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """P float32."""
        out = np.empty(len(self.mean), np.float32) if out is None else out
        _blend(self.mean, self.basis, self.weights(nearness), out)
        return out


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _blend(mean, basis, weights, out):
    size, rank = mean.shape[0], weights.shape[0]
    for block in prange((size + _BLOCK - 1) // _BLOCK):
        # over slices, not from `first` to `last`: only so does the compiler know that no index is negative (20 times as fast)
        first, last = block * _BLOCK, min((block + 1) * _BLOCK, size)
        part, middle = out[first:last], mean[first:last]
        for p in range(part.shape[0]):
            part[p] = middle[p]
        for k in range(0, rank - 3, 4):
            a, b, c, d = basis[k, first:last], basis[k + 1, first:last], basis[k + 2, first:last], basis[k + 3, first:last]
            wa, wb, wc, wd = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
            for p in range(part.shape[0]):
                part[p] += wa * np.float32(a[p]) + wb * np.float32(b[p]) + wc * np.float32(c[p]) + wd * np.float32(d[p])
        for k in range(rank - rank % 4, rank):
            a, wa = basis[k, first:last], weights[k]
            for p in range(part.shape[0]):
                part[p] += wa * np.float32(a[p])


@dataclass(frozen=True, eq=False)
class Smoother:
    """The regression's own matrices for one set of examples: `solve` A, `fit` K A; and the device to regress on."""

    kernel: np.ndarray
    solve: np.ndarray
    fit: np.ndarray
    device: str = "cpu"

    @classmethod
    def of(cls, kernel: np.ndarray, ridge: float = RIDGE, device: str = "cpu") -> Smoother:
        level = ridge * np.trace(kernel) / len(kernel)
        solve = np.linalg.inv(kernel + level * np.eye(len(kernel)))
        return cls(kernel, solve, (kernel @ solve).astype(np.float32), device)


def regress(
    values: np.ndarray, weight: np.ndarray, smoother: Smoother, rank: int, importance: np.ndarray | None = None, rounds: int = 1,
    hold: float | None = None,
) -> Linear:  # fmt: skip
    """The reduced-rank regression of values that are not seen in every example.

    Args:
        values: N x S x C, uint8 or float.
        weight: N x S uint8 (255 is 1): how well each was seen; where it is 0 the value says nothing.
        rank: of the bases.
        importance: S: weight of each place in the choice of bases.
        rounds: of filling in what wasn't seen by what the regression says (expectation and maximisation).
        hold: percent of the examples, at either end, beyond whose weights none are let: a linear rule drawn out overshoots, and
            colours no one ever saw are worse than colours that stop following. None lets every weight through.

    Returns: a `Linear` of P = S C values.
    """
    count, places, channels = values.shape
    importance = np.ones(places, np.float32) if importance is None else importance.astype(np.float32)
    rank = int(min(rank, count))
    if smoother.device == "cpu":
        mean, basis, mixing = _solve(values, weight, smoother, rank, importance, rounds)
    else:
        from models.avatar import linear_torch

        mean, basis, mixing = linear_torch.solve(
            values, weight, smoother.fit, smoother.solve, rank, importance, rounds, smoother.device
        )
    scale = np.maximum(np.abs(basis).max(1), 1e-9) / 127
    coded = np.round(basis / scale[:, None]).astype(np.int8)
    within = unheld(rank) if hold is None else np.percentile(smoother.kernel @ mixing, [hold, 100 - hold], axis=0)
    return Linear(mean.ravel(), coded, scale.astype(np.float32), mixing.astype(np.float32), within.astype(np.float32))


def _solve(
    values: np.ndarray, weight: np.ndarray, smoother: Smoother, rank: int, importance: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """S x C means, r x (S C) bases and N x r mixing."""
    count, places, channels = values.shape
    fit = smoother.fit
    mean = np.empty((places, channels), np.float32)
    kept = np.empty((count, places * channels), np.int16)
    unit = np.empty(places, np.float32)  # of what is kept
    power = np.zeros((count, count))
    hidden = bool((weight < 255).any())
    for first in range(0, places, _CHUNK // channels):
        part = slice(first, min(first + _CHUNK // channels, places))
        columns = slice(part.start * channels, part.stop * channels)
        y = np.empty((count, (part.stop - part.start) * channels), np.float32)
        with PARALLEL:
            _centre(values[:, part], weight[:, part], mean[part], y)
        own = y
        for _ in range(rounds if hidden else 0):
            y = fit @ y
            with PARALLEL:
                _fill_in(y, own, weight[:, part], channels)
        important = np.empty_like(y)
        with PARALLEL:
            _keep(y, importance[part], channels, kept[:, columns], unit[part], important)
        power += important @ y.T
    # the fit's own Gram matrix, and its leading left vectors
    energy, left = np.linalg.eigh(fit @ power @ fit.T)
    energy, left = np.maximum(energy[::-1][:rank], 1e-12), left[:, ::-1][:, :rank]
    # bases without the importance: least squares of the fit on the leading left vectors
    onto = (left.T @ fit).astype(np.float32)
    mixing = smoother.solve @ (power @ onto.T / energy)
    basis = np.empty((rank, places * channels), np.float32)
    for first in range(0, places, _CHUNK // channels):
        part = slice(first, min(first + _CHUNK // channels, places))
        columns = slice(part.start * channels, part.stop * channels)
        basis[:, columns] = onto @ kept[:, columns].astype(np.float32) * np.repeat(unit[part], channels)
    return mean, basis, mixing


def unheld(rank: int) -> np.ndarray:
    """2 x rank: bounds that let every weight through."""
    return np.float32([[-_FREE], [_FREE]]).repeat(rank, 1)


@njit(parallel=True, cache=True, nogil=True)
def _centre(values, weight, mean, y):
    """Writes S x C weighted means, and the N x (S C) weighted differences from them."""
    count, places, channels = values.shape
    for block in prange((places + _PLACES - 1) // _PLACES):
        first, last = block * _PLACES, min((block + 1) * _PLACES, places)
        total = np.zeros(last - first, np.float32)
        mean[first:last] = 0
        for n in range(count):
            for s in range(first, last):
                w = np.float32(weight[n, s]) / np.float32(255)
                total[s - first] += w
                for c in range(channels):
                    mean[s, c] += w * np.float32(values[n, s, c])
        for s in range(first, last):
            for c in range(channels):
                mean[s, c] /= max(total[s - first], np.float32(1e-3))
        for n in range(count):
            for s in range(first, last):
                # where a place was hardly ever seen, what was seen is no rule
                w = np.float32(weight[n, s]) / np.float32(255) * min(total[s - first] / 3, np.float32(1))
                for c in range(channels):
                    y[n, s * channels + c] = w * (np.float32(values[n, s, c]) - mean[s, c])


@njit(parallel=True, cache=True, nogil=True)
def _fill_in(guess, own, weight, channels):
    """What was seen (N x (S C)), and the guess, in place, for what wasn't."""
    count, places = weight.shape
    for n in prange(count):
        for s in range(places):
            hidden = np.float32(255 - weight[n, s]) / np.float32(255)
            for c in range(s * channels, (s + 1) * channels):
                guess[n, c] = own[n, c] + hidden * guess[n, c]


@njit(parallel=True, cache=True, nogil=True)
def _keep(y, importance, channels, kept, unit, important):
    """Writes y as whole numbers of a unit per place, and y times each place's importance."""
    count, places = y.shape[0], len(importance)
    for block in prange((places + _PLACES - 1) // _PLACES):
        first, last = block * _PLACES, min((block + 1) * _PLACES, places)
        unit[first:last] = 1e-20
        for n in range(count):
            for s in range(first, last):
                for c in range(s * channels, (s + 1) * channels):
                    unit[s] = max(unit[s], abs(y[n, c]) / np.float32(32767))
        for n in range(count):
            for s in range(first, last):
                for c in range(s * channels, (s + 1) * channels):
                    kept[n, c] = np.int16(np.round(y[n, c] / unit[s]))
                    important[n, c] = importance[s] * y[n, c]
