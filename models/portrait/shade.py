"""The inner loops of the portrait renderer: the source's picture, moved as a sheet, and the head drawn over it.

Convention: textures are float32 linear RGB of 65535; the sheet, of which nothing is mixed, stays uint8 sRGB; positions are
pixels with centres at half-integers.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numba import njit, prange


@njit(cache=True, nogil=True, inline="always", fastmath=True)
def _catmull_rom(t):
    t2, t3 = t * t, t * t * t
    return (
        np.float32(-0.5) * t3 + t2 - np.float32(0.5) * t,
        np.float32(1.5) * t3 - np.float32(2.5) * t2 + np.float32(1.0),
        np.float32(-1.5) * t3 + np.float32(2.0) * t2 + np.float32(0.5) * t,
        np.float32(0.5) * t3 - np.float32(0.5) * t2,
    )


@njit(cache=True, nogil=True, inline="always", fastmath=True)
def _channel(flat, at, stride, x0, x1, x2, x3, y0, y1, y2, y3):
    """Sixteen neighbours of one channel, weighted; unsigned steps save the check for negative indices."""
    second, third, fourth = np.uintp(3), np.uintp(6), np.uintp(9)
    a = x0 * flat[at] + x1 * flat[at + second] + x2 * flat[at + third] + x3 * flat[at + fourth]
    at = at + stride
    b = x0 * flat[at] + x1 * flat[at + second] + x2 * flat[at + third] + x3 * flat[at + fourth]
    at = at + stride
    c = x0 * flat[at] + x1 * flat[at + second] + x2 * flat[at + third] + x3 * flat[at + fourth]
    at = at + stride
    d = x0 * flat[at] + x1 * flat[at + second] + x2 * flat[at + third] + x3 * flat[at + fourth]
    return y0 * a + y1 * b + y2 * c + y3 * d


@njit(cache=True, nogil=True, fastmath=True)
def _at_edge(canvas, height, width, x, y):
    """`_sharp` where the sixteen neighbours reach over the edge: they are clamped to it."""
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
    return r, g, b


@njit(cache=True, nogil=True, inline="always", fastmath=True)
def _sharp(canvas, flat, height, width, x, y):
    """(r, g, b): Catmull-Rom sample of the canvas' top left height x width pixels; `flat` is the canvas' memory."""
    fx, fy = x - np.float32(0.5), y - np.float32(0.5)
    ix, iy = int(np.floor(fx)), int(np.floor(fy))
    if ix >= 1 and iy >= 1 and ix < width - 2 and iy < height - 2:
        x0, x1, x2, x3 = _catmull_rom(fx - np.float32(ix))
        y0, y1, y2, y3 = _catmull_rom(fy - np.float32(iy))
        stride = np.uintp(3 * canvas.shape[1])
        at = np.uintp(3 * ((iy - 1) * canvas.shape[1] + ix - 1))
        red = _channel(flat, at, stride, x0, x1, x2, x3, y0, y1, y2, y3)
        green = _channel(flat, at + np.uintp(1), stride, x0, x1, x2, x3, y0, y1, y2, y3)
        blue = _channel(flat, at + np.uintp(2), stride, x0, x1, x2, x3, y0, y1, y2, y3)
    else:
        red, green, blue = _at_edge(canvas, height, width, x, y)
    return red, green, blue


def twice_as_fine(image: np.ndarray) -> np.ndarray:
    """(2 H - 1) x (2 W - 1) x C uint8: a picture with Catmull-Rom midpoints between its pixels, all of which stay as they are.

    Where a bilinear sample of a picture would be soft, one of this isn't, at a quarter of what sixteen neighbours cost.
    """
    height, width = image.shape[:2]
    middle = np.array([-1, 9, 9, -1], np.float32) / 16
    rows = np.empty((height, 2 * width - 1, image.shape[2]), np.uint8)
    rows[:, ::2] = image
    rows[:, 1::2] = cv2.filter2D(image, -1, middle[None], anchor=(1, 0), borderType=cv2.BORDER_REPLICATE)[:, :-1]
    out = np.empty((2 * height - 1, 2 * width - 1, image.shape[2]), np.uint8)
    out[::2] = rows
    out[1::2] = cv2.filter2D(rows, -1, middle[:, None], anchor=(0, 1), borderType=cv2.BORDER_REPLICATE)[:-1]
    return out


def draw_sheet(finer: np.ndarray, motion: np.ndarray, place: tuple[float, float, float]) -> np.ndarray:
    """H x W x C uint8 sRGB: the plate, moved.

    Args:
        finer: the plate, `twice_as_fine`.
        motion: H x W x 2 float32, how far from its own place in the plate each pixel looks.
        place: where in the plate the picture's top left corner lies (x, y), and how many of its pixels make one of the plate's.
    """
    look = cv2.scaleAdd(motion, 2.0, _places(motion.shape[0], motion.shape[1], *place))
    return cv2.remap(finer, look, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


@lru_cache(maxsize=8)
def _whole(height: int, width: int) -> np.ndarray:
    return _grid(height, width, 0.0, 0.0, 1.0)


def _places(height: int, width: int, left: float, top: float, scale: float) -> np.ndarray:
    """H x W x 2 float32: where in the finer plate, in its indices, each pixel looks that doesn't move."""
    return _whole(height, width) if (left, top, scale) == (0, 0, 1) else _grid(height, width, left, top, scale)


def _grid(height: int, width: int, left: float, top: float, scale: float) -> np.ndarray:
    x = 2 * ((np.arange(width, dtype=np.float32) + 0.5) / scale + left) - 1
    y = 2 * ((np.arange(height, dtype=np.float32) + 0.5) / scale + top) - 1
    return np.stack(np.broadcast_arrays(x, y[:, None]), -1)


@njit(parallel=True, cache=True, nogil=True, fastmath=True)
def shade(canvas, motion, place, matte, triangle, barycentric, triangles, attributes, decode, encode, alone, out):
    """Draws the head over the sheet that is in `out` (H x W x 3 uint8 sRGB, or x 4 with the sheet's alpha).

    Args:
        canvas: Hc x Wc x 3 float32 (65535 is white): the plate, that is the whole source picture, at its top left, and the
            textures of eyeballs, teeth and lent mouths around it.
        motion: H x W x 2 float32, how far from its own place in the plate each pixel looks.
        place: 3 float32: where in the plate the picture's top left corner lies (x, y), and how many of its pixels make one of
            the plate's.
        matte: Hp x Wp uint8, of the plate's size, 255 where it shows the person.
        triangle, barycentric: fragments of the head mesh.
        triangles: T x 3 int32.
        attributes: V x (6 + 3 n) float32: own colour (3, of 65535), weight of the own colour where no slot is trusted, opacity
            over the sheet, opacity behind the sheet's person but before its background; then n slots of position in the
            canvas (2) and trust in it (1).
        decode: 256 uint16, sRGB to linear.
        encode: 65536 uint8, linear to sRGB.
        alone: with an alpha, colours are the people's alone: what lies below counts as far as it is theirs.
    """
    height, width = out.shape[0], out.shape[1]
    columns = attributes.shape[1]
    tall, wide = canvas.shape[0], canvas.shape[1]
    plate_tall, plate_wide = matte.shape[0], matte.shape[1]
    flat = canvas.reshape(-1)
    step = np.float32(1.0) / place[2]
    zero, half, one, little, most = np.float32(0), np.float32(0.5), np.float32(1), np.float32(1e-3), np.float32(65535)
    most8 = np.float32(255)
    for y in prange(height):
        a = np.empty(columns, np.float32)
        for x in range(width):
            t = triangle[y, x]
            if t < 0:
                continue
            i, j, k = triangles[t, 0], triangles[t, 1], triangles[t, 2]
            wi, wj, wk = barycentric[y, x, 0], barycentric[y, x, 1], barycentric[y, x, 2]
            for c in range(4, 6):
                a[c] = wi * attributes[i, c] + wj * attributes[j, c] + wk * attributes[k, c]
            opacity = min(a[4], one)
            if a[5] > little and opacity < one:
                mx = min(max(int((np.float32(x) + half) * step + place[0] + motion[y, x, 0]), 0), plate_wide - 1)
                my = min(max(int((np.float32(y) + half) * step + place[1] + motion[y, x, 1]), 0), plate_tall - 1)
                opacity += (one - opacity) * min(a[5], one) * (one - np.float32(matte[my, mx]) * np.float32(1 / 255))
            if opacity <= 0.004:
                continue
            for c in range(columns):
                if c < 4 or c > 5:
                    a[c] = wi * attributes[i, c] + wj * attributes[j, c] + wk * attributes[k, c]
            total = zero
            r, g, b = zero, zero, zero
            for slot in range(6, columns, 3):
                trust = a[slot + 2]
                if trust > little:
                    sr, sg, sb = _sharp(canvas, flat, tall, wide, a[slot], a[slot + 1])
                    total += trust
                    r, g, b = r + trust * sr, g + trust * sg, b + trust * sb
            own = max(zero, one - total) * a[3]
            total += own
            if total < little:  # nothing is known: the stretched source is still the best guess
                r, g, b = _sharp(canvas, flat, tall, wide, a[6], a[7])
            else:
                scale = one / total
                r, g, b = (r + own * a[0]) * scale, (g + own * a[1]) * scale, (b + own * a[2]) * scale
            if opacity < 0.996:
                rest = one - opacity
                if out.shape[2] == 4:
                    theirs = rest * np.float32(out[y, x, 3]) * np.float32(1 / 255)
                    both = opacity + theirs
                    out[y, x, 3] = np.uint8(most8 * both + half)
                    if alone:
                        opacity, rest = opacity / both, theirs / both
                r = opacity * r + rest * np.float32(decode[out[y, x, 0]])
                g = opacity * g + rest * np.float32(decode[out[y, x, 1]])
                b = opacity * b + rest * np.float32(decode[out[y, x, 2]])
            elif out.shape[2] == 4:
                out[y, x, 3] = 255
            out[y, x, 0] = encode[int(min(max(r, zero), most) + half)]
            out[y, x, 1] = encode[int(min(max(g, zero), most) + half)]
            out[y, x, 2] = encode[int(min(max(b, zero), most) + half)]


@njit(cache=True, nogil=True)
def outward(vertices, triangles):
    """V x 3 float32: the sum of the normals of each vertex's triangles, as long as twice their area."""
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
    return normals


@njit(cache=True, nogil=True)
def facing(vertices, triangles):
    """V float32: cosine between each vertex's normal and the way to the camera (vertices in camera axes)."""
    normals = outward(vertices, triangles)
    out = np.empty(len(normals), np.float32)
    for v in range(len(normals)):
        n = np.sqrt(normals[v, 0] ** 2 + normals[v, 1] ** 2 + normals[v, 2] ** 2) + np.float32(1e-20)
        d = np.sqrt(vertices[v, 0] ** 2 + vertices[v, 1] ** 2 + vertices[v, 2] ** 2) + np.float32(1e-20)
        dot = normals[v, 0] * vertices[v, 0] + normals[v, 1] * vertices[v, 1] + normals[v, 2] * vertices[v, 2]
        out[v] = -dot / (n * d)
    return out
