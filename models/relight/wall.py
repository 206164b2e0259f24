"""The shadow that lit people throw on a wall behind them.

A person is taken as flat as a screen, at the depth of their head, cut out as their matte is; the wall faces the camera. A point
of the wall is dark where the way from it to a lamp goes through the screen, which is where the matte, moved and scaled, lies.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.light.lights import Lamp, Light

_SIDE = 320  # pixels of the longer side in which shadows are drawn
_PENUMBRA = 0.02  # of the way from the screen to the wall: how wide a lamp's edge is blurred
_FACING = np.array([[0.0, 0.0, -1.0]])


def kept_on_wall(matte: np.ndarray, light: Light, focal: float, head: np.ndarray, behind: float) -> np.ndarray:
    """h x w x 3 in [0, 1]: how much of the light on a wall people leave to it; coarse, to be stretched over the picture.

    Args:
        matte: H x W in [0, 1], 1 on people.
        focal: pixels of the matte.
        head: 3, its centre in camera axes; behind: metres from it to the wall.
    """
    height, width = matte.shape
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    screen = cv2.resize(np.ascontiguousarray(matte, np.float32), size, interpolation=cv2.INTER_AREA)
    # who is cut off by the picture's lower edge goes on below it; beyond its other edges is nobody
    screen = cv2.copyMakeBorder(screen, 1, 0, 1, 1, cv2.BORDER_CONSTANT, value=0)
    focal *= size[0] / width
    total = light.shaded(_FACING)[0].astype(np.float64)
    kept = np.broadcast_to(total, (*size[::-1], 3)).copy()
    wall = head[2] + behind
    for lamp in (sample for one in light.lamps for sample in one.samples()):
        arriving, across = _through(lamp, head, wall)
        colour = arriving * lamp.colour
        total = total + colour
        if across is None:
            kept += colour
            continue
        # what stands in the way of the wall at q, pixels from the middle, is on the screen at `factor` q + `moved`
        factor, moved = across[0] * wall / head[2], focal / head[2] * across[1]
        x, y = (1 - factor) * (np.array(size) / 2 - 0.5) + moved
        there = np.float64([[factor, 0, x + 1], [0, factor, y + 1]])
        shadow = cv2.warpAffine(
            screen, there, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        shadow = cv2.GaussianBlur(shadow, (0, 0), max(0.7, _PENUMBRA * behind * focal / wall))
        kept += (1 - shadow)[..., None] * colour
    # a colour that no light has stays as it is
    return np.where(total > 1e-6, kept / np.maximum(total, 1e-6), 1).astype(np.float32)


def _through(lamp: Lamp, head: np.ndarray, wall: float) -> tuple[float, tuple[float, np.ndarray] | None]:
    """How much of a lamp's colour the wall gets behind the head, and where its points see the lamp through the screen.

    Returns:
        (share, (a, b)): a point (x, y) of the wall through a (x, y) + b of the screen, metres; None where nobody is between.
    """
    if lamp.direction is not None:
        if lamp.direction[2] > -1e-3:  # beside or behind the wall
            return 0.0, None
        way = (head[2] - wall) / lamp.direction[2]
        return -float(lamp.direction[2]), (1.0, way * lamp.direction[:2]) if lamp.shadows else None
    place = head + lamp.position
    towards = place - np.array([head[0], head[1], wall])
    if towards[2] > -1e-3:
        return 0.0, None
    share = -float(towards[2]) / max(float(np.linalg.norm(towards)), 0.1) ** 3
    between = lamp.shadows and place[2] < head[2] - 1e-3
    part = (head[2] - wall) / towards[2]
    return share, (1 - part, part * place[:2]) if between else None
