"""Triangles to triangle id, barycentrics and depth: one contract, a fast CPU version and a plain torch oracle."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Fragments(NamedTuple):
    """What lies under each pixel's centre.

    Attributes:
        triangle: H x W int32, index of the nearest triangle, -1 where none.
        barycentric: H x W x 3 float32, perspective-correct weights of the triangle's corners, 0 where none.
        depth: H x W float32, camera z of the hit in the vertices' unit; +inf where none.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray
