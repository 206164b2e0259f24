"""The CPU rasteriser: numba, horizontal bands on every core, exact same contract as `models.raster.oracle`."""

from __future__ import annotations

from threading import Lock

import numpy as np
from numba import get_num_threads, njit, prange

from models.raster import Fragments

# where no OpenMP is installed numba falls back to a pool of threads that ends the process when two callers meet in it
PARALLEL = Lock()


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _fill(points, triangles, cull, bands, triangle_out, bary_out, inverse_depth):
    height, width = triangle_out.shape
    for band in prange(bands):
        first, last = height * band // bands, height * (band + 1) // bands
        triangle_out[first:last] = -1
        inverse_depth[first:last] = 0.0
        for t in range(triangles.shape[0]):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
            y0 = max(first, int(np.ceil(min(ay, min(by, cy)) - np.float32(0.5))))
            y1 = min(last - 1, int(np.floor(max(ay, max(by, cy)) - np.float32(0.5))))
            if y1 < y0:
                continue
            az, bz, cz = points[a, 2], points[b, 2], points[c, 2]
            if az <= 1e-6 or bz <= 1e-6 or cz <= 1e-6:  # behind the camera: dropped, never wrapped around
                continue
            ax, bx, cx = points[a, 0], points[b, 0], points[c, 0]
            x0 = max(0, int(np.ceil(min(ax, min(bx, cx)) - np.float32(0.5))))
            x1 = min(width - 1, int(np.floor(max(ax, max(bx, cx)) - np.float32(0.5))))
            if x1 < x0:
                continue
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0.0 or (cull and area < 0.0):
                continue
            scale = np.float32(1.0) / area
            # both weights and 1/z are linear in x and y, so a step to the right is an addition
            wa_x, wb_x = (by - cy) * scale, (cy - ay) * scale
            iza, izb, izc = np.float32(1.0) / az, np.float32(1.0) / bz, np.float32(1.0) / cz
            for y in range(y0, y1 + 1):
                px, py = np.float32(x0) + np.float32(0.5), np.float32(y) + np.float32(0.5)
                wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * scale
                wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * scale
                for x in range(x0, x1 + 1):
                    wc = np.float32(1.0) - wa - wb
                    if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                        iz = wa * iza + wb * izb + wc * izc
                        if iz > inverse_depth[y, x]:
                            inverse_depth[y, x] = iz
                            triangle_out[y, x] = t
                            bary_out[y, x, 0] = wa * iza / iz
                            bary_out[y, x, 1] = wb * izb / iz
                            bary_out[y, x, 2] = wc * izc / iz
                    wa += wa_x
                    wb += wb_x


@njit(parallel=True, cache=True, nogil=True)
def _interpolate(triangle, barycentric, triangles, attributes, out):
    height, width = triangle.shape
    channels = attributes.shape[1]
    for y in prange(height):
        for x in range(width):
            t = triangle[y, x]
            if t < 0:
                for k in range(channels):
                    out[y, x, k] = 0.0
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wa, wb, wc = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
            for k in range(channels):
                out[y, x, k] = wa * attributes[a, k] + wb * attributes[b, k] + wc * attributes[c, k]


def rasterise(points: np.ndarray, triangles: np.ndarray, height: int, width: int, cull: bool = False) -> Fragments:
    """Returns what each pixel centre sees of a triangle mesh.

    Args:
        points: V x 3 float32: x, y in pixels (pixel centres at half-integers), z camera depth in any unit, > 0. A triangle
            with a corner at or behind the camera is dropped.
        triangles: T x 3 int32.
        cull: leave out triangles that turn clockwise in the picture's y-down axes into view from behind.
    """
    triangle = np.empty((height, width), np.int32)
    barycentric = np.zeros((height, width, 3), np.float32)
    inverse = np.empty((height, width), np.float32)
    points, triangles = np.ascontiguousarray(points, np.float32), np.ascontiguousarray(triangles, np.int32)
    with PARALLEL:
        _fill(points, triangles, cull, 2 * get_num_threads(), triangle, barycentric, inverse)
    with np.errstate(divide="ignore"):
        return Fragments(triangle, barycentric, np.float32(1.0) / inverse)


def interpolate(fragments: Fragments, triangles: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Carries per-vertex attributes (V x C) to the pixels: H x W x C float32, 0 where no triangle is."""
    out = np.empty((*fragments.triangle.shape, attributes.shape[1]), np.float32)
    triangles, attributes = np.ascontiguousarray(triangles, np.int32), np.ascontiguousarray(attributes, np.float32)
    with PARALLEL:
        _interpolate(fragments.triangle, fragments.barycentric, triangles, attributes, out)
    return out
