"""Who is person and who is background: MediaPipe's selfie matte, sharpened along the picture's own edges."""

from __future__ import annotations

import cv2
import numpy as np


def selfie_matte(image: np.ndarray) -> np.ndarray:
    """H x W float32 in [0, 1]: 1 on people. An empty picture gives zeros.

    Args:
        image: H x W x 3 uint8 sRGB.
    """
    import mediapipe

    with mediapipe.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0) as segmentation:
        mask = segmentation.process(np.ascontiguousarray(image)).segmentation_mask
    mask = np.clip(mask.astype(np.float32), 0, 1)
    guide = image.astype(np.float32) / 255
    radius = max(2, round(max(image.shape[:2]) / 100))
    return np.clip(cv2.ximgproc.guidedFilter(guide, mask, radius, 1e-4), 0, 1)
