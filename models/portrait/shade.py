"""The inner loop of the portrait renderer: what colour each pixel gets, all in one pass over the picture.

Convention: pictures are uint16 linear RGB on the way, uint8 sRGB at the end; positions are pixels with centres at
half-integers.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True, inline="always")
def _catmull_rom(t):
    t2, t3 = t * t, t * t * t
    return (
        np.float32(-0.5) * t3 + t2 - np.float32(0.5) * t,
        np.float32(1.5) * t3 - np.float32(2.5) * t2 + np.float32(1.0),
        np.float32(-1.5) * t3 + np.float32(2.0) * t2 + np.float32(0.5) * t,
        np.float32(0.5) * t3 - np.float32(0.5) * t2,
    )


@njit(cache=True, nogil=True)
def _sharp(canvas, x, y, rgb):
    """Catmull-Rom sample of an H x W x 3 picture into rgb; clamped at the picture's edge."""
    height, width = canvas.shape[0], canvas.shape[1]
    fx, fy = x - np.float32(0.5), y - np.float32(0.5)
    ix, iy = int(np.floor(fx)), int(np.floor(fy))
    wx, wy = _catmull_rom(fx - np.float32(ix)), _catmull_rom(fy - np.float32(iy))
    r, g, b = np.float32(0), np.float32(0), np.float32(0)
    for j in range(4):
        yy = min(max(iy + j - 1, 0), height - 1)
        for i in range(4):
            xx = min(max(ix + i - 1, 0), width - 1)
            w = wx[i] * wy[j]
            r += w * canvas[yy, xx, 0]
            g += w * canvas[yy, xx, 1]
            b += w * canvas[yy, xx, 2]
    rgb[0], rgb[1], rgb[2] = r, g, b


@njit(cache=True, nogil=True)
def _smooth(canvas, x, y, rgb):
    """Bilinear sample, for what moves little or is filled in anyway."""
    height, width = canvas.shape[0], canvas.shape[1]
    fx = min(max(x - np.float32(0.5), np.float32(0)), np.float32(width - 1))
    fy = min(max(y - np.float32(0.5), np.float32(0)), np.float32(height - 1))
    ix, iy = min(int(fx), width - 2), min(int(fy), height - 2)
    tx, ty = fx - np.float32(ix), fy - np.float32(iy)
    one = np.float32(1.0)
    for k in range(3):
        top = canvas[iy, ix, k] * (one - tx) + canvas[iy, ix + 1, k] * tx
        low = canvas[iy + 1, ix, k] * (one - tx) + canvas[iy + 1, ix + 1, k] * tx
        rgb[k] = top * (one - ty) + low * ty


@njit(parallel=True, cache=True, nogil=True)
def shade(plate, warp, canvas, triangle, barycentric, triangles, attributes, encode, out):
    """Fills `out` (H x W x 3 uint8 sRGB).

    Args:
        plate: H x W x 3 uint16, the whole picture that hair, neck and background are taken from.
        warp: H x W x 2 float32, where in the plate each pixel looks.
        canvas: Hc x Wc x 3 uint16, the face's picture with the eyeballs' textures below it.
        triangle, barycentric: fragments of the face mesh.
        triangles: T x 3 int32.
        attributes: V x 11 float32: position in the canvas (2), trust in it, the mirrored vertex's position (2), trust in
            that, own colour (3, of 65535), weight of the own colour where neither is trusted, opacity of the face layer.
        encode: 65536 uint8, linear to sRGB.
    """
    height, width = out.shape[0], out.shape[1]
    for y in prange(height):
        rgb = np.empty(3, np.float32)
        face = np.empty(3, np.float32)
        a = np.empty(11, np.float32)
        for x in range(width):
            t = triangle[y, x]
            opacity = np.float32(0.0)
            if t >= 0:
                i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                wi, wj, wk = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
                for c in range(11):
                    a[c] = wi * attributes[i, c] + wj * attributes[j, c] + wk * attributes[k, c]
                opacity = min(a[10], np.float32(1.0))
            if opacity < 0.996:
                u, v = warp[y, x, 0], warp[y, x, 1]
                if abs(u - x - np.float32(0.5)) < 0.01 and abs(v - y - np.float32(0.5)) < 0.01:
                    for c in range(3):
                        rgb[c] = plate[y, x, c]
                else:
                    _sharp(plate, u, v, rgb)
            if opacity > 0.004:
                own = max(np.float32(0.0), np.float32(1.0) - a[2] - a[5]) * a[9]
                total = a[2] + a[5] + own
                r, g, b = np.float32(0), np.float32(0), np.float32(0)
                if total < 1e-3:  # nothing is trusted: the stretched source is still the best guess
                    _smooth(canvas, a[0], a[1], face)
                    r, g, b = face[0], face[1], face[2]
                else:
                    if a[2] > 1e-3:
                        _sharp(canvas, a[0], a[1], face)
                        r, g, b = a[2] * face[0], a[2] * face[1], a[2] * face[2]
                    if a[5] > 1e-3:
                        _smooth(canvas, a[3], a[4], face)
                        r, g, b = r + a[5] * face[0], g + a[5] * face[1], b + a[5] * face[2]
                    scale = np.float32(1.0) / total
                    r, g, b = (r + own * a[6]) * scale, (g + own * a[7]) * scale, (b + own * a[8]) * scale
                if opacity >= 0.996:
                    rgb[0], rgb[1], rgb[2] = r, g, b
                else:
                    rgb[0] += opacity * (r - rgb[0])
                    rgb[1] += opacity * (g - rgb[1])
                    rgb[2] += opacity * (b - rgb[2])
            for c in range(3):
                out[y, x, c] = encode[int(min(max(rgb[c], np.float32(0)), np.float32(65535)) + np.float32(0.5))]


@njit(cache=True, nogil=True)
def facing(vertices, triangles):
    """V float32: cosine between each vertex's normal and the way to the camera (vertices in camera axes)."""
    count = vertices.shape[0]
    normals = np.zeros((count, 3), np.float32)
    for t in range(triangles.shape[0]):
        i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ax, ay, az = vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1], vertices[j, 2] - vertices[i, 2]
        bx, by, bz = vertices[k, 0] - vertices[i, 0], vertices[k, 1] - vertices[i, 1], vertices[k, 2] - vertices[i, 2]
        nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
        for v in (i, j, k):
            normals[v, 0] += nx
            normals[v, 1] += ny
            normals[v, 2] += nz
    out = np.empty(count, np.float32)
    for v in range(count):
        n = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + np.float32(1e-20)
        d = np.sqrt(vertices[v, 0] ** 2 + vertices[v, 1] ** 2 + vertices[v, 2] ** 2) + np.float32(1e-20)
        dot = normals[v, 0] * vertices[v, 0] + normals[v, 1] * vertices[v, 1] + normals[v, 2] * vertices[v, 2]
        out[v] = -dot / (n * d)
    return out
