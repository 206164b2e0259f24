"""Who is person and who is background: MediaPipe's selfie matte, sharpened along the picture's own edges."""

from __future__ import annotations

import cv2
import numpy as np

from capture.frame import Frame
from capture.motion import Motion, Moved

_MODEL_SIDE = 256  # pixels that the model looks at
_SHARP = 1e-4  # variance of colours (of white) above which there is an edge
_SHARES = (np.arange(256) / 255).astype(np.float32)  # of white
_QUICKLY = 0.25  # of the size, at which a quick matte is sharpened
_ANEW = 0.5  # where a mask differs by so much from the one before, half of that is kept
_AROUND = 5  # the mask's pixels in which that is averaged


class SelfieMatte:
    """Mattes of picture after picture, each by itself; a context manager."""

    def __init__(self, quick: bool = False) -> None:
        """Args:
        quick: by the smaller model, looking and sharpening at a lower size; a fifth of the time.
        """
        import mediapipe

        self._quick = quick
        self._segmentation = mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=int(quick))

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """H x W float32 in [0, 1]: 1 on people. An empty picture gives zeros.

        Args:
            image: H x W x 3 uint8 sRGB.
        """
        return sharpened(self.mask(image), image, self._quick)

    def mask(self, image: np.ndarray) -> np.ndarray:
        """h x w float32 in [0, 1], what the model says before it is `sharpened`; h, w depend on the picture's size alone."""
        scale = min(1.0, _MODEL_SIDE / max(image.shape[:2])) if self._quick else 1.0
        seen = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        mask = self._segmentation.process(np.ascontiguousarray(seen)).segmentation_mask
        return np.clip(mask.astype(np.float32), 0, 1)

    def close(self) -> None:
        self._segmentation.close()

    def __enter__(self) -> SelfieMatte:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sharpened(mask: np.ndarray, image: np.ndarray, quick: bool = False) -> np.ndarray:
    """H x W float32 in [0, 1]: a mask (h x w in [0, 1]) with the outlines that a picture (H x W x 3 uint8 sRGB) has."""
    # OpenCV takes the radius in pixels of the size that it works at
    size = _QUICKLY if quick else 1.0
    radius = max(1, round(size * max(2, max(image.shape[:2]) / 100)))
    guide = cv2.LUT(image, _SHARES)
    wide = cv2.resize(mask, image.shape[1::-1])
    return np.clip(cv2.ximgproc.guidedFilter(guide, wide, radius, _SHARP, scale=size), 0, 1)


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


def selfie_matte(image: np.ndarray) -> np.ndarray:
    """`SelfieMatte` for a single picture."""
    with SelfieMatte() as matte:
        return matte(image)
