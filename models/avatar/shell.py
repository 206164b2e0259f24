"""The halo's surface: a shell around a head with its hair, on a subdivided icosahedron."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEVEL = 4  # 2,562 directions, 5,120 triangles


@lru_cache(maxsize=2)
def icosphere(level: int = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """D x 3 float32 unit directions and T x 3 int32 triangles whose normals point outwards."""
    golden = (1 + 5**0.5) / 2
    points = [[-1, golden, 0], [1, golden, 0], [-1, -golden, 0], [1, -golden, 0]]
    points = np.array(points + [p[2:] + p[:2] for p in points] + [p[1:] + p[:1] for p in points], float)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    edge = np.linalg.norm(points[:, None] - points[None], axis=-1)
    near = (edge > 0.1) & (edge < 1.1)
    triangles = np.array(
        [
            (i, j, k)
            for i in range(12)
            for j in range(i + 1, 12)
            for k in range(j + 1, 12)
            if near[i, j] and near[j, k] and near[i, k]
        ]
    )
    for _ in range(level):
        sides = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        unique, number = np.unique(sides, axis=0, return_inverse=True)
        middle = points[unique].sum(1)
        number = number.reshape(-1, 3) + len(points)
        points = np.concatenate([points, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
        a, b, c = triangles.T
        ab, bc, ca = number.T
        triangles = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    corners = points[triangles]
    inward = np.einsum("tc,tc->t", np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), corners[:, 0]) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return points.astype(np.float32), np.ascontiguousarray(triangles, np.int32)


@dataclass(frozen=True, eq=False)
class Shell:
    """A surface in the head frame with the triangles of `icosphere`.

    Attributes:
        vertices: D x 3 float32 metres.
        opacity: D, 1 on the head, falling to 0 under the chin, where the scene takes over.
    """

    vertices: np.ndarray
    opacity: np.ndarray

    @classmethod
    def star(cls, centre: np.ndarray, radius: np.ndarray, opacity: np.ndarray) -> Shell:
        """Star-shaped: D radii by the directions of `icosphere`, from a centre."""
        return cls((centre + radius[:, None] * icosphere()[0]).astype(np.float32), opacity)

    @property
    def triangles(self) -> np.ndarray:
        return icosphere()[1]
