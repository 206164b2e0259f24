"""Photos in and out: upright, 8-bit sRGB, whatever they were stored as."""

from __future__ import annotations

import io
import os
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from capture.errors import MediaError
from capture.frame import Frame

_MOST_PIXELS = 100_000_000
_BACKDROP = (128, 128, 128)  # what shows through transparent parts: grey favours neither light nor dark hair
_DESCRIPTION = 0x010E  # EXIF's ImageDescription
Image.MAX_IMAGE_PIXELS = _MOST_PIXELS


def _encode(linear: np.ndarray) -> np.ndarray:
    linear = np.clip(np.nan_to_num(linear), 0, 1)
    return np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)).astype(np.uint8)


def _read_linear(path: Path) -> np.ndarray:
    """.hdr and .exr hold linear light; white is 1, brighter is cut."""
    if path.read_bytes()[:4] == b"\x76\x2f\x31\x01":
        import OpenEXR

        try:
            with OpenEXR.File(str(path)) as file:
                channels = file.channels()
                name = next((n for n in ("RGB", "RGBA") if n in channels), None)
                pixels = channels[name].pixels[..., :3] if name else np.stack([channels[c].pixels for c in "RGB"], -1)
        except (RuntimeError, KeyError, ValueError, TypeError):
            raise MediaError(f"{path}: not a readable EXR with R, G and B. Save it again as EXR, PNG or JPEG.") from None
        return _encode(np.asarray(pixels, np.float32))
    cv2.setLogLevel(0)  # its complaints would stand beside our one line
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3:
        raise MediaError(f"{path}: a damaged or empty Radiance picture. Save it again as HDR, PNG or JPEG.")
    return _encode(image[..., ::-1])


def is_linear(head: bytes) -> bool:
    """Whether a file's first bytes are Radiance's or OpenEXR's."""
    return head.startswith((b"#?RADIANCE", b"#?RGBE", b"\x76\x2f\x31\x01"))


def read_photo(path: str | Path) -> Frame:
    """The photo as an upright uint8 sRGB `Frame` at time 0.

    Transparent parts lie on mid grey; 16-bit greys are scaled, not cut; CMYK, palettes and the colours of another profile
    than sRGB, as phones have them, are converted.

    Raises:
        MediaError: where the file is no picture, is cut off, or has over 100 megapixels.
    """
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(16)
    if is_linear(head):
        return Frame(np.ascontiguousarray(_read_linear(path)))
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > _MOST_PIXELS:
                raise Image.DecompressionBombError
            picture.load()
            picture = ImageOps.exif_transpose(picture)
            if picture.mode in ("I;16", "I;16B", "I;16L", "I"):
                grey = np.asarray(picture).astype(np.float64)
                top = 65535.0 if grey.max() > 255 else 255.0
                grey = np.round(np.clip(grey / top, 0, 1) * 255).astype(np.uint8)
                return Frame(np.ascontiguousarray(np.repeat(grey[..., None], 3, -1)))
            picture = _in_srgb(picture)
            if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
                rgba = picture.convert("RGBA")
                backdrop = Image.new("RGBA", rgba.size, (*_BACKDROP, 255))
                picture = Image.alpha_composite(backdrop, rgba)
            image = np.asarray(picture.convert("RGB"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError(f"{path}: over {_MOST_PIXELS // 10**6} megapixels. Scale it down first.") from None
    except UnidentifiedImageError:
        raise MediaError(f"{path}: not a picture that can be read. Give a JPEG, PNG or WebP.") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        reason = "it is cut off" if "trunc" in str(error) else "it is damaged"
        raise MediaError(f"{path}: the picture can't be decoded, {reason}. Save or download it again.") from None
    return Frame(np.ascontiguousarray(image))


def _in_srgb(picture: Image.Image) -> Image.Image:
    """The picture in sRGB's colours, by its own profile if it carries one that can be used."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode not in ("RGB", "RGBA", "CMYK"):
        return picture
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(own):
            return picture
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        return ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB"), outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # of other colours than the picture's, or damaged
        return picture


def check_photo_output(path: str | Path) -> None:
    """Refuses a picture's place or kind before any work is done."""
    path = Path(path)
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise MediaError(f"{path}: can't write a picture as {path.suffix or 'that'}. Use .png, .jpg or .webp.")
    if not path.parent.is_dir():
        raise MediaError(f"{path}: the folder {path.parent} does not exist. Make it first or name another.")
    if not os.access(path.parent, os.W_OK) or path.is_dir():
        raise MediaError(f"{path}: can't be written. Name a place you may write to.")


def write_photo(path: str | Path, image: np.ndarray, comment: str | None = None) -> None:
    """Writes H x W x 3 uint8 sRGB (x 4 with alpha) as PNG, JPEG or WebP by the name's ending, aside first and then renamed.

    Args:
        comment: what its EXIF says it shows.
    """
    check_photo_output(path)
    path = Path(path)
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        about = Image.Exif()
        if comment:
            about[_DESCRIPTION] = comment
        Image.fromarray(image).save(partial, quality=95, exif=about)
        os.replace(partial, path)
    except OSError as error:
        raise MediaError(f"{path}: can't be written ({error.strerror or error}). Name a place you may write to.") from None
    finally:
        partial.unlink(missing_ok=True)
