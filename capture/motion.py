"""How a video's pixels move from frame to frame: dense optical flow (dense inverse search, Kroeger et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numba import njit

STAYS = 0.2  # seconds after which a third of what was is left
_SIDE = 256  # pixels of the longer side in which motion is searched
_SMALLEST = 32  # pixels of the shorter side, below which none is


class Motion:
    """Told frame by frame of one video."""

    def __init__(self) -> None:
        self._search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: np.ndarray | None = None

    def __call__(self, image: np.ndarray) -> np.ndarray | None:
        """h x w x 2 float32: where each pixel was in the frame before, as shares of width and height to the right and down.

        None in the first frame, and where frames are too small or not of one size.

        Args:
            image: H x W x 3 uint8 sRGB.
        """
        scale = min(1.0, _SIDE / max(image.shape[:2]))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        before, self._before = self._before, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        height, width = self._before.shape
        if before is None or before.shape != self._before.shape or min(height, width) < _SMALLEST:
            return None
        return self._search.calc(self._before, before, None) / np.float32([width, height])


@dataclass(frozen=True)
class Moved:
    """What happened since the frame before.

    Attributes:
        motion: h x w x 2 float32, where each pixel was then, as shares of width and height (`Motion`).
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
