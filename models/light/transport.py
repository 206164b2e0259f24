"""How light gets to a head: what of it the head itself keeps out, from all around and from single lamps.

Soft light: the head is drawn once from many directions; what is not nearest there is in the shade of the rest. Each vertex then
sums, under the light of the frame, cosine times radiance over the directions it can see: the diffuse transport of
precomputed radiance transfer (Sloan et al. 2002), in directions instead of harmonics, so that nothing rings.
Lamps: a depth picture from the lamp (Williams 1978), looked up for each pixel by percentage-closer filtering
(Reeves et al. 1987).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from models.light.harmonics import spread_directions
from models.light.lights import Lamp
from models.raster.cpu import PARALLEL, rasterise

DIRECTIONS = 192
_SIZE = 192  # pixels of the pictures from each direction
_NEAREST = 0.02  # metres ahead of a lamp within which a head is drawn from it
FAR = 1e3  # metres added to depths, so that perspective-correct interpolation is as good as linear


def _axes(towards: np.ndarray) -> np.ndarray:
    """3 x 3, columns across, down and away of a view from `towards`."""
    x, y, z = towards
    side = np.array([-z, 0, x] if abs(y) < 0.9 else [0, z, -y], float)  # towards x an axis that is far from it
    side /= np.sqrt(side @ side)
    down = [y * side[2] - z * side[1], z * side[0] - x * side[2], x * side[1] - y * side[0]]
    return np.stack([side, down, -towards], 1)


def visibility(vertices: np.ndarray, triangles: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """V x D uint8, 255 where a vertex sees the sky in a direction, soft at the edges.

    Args:
        vertices: V x 3; triangles: T x 3; directions: D x 3 towards the sky.
    """
    centre = vertices.mean(0)
    reach = np.linalg.norm(vertices - centre, axis=1).max() * 1.02
    out = np.empty((len(vertices), len(directions)), np.uint8)
    near = 2.5 * 2 * reach / _SIZE
    for d, towards in enumerate(directions):
        local = (vertices - centre) @ _axes(towards)
        points = np.concatenate([(local[:, :2] / reach + 1) * _SIZE / 2, FAR + local[:, 2:]], 1).astype(np.float32)
        depth = rasterise(points, triangles, _SIZE, _SIZE).depth
        open_ = np.zeros(len(vertices), np.float32)
        for dy in (-0.75, 0.75):
            for dx in (-0.75, 0.75):
                column = np.clip((points[:, 0] + dx).astype(int), 0, _SIZE - 1)
                row = np.clip((points[:, 1] + dy).astype(int), 0, _SIZE - 1)
                open_ += np.clip(2 - (points[:, 2] - depth[row, column]) / near, 0, 1)
        out[:, d] = np.round(255 / 4 * open_)
    return out


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def _gathered(normals, seen, directions, radiance, out, openness):
    # directions 3 x D, radiance C x D with a direction's steradians over pi taken in
    count = directions.shape[1]
    for v in prange(normals.shape[0]):
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        share = np.empty(count, np.float32)
        lit, all_of_it = np.float32(0), np.float32(1e-9)
        for d in range(count):
            cosine = max(nx * directions[0, d] + ny * directions[1, d] + nz * directions[2, d], np.float32(0))
            share[d] = cosine * np.float32(seen[v, d]) * np.float32(1 / 255)
            lit += share[d]
            all_of_it += cosine
        for c in range(radiance.shape[0]):
            total = np.float32(0)
            for d in range(count):
                total += share[d] * radiance[c, d]
            out[v, c] = total
        openness[v] = lit / all_of_it


@dataclass(frozen=True)
class Transport:
    """What a head lets through to itself, in its own frame.

    Attributes:
        directions: D x 3, spread evenly.
        seen: V x D uint8.
    """

    directions: np.ndarray
    seen: np.ndarray

    @classmethod
    def of(cls, vertices: np.ndarray, triangles: np.ndarray) -> Transport:
        """Args:
        vertices: V x 3 of the head at rest, head frame; triangles: T x 3.
        """
        directions = spread_directions(DIRECTIONS)
        return cls(directions, visibility(vertices.astype(np.float64), triangles, directions))

    def gathered(self, normals: np.ndarray, radiance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(V x C: what white vertices send back, V: the share of the light from all around that reaches them).

        Args:
            normals: V x 3 unit, head frame; radiance: D x C from each of `directions`.
        """
        f = lambda value: np.ascontiguousarray(value, np.float32)
        out, openness = np.empty((len(normals), radiance.shape[1]), np.float32), np.empty(len(normals), np.float32)
        scaled = f(radiance.T * (4 / len(self.directions)))  # 4 pi / D steradians, over pi
        with PARALLEL:
            _gathered(f(normals), self.seen, f(self.directions.T), scaled, out, openness)
        return out, openness

    def matrix(self, normals: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """C x D: what white vertices send back of radiance 1 from each direction.

        Args:
            normals: C x 3 unit, head frame, of the `chosen` vertices (numbers).
        """
        return np.maximum(normals @ self.directions.T, 0) * self.seen[chosen] * (4 / len(self.directions) / 255)


@dataclass(frozen=True)
class ShadowMap:
    """What a lamp sees of a head.

    Attributes:
        axes: 3 x 3, columns across, down, away.
        centre: 3, camera axes; reach: metres, half the side of what is seen (0 for a lamp near by).
        depth: S x S float32, beyond which there is shadow.
    """

    axes: np.ndarray
    centre: np.ndarray
    reach: float
    depth: np.ndarray


NO_SHADOW = ShadowMap(np.eye(3), np.zeros(3), 0.0, np.full((2, 2), np.inf, np.float32))


def reach_of(vertices: np.ndarray, centre: np.ndarray) -> float:
    """Metres from a head's centre (3) that hold all of its vertices (V x 3)."""
    away = vertices - centre
    return float(np.sqrt(np.einsum("vc,vc->v", away, away).max())) * 1.03


def view_of_lamp(lamp: Lamp, vertices: np.ndarray, reach: float, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """How a lamp looks at a head: its axes (3 x 3, columns across, down, away), their origin, and half the side of what is seen.

    The last is in metres, of a lamp near by at one metre from it; 0 where some of the head is beside or behind the lamp, which
    throws no shadows then.

    Args:
        vertices: V x 3 of the head; reach: see `reach_of`; centre: 3.
    """
    if lamp.direction is not None:
        return _axes(lamp.direction), centre, reach
    axes, origin = _axes(lamp.position / max(float(np.linalg.norm(lamp.position)), 1e-6)), centre + lamp.position
    local = (vertices - origin) @ axes
    if local[:, 2].min() < _NEAREST:
        return axes, origin, 0.0
    return axes, origin, float((np.abs(local[:, :2]).max(1) / local[:, 2]).max()) * 1.03


def shadow_map(lamp: Lamp, vertices: np.ndarray, triangles: np.ndarray, centre: np.ndarray, size: int = 256) -> ShadowMap:
    """Args:
    lamp: directional or point. vertices: V x 3 camera axes. centre: 3, of the head.
    """
    axes, origin, reach = view_of_lamp(lamp, vertices, reach_of(vertices, centre), centre)
    near = lamp.direction is None
    if reach <= 0:
        return ShadowMap(axes, origin, 0.0, np.full((2, 2), np.inf, np.float32))
    local = (vertices - origin) @ axes
    if not near:
        points = np.concatenate([(local[:, :2] / reach + 1) * size / 2, FAR + local[:, 2:]], 1)
        return ShadowMap(axes, origin, reach, _drawn(points, triangles, size) - np.float32(FAR))
    depth = np.maximum(local[:, 2:], 1e-3)
    points = np.concatenate([(local[:, :2] / depth / reach + 1) * size / 2, depth], 1)
    return ShadowMap(axes, origin, reach, _drawn(points, triangles, size))


def _drawn(points: np.ndarray, triangles: np.ndarray, size: int) -> np.ndarray:
    return rasterise(points.astype(np.float32), triangles, size, size).depth


@njit(cache=True, nogil=True, inline="always")
def unshadowed(depth, axes, centre, near, reach, px, py, pz, bias):
    """0..1: how much of a lamp a point sees; soft over four of the picture's pixels."""
    size = depth.shape[0]
    x, y, z = px - centre[0], py - centre[1], pz - centre[2]
    u = x * axes[0, 0] + y * axes[1, 0] + z * axes[2, 0]
    v = x * axes[0, 1] + y * axes[1, 1] + z * axes[2, 1]
    w = x * axes[0, 2] + y * axes[1, 2] + z * axes[2, 2]
    if reach <= 0:
        return np.float32(1)
    if near:
        if w < np.float32(1e-3):
            return np.float32(1)
        u, v = u / w, v / w
    u = (u / reach + np.float32(1)) * np.float32(0.5) * np.float32(size) - np.float32(0.5)
    v = (v / reach + np.float32(1)) * np.float32(0.5) * np.float32(size) - np.float32(0.5)
    left, top = int(np.floor(u)) - 1, int(np.floor(v)) - 1
    fu, fv = u - np.float32(left + 1), v - np.float32(top + 1)
    lit, total = np.float32(0), np.float32(0)
    for j in range(4):
        wy = np.float32(1)
        if j == 0:
            wy = np.float32(1) - fv
        elif j == 3:
            wy = fv
        row = top + j
        for i in range(4):
            wx = np.float32(1)
            if i == 0:
                wx = np.float32(1) - fu
            elif i == 3:
                wx = fu
            column = left + i
            weight = wx * wy
            total += weight
            if row < 0 or column < 0 or row >= size or column >= size:
                lit += weight
            else:
                over = (w - depth[row, column]) / bias
                lit += weight * min(max(np.float32(2) - over, np.float32(0)), np.float32(1))
    return lit / total


@njit(cache=True, nogil=True)
def unshadowed_at(depth, axes, centre, near, reach, places, normals, bias):
    """C in [0, 1]: how much of a lamp C places (x 3) with C x 3 normals see."""
    out = np.empty(len(places), np.float32)
    for v in range(len(places)):
        x, y, z = places[v, 0] + bias * normals[v, 0], places[v, 1] + bias * normals[v, 1], places[v, 2] + bias * normals[v, 2]
        out[v] = unshadowed(depth, axes, centre, near, reach, x, y, z, bias)
    return out
