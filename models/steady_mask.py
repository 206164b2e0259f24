"""Masks of people that don't tremble from frame to frame."""

from __future__ import annotations

import cv2
import numpy as np

from models.moved import Moved

_ANEW = 0.5  # where a mask differs by so much from the one before, half of that is kept
_AROUND = 5  # the mask's pixels in which that is averaged


class SteadyMask:
    """The masks of a video, a frame after the other, made steady: what was seen before counts as well, carried along.

    Thin hair is seen in one frame and not in the next, and light that it throws or gets would come and go.
    """

    def __init__(self) -> None:
        self._past: np.ndarray | None = None

    def __call__(self, mask: np.ndarray, moved: Moved | None) -> np.ndarray:
        """h x w in [0, 1], the mask made steady; None begins anew."""
        past, self._past = self._past, mask
        if moved is not None and past is not None and past.shape == mask.shape:
            (before,) = moved.followed(past)
            off = cv2.blur(cv2.absdiff(mask, before), (_AROUND, _AROUND)) / _ANEW
            off *= off
            self._past = mask + moved.kept / (1 + off * off) * (before - mask)
        return self._past
