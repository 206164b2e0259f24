"""What is in a synthetic picture besides the head: backdrops, clothes, hair, things in the way, and the camera's own doing.

Convention: linear RGB pictures of float32, landmarks and lengths in pixels, drawn over in place.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.light.harmonics import LUMINANCE

_BRIGHTEST = 4.0  # linear value that no camera still tells from brighter ones


def backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """S x S x 3 linear: plain walls, blurred rooms, stripes, shapes."""
    low = rng.choice([1, 2, 4, 8, 16, 40, size])
    noise = rng.uniform(0, 1, (low, low, 3)) ** rng.uniform(1, 3)
    if rng.random() < 0.4:
        noise = noise.mean(-1, keepdims=True) * rng.uniform(0.5, 1, 3)
    out = cv2.resize(noise.astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1.5)
    out = np.ascontiguousarray(out.reshape(size, size, -1) * np.ones(3, np.float32))
    for _ in range(rng.integers(0, 7)):
        colour = (rng.uniform(0, 1, 3) ** 2).tolist()
        a, b = rng.integers(0, size, 2).tolist(), rng.integers(0, size, 2).tolist()
        kind = rng.integers(0, 3)
        if kind == 0:
            cv2.rectangle(out, a, b, colour, -1)
        elif kind == 1:
            cv2.ellipse(out, a, rng.integers(4, size // 2, 2).tolist(), rng.uniform(0, 180), 0, 360, colour, -1, cv2.LINE_AA)
        else:
            cv2.line(out, a, b, colour, int(rng.integers(1, 12)), cv2.LINE_AA)
    if rng.random() < 0.5:
        out = cv2.GaussianBlur(out, (0, 0), rng.uniform(0.5, 8))
    return out


def _blob(points: np.ndarray, rng: np.random.Generator, wobble: float) -> np.ndarray:
    """A closed outline through points, roughened; int32 with 4 fractional bits."""
    dense = np.concatenate([points, points[:1]])
    steps = np.linspace(0, len(points), 6 * len(points), endpoint=False)
    where = np.stack([np.interp(steps, np.arange(len(dense)), dense[:, k]) for k in range(2)], 1)
    return ((where + rng.normal(0, wobble, where.shape)) * 16).astype(np.int32)


def _fill(picture: np.ndarray, outline: np.ndarray, colour: np.ndarray, rng: np.random.Generator, streaks: float) -> np.ndarray:
    """Fills an outline with a colour that varies in streaks; returns where (bool)."""
    size = picture.shape[0]
    mask = np.zeros((size, size), np.uint8)
    low, high = np.clip(outline.min(0) // 16 - 1, 0, size), np.clip(outline.max(0) // 16 + 2, 0, size)
    part = slice(low[1], high[1]), slice(low[0], high[0])
    tall, wide = high[1] - low[1], high[0] - low[0]
    if tall > 0 and wide > 0:
        cv2.fillPoly(mask, [outline], 255, cv2.LINE_AA, 4)
        share = mask[part].astype(np.float32)[..., None] / 255
        coarse = rng.normal(0, streaks, (1 + tall * rng.integers(2, 12) // size, 1 + wide * rng.integers(8, size) // size))
        grain = cv2.resize(np.exp(coarse).astype(np.float32), (int(wide), int(tall)))
        picture[part] += share * (np.asarray(colour, np.float32) * grain[..., None] - picture[part])
    return mask > 127


def draw_body(picture: np.ndarray, marks: np.ndarray, wide: float, skin: np.ndarray, rng: np.random.Generator) -> None:
    """A neck, mostly in a shirt, below 478 x 2 landmarks of a face that is `wide` pixels wide."""
    chin, size = marks[152], picture.shape[0]
    neck = chin + np.array([rng.normal(0, 0.1), rng.uniform(0.1, 0.35)]) * wide
    half = rng.uniform(0.28, 0.42) * wide
    column = np.array([[-half, -0.4 * wide], [half, -0.4 * wide], [1.2 * half, size], [-1.2 * half, size]]) + neck
    _fill(picture, _blob(column, rng, 0.3), skin * rng.uniform(0.4, 1.0), rng, 0.05)
    if rng.random() < 0.9:
        drop, width = rng.uniform(0.05, 0.5) * wide, rng.uniform(0.9, 1.8) * wide
        dip = rng.uniform(0, 0.5) * wide
        shirt = np.array([[-width, drop], [-half, 0], [0, dip], [half, 0], [width, drop], [width, size], [-width, size]])
        _fill(picture, _blob(shirt + neck, rng, 0.6), rng.uniform(0, 0.8, 3) ** 2, rng, rng.uniform(0, 0.3))


def draw_long_hair(picture: np.ndarray, marks: np.ndarray, wide: float, colour: np.ndarray, rng: np.random.Generator) -> None:
    """Hair behind the head, down to the shoulders or beyond."""
    top, chin = marks[10], marks[152]
    middle = marks[:468].mean(0)
    long, out = rng.uniform(0.2, 2.2), rng.uniform(0.5, 0.85) * wide
    up = (top - chin) / max(np.linalg.norm(top - chin), 1)
    side = np.array([-up[1], up[0]])
    high = np.linalg.norm(top - chin)
    outline = [middle + up * high * rng.uniform(0.75, 1.0)]
    for x, y in ((0.8, 0.5), (1.0, 0.0), (rng.uniform(0.8, 1.3), -long)):
        outline.append(middle + side * out * x + up * high * y)
    for x, y in ((-rng.uniform(0.8, 1.3), -long), (-1.0, 0.0), (-0.8, 0.5)):
        outline.append(middle + side * out * x + up * high * y)
    _fill(picture, _blob(np.array(outline), rng, 1.0), colour, rng, 0.35)


def draw_fringe(picture: np.ndarray, marks: np.ndarray, wide: float, colour: np.ndarray, rng: np.random.Generator) -> None:
    """Hair in front: over the forehead, or down the sides of the face."""
    if rng.random() < 0.5:
        line = marks[[127, 68, 10, 298, 356]] if rng.random() < 0.5 else marks[[68, 10, 298]]
        deep = line + (marks[9] - marks[10]) * rng.uniform(0.1, 1.2, (len(line), 1))
        above = line[::-1] - (marks[9] - marks[10]) * 1.3
        outline = np.concatenate([deep, above])
    else:
        side = marks[[54, 127, 234, 93, 132]] if rng.random() < 0.5 else marks[[284, 356, 454, 323, 361]]
        middle = marks[:468].mean(0)
        inside = side + (middle - side) * rng.uniform(-0.1, 0.45, (len(side), 1))
        outside = side - (middle - side) * rng.uniform(0.2, 0.6)
        outline = np.concatenate([inside, outside[::-1]])
    _fill(picture, _blob(outline, rng, 1.2), colour, rng, 0.35)


def draw_occluder(picture: np.ndarray, marks: np.ndarray, wide: float, skin: np.ndarray, rng: np.random.Generator) -> float:
    """A hand, a microphone, a sheet, the picture's edge; returns the share of the landmarks it covers."""
    size = picture.shape[0]
    centre = marks[rng.integers(0, 468)] + rng.normal(0, 0.25, 2) * wide
    kind = rng.random()
    colour = skin * rng.uniform(0.6, 1.5) if kind < 0.5 else rng.uniform(0, 1, 3) ** 2
    if kind < 0.35:  # fingers
        covered = np.zeros((size, size), bool)
        along = rng.normal(size=2)
        along /= np.linalg.norm(along) + 1e-9
        for finger in range(rng.integers(2, 5)):
            base = centre + np.array([-along[1], along[0]]) * finger * 0.14 * wide
            box = (
                tuple(map(float, base)),
                (float(rng.uniform(0.5, 1.2) * wide), float(0.13 * wide)),
                float(np.degrees(np.arctan2(along[1], along[0]))),
            )
            covered |= _fill(picture, (cv2.boxPoints(box) * 16).astype(np.int32), colour * rng.uniform(0.85, 1.1), rng, 0.06)
    elif kind < 0.7:
        turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 10)))
        radius = rng.uniform(0.1, 0.5, len(turn)) * wide
        outline = centre + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
        covered = _fill(picture, _blob(outline, rng, 0.5), colour, rng, 0.15)
    elif kind < 0.92:  # the picture ends here, and is drawn out
        covered = np.zeros((size, size), bool)
        low, high = (rng.uniform(0, 0.3, 2) * (rng.random(2) < 0.6) * size).astype(int), np.full(2, size)
        high = high - (rng.uniform(0, 0.3, 2) * (rng.random(2) < 0.6) * size).astype(int)
        inner = picture[low[1] : high[1], low[0] : high[0]].copy()
        edges = int(low[1]), int(size - high[1]), int(low[0]), int(size - high[0])
        picture[:] = cv2.copyMakeBorder(inner, *edges, cv2.BORDER_REPLICATE)
    else:
        covered = np.zeros((size, size), bool)
        edge = int(rng.uniform(0.03, 0.35) * size)
        index = (
            (slice(0, edge),),
            (slice(size - edge, size),),
            (slice(None), slice(0, edge)),
            (slice(None), slice(size - edge, size)),
        )
        chosen = index[rng.integers(0, 4)]
        picture[chosen] = 0 if rng.random() < 0.7 else colour
        covered[chosen] = True
    at = marks[:468].astype(int).clip(0, size - 1)
    return float(covered[at[:, 1], at[:, 0]].mean())


def as_photographed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """H x W x 3 linear to uint8 sRGB with a camera's tone curve, blur, noise and compression."""
    if rng.random() < 0.35:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.6))
    if rng.random() < 0.15:  # small in its frame, then enlarged
        small = int(picture.shape[0] * rng.uniform(0.3, 0.8))
        picture = cv2.resize(cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA), picture.shape[1::-1])
    noise = rng.standard_normal(picture.shape, np.float32)
    noise *= np.sqrt(np.maximum(picture, 0)) * rng.uniform(0, 0.02) + rng.uniform(0, 0.004)
    levels = np.linspace(0, _BRIGHTEST, 4096)
    if rng.random() < 0.4:  # highlights are rolled off rather than cut
        levels = levels / (1 + levels * rng.uniform(0, 0.5))
    levels = np.clip(levels, 0, 1)
    code = np.where(levels <= 0.0031308, 12.92 * levels, 1.055 * np.maximum(levels, 1e-6) ** (1 / 2.4) - 0.055)
    if rng.random() < 0.4:
        code = (code - 0.5) * rng.uniform(0.8, 1.25) + 0.5 + rng.normal(0, 0.04)
    index = np.clip((picture + noise) * np.float32(4095 / _BRIGHTEST), 0, 4095).astype(np.int16)
    shown = (255 * code).astype(np.float32)[index]
    grey = shown @ LUMINANCE.astype(np.float32)
    vivid = 0.0 if rng.random() < 0.08 else np.float32(np.exp(rng.normal(0, 0.15)))
    out = np.clip(grey[..., None] + vivid * (shown - grey[..., None]) + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        out = cv2.imdecode(cv2.imencode(".jpg", out, [cv2.IMWRITE_JPEG_QUALITY, int(rng.uniform(25, 95))])[1], cv2.IMREAD_COLOR)
    return out
