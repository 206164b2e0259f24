"""The square that the encoder looks at, as a camera of its own: turned towards the face, its centre the principal point."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.code import Camera
from models.encoder.network import SIZE


@dataclass(frozen=True)
class Crop:
    """A part of a camera's picture, seen as if the camera had turned towards its middle.

    Attributes:
        camera: whose picture it is a part of.
        centre: x, y pixels.
        side: of the square, pixels.
    """

    camera: Camera
    centre: tuple[float, float]
    side: float

    @property
    def rotation(self) -> np.ndarray:
        """3 x 3: crop camera's axes to the camera's; its third column is the ray through the crop's centre."""
        ray = np.array(
            [self.centre[0] - self.camera.width / 2, self.centre[1] - self.camera.height / 2, self.camera.focal], float
        )
        ray /= np.linalg.norm(ray)
        across = np.cross([0.0, 1, 0], ray)
        across /= np.linalg.norm(across)
        return np.stack([across, np.cross(ray, across), ray], 1)

    @property
    def focal(self) -> float:
        """Focal length of the crop's camera, crop widths."""
        away = np.hypot(self.centre[0] - self.camera.width / 2, self.centre[1] - self.camera.height / 2)
        return float(np.hypot(self.camera.focal, away) / self.side)

    def homography(self, size: int = SIZE) -> np.ndarray:
        """3 x 3: pixels of the S x S crop to pixels of the camera's picture (half-integer centres in both)."""
        camera = self.camera
        focal = self.focal * size
        into_rays = np.array([[1 / focal, 0, -size / 2 / focal], [0, 1 / focal, -size / 2 / focal], [0, 0, 1]])
        onto = np.array([[camera.focal, 0, camera.width / 2], [0, camera.focal, camera.height / 2], [0, 0, 1]])
        return onto @ self.rotation @ into_rays

    def take(self, image: np.ndarray, size: int = SIZE) -> np.ndarray:
        """S x S x 3 uint8 sRGB: the crop out of an H x W x 3 uint8 sRGB picture; drawn out beyond its edges."""
        shift = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])  # OpenCV puts pixel centres at integers
        shrink = self.side / size
        if shrink > 2:  # what the crop can't show is blurred away first, in a picture no larger than needed
            part = 1 / (shrink / 1.5)
            small = cv2.resize(image, None, fx=part, fy=part, interpolation=cv2.INTER_AREA)
            scale = np.diag([small.shape[1] / image.shape[1], small.shape[0] / image.shape[0], 1.0])
        else:
            small, scale = image, np.eye(3)
        matrix = np.linalg.inv(shift) @ scale @ self.homography(size) @ shift
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpPerspective(small, matrix, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def rotation_out(self, rotation: np.ndarray) -> np.ndarray:
        """A rotation in the crop camera's axes, in the camera's."""
        return self.rotation @ rotation

    def translation_out(self, translation: np.ndarray) -> np.ndarray:
        """A translation in the crop camera's axes, in the camera's; metres."""
        return self.rotation @ translation
