"""The CPU rasteriser: numba, horizontal bands on every core, exact same contract as `models.raster.oracle`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock

import numpy as np
from numba import config, njit, prange

from models.raster import Fragments


def _taking_turns() -> AbstractContextManager:
    """Where there is no OpenMP numba falls back to a pool of threads that ends the process when two callers meet in it."""
    if config.THREADING_LAYER in ("default", "threadsafe", "omp"):
        with suppress(ImportError):
            from numba.np.ufunc import omppool  # noqa: F401, as numba itself finds out

            return nullcontext()
    return Lock()


PARALLEL = _taking_turns()  # entered by whoever calls a parallel kernel
_ALL = np.empty(0, bool)
_BANDS = 8  # on however many cores: where a band starts decides how weights are rounded
_ON_EDGE = np.float32(1e-4)  # pixels: what rounding makes of a centre that lies on an edge


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _fill(points, triangles, wanted, bands, triangle_out, bary_out, depth_out):
    height, width = triangle_out.shape
    count = triangles.shape[0]
    rows = np.empty((count, 2), np.int32)  # first and last of each triangle, found once for all bands
    for t in prange(count):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
        rows[t, 0] = max(0, int(np.ceil(min(ay, min(by, cy)) - np.float32(0.5))))
        rows[t, 1] = min(height - 1, int(np.floor(max(ay, max(by, cy)) - np.float32(0.5))))
        if points[a, 2] <= 1e-6 or points[b, 2] <= 1e-6 or points[c, 2] <= 1e-6:  # behind the camera: never wrapped around
            rows[t, 1] = -1
        if wanted.shape[0] > 0 and not wanted[t]:
            rows[t, 1] = -1
    for band in prange(bands):
        first, last = height * band // bands, height * (band + 1) // bands
        triangle_out[first:last] = -1
        depth_out[first:last] = 0.0  # holds 1 / depth until the band is full
        for t in range(count):
            y0, y1 = max(first, rows[t, 0]), min(last - 1, rows[t, 1])
            if y1 < y0:
                continue
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ax, bx, cx = points[a, 0], points[b, 0], points[c, 0]
            x0 = max(0, int(np.ceil(min(ax, min(bx, cx)) - np.float32(0.5))))
            x1 = min(width - 1, int(np.floor(max(ax, max(bx, cx)) - np.float32(0.5))))
            if x1 < x0:
                continue
            ay, by, cy = points[a, 1], points[b, 1], points[c, 1]
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0.0:
                continue
            scale = np.float32(1.0) / area
            # both weights and 1/z are linear in x and y, so a step to the right or down is an addition
            wa_x, wb_x = (by - cy) * scale, (cy - ay) * scale
            wa_y, wb_y = (cx - bx) * scale, (ax - cx) * scale
            wc_x, wc_y = -wa_x - wb_x, -wa_y - wb_y
            to_a = np.float32(-1.0) / wa_x if wa_x != 0.0 else np.float32(0.0)
            to_b = np.float32(-1.0) / wb_x if wb_x != 0.0 else np.float32(0.0)
            to_c = np.float32(-1.0) / wc_x if wc_x != 0.0 else np.float32(0.0)
            izc = np.float32(1.0) / points[c, 2]
            iza, izb = np.float32(1.0) / points[a, 2] - izc, np.float32(1.0) / points[b, 2] - izc
            px, py = np.float32(x0) + np.float32(0.5), np.float32(y0) + np.float32(0.5)
            wa_row = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * scale - wa_y
            wb_row = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * scale - wb_y
            wc_row = np.float32(1.0) - wa_row - wb_row
            for y in range(y0, y1 + 1):
                wa_row += wa_y
                wb_row += wb_y
                wc_row += wc_y
                wa, wb = wa_row, wb_row
                # from the first to the last pixel where no weight is negative; on an edge both neighbours take it
                low, high = np.float32(0.0), np.float32(x1 - x0)
                if wa_x > 0:
                    low = max(low, wa * to_a)
                elif wa_x < 0:
                    high = min(high, wa * to_a)
                elif wa < 0:
                    continue
                if wb_x > 0:
                    low = max(low, wb * to_b)
                elif wb_x < 0:
                    high = min(high, wb * to_b)
                elif wb < 0:
                    continue
                if wc_x > 0:
                    low = max(low, wc_row * to_c)
                elif wc_x < 0:
                    high = min(high, wc_row * to_c)
                elif wc_row < 0:
                    continue
                start, end = int(np.ceil(low - _ON_EDGE)), int(np.floor(high + _ON_EDGE))
                wa += start * wa_x
                wb += start * wb_x
                if end < start:
                    continue
                # over slices: only so does the compiler know that no index is negative
                nearest, owner = depth_out[y, x0 + start : x0 + end + 1], triangle_out[y, x0 + start : x0 + end + 1]
                weights = bary_out[y, x0 + start : x0 + end + 1]
                for x in range(nearest.shape[0]):
                    iz = izc + wa * iza + wb * izb
                    if iz > nearest[x]:
                        nearest[x] = iz
                        owner[x] = t
                        weights[x, 0] = wa
                        weights[x, 1] = wb
                    wa += wa_x
                    wb += wb_x
        # perspective, once for each pixel rather than once for each surface that ever was nearest
        for y in range(first, last):
            nearest, owner, weights = depth_out[y], triangle_out[y], bary_out[y]
            for x in range(width):
                t = owner[x]
                if t < 0:
                    nearest[x] = np.inf
                    weights[x, 0] = 0.0
                    weights[x, 1] = 0.0
                    weights[x, 2] = 0.0
                    continue
                depth = np.float32(1.0) / nearest[x]
                nearest[x] = depth
                wa = max(weights[x, 0], np.float32(0.0)) / points[triangles[t, 0], 2] * depth
                wb = max(weights[x, 1], np.float32(0.0)) / points[triangles[t, 1], 2] * depth
                weights[x, 0] = wa
                weights[x, 1] = wb
                weights[x, 2] = max(np.float32(1.0) - wa - wb, np.float32(0.0))


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


def rasterise(
    points: np.ndarray, triangles: np.ndarray, height: int, width: int, wanted: np.ndarray | None = None
) -> Fragments:  # fmt: skip
    """Returns what each pixel centre sees of a triangle mesh.

    Args:
        points: V x 3 float32: x, y in pixels (pixel centres at half-integers), z camera depth in any unit, > 0. A triangle
            with a corner at or behind the camera is dropped.
        triangles: T x 3 int32.
        wanted: T bool, triangles that are drawn at all; all where None.
    """
    triangle = np.empty((height, width), np.int32)
    barycentric = np.empty((height, width, 3), np.float32)
    depth = np.empty((height, width), np.float32)
    points, triangles = np.ascontiguousarray(points, np.float32), np.ascontiguousarray(triangles, np.int32)
    wanted = _ALL if wanted is None else wanted
    with PARALLEL:
        _fill(points, triangles, wanted, _BANDS, triangle, barycentric, depth)
    return Fragments(triangle, barycentric, depth)


def interpolate(fragments: Fragments, triangles: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """Carries per-vertex attributes (V x C) to the pixels: H x W x C float32, 0 where no triangle is."""
    out = np.empty((*fragments.triangle.shape, attributes.shape[1]), np.float32)
    triangles, attributes = np.ascontiguousarray(triangles, np.int32), np.ascontiguousarray(attributes, np.float32)
    with PARALLEL:
        _interpolate(fragments.triangle, fragments.barycentric, triangles, attributes, out)
    return out
