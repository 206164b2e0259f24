"""Values that follow the code: a mean and a few blended bases, found by kernel ridge regression of reduced rank.

With Y the N examples' values less their mean, K the kernel between examples and A = (K + lambda I)^-1, the regression says
k(z)' A Y at a new code z. Its rank is reduced to r by the leading right singular vectors V of its fit K A Y, so that
k(z)' A Y V V' = w(z) V' with w(z) = k(z)' M, M = A Y V: r numbers blend r bases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

_CHUNK = 1 << 18  # columns at once
_BLOCK = 4096
RIDGE = 1.0  # of the kernel's mean diagonal


@dataclass(frozen=True, eq=False)
class Linear:
    """P values as mean + sum_k w_k(z) scale_k basis_k.

    Attributes:
        mean: P float32.
        basis: r x P int8.
        scale: r float32.
        mixing: N x r float32: w(z) = nearness(z) @ mixing.
    """

    mean: np.ndarray
    basis: np.ndarray
    scale: np.ndarray
    mixing: np.ndarray

    def weights(self, nearness: np.ndarray) -> np.ndarray:
        """r float32, of N nearnesses."""
        return (nearness @ self.mixing).astype(np.float32) * self.scale

    def blend(self, nearness: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """P float32."""
        out = np.empty(len(self.mean), np.float32) if out is None else out
        _blend(self.mean, self.basis, self.weights(nearness), out)
        return out


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _blend(mean, basis, weights, out):
    size = mean.shape[0]
    for block in prange((size + _BLOCK - 1) // _BLOCK):
        first, last = block * _BLOCK, min((block + 1) * _BLOCK, size)
        for p in range(first, last):
            out[p] = mean[p]
        for k in range(weights.shape[0]):
            w = weights[k]
            row = basis[k]
            for p in range(first, last):
                out[p] += w * np.float32(row[p])


@dataclass(frozen=True, eq=False)
class Smoother:
    """The regression's own matrices for one set of examples: `solve` A, `fit` K A."""

    kernel: np.ndarray
    solve: np.ndarray
    fit: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray, ridge: float = RIDGE) -> Smoother:
        level = ridge * np.trace(kernel) / len(kernel)
        solve = np.linalg.inv(kernel + level * np.eye(len(kernel)))
        return cls(kernel, solve, (kernel @ solve).astype(np.float32))


def regress(
    values: np.ndarray, weight: np.ndarray, smoother: Smoother, rank: int, importance: np.ndarray | None = None, rounds: int = 1
) -> Linear:
    """The reduced-rank regression of values that are not seen in every example.

    Args:
        values: N x S x C, uint8 or float.
        weight: N x S uint8 (255 is 1): how well each was seen; where it is 0 the value says nothing.
        rank: of the bases.
        importance: S: weight of each place in the choice of bases.
        rounds: of filling in what wasn't seen by what the regression says (expectation and maximisation).

    Returns: a `Linear` of P = S C values.
    """
    count, places, channels = values.shape
    fit = smoother.fit
    step = max(1, _CHUNK // channels)
    importance = np.ones(places, np.float32) if importance is None else importance.astype(np.float32)
    mean = np.zeros((places, channels), np.float32)
    gram = np.zeros((count, count))

    def filled(first: int) -> np.ndarray:
        part = slice(first, first + step)
        seen = weight[:, part].astype(np.float32) / 255
        total = seen.sum(0)
        y = values[:, part].astype(np.float32)
        mean[part] = np.einsum("ns,nsc->sc", seen, y) / np.maximum(total, 1e-3)[:, None]
        y -= mean[part]
        y *= seen[..., None]
        # where a place was hardly ever seen, what was seen is no rule
        y *= np.clip(total / 3, 0, 1)[:, None]
        y = y.reshape(count, -1)
        hidden = np.repeat(1 - seen, channels, 1)
        whole = y
        for _ in range(rounds if hidden.any() else 0):
            whole = y + hidden * (fit @ whole)
        return whole

    kept = []  # half precision: the second pass needs them again
    for first in range(0, places, step):
        y = filled(first)
        kept.append(y.astype(np.float16))
        p = fit @ y
        p *= np.repeat(np.sqrt(importance[first : first + step]), channels)
        gram += p @ p.T
    power, left = np.linalg.eigh(gram)
    rank = int(min(rank, count))
    power, left = np.maximum(power[::-1][:rank], 1e-12), left[:, ::-1][:, :rank]
    # bases without the importance: least squares of the fit on the leading left vectors
    basis = np.empty((rank, places * channels), np.float32)
    scores = np.zeros((count, rank))
    for first in range(0, places, step):
        y = kept.pop(0).astype(np.float32)
        part = slice(first * channels, first * channels + y.shape[1])
        basis[:, part] = (left.T.astype(np.float32) @ fit) @ y
        important = np.repeat(importance[first : first + step], channels)
        scores += (y * important).astype(np.float32) @ basis[:, part].T
    mixing = smoother.solve @ (scores / power)
    scale = np.maximum(np.abs(basis).max(1), 1e-9) / 127
    coded = np.round(basis / scale[:, None]).astype(np.int8)
    return Linear(mean.ravel(), coded, scale.astype(np.float32), mixing.astype(np.float32))
