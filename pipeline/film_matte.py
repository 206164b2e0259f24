"""Who is person and who is background in a video, steadily."""

from __future__ import annotations

import numpy as np

from capture.frame import Frame
from capture.matte import SelfieMatte, sharpened
from capture.motion import Motion
from models.moved import Moved
from models.steady_mask import SteadyMask


class FilmMatte:
    """Mattes of a video, a frame after the other; a context manager."""

    def __init__(self, quick: bool = False) -> None:
        """Args:
        quick: as of `SelfieMatte`.
        """
        self._quick, self._model, self._motion, self._masks = quick, SelfieMatte(quick), Motion(), SteadyMask()
        self._before = 0.0

    def __call__(self, frame: Frame) -> np.ndarray:
        """H x W float32 in [0, 1]: 1 on people."""
        moved = Moved.after(float(frame.time) - self._before, self._motion(frame.image))
        self._before = float(frame.time)
        return sharpened(self._masks(self._model.mask(frame.image), moved), frame.image, self._quick)

    def __enter__(self) -> FilmMatte:
        return self

    def __exit__(self, *_: object) -> None:
        self._model.close()
