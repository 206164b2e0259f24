"""Environment maps from files: linear radiance in latitude-longitude, as .hdr (Radiance) or .exr (OpenEXR) hold it, uncut."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from capture.errors import MediaError

WIDEST = 16384  # pixels that are read
KEPT = 2048  # pixels of width that are kept
_ASPECT = 0.02  # by which width may be off twice the height
_BRIGHTEST = 1e9  # white is about 1, the sun's disk some 1e5


def read_environment(path: str | Path) -> np.ndarray:
    """H x W x 3 float32 linear RGB radiance, at most `KEPT` wide, in latitude-longitude: top up, middle ahead.

    Raises:
        MediaError: where the file is none, is cut off, holds values that are no light, or is no latitude-longitude picture.
    """
    path = Path(path)
    if not path.is_file():
        raise MediaError(f"{path}: no such file. Give an environment map (.hdr or .exr).")
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(b"\x76\x2f\x31\x01"):
        radiance = _read_exr(path)
    elif head.startswith((b"#?RADIANCE", b"#?RGBE")):
        radiance = _read_radiance(path, head)
    else:
        raise MediaError(f"{path}: not an environment map: neither Radiance nor OpenEXR. Give linear light as .hdr or .exr.")
    radiance = radiance[..., :3].astype(np.float32)
    wrong = int((~np.isfinite(radiance)).any(-1).sum())
    if wrong:
        raise MediaError(
            f"{path}: {wrong} of {radiance.shape[0] * radiance.shape[1]} texels are not a number or infinite, expected finite "
            "radiance. Save the map again without them."
        )
    if radiance.max() > _BRIGHTEST:
        raise MediaError(
            f"{path}: a texel is {radiance.max():.3g}, expected at most {_BRIGHTEST:g} (white is about 1). Scale the map down."
        )
    if (radiance < 0).any():
        radiance = np.maximum(radiance, 0)  # what filters ring to
    if radiance.max() <= 0:
        raise MediaError(f"{path}: every texel is 0, so nothing would be lit. Give a map with light in it.")
    if radiance.shape[1] > KEPT:
        size = KEPT, KEPT // 2
        radiance = cv2.resize(radiance, size, interpolation=cv2.INTER_AREA)
    return radiance


def _check_shape(path: Path, width: int, height: int) -> None:
    if width > WIDEST:
        raise MediaError(f"{path}: {width}x{height} is too large, expected at most {WIDEST} wide. Scale it down: 2048 is plenty.")
    if height < 2 or abs(width / height - 2) > 2 * _ASPECT:
        raise MediaError(
            f"{path}: {width}x{height} is no latitude-longitude picture, expected twice as wide as high. Convert the map first "
            "(cube maps and mirror balls are not read)."
        )


def _read_radiance(path: Path, head: bytes) -> np.ndarray:
    size = re.search(rb"[-+]Y\s+(\d+)\s+[-+]X\s+(\d+)", head)
    if size is None:
        raise MediaError(f"{path}: a damaged Radiance picture without its size. Save it again as .hdr or .exr.")
    height, width = int(size.group(1)), int(size.group(2))
    _check_shape(path, width, height)
    cv2.setLogLevel(0)  # its complaints would stand beside our one line
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 3 or picture.shape[:2] != (height, width):
        raise MediaError(f"{path}: a Radiance picture that is cut off or damaged. Save or download it again.")
    return picture[..., ::-1]


def _read_exr(path: Path) -> np.ndarray:
    import OpenEXR

    try:
        with OpenEXR.File(str(path), header_only=True) as file:
            low, high = file.header()["dataWindow"]
        width, height = (int(v) for v in np.asarray(high) - np.asarray(low) + 1)
    except (RuntimeError, KeyError, ValueError, TypeError, OSError):
        raise MediaError(f"{path}: an OpenEXR picture that is cut off or damaged. Save or download it again.") from None
    _check_shape(path, width, height)
    try:
        with OpenEXR.File(str(path)) as file:
            channels = file.channels()
            name = next((n for n in ("RGB", "RGBA") if n in channels), None)
            pixels = channels[name].pixels[..., :3] if name else np.stack([channels[c].pixels for c in "RGB"], -1)
    except (RuntimeError, KeyError, ValueError, TypeError, OSError):
        raise MediaError(f"{path}: an OpenEXR picture that is cut off, or without R, G and B. Save it again.") from None
    return np.asarray(pixels, np.float32)
