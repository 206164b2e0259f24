"""The values that capture hands on, and the conventions every array in this project follows.

Convention:
    Pictures at the edges are H x W x 3 uint8 sRGB (RGB order); inside, linear RGB float32 in [0, 1] unless a name says otherwise.
    Camera axes are OpenCV's: +x right, +y down, +z forward. Pixel centres lie at half-integers: the centre of the
    top-left pixel is (0.5, 0.5). Metres, seconds, radians. Rotation matrices across module borders.
    Times are the file's own presentation times in seconds, counted from the first shown picture; never index / fps.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class Frame:
    """One picture and the moment it is shown.

    Attributes:
        image: H x W x 3 uint8 sRGB, upright (rotation flags and EXIF applied), square pixels.
        time: seconds from the first picture of its stream.
        duration: seconds until the next picture, as far as the file says; 0 for a photo.
    """

    image: np.ndarray
    time: float = 0.0
    duration: float = 0.0

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def height(self) -> int:
        return self.image.shape[0]


@dataclass(frozen=True)
class FaceObservation:
    """What a tracker saw of one person's face in one frame. A lost face is `found=False`, not an exception.

    Attributes:
        id: stable number of the person within the stream, from 0.
        found: whether the face was seen in this frame.
        landmarks: 478 x 3 float32, MediaPipe's mesh with irises: x, y in pixels (pixel centres at half-integers), z in
            the same scale, smaller is nearer. Zeros where not found.
        confidence: 0..1.
    """

    id: int
    found: bool
    landmarks: np.ndarray
    confidence: float


def at_size(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at another size."""
    if image.shape[:2] == (height, width):
        return image
    smaller = image.shape[0] >= height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
