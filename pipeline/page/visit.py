"""One visitor of the page's Live tab: camera frames come in, the engine runs beside, pictures go out as they are made."""

from __future__ import annotations

import base64
import ctypes
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import cv2
import numpy as np

from capture.frame import Frame
from capture.sinks import NullSink, fitted, halved
from capture.writer import VideoWriter
from pipeline.live.engine import Engine, Pace
from pipeline.live.loop import Followed, LiveLoop
from pipeline.live.mailbox import Closed, Mailbox
from pipeline.live.recorder import PerformanceRecorder
from pipeline.mark import marked

log = logging.getLogger("understudy")
_SIDE = 720  # longest side of a live picture
_QUALITY = 82  # of its JPEG
_OLDEST = 0.25  # seconds after which a frame is dropped
_LONGEST = 7200.0  # seconds of a recording
_GONE = 10.0  # seconds without a frame after which a visitor has left without saying so


class _Recording:
    """What is shown, as a video, and what the driver's face did, as codes; from one moment to another."""

    def __init__(self, folder: Path, size: tuple[int, int], comment: str | None):
        self._folder, self._start = folder, None
        self._size = size
        self._writer = VideoWriter(folder / "live.mp4", size[1], size[0], preset="ultrafast", comment=comment)
        self._codes = PerformanceRecorder()

    def write(self, image: np.ndarray, time: float) -> None:
        self._start = time if self._start is None else self._start
        if time - self._start < _LONGEST:
            self._writer.write(fitted(image, self._size[1], self._size[0]), time - self._start)

    def heard(self, followed: Followed) -> None:
        self._codes.heard(followed)

    def close(self) -> list[str]:
        """The files written; none where nothing was shown meanwhile."""
        if self._start is None:
            self._writer.discard()
            return []
        self._writer.close()
        files = [self._folder / "live.mp4"]
        if self._codes:
            files.append(self._folder / "live.safetensors")
            self._codes.performance().save(files[-1])
        return [str(file) for file in files]


class _Shown(NullSink):
    """Encodes pictures as the browser takes them; the newest waits."""

    def __init__(self, loop: LiveLoop) -> None:
        self.loop: LiveLoop | None = loop
        self.box: Mailbox[str] = Mailbox()
        self.recording: _Recording | None = None
        self.lock = threading.Lock()  # held while a recording is written to, begun or ended

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        image = marked(limited(image))
        with self.lock:
            if self.recording is not None:
                self.recording.write(image, time)
        self.box.put(encoded(halved(image) if self.loop.sparing else image))

    def heard(self, followed: Followed) -> None:
        with self.lock:
            if self.recording is not None:
                self.recording.heard(followed)

    def close(self) -> None:
        self.box.close()


class LiveVisit:
    """A camera in a browser, what is made of it, and how it goes. Threads of its own, until `close`."""

    def __init__(self, loop: LiveLoop, source: str, left: Callable[[], None] = lambda: None):
        """Args:
        source: the name of who is moved.
        left: is called once, when it is over.
        """
        self.loop: LiveLoop | None = loop  # None once it is over: Gradio keeps a visitor's things for an hour
        self.source, self._left = source, left
        self._arrived: Mailbox[Frame] = Mailbox()
        self._shown = _Shown(loop)
        self._last = monotonic()
        self.engine: Engine | None = Engine(
            self._frames, loop, self._shown, Pace(real_time=False, max_age=_OLDEST), hears=self._shown.heard
        )
        self._thread = threading.Thread(target=self._run, name="live visit", daemon=True)
        self._thread.start()

    def arrive(self, image: np.ndarray) -> None:
        """A camera frame, H x W x 3 uint8 sRGB; what it replaces is gone."""
        try:
            self._arrived.put(Frame(np.ascontiguousarray(image), monotonic()))
        except Closed:
            pass

    def pictures(self) -> Iterator[tuple[str, str | None]]:
        """(data URL, words about how it goes where there are new ones), until the visit is over."""
        spoke, engine = -np.inf, self.engine
        while engine is not None:
            try:
                picture = self._shown.box.take()
            except Closed:
                return
            words = None
            if monotonic() - spoke > 0.7:
                spoke = monotonic()
                words = engine.status()
            yield picture, words

    @property
    def records(self) -> bool:
        return self._shown.recording is not None

    def record(self, folder: Path, comment: str | None = None) -> None:
        """Begins to keep what is shown; no longer than two hours."""
        with self._shown.lock:
            if self.loop is not None:
                self._shown.recording = _Recording(folder, limited(self.loop.rest_picture()).shape[:2], comment)

    def recorded(self) -> list[str]:
        """Ends the recording; the paths of a video and of a performance, as far as there is anything in them."""
        with self._shown.lock:
            recording, self._shown.recording = self._shown.recording, None
        return [] if recording is None else recording.close()

    def close(self, wait: float = 0.0) -> None:
        """Ends it; may be called again, from any thread.

        Args:
            wait: seconds to wait at most until all of it is gone.
        """
        self._arrived.close()
        self._shown.close()
        if (engine := self.engine) is not None:
            engine.stop()
        if wait:
            self._thread.join(wait)

    def _frames(self) -> Iterator[Frame]:
        while True:
            try:
                frame = self._arrived.take(monotonic() + 1.0)
            except Closed:
                return
            if frame is not None:
                self._last = monotonic()
                yield frame
            elif monotonic() - self._last > _GONE:
                return

    def _run(self) -> None:
        engine, loop = self.engine, self.loop
        try:
            engine.run()
        except Closed:
            pass
        except Exception:
            log.exception("a live visit failed")
        finally:
            self.close()
            loop.close()
            self.engine = self.loop = self._shown.loop = engine = loop = None
            self._left()
            _give_back()


def _give_back() -> None:
    """Returns a visit's memory to the system: what holds each other is found, and what Linux' allocator keeps is let go."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        log.debug("memory is given back by itself here")


def limited(image: np.ndarray) -> np.ndarray:
    """A picture no larger than a live one may be."""
    scale = _SIDE / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def encoded(image: np.ndarray) -> str:
    """A picture as a data URL."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
