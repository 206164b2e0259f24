"""Draws posed, coloured, lit heads by the hundred: the pictures that the encoder first learns from.

One head a thread, everything of it in one pass: projection, normals, depth buffer, shading per pixel. Not differentiable; the
decoder that is lives in `models.encoder.decoder`.

Convention: linear RGB, camera axes, pixel centres at half-integers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from models.light.harmonics import _C0, _C1, _C2
from models.raster.cpu import PARALLEL

_C2Z = _C2 / (2 * np.sqrt(3))


@njit(cache=True, nogil=True, fastmath=True)
def _shading(x, y, z, light, k):
    """`models.light.harmonics.shading` of one normal and channel."""
    return (
        _C0 * light[0, k] + 2 / 3 * _C1 * (y * light[1, k] + z * light[2, k] + x * light[3, k])
        + 0.25 * (_C2 * (x * y * light[4, k] + y * z * light[5, k] + x * z * light[7, k])
                  + _C2Z * (3 * z * z - 1) * light[6, k] + 0.5 * _C2 * (x * x - y * y) * light[8, k])
    )  # fmt: skip


@njit(cache=True, nogil=True, fastmath=True)
def normals_into(vertices, triangles, out):
    out[:] = 0.0
    for t in range(triangles.shape[0]):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for i in range(out.shape[0]):
        length = np.sqrt(out[i, 0] ** 2 + out[i, 1] ** 2 + out[i, 2] ** 2) + np.float32(1e-12)
        out[i, 0] /= length
        out[i, 1] /= length
        out[i, 2] /= length


@njit(parallel=True, cache=True, nogil=True, fastmath=True, error_model="numpy")
def _draw(vertices, triangles, albedo, light, gloss, lamp, focal, shade, out):
    count, size = out.shape[0], out.shape[1]
    for n in prange(count):
        corners = vertices[n]
        normals = np.empty(corners.shape, np.float32)
        normals_into(corners, triangles, normals)
        points = np.empty((corners.shape[0], 2), np.float32)
        for i in range(corners.shape[0]):
            z = max(corners[i, 2], np.float32(1e-3))
            points[i, 0] = focal[n] * corners[i, 0] / z + np.float32(0.5) * size
            points[i, 1] = focal[n] * corners[i, 1] / z + np.float32(0.5) * size
        near = np.zeros((size, size), np.float32)
        which = np.full((size, size), -1, np.int32)
        weight = np.empty((size, size, 2), np.float32)
        for t in range(triangles.shape[0]):
            a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            ax, ay, bx, by, cx, cy = points[a, 0], points[a, 1], points[b, 0], points[b, 1], points[c, 0], points[c, 1]
            if corners[a, 2] <= 1e-2 or corners[b, 2] <= 1e-2 or corners[c, 2] <= 1e-2:
                continue
            y0 = max(0, int(np.ceil(min(ay, min(by, cy)) - np.float32(0.5))))
            y1 = min(size - 1, int(np.floor(max(ay, max(by, cy)) - np.float32(0.5))))
            x0 = max(0, int(np.ceil(min(ax, min(bx, cx)) - np.float32(0.5))))
            x1 = min(size - 1, int(np.floor(max(ax, max(bx, cx)) - np.float32(0.5))))
            if y1 < y0 or x1 < x0:
                continue
            area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
            if area == 0.0:
                continue
            scale = np.float32(1.0) / area
            iza, izb, izc = 1 / corners[a, 2], 1 / corners[b, 2], 1 / corners[c, 2]
            for y in range(y0, y1 + 1):
                for x in range(x0, x1 + 1):
                    px, py = np.float32(x) + np.float32(0.5), np.float32(y) + np.float32(0.5)
                    wa = ((bx - px) * (cy - py) - (by - py) * (cx - px)) * scale
                    wb = ((cx - px) * (ay - py) - (cy - py) * (ax - px)) * scale
                    wc = np.float32(1.0) - wa - wb
                    if wa >= 0.0 and wb >= 0.0 and wc >= 0.0:
                        iz = wa * iza + wb * izb + wc * izc
                        if iz > near[y, x]:
                            near[y, x] = iz
                            which[y, x] = t
                            weight[y, x, 0] = wa * iza / iz
                            weight[y, x, 1] = wb * izb / iz
        for y in range(size):
            for x in range(size):
                t = which[y, x]
                if t < 0:
                    for k in range(4):
                        out[n, y, x, k] = 0.0
                    continue
                a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                wa, wb = weight[y, x, 0], weight[y, x, 1]
                wc = np.float32(1.0) - wa - wb
                nx = wa * normals[a, 0] + wb * normals[b, 0] + wc * normals[c, 0]
                ny = wa * normals[a, 1] + wb * normals[b, 1] + wc * normals[c, 1]
                nz = wa * normals[a, 2] + wb * normals[b, 2] + wc * normals[c, 2]
                length = np.sqrt(nx * nx + ny * ny + nz * nz) + np.float32(1e-9)
                vx, vy = (
                    (np.float32(x) + np.float32(0.5) - size / 2) / focal[n],
                    (np.float32(y) + np.float32(0.5) - size / 2) / focal[n],
                )
                if nx * vx + ny * vy + nz > 0:  # seen from behind
                    length = -length
                nx, ny, nz = nx / length, ny / length, nz / length
                view = np.sqrt(vx * vx + vy * vy + 1)
                hx, hy, hz = lamp[n, 0] - vx / view, lamp[n, 1] - vy / view, lamp[n, 2] - 1 / view
                half = np.sqrt(hx * hx + hy * hy + hz * hz) + np.float32(1e-6)
                shine = max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** gloss[n, 1] * gloss[n, 0]
                dim = wa * shade[n, a] + wb * shade[n, b] + wc * shade[n, c]
                for k in range(3):
                    colour = wa * albedo[n, a, k] + wb * albedo[n, b, k] + wc * albedo[n, c, k]
                    lit = max(_shading(nx, ny, nz, light[n], k), 0.0)
                    out[n, y, x, k] = dim * (colour * lit + shine * light[n, 0, k])
                out[n, y, x, 3] = 1.0


def draw_heads(
    vertices: np.ndarray, triangles: np.ndarray, albedo: np.ndarray, light: np.ndarray, gloss: np.ndarray, lamp: np.ndarray,
    focal: np.ndarray, shade: np.ndarray, size: int,
) -> np.ndarray:  # fmt: skip
    """N x S x S x 4 float32: premultiplied linear RGB and coverage.

    Args:
        vertices: N x V x 3 in camera axes, metres.
        albedo: N x V x 3.
        light: N x 9 x 3.
        gloss: N x (strength, exponent) of a Blinn-Phong highlight.
        lamp: N x 3 unit vector towards what it mirrors.
        focal: N, pixels of an S x S picture.
        shade: N x V, share of the light that reaches each vertex.
    """
    out = np.empty((len(vertices), size, size, 4), np.float32)
    single = lambda array: np.ascontiguousarray(array, np.float32)
    with PARALLEL:
        _draw(
            single(vertices), triangles, single(albedo), single(light), single(gloss), single(lamp), single(focal), single(shade),
            out,
        )  # fmt: skip
    return out
