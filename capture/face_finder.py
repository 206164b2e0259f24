"""Where faces are in a picture: boxes, without a mesh. MediaPipe's detector, whose models travel in the wheel (Apache-2.0)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import capture.face_tracker  # noqa: F401  (quietens mediapipe before it starts)


@dataclass(frozen=True)
class FaceBox:
    """A face found in a picture.

    Attributes:
        centre: x, y pixels.
        side: of the square from above the brows to the chin, pixels.
        confidence: 0..1.
    """

    centre: tuple[float, float]
    side: float
    confidence: float


class FaceFinder:
    """Looks for near and for far faces (two models); a context manager."""

    def __init__(self, minimum_confidence: float = 0.4):
        import mediapipe

        detection = mediapipe.solutions.face_detection.FaceDetection
        self._models = [
            detection(model_selection=k, min_detection_confidence=minimum_confidence) for k in (1, 0)
        ]  # fmt: skip

    def __call__(self, image: np.ndarray) -> list[FaceBox]:
        """Every face of an H x W x 3 uint8 sRGB picture, the largest first."""
        height, width = image.shape[:2]
        found: list[FaceBox] = []
        for model in self._models:
            for seen in model.process(image).detections or ():
                box = seen.location_data.relative_bounding_box
                centre = (box.xmin + box.width / 2) * width, (box.ymin + box.height / 2) * height
                side = max(box.width * width, box.height * height)
                if all(np.hypot(centre[0] - f.centre[0], centre[1] - f.centre[1]) > 0.4 * max(side, f.side) for f in found):
                    found.append(FaceBox(centre, side, float(seen.score[0])))
        return sorted(found, key=lambda f: -f.side)

    def close(self) -> None:
        for model in self._models:
            model.close()

    def __enter__(self) -> FaceFinder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
