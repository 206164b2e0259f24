"""Faces in frames: MediaPipe's mesh with irises, several people with ids that stay theirs.

The models travel inside the mediapipe 0.10.21 wheel (Apache-2.0); nothing is downloaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

os.environ.setdefault("GLOG_minloglevel", "2")  # mediapipe's C++ side logs every start otherwise

from capture.frame import FaceObservation, Frame  # noqa: E402

LANDMARKS = 478


@dataclass
class FaceMesh:
    """MediaPipe's face mesh as pixels. `still` treats every picture by itself; otherwise it follows from frame to frame."""

    people: int = 1
    still: bool = False
    minimum_confidence: float = 0.5

    def __post_init__(self) -> None:
        import mediapipe

        self._mesh = mediapipe.solutions.face_mesh.FaceMesh(
            static_image_mode=self.still,
            max_num_faces=self.people,
            refine_landmarks=True,
            min_detection_confidence=self.minimum_confidence,
            min_tracking_confidence=self.minimum_confidence,
        )

    def __call__(self, image: np.ndarray) -> list[np.ndarray]:
        """478 x 3 float32 landmarks in pixels of every face found in an H x W x 3 uint8 sRGB picture."""
        height, width = image.shape[:2]
        result = self._mesh.process(np.ascontiguousarray(image))
        scale = np.array([width, height, width], np.float32)
        return [
            np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) * scale
            for face in result.multi_face_landmarks or ()
        ]

    def close(self) -> None:
        self._mesh.close()
