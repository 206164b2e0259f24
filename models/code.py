"""What is known of a face: the values that travel from the fitter to the retargeter to the renderer.

Convention: camera axes and pixels as in `capture.frame`; head frame as in `models.prior.bake`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A pinhole without distortion.

    Attributes:
        focal: pixels, the same along x and y.
        width, height: of the picture, pixels; the principal point is its centre.
    """

    focal: float
    width: int
    height: int

    def project(self, points: np.ndarray) -> np.ndarray:
        """... x 3 camera-axes points to ... x 3 (x px, y px, depth). Points at or behind the camera give no sense."""
        out = np.empty_like(points)
        out[..., 0] = self.focal * points[..., 0] / points[..., 2] + 0.5 * self.width
        out[..., 1] = self.focal * points[..., 1] / points[..., 2] + 0.5 * self.height
        out[..., 2] = points[..., 2]
        return out


def at_height(camera: Camera, height: int, width: int) -> Camera:
    """The same camera with its picture scaled to another height (and cut or widened to the width), pixels."""
    return Camera(camera.focal * height / camera.height, width, height)


@dataclass(frozen=True)
class Person:
    """What stays the same over a shot.

    Attributes:
        identity: 80 coefficients of the prior's identity basis.
        detail: 478 x 3 metres in the head frame: where this person's landmarks lie beside the identity basis' reach.
        camera: of the shot.
        neutral: 52 expression values of this person's resting face (a resting mouth corner is rarely at 0).
        neutral_look: (left, right) x (yaw, pitch) radians in camera axes: where they mostly look, whichever way the head is
            turned; (0, 0) is along the camera's axis towards the camera.
        albedo: 32 coefficients of `models.prior.reflectance`; None where only landmarks were looked at.
    """

    identity: np.ndarray
    detail: np.ndarray
    camera: Camera
    neutral: np.ndarray
    neutral_look: np.ndarray
    albedo: np.ndarray | None = None


@dataclass(frozen=True)
class FaceCode:
    """One person's face in one frame.

    Attributes:
        expression: 52 values by `models.prior.face.EXPRESSIONS`, in [0, 1].
        rotation: 3 x 3, head frame to camera axes.
        translation: 3, metres, camera axes.
        gaze: (left, right) x (yaw, pitch), radians, head frame.
        confidence: 0..1; 0 where the face is lost and the values are held.
        light: 9 x 3 harmonics in camera axes, see `models.light.harmonics`; None where only landmarks were looked at.
    """

    expression: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    gaze: np.ndarray = field(default_factory=lambda: np.zeros((2, 2)))
    confidence: float = 1.0
    light: np.ndarray | None = None
