"""Real frames to learn from: every face of every picture and video in some folders, as crops."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from capture.errors import MediaError
from capture.face_finder import FaceFinder
from capture.face_tracker import FaceMesh
from capture.media import open_media
from models.encoder.crop import Crop
from models.encoder.network import SIZE
from pipeline.encoding import crop_of_box, typical_camera
from pipeline.progress import Listener, counted, silent

_MOST_PER_FILE = 120  # frames; more of one person teach little
_LOOKS = 3  # jittered crops of each face


@dataclass
class RealFaces:
    """Crops to learn from without labels.

    Attributes:
        crops: N x S x S x 3 uint8 sRGB.
        focal: N, crop widths.
        marks: N x 478 x 2 landmarks, crop widths from the centre; NaN where the tracker saw none.
        file: N, which of `files` each comes from.
        skipped: (name, why) of every file that could not be used.
    """

    crops: np.ndarray
    focal: np.ndarray
    marks: np.ndarray
    file: np.ndarray
    files: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.crops)


def files_of(places: list[str | Path]) -> list[Path]:
    """Every file in folders (all the way down) or given by name, sorted.

    Raises:
        MediaError: a place that isn't there.
    """
    found: list[Path] = []
    for place in map(Path, places):
        if not place.exists():
            raise MediaError(f"{place}: does not exist. Name a folder of pictures and videos, or `synthetic`.")
        found += sorted(p for p in place.rglob("*") if p.is_file() and not p.name.startswith(".")) if place.is_dir() else [place]
    return found


def read_real_faces(
    places: list[str | Path], seed: int = 0, landmarks: bool = True, looks: int = _LOOKS, most: int = _MOST_PER_FILE,
    jitter: float = 1.0, listen: Listener = silent,
) -> RealFaces:  # fmt: skip
    """Reads everything readable; what is broken or shows no face is skipped and listed.

    Args:
        landmarks: run the tracker as well.
        looks: crops of each face, shifted and scaled at random by `jitter` times what the encoder is trained for.
        most: frames of one file, spread over it.
    """
    rng = np.random.default_rng(seed)
    crops, focal, marks, owner, files, skipped = [], [], [], [], [], []
    mesh = FaceMesh(1, still=True) if landmarks else None
    with FaceFinder() as finder:
        paths = files_of(places)
        for path in counted(paths, "read faces", len(paths), listen):
            before = len(crops)
            try:
                with open_media(path) as media:
                    camera = typical_camera(media.width, media.height)
                    every = max(1, (media.frame_count_estimate or 1) // most)
                    for number, frame in enumerate(media):
                        if number % every:
                            continue
                        boxes = finder(frame.image)
                        if not boxes:
                            continue
                        seen = mesh(frame.image) if mesh else []
                        base = crop_of_box(camera, boxes[0])
                        for _ in range(looks):
                            shift = rng.normal(0, 0.05 * jitter, 2) * base.side
                            crop = Crop(
                                camera, (base.centre[0] + shift[0], base.centre[1] + shift[1]),
                                base.side * float(np.exp(rng.normal(0, 0.1 * jitter))),
                            )  # fmt: skip
                            crops.append(crop.take(frame.image))
                            focal.append(crop.focal)
                            marks.append(_in_crop(crop, seen))
                            owner.append(len(files))
            except (MediaError, OSError, ValueError) as error:
                skipped.append((str(path), " ".join(str(error).split())))
                del crops[before:], focal[before:], marks[before:], owner[before:]
                continue
            if len(crops) == before:
                skipped.append((str(path), "no face found"))
            else:
                files.append(str(path))
    if mesh:
        mesh.close()
    if not crops:
        raise MediaError(
            f"{', '.join(map(str, places))}: no face in any of {len(skipped)} files. Name folders with faces in them."
        )
    return RealFaces(np.stack(crops), np.array(focal), np.stack(marks), np.array(owner), files, skipped)


def _in_crop(crop: Crop, seen: list[np.ndarray]) -> np.ndarray:
    """478 x 2 landmarks in crop widths from the centre; NaN where the tracker's face is not the crop's."""
    if not seen:
        return np.full((478, 2), np.nan, np.float32)
    points = np.concatenate([seen[0][:, :2], np.ones((478, 1))], 1) @ np.linalg.inv(crop.homography(SIZE)).T
    points = points[:, :2] / points[:, 2:] / SIZE - 0.5
    inside = np.abs(points[:468].mean(0)).max() < 0.35
    return (points if inside else np.full((478, 2), np.nan)).astype(np.float32)
