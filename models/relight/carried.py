"""Light that stays on people from frame to frame: how a picture changes is carried along by its own motion.

A fitted head moves a little otherwise than the skin in a picture does, and what it is shaded with trembles on that skin. What a
pixel was changed by before, followed to where it is now, is kept for the most part, as long as the new shading says about the
same: a recursive filter along the motion (Lang et al. 2012, "Practical temporal consistency").
"""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

from models.moved import Moved
from models.relight.shading import Change

ANEW = 0.1  # of the sum of both ratios: where they differ by so much, half of that is kept
AROUND = 5  # pixels in which that is averaged


class Carried:
    """The changes of one person in one video, a frame after the other."""

    def __init__(self) -> None:
        self._past: Change | None = None

    def __call__(self, change: Change, moved: Moved | None) -> Change:
        """The change, made steady; None begins anew."""
        past, fields = self._past, _fields(change)
        if moved is not None and past is not None and past.ratio.shape == change.ratio.shape:
            height, width = change.ratio.shape[:2]
            before = moved.followed(*_fields(past))
            apart = np.empty((height, width), np.float32)
            _apart(change.ratio, before[0], apart)
            mixed = tuple(np.empty_like(one) for one in fields)
            _mixed(fields, before, cv2.blur(apart, (AROUND, AROUND)), np.float32(moved.kept), mixed)
            fields = mixed
        self._past = Change(*fields)
        return self._past


def _fields(change: Change) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return change.ratio, change.was, change.becomes


@njit(cache=True, nogil=True, fastmath=True)
def _apart(now, past, out):
    """Fills how far two ratios lie apart, of their sum."""
    height, width = out.shape
    for y in range(height):
        for x in range(width):
            total = np.float32(0)
            for c in range(3):
                total += abs(now[y, x, c] - past[y, x, c]) / (abs(now[y, x, c]) + abs(past[y, x, c]) + np.float32(1e-6))
            out[y, x] = total / np.float32(3)


@njit(cache=True, nogil=True, fastmath=True)
def _mixed(now, past, apart, share, out):
    height, width = apart.shape
    for y in range(height):
        for x in range(width):
            off = apart[y, x] / np.float32(ANEW)
            part = share / (np.float32(1) + off * off * off * off)
            for k in range(3):
                for c in range(3):
                    out[k][y, x, c] = now[k][y, x, c] + part * (past[k][y, x, c] - now[k][y, x, c])
