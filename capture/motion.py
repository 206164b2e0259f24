"""How a video's pixels move from frame to frame: dense optical flow (dense inverse search, Kroeger et al. 2016)."""

from __future__ import annotations

import cv2
import numpy as np

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
