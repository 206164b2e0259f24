"""Where in a picture a person's head, mouth and eyes are: what an avatar is judged on."""

from __future__ import annotations

import cv2
import numpy as np

from models.code import Camera, FaceCode
from models.head import Head
from pipeline.fitting import inter_ocular

_CHIN = 152
_UNDER_CHIN, _HALF_WIDTH = 0.004, 0.16  # metres


def chin_of(head: Head) -> np.ndarray:
    """3 metres in the head frame."""
    return head.prior.at_landmarks(head.neutral)[_CHIN]


def below_chin(code: FaceCode, camera: Camera, chin: np.ndarray) -> np.ndarray:
    """H x W metres: how far a pixel lies below the chin, along the head's own axis; negative above.

    Args:
        chin: 3, in the head frame.
    """
    down = _down(code)
    low = camera.project((code.rotation @ chin + code.translation)[None])[0]
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    return ((x - low[0]) * down[0] + (y - low[1]) * down[1]) * code.translation[2] / camera.focal


def head_region(matte: np.ndarray, code: FaceCode, camera: Camera, chin: np.ndarray) -> np.ndarray:
    """H x W bool: the person's head with its hair, without neck and shoulders.

    Args:
        matte: H x W uint8, 255 on the person.
        chin: 3, in the head frame.
    """
    down = _down(code)
    middle = camera.project(code.translation[None].astype(float))[0]
    y, x = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    aside = ((x - middle[0]) * down[1] - (y - middle[1]) * down[0]) * code.translation[2] / camera.focal
    return (matte > 127) & (below_chin(code, camera, chin) < _UNDER_CHIN) & (np.abs(aside) < _HALF_WIDTH)


def _down(code: FaceCode) -> np.ndarray:
    """2: the way to the chin in the picture."""
    down = (code.rotation @ np.array([0.0, 1.0, 0.0]))[:2]
    return down / max(np.linalg.norm(down), 1e-6)


def hull(landmarks: np.ndarray, chosen: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    """H x W bool: the convex hull of some landmarks (pixels), a little widened."""
    out = np.zeros(size, np.uint8)
    cv2.fillConvexPoly(out, cv2.convexHull(np.round(landmarks[list(chosen), :2]).astype(np.int32)), 1)
    reach = max(1, round(0.06 * float(inter_ocular(landmarks))))
    return cv2.dilate(out, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0
