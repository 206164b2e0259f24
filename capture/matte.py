"""Who is person and who is background: MediaPipe's selfie matte, sharpened along the picture's own edges."""

from __future__ import annotations

import cv2
import numpy as np

_MODEL_SIDE = 256  # pixels that the model looks at
_SHARP = 1e-4  # variance of colours (of white) above which there is an edge
_SHARES = (np.arange(256) / 255).astype(np.float32)  # of white
_QUICKLY = 0.25  # of the size, at which a quick matte is sharpened


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


def selfie_matte(image: np.ndarray) -> np.ndarray:
    """`SelfieMatte` for a single picture."""
    with SelfieMatte() as matte:
        return matte(image)
