"""Where live pictures go: a file, a window, a camera that other programs see, or nowhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from capture.errors import MediaError
from capture.writer import VideoWriter

NULL, WINDOW, VIRTUAL_CAMERA = "null", "window", "virtualcam"
_CAMERA_RATE = 30  # what a virtual camera says of itself; pictures are sent when they are there


class SinkClosed(Exception):
    """Whoever watched has closed the window: a normal end."""


class Sink(Protocol):
    """Takes pictures as they come; `close` finishes, `discard` drops what can be dropped."""

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None: ...

    def close(self) -> None: ...

    def discard(self) -> None: ...


class NullSink:
    """Takes everything and keeps nothing."""

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        """Nothing happens."""

    def close(self) -> None:
        """Nothing is open."""

    discard = close


class Window:
    """A window on this machine's screen; q, Escape or its cross end the show. Use from one thread."""

    watched = True  # any size will do
    _TITLE = "Understudy (q ends)"

    def __init__(self) -> None:
        self.check()
        cv2.namedWindow(self._TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)
        self._shown = False

    @staticmethod
    def check() -> None:
        """Raises MediaError where there is no screen. Asked in another process, for without one Qt ends its own."""
        asked = subprocess.run(
            [sys.executable, "-c", "import cv2; cv2.namedWindow('?'); cv2.destroyAllWindows()"], capture_output=True
        )
        if asked.returncode != 0:
            raise MediaError("window: no screen answers on this machine. Use --sink OUT.mp4, virtualcam or null, or the page.")

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        cv2.imshow(self._TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        if not self._shown:
            cv2.resizeWindow(self._TITLE, image.shape[1], image.shape[0])
            self._shown = True
        key = cv2.waitKey(1) & 0xFF
        if key in (27, ord("q")) or cv2.getWindowProperty(self._TITLE, cv2.WND_PROP_VISIBLE) < 1:
            raise SinkClosed

    def close(self) -> None:
        cv2.destroyWindow(self._TITLE)

    discard = close


class VirtualCamera:
    """A camera that other programs can choose, through pyvirtualcam (optional) and the system's loopback device."""

    def __init__(self, width: int, height: int):
        self.check()
        import pyvirtualcam

        try:
            self._camera = pyvirtualcam.Camera(width, height, _CAMERA_RATE, fmt=pyvirtualcam.PixelFormat.RGB)
        except (RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())[:160].rstrip(".")
            raise MediaError(
                f"virtualcam: no virtual camera takes {width}x{height} pictures ({reason}). On Debian: apt install "
                "v4l2loopback-dkms, then modprobe v4l2loopback; with OBS on Windows or macOS: start its virtual camera once."
            ) from None

    @staticmethod
    def check() -> None:
        """Raises MediaError where the package is missing."""
        try:
            import pyvirtualcam  # noqa: F401
        except ImportError:
            raise MediaError(
                "virtualcam: the package pyvirtualcam is not installed. Install it (.venv/bin/pip install pyvirtualcam==0.15.0) "
                "and a loopback device (Debian: apt install v4l2loopback-dkms, then modprobe v4l2loopback)."
            ) from None

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        self._camera.send(np.ascontiguousarray(image))

    def close(self) -> None:
        self._camera.close()

    discard = close


class Fitted:
    """Pictures of any size into a sink of one size: whole, in the middle, on black."""

    def __init__(self, sink: Sink, width: int, height: int):
        self._sink, self._width, self._height = sink, width, height

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        self._sink.write(fitted(image, self._width, self._height), time, duration)

    def close(self) -> None:
        self._sink.close()

    def discard(self) -> None:
        self._sink.discard()


def fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """H x W x C uint8: a picture whole in another size, in the middle, on black; on nothing where it has an alpha."""
    if image.shape[:2] == (height, width):
        return image
    scale = min(width / image.shape[1], height / image.shape[0])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    out = np.zeros((height, width, image.shape[2]), np.uint8)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out


def halved(image: np.ndarray) -> np.ndarray:
    """A picture at half its size."""
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


class Copied:
    """Two sinks that get the same; where the second one fails, the first one goes on and `failed` says why."""

    def __init__(self, first: Sink, second: Sink):
        self._first, self._second = first, second
        self.failed: Exception | None = None

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        self._first.write(image, time, duration)
        if self.failed is None:
            try:
                self._second.write(image, time, duration)
            except Exception as error:
                self.failed = error

    def close(self) -> None:
        self._first.close()
        try:
            self._second.close()
        except Exception as error:
            self._second.discard()
            self.failed = self.failed or error

    def discard(self) -> None:
        self._first.discard()
        self._second.discard()


def is_file(name: str) -> bool:
    """Whether a sink's name is that of a file to write."""
    return name not in (NULL, WINDOW, VIRTUAL_CAMERA)


def check_sink(name: str, alpha: bool = False) -> None:
    """Refuses, before any work is done, a sink that can't be had as far as can be told.

    Args:
        alpha: it is to take transparent pictures.
    """
    if alpha and name in (WINDOW, VIRTUAL_CAMERA):
        raise MediaError(f"{name}: shows nothing transparent. Use --sink OUT.webm, or another background.")
    if name == WINDOW:
        Window.check()
    elif name == VIRTUAL_CAMERA:
        VirtualCamera.check()
    else:
        open_sink(name, 16, 16, **({"alpha": alpha} if is_file(name) else {})).discard()


def open_sink(name: str, width: int, height: int, **options) -> Sink:
    """A sink by its name: `null`, `window`, `virtualcam`, or the path of a video to write (.mp4, .mov, .mkv, .webm).

    Args:
        options: of `VideoWriter`, for a file.

    Raises:
        MediaError: where it can't be had.
    """
    if name == NULL:
        return NullSink()
    if name == WINDOW:
        return Window()
    if name == VIRTUAL_CAMERA:
        return VirtualCamera(width, height)
    if not Path(name).suffix:
        raise MediaError(f"{name}: unknown sink, expected null, window, virtualcam or a file OUT.mp4. Choose one of these.")
    return VideoWriter(name, width, height, **options)
