"""What `track` tells: codes as JSON with names, and an overlay to look at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np

from capture.errors import MediaError
from capture.media import Media
from capture.photo import write_photo
from capture.writer import VideoWriter
from models.head import rotation_of_gaze
from models.light.harmonics import dominant_direction
from models.prior.face import EXPRESSIONS, AnnyPrior
from models.prior.reflectance import Reflectance, load_reflectance
from pipeline.fitting import LandmarkModel
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.shot import frame_fitter
from pipeline.tracking import Tracked

_FOUND, _HELD = (90, 255, 120), (255, 160, 60)
# runs of the 68 points that are joined by lines: first, last, closed
_LINES = ((0, 16, False), (17, 21, False), (22, 26, False), (27, 30, False), (31, 35, False), (36, 41, True), (42, 47, True),
          (48, 59, True), (60, 67, True))  # fmt: skip


def fitted_landmarks(prior: AnnyPrior, performance: Performance):
    """A function from a frame's number to the 68 points (iBUG order, pixels) projected from the fitted model."""
    fitter = frame_fitter(LandmarkModel.of(prior), performance.person)
    return lambda index: prior.ibug68 @ fitter.landmarks(performance.code(index))


def track_report(tracked: Tracked, prior: AnnyPrior, media: Media) -> dict:
    """The report of `track --json`: every person of every frame, and the clip's mean landmark error."""
    landmarks = {k: fitted_landmarks(prior, p) for k, p in tracked.performances.items()}
    looked = any(p.light is not None for p in tracked.performances.values())
    reflectance = load_reflectance(prior) if looked else None
    frames = []
    for index, time in enumerate(tracked.times):
        people = []
        for k, performance in tracked.performances.items():
            if not performance.tracked[: index + 1].any():
                continue  # not met yet
            people.append(_person(k, performance, index, landmarks[k](index), reflectance))
        frames.append({"time": float(time), "people": people})
    errors = np.concatenate([p.error for p in tracked.performances.values()])
    return {
        "input": media.path, "width": media.width, "height": media.height, "people": sorted(tracked.performances),
        "mean_landmark_error_percent": _mean_percent(errors),
        "landmark_error_percent": {str(k): _mean_percent(p.error) for k, p in tracked.performances.items()},
        "expressions": list(EXPRESSIONS), "frames": frames,
    }  # fmt: skip


def _person(number: int, performance: Performance, index: int, landmarks: np.ndarray, reflectance: Reflectance | None) -> dict:
    code = performance.code(index)
    look = [_look(code.rotation, gaze) for gaze in code.gaze]
    return {
        "id": number, "tracked": bool(performance.tracked[index]), "confidence": round(code.confidence, 4),
        "landmarks68": landmarks.round(3).tolist(), "rotation": code.rotation.round(6).tolist(),
        "translation": code.translation.round(6).tolist(), "focal": performance.person.camera.focal,
        "gaze": {
            "left": {"yaw": float(code.gaze[0, 0]), "pitch": float(code.gaze[0, 1]), "direction": look[0].round(5).tolist()},
            "right": {"yaw": float(code.gaze[1, 0]), "pitch": float(code.gaze[1, 1]), "direction": look[1].round(5).tolist()},
        },
        "expressions": {name: round(float(v), 4) for name, v in zip(EXPRESSIONS, code.expression)},
        "landmark_error_percent": _finite(100 * performance.error[index]),
    } | _appearance(performance, code, reflectance)  # fmt: skip


def _appearance(performance: Performance, code, reflectance: Reflectance | None) -> dict:
    """Skin and light, where pixels were looked at."""
    if code.light is None or reflectance is None:
        return {}
    return {
        "light": code.light.round(5).tolist(), "light_direction": dominant_direction(code.light).round(5).tolist(),
        "skin_albedo": reflectance.mean_skin(performance.person.albedo).round(5).tolist(),
    }  # fmt: skip


def _look(rotation: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """Unit vector of a look in camera axes."""
    return rotation @ rotation_of_gaze(gaze) @ np.array([0.0, 0, -1])


def _mean_percent(error: np.ndarray) -> float | None:
    return float(100 * np.nanmean(error)) if np.isfinite(error).any() else None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def write_json(path: str | Path, report: dict) -> None:
    """Writes a report, aside first and then renamed."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(json.dumps(report, indent=1, allow_nan=False))
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(f"{path}: can't be written ({error.strerror or error}). Name a place you may write to.") from None
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: str | Path | None) -> None:
    """Refuses a report's or a performance's place before any work is done."""
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise MediaError(f"{path}: is a folder. Name a file in it.")
    if not path.parent.is_dir():
        raise MediaError(f"{path}: the folder {path.parent} does not exist. Make it first or name another.")
    probe = path.with_name(f".{path.name}.partial")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise MediaError(f"{path}: can't be written ({error.strerror or error}). Name a place you may write to.") from None


def draw_overlay(image: np.ndarray, people: list[tuple[np.ndarray, bool]]) -> np.ndarray:
    """The picture with everyone's 68 points drawn over it: green where seen, orange where held."""
    out = image.copy()
    shift = 4  # sub-pixel bits of OpenCV's drawing
    thick = max(1, round(max(image.shape[:2]) / 700))
    for points, seen in people:
        colour = _FOUND if seen else _HELD
        fixed = np.round((points - 0.5) * (1 << shift)).astype(np.int32)
        for first, last, closed in _LINES:
            cv2.polylines(out, [fixed[first : last + 1]], closed, colour, thick, cv2.LINE_AA, shift)
        for x, y in fixed:
            cv2.circle(out, (int(x), int(y)), (thick + 1) << shift, colour, -1, cv2.LINE_AA, shift)
    return out


def write_overlay(output: str | Path, tracked: Tracked, prior: AnnyPrior, media: Media, listen: Listener = silent) -> None:
    """Writes the input with the fitted landmarks over it: a video, or a picture of a photo."""
    landmarks = {k: fitted_landmarks(prior, p) for k, p in tracked.performances.items()}

    def drawn(index: int, image: np.ndarray) -> np.ndarray:
        people = [
            (landmarks[k](index), bool(p.tracked[index])) for k, p in tracked.performances.items() if p.tracked[: index + 1].any()
        ]
        return draw_overlay(image, people)

    if media.is_photo:
        write_photo(output, drawn(0, next(iter(media)).image))
        return
    sound = media.path if media.has_audio else None
    start = getattr(media, "start", 0.0)
    with VideoWriter(output, media.width, media.height, audio_from=sound, audio_start=start, rate=media.average_rate) as writer:
        for index, frame in enumerate(counted(media, "preview", len(tracked.times), listen)):
            if index < len(tracked.times):
                writer.write(drawn(index, frame.image), frame.time, frame.duration)
