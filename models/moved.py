"""What is known of a video's frame, followed to where it is in the next one by the picture's own motion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

STAYS = 0.2  # seconds after which a third of what was is left


@dataclass(frozen=True)
class Moved:
    """What happened since the frame before.

    Attributes:
        motion: h x w x 2 float32, where each pixel was then, as shares of width and height (`capture.motion`).
        kept: in [0, 1], how much of what was is kept where nothing else happens.
    """

    motion: np.ndarray
    kept: float

    @classmethod
    def after(cls, seconds: float, motion: np.ndarray | None) -> Moved | None:
        """None where nothing is known of how pixels moved."""
        return None if motion is None else cls(motion, float(np.exp(-max(seconds, 0.0) / STAYS)))

    def followed(self, *fields: np.ndarray) -> tuple[np.ndarray, ...]:
        """What was known of the frame before (each H x W or H x W x C float32, all of one size), where it is now."""
        height, width = fields[0].shape[:2]
        there = _places(cv2.resize(self.motion, (width, height)))
        return tuple(cv2.remap(one, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for one in fields)


@njit(cache=True, nogil=True, fastmath=True)
def _places(motion):
    """H x W x 2: columns and rows of where pixels were."""
    height, width = motion.shape[:2]
    out = np.empty_like(motion)
    for y in range(height):
        for x in range(width):
            out[y, x, 0] = np.float32(x) + motion[y, x, 0] * np.float32(width)
            out[y, x, 1] = np.float32(y) + motion[y, x, 1] * np.float32(height)
    return out
