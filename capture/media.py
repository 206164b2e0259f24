"""One door for everything that can be looked at: a video, a photo, a folder of pictures, a webcam.

What a file is, its first bytes say; its name is never trusted.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from capture.errors import MediaError
from capture.frame import Frame
from capture.photo import is_linear, read_photo
from capture.video import VideoReader
from capture.webcam import WebcamReader

Kind = Literal["video", "photo", "folder", "webcam"]
_FOLDER_RATE = Fraction(25)
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".hdr", ".exr"}


class Media(Protocol):
    """Frames, again and again; a context manager. `width` and `height` are the frames' own."""

    path: str
    width: int
    height: int
    is_photo: bool
    has_audio: bool
    average_rate: Fraction | None
    duration: float | None
    frame_count_estimate: int | None

    def __iter__(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...
    def __enter__(self) -> Media: ...
    def __exit__(self, *_: object) -> None: ...


class StillPicture:
    """A picture that is already in memory: H x W x 3 uint8 sRGB."""

    is_photo = True
    has_audio = False
    average_rate = None
    duration = 0.0
    frame_count_estimate = 1

    def __init__(self, image: np.ndarray, name: str):
        self.path, self._frame = name, Frame(image)
        self.width, self.height = self._frame.width, self._frame.height

    def __iter__(self) -> Iterator[Frame]:
        yield self._frame

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> StillPicture:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""


class PictureReader:
    """A photo (one frame) or a folder of them (sorted by name, 25 a second, all of the first one's size)."""

    has_audio = False

    def __init__(self, path: Path, files: list[Path]):
        self.path, self._files = str(path), files
        self.is_photo = len(files) == 1
        first = read_photo(files[0])
        self._first = first if self.is_photo else None
        self.width, self.height = first.width, first.height
        self.average_rate = None if self.is_photo else _FOLDER_RATE
        self.duration = 0.0 if self.is_photo else float(len(files) / _FOLDER_RATE)
        self.frame_count_estimate = len(files)

    def __iter__(self) -> Iterator[Frame]:
        if self._first is not None:
            yield self._first
            return
        import cv2

        step = float(1 / _FOLDER_RATE)
        for number, file in enumerate(self._files):
            image = read_photo(file).image
            if image.shape[:2] != (self.height, self.width):
                image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
            yield Frame(image, number * step, step)

    def close(self) -> None:
        """Nothing stays open."""

    def __enter__(self) -> PictureReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Excerpt:
    """Frames `first` up to `last` of another media, with the times they have there."""

    def __init__(self, media: Media, first: int = 0, last: int | None = None):
        self._media, self._first, self._last = media, first, last
        self.path, self.width, self.height = media.path, media.width, media.height
        self.is_photo, self.has_audio, self.average_rate = media.is_photo, media.has_audio, media.average_rate
        self.duration = media.duration
        known = media.frame_count_estimate
        end = known if last is None else last if known is None else min(last, known)
        self.frame_count_estimate = None if end is None else max(end - first, 0)

    def __iter__(self) -> Iterator[Frame]:
        return islice(iter(self._media), self._first, self._last)

    def close(self) -> None:
        self._media.close()

    def __enter__(self) -> Excerpt:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def probe(path: str | Path) -> Kind:
    """What lies behind a path. Raises MediaError with one clear line where nothing usable does."""
    text = str(path)
    if text.startswith("webcam:"):
        return "webcam"
    if not os.path.exists(text):
        raise MediaError(f"{text}: no such file. Give the path of a video or a photo.")
    if os.path.isdir(text):
        return "folder"
    try:
        with open(text, "rb") as file:
            head = file.read(64)
    except OSError as error:
        raise MediaError(f"{text}: can't be opened ({error.strerror}). Check that you may read it.") from None
    if not head:
        raise MediaError(f"{text}: the file is empty. Copy or download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise MediaError(f"{text}: a git-lfs pointer, not the video itself. Run `git lfs pull` where it comes from.")
    if is_linear(head):
        return "photo"
    try:
        with Image.open(text) as picture:
            return "video" if getattr(picture, "n_frames", 1) > 1 and picture.format in ("GIF", "WEBP", "PNG") else "photo"
    except UnidentifiedImageError:
        return "video"
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return "photo"  # it is a picture, if a bad one: reading it says what is wrong


def open_media(path: str | Path) -> Media:
    """Opens whatever `path` is: a file, a folder of pictures, or `webcam:0`."""
    kind = probe(path)
    if kind == "webcam":
        number = str(path).partition(":")[2]
        if not number.isdigit():
            raise MediaError(f"{path}: not a camera's number. Use webcam:0 for the first one.")
        return WebcamReader(int(number))
    if kind == "photo":
        return PictureReader(Path(path), [Path(path)])
    if kind == "folder":
        files = sorted(p for p in Path(path).iterdir() if p.suffix.lower() in _PICTURES)
        if not files:
            raise MediaError(f"{path}: a folder without pictures. Give a video, a photo, or a folder of pictures.")
        return PictureReader(Path(path), files)
    return VideoReader(path)
