"""Self-reenactment: a clip's first frame driven by the clip itself, measured against the clip.

Face region: the convex hull of the tracker's 468 surface landmarks on the clip's own frame. PSNR is that of sRGB codes in
the region, taken per frame and averaged; the first frame, which is the source, is left out of every mean.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import cv2
import numpy as np

from capture.face_tracker import FaceMesh
from capture.media import open_media
from capture.photo import write_photo
from models.prior.face import AnnyPrior, load_prior
from pipeline.device import DeviceChoice
from pipeline.errors import Refusal
from pipeline.fitting import inter_ocular
from pipeline.flow import pictures, prepare
from pipeline.progress import Listener, silent
from pipeline.reenactment import Settings

LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409, 78, 95, 88, 178, 87, 14,
        317, 402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415)  # fmt: skip
EYES = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 263, 249, 390, 373, 374, 380, 381, 382,
        362, 398, 384, 385, 386, 387, 388, 466)  # fmt: skip
GROUPS = {"overall": tuple(range(478)), "mouth": LIPS, "eyes": EYES, "iris": tuple(range(468, 478))}
_SHEET_COLUMNS = 8
_SHEET_HEIGHT = 256


def face_region(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """H x W bool: inside the convex hull of the surface landmarks."""
    mask = np.zeros((height, width), np.uint8)
    hull = cv2.convexHull(np.round(landmarks[:468, :2] - 0.5).astype(np.int32))
    return cv2.fillConvexPoly(mask, hull, 1).astype(bool)


def psnr(mean_square: float) -> float:
    """Decibels of a mean square error of 8-bit codes; 99 for none."""
    return min(99.0, 10 * np.log10(255**2 / max(mean_square, 1e-9)))


class ContactSheet:
    """Rows driver | source | output | error of a few frames spread over a clip."""

    def __init__(self, expected: int):
        self._wanted = set(np.linspace(1, max(expected - 1, 1), _SHEET_COLUMNS).astype(int).tolist())
        self._columns: list[np.ndarray] = []

    def offer(self, index: int, driver: np.ndarray, source: np.ndarray, output: np.ndarray, error: bool = True) -> None:
        if index not in self._wanted:
            return
        rows = [driver, source, output]
        if error and driver.shape == output.shape:
            rows.append(np.clip(128 + 2 * (output.astype(np.int16) - driver), 0, 255).astype(np.uint8))
        width = round(_SHEET_HEIGHT * output.shape[1] / output.shape[0])
        self._columns.append(np.concatenate([_fitted(r, width, _SHEET_HEIGHT) for r in rows]))

    def picture(self) -> np.ndarray:
        return np.concatenate(self._columns, 1)


def _fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture inside width x height, its own shape kept, black beside it."""
    scale = min(width / image.shape[1], height / image.shape[0])
    small = cv2.resize(
        image, (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))), interpolation=cv2.INTER_AREA
    )
    out = np.zeros((height, width, 3), np.uint8)
    y, x = (height - small.shape[0]) // 2, (width - small.shape[1]) // 2
    out[y : y + small.shape[0], x : x + small.shape[1]] = small
    return out


def evaluate(
    clip: str,
    prior: AnnyPrior | None = None,
    listen: Listener = silent,
    sheet: str | Path | None = None,
    device: DeviceChoice = "auto",
) -> dict:
    """Measures self-reenactment on a clip; returns the report.

    Raises:
        MediaError, Refusal: where the clip can't be used.
    """
    prior = prior or load_prior()
    media = open_media(clip)
    if media.is_photo:
        raise Refusal(f"{clip}: a photo has no motion to evaluate. Give a video.")
    settings = Settings(pose="absolute", audio="none", device=device)
    with tempfile.TemporaryDirectory() as folder:
        first = next(iter(media), None)
        if first is None:
            raise Refusal(f"{clip}: no picture could be read. Give a video that plays elsewhere.")
        still = Path(folder) / "first.png"
        write_photo(still, first.image)
        prepared = prepare(str(still), clip, settings, prior, listen)
        sums = {"output": [], "still": []}
        squares = np.zeros(2)
        distances: dict[str, list[float]] = {name: [] for name in GROUPS}
        contact = ContactSheet(len(prepared.driver))
        ours, theirs = FaceMesh(), FaceMesh()
        missed = 0
        try:
            for index, (made, frame) in enumerate(zip(pictures(prepared, settings, listen), media)):
                contact.offer(index, frame.image, first.image, made.image)
                truth, shown = theirs(frame.image), ours(made.image)
                if index == 0 or not truth:
                    continue
                region = face_region(truth[0], frame.height, frame.width)
                if not region.any():
                    continue
                wanted = frame.image[region].astype(np.float64)
                errors = [float(((image[region] - wanted) ** 2).mean()) for image in (made.image, first.image)]
                sums["output"].append(psnr(errors[0]))
                sums["still"].append(psnr(errors[1]))
                squares += errors
                if not shown:
                    missed += 1
                    continue
                away = np.linalg.norm(shown[0][:, :2] - truth[0][:, :2], axis=1) / inter_ocular(truth[0])
                for name, group in GROUPS.items():
                    distances[name].append(100 * float(away[list(group)].mean()))
        finally:
            ours.close()
            theirs.close()
    if not sums["output"]:
        raise Refusal(f"{clip}: no face in any frame after the first. Give a clip whose face stays in view.")
    if sheet is not None:
        write_photo(sheet, contact.picture())
    out, base = (float(np.mean(sums[k])) for k in ("output", "still"))
    pooled = [psnr(s / len(sums["output"])) for s in squares]
    return {
        "clip": str(clip), "frames": len(sums["output"]), "region": "convex hull of the tracked landmarks",
        "psnr_output": out, "psnr_still": base, "gain_db": out - base,
        "psnr_output_pooled": pooled[0], "psnr_still_pooled": pooled[1], "gain_db_pooled": pooled[0] - pooled[1],
        "landmark_distance_percent": {k: float(np.mean(v)) if v else None for k, v in distances.items()},
        "output_without_face": missed, "same_person": prepared.same_person,
        "fit_error_percent": float(100 * np.nanmean(prepared.driver.error)),
    }  # fmt: skip
