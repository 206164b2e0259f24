"""Faces in frames: MediaPipe's mesh with irises, several people with ids that stay theirs.

The models travel inside the mediapipe 0.10.21 wheel (Apache-2.0); nothing is downloaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

os.environ.setdefault("GLOG_minloglevel", "2")  # mediapipe's C++ side logs every start otherwise

from capture.frame import FaceObservation, Frame

LANDMARKS = 478


@dataclass
class FaceMesh:
    """MediaPipe's face mesh as pixels. `still` treats every picture by itself; otherwise it follows from frame to frame."""

    people: int = 1
    still: bool = False
    minimum_confidence: float = 0.5
    turns: int = 0  # quarter turns to the left that bring the picture's faces upright: the detector misses upside-down ones

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
        upright = np.ascontiguousarray(np.rot90(image, self.turns))
        height, width = upright.shape[:2]
        result = self._mesh.process(upright)
        scale = np.array([width, height, width], np.float32)
        faces = [np.array([(p.x, p.y, p.z) for p in face.landmark], np.float32) for face in result.multi_face_landmarks or ()]
        return [_turned_back(face * scale, self.turns, *image.shape[:2]) for face in faces]

    def close(self) -> None:
        self._mesh.close()


def _turned_back(points: np.ndarray, turns: int, height: int, width: int) -> np.ndarray:
    """Landmarks of a picture that was turned `turns` quarters to the left, in the H x W picture before."""
    x, y, z = points.T
    x, y = ((x, y), (width - y, x), (width - x, height - y), (y, height - x))[turns % 4]
    return np.stack([x, y, z], 1)


_SETTLE = 4  # further looks at a frame that shows someone new
_FORGET_AFTER = 1.0  # seconds a lost person keeps their number for the taking
_REACH = 0.8  # of the face's width that a face may jump between frames and still be the same person's


class FaceTracker:
    """Follows up to `people` faces; each keeps its id through losses shorter than a second."""

    def __init__(self, people: int = 1, still: bool = False, turns: int = 0):
        self.people = people
        self._mesh = FaceMesh(people, still, turns=turns)
        self._seen: dict[int, tuple[np.ndarray, float, float]] = {}  # id: centre, width, time
        self._next = 0
        self._settles, self._count = not still, 0

    def __call__(self, frame: Frame) -> list[FaceObservation]:
        """One observation for each person known so far, by id; a lost one has `found=False` and zero landmarks."""
        faces = self._mesh(frame.image)
        if self._settles and len(faces) > self._count:
            # a newly found face drifts for some frames while the mesh closes in on it: it is let settle in this one
            for _ in range(_SETTLE):
                faces = self._mesh(frame.image) or faces
        self._count = len(faces)
        outlines = [(f[:468, :2].mean(0), float(np.ptp(f[:468, 0]))) for f in faces]
        known = {k: v for k, v in self._seen.items() if frame.time - v[2] <= _FORGET_AFTER}
        pairs = sorted(
            (np.linalg.norm(centre - known[k][0]) / max(known[k][1], 1.0), k, i)
            for k in known
            for i, (centre, _) in enumerate(outlines)
        )
        owner: dict[int, int] = {}
        for distance, k, i in pairs:
            if distance < _REACH and k not in owner.values() and i not in owner:
                owner[i] = k
        # a face that nobody near claims takes the lowest number that is free: a lost person who comes back elsewhere in
        # the picture is far likelier than a new one, as long as there are not more faces than people known
        for i in sorted(range(len(faces)), key=lambda i: -outlines[i][1]):
            if i in owner:
                continue
            free = [k for k in sorted(self._seen) if k not in owner.values()]
            if free and len(faces) <= len(self._seen):
                owner[i] = free[0]
            else:
                owner[i], self._next = self._next, self._next + 1
        for i, k in owner.items():
            self._seen[k] = (*outlines[i], frame.time)
        by_id = {k: faces[i] for i, k in owner.items()}
        blank = np.zeros((LANDMARKS, 3), np.float32)
        return [FaceObservation(k, k in by_id, by_id.get(k, blank), 1.0 if k in by_id else 0.0) for k in sorted(self._seen)]

    def close(self) -> None:
        self._mesh.close()

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
