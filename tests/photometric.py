"""A face's relief as told by all its lamps at once, which nobody has who relights one picture. Used by `tests.light_figures`.

Photometric stereo (Woodham 1980), robust against shadows and gloss (iteratively reweighted), integrated to a relief by least
squares (Horn and Brooks 1986), which throws its own shadows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import spsolve

_ROUNDS, _REWEIGHTED = 4, 6
_ODD = 0.03  # of white, off what is expected
_SHADED = 0.03  # of white, below which a pixel is in shadow
_EDGE_ON = 0.12  # cosine beyond which no slope is told
_FLAT = 1e-4  # weight of no depth at all, against slopes
_STEP, _REACH = 0.7, 200  # pixels along a shadow's path
_BEHIND = 1.0  # pixels of depth by which what throws a shadow has to be nearer to the lamp
_AMBIENT = 0.04  # of a lamp: comes back from everywhere


@dataclass(frozen=True)
class Relief:
    """Of one face: normals (H x W x 3 unit, camera axes) and depth (H x W pixels, away from the camera)."""

    normals: np.ndarray
    depth: np.ndarray

    def lit(self, direction: np.ndarray) -> np.ndarray:
        """H x W: what white skin sends back of a lamp towards `direction` (3 unit)."""
        open_ = cv2.GaussianBlur(self._seen(direction).astype(np.float32), (0, 0), 0.7)
        return np.maximum(self.normals @ direction, 0) * open_ + _AMBIENT

    def _seen(self, direction: np.ndarray) -> np.ndarray:
        """H x W bool: where a lamp gets to, looked for along its rays (orthographic)."""
        height, width = self.depth.shape
        across = float(np.hypot(direction[0], direction[1]))
        seen, depth = np.ones((height, width), bool), self.depth.astype(np.float32)
        if across < 1e-3:
            return seen
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        for far in np.arange(1, _REACH, _STEP):
            u, v = (start + np.float32(far * part / across) for start, part in ((x, direction[0]), (y, direction[1])))
            inside = (u >= 0) & (v >= 0) & (u <= width - 1) & (v <= height - 1)
            if not inside.any():
                break
            there = cv2.remap(depth, u, v, cv2.INTER_LINEAR)
            seen &= ~(inside & (there < depth + far * direction[2] / across - _BEHIND))
        return seen


def photometric_relief(lamps: list[tuple[np.ndarray, np.ndarray]], skin: np.ndarray) -> Relief:
    """Args:
    lamps: (direction, 3 unit; H x W linear picture under it), the frontal one last: the others' brightness is told against it.
    skin: H x W bool.
    """
    directions, pictures = np.array([d for d, _ in lamps]), np.array([p for _, p in lamps])
    gain = np.ones(len(lamps))
    for _ in range(_ROUNDS):
        seen = pictures / gain[:, None, None]
        weight = np.ones_like(seen)
        for _ in range(_REWEIGHTED):
            normal = np.einsum("kyx,ki,kj->yxij", weight, directions, directions) + 1e-4 * np.eye(3)
            right = np.einsum("kyx,ki,kyx->yxi", weight, directions, seen)
            told = np.linalg.solve(normal, right[..., None])[..., 0]
            expected = np.einsum("ki,yxi->kyx", directions, told)
            weight = (seen > _SHADED) / (1 + ((seen - expected) / _ODD) ** 2) + 1e-4
        for k in range(len(lamps)):
            clear = skin & (seen[k] > 2 * _SHADED)
            gain[k] *= np.median(seen[k][clear] / np.maximum(expected[k][clear], 1e-3))
        gain /= gain[-1]
    normals = told / np.maximum(np.linalg.norm(told, axis=-1, keepdims=True), 1e-6)
    return Relief(normals, _integrated(normals))


def _integrated(normals: np.ndarray) -> np.ndarray:
    height, width = normals.shape[:2]
    away = np.minimum(normals[..., 2], -_EDGE_ON)
    slopes = -normals[..., 0] / away, -normals[..., 1] / away
    count = height * width
    number = np.arange(count).reshape(height, width)
    pairs = (number[:, :-1], number[:, 1:], slopes[0]), (number[:-1], number[1:], slopes[1])
    normal, right = _FLAT * sp.eye(count), np.zeros(count)
    for first, second, slope in pairs:
        first, second = first.ravel(), second.ravel()
        rows = np.tile(np.arange(len(first)), 2)
        values = np.repeat([-1.0, 1.0], len(first))
        steps = sp.coo_matrix((values, (rows, np.concatenate([first, second]))), (len(first), count)).tocsr()
        flat = slope.ravel()
        normal = normal + steps.T @ steps
        right += steps.T @ ((flat[first] + flat[second]) / 2)
    return spsolve(normal.tocsc(), right).reshape(height, width)
