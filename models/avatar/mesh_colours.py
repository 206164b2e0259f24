"""Mesh colours (Yuksel, Keyser & House 2010): samples on each triangle's own lattice, so that no atlas and no seam is needed.

A triangle with R segments an edge carries (R + 1)(R + 2) / 2 samples; those on edges and corners are its neighbours' as well
where these have as many segments. Sample (i, j) lies at barycentrics (i, j, R - i - j) / R.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit, prange

MOST_SEGMENTS = 12
_WHOLE = 27720  # divisible by 1..12, so that barycentrics become whole numbers that can be compared


@dataclass(frozen=True, eq=False)
class MeshColours:
    """Where the samples of a mesh lie.

    Attributes:
        segments: T int32, of each triangle's edges.
        offset: T int32, of each triangle's first entry in `index`.
        index: sample numbers, triangle by triangle, i then j.
        triangle: S int32; barycentric: S x 3 float32: a place of each sample.
    """

    segments: np.ndarray
    offset: np.ndarray
    index: np.ndarray
    triangle: np.ndarray
    barycentric: np.ndarray

    def __len__(self) -> int:
        return len(self.triangle)

    @classmethod
    def of(cls, triangles: np.ndarray, segments: np.ndarray) -> MeshColours:
        """Args:
        triangles: T x 3.
        segments: T, 1 to 12.
        """
        owners, places = [], []
        for count in np.unique(segments):
            members = np.flatnonzero(segments == count)
            i, j = np.array([(i, j) for i in range(count + 1) for j in range(count + 1 - i)]).T
            lattice = np.stack([i, j, count - i - j], 1) * (_WHOLE // count)
            owners.append(np.repeat(members, len(lattice)))
            places.append(np.tile(lattice, (len(members), 1)))
        owner, place = np.concatenate(owners), np.concatenate(places)
        order = np.argsort(owner, kind="stable")
        owner, place = owner[order], place[order]
        # the same sample has the same corners at the same weights, whichever triangle names it
        key = np.where(place > 0, triangles[owner].astype(np.int64) * (_WHOLE + 1) + place, -1)
        key.sort(1)
        _, first, index = np.unique(key, axis=0, return_index=True, return_inverse=True)
        sizes = (segments.astype(np.int64) + 1) * (segments + 2) // 2
        return cls(
            np.ascontiguousarray(segments, np.int32), (np.cumsum(sizes) - sizes).astype(np.int32),
            index.ravel().astype(np.int32), owner[first].astype(np.int32), (place[first] / _WHOLE).astype(np.float32),
        )  # fmt: skip

    @classmethod
    def spaced(cls, vertices: np.ndarray, triangles: np.ndarray, spacing: np.ndarray, most: int) -> MeshColours:
        """Samples `spacing` (T, metres) apart, farther where that would be more than `most`."""
        while True:
            colours = cls.of(triangles, segments_of(vertices, triangles, spacing))
            if len(colours) <= most:
                return colours
            spacing = spacing * max(1.02, (len(colours) / most) ** 0.5)


def segments_of(vertices: np.ndarray, triangles: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """T int32 segments that keep samples at most `spacing` (T, metres) apart along the longest edge, 1 to 12."""
    corners = vertices[triangles]
    longest = np.max([np.linalg.norm(corners[:, k] - corners[:, k - 1], axis=1) for k in range(3)], axis=0)
    return np.clip(np.ceil(longest / spacing), 1, MOST_SEGMENTS).astype(np.int32)


def sample_areas(colours: MeshColours, vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """S float32: the surface each sample stands for, of their mean."""
    corners = vertices[triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    share = (area / colours.segments**2)[colours.triangle]
    return (share / share.mean()).astype(np.float32)


@njit(parallel=True, cache=True, nogil=True)
def gather(image, depth, projected, facing, triangles, owner, barycentric, tolerance, colour, weight):
    """What a picture shows at each sample.

    Args:
        image: H x W x C uint8; depth: H x W float32 of the mesh drawn.
        projected: V x 3 float32 (x px, y px, depth); facing: V float32 cosines to the camera.
        owner, barycentric: of the samples.
        tolerance: metres behind the nearest surface at which a sample still counts as seen.
        colour: S x C uint8, written where seen; weight: S uint8 (255 of 1), 0 where hidden, fading at grazing angles.
    """
    height, width = image.shape[0], image.shape[1]
    for s in prange(len(owner)):
        a, b, c = triangles[owner[s], 0], triangles[owner[s], 1], triangles[owner[s], 2]
        wa, wb, wc = barycentric[s, 0], barycentric[s, 1], barycentric[s, 2]
        x = wa * projected[a, 0] + wb * projected[b, 0] + wc * projected[c, 0] - np.float32(0.5)
        y = wa * projected[a, 1] + wb * projected[b, 1] + wc * projected[c, 1] - np.float32(0.5)
        z = wa * projected[a, 2] + wb * projected[b, 2] + wc * projected[c, 2]
        cosine = wa * facing[a] + wb * facing[b] + wc * facing[c]
        weight[s] = 0
        i, j = int(np.floor(x)), int(np.floor(y))
        if i < 0 or j < 0 or i >= width - 1 or j >= height - 1 or cosine <= 0.05:
            continue
        farthest = max(max(depth[j, i], depth[j, i + 1]), max(depth[j + 1, i], depth[j + 1, i + 1]))
        if z > farthest + tolerance:
            continue
        t = min((cosine - 0.05) / 0.35, 1.0)
        weight[s] = np.uint8(255 * t * t * (3 - 2 * t) + 0.5)
        fx, fy = x - i, y - j
        for k in range(colour.shape[1]):
            top = (1 - fx) * image[j, i, k] + fx * image[j, i + 1, k]
            bottom = (1 - fx) * image[j + 1, i, k] + fx * image[j + 1, i + 1, k]
            colour[s, k] = np.uint8((1 - fy) * top + fy * bottom + 0.5)


@njit(cache=True, nogil=True)
def look_up(offset, segments, wa, wb):
    """Three entries of `index` around barycentrics (wa, wb, .) of a triangle, and their weights."""
    # numba makes doubles of a float32 and an integer, and looks whether an index is negative unless its type can't be
    u, v, one = wa * np.float32(segments), wb * np.float32(segments), np.float32(1)
    i, j = min(int(u), segments - 1), min(int(v), segments - 1)
    j = min(j, segments - 1 - i)
    fu, fv = u - np.float32(i), v - np.float32(j)
    here = offset + i * (segments + 1) - (i * (i - 1) >> 1) + j
    below = here + segments + 1 - i
    if fu + fv <= one or i + j >= segments - 1:
        return np.uint64(here), np.uint64(below), np.uint64(here + 1), one - fu - fv, fu, fv
    return np.uint64(below + 1), np.uint64(here + 1), np.uint64(below), fu + fv - one, one - fu, one - fv
