"""One visitor of the page's Live tab: camera frames come in, the engine runs beside, pictures go out as they are made."""

from __future__ import annotations

import base64
import io
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from capture.frame import Frame
from capture.sinks import NullSink, fitted, halved
from capture.writer import VideoWriter
from pipeline.live.engine import Engine, Pace
from pipeline.live.loop import Followed, LiveLoop
from pipeline.live.mailbox import Closed, Mailbox
from pipeline.live.recorder import PerformanceRecorder
from pipeline.mark import marked
from pipeline.page.memory import give_back

log = logging.getLogger("understudy")
_SIDE = 720  # longest side of a live picture
_QUALITY = 82  # of its JPEG
_OLDEST = 0.25  # seconds after which a frame is dropped
_LONGEST = 7200.0  # seconds of a recording
_UNCONNECTED, _NOTHING_CAME = 10.0, 60.0  # seconds after which a place is free again: no browser came; no frame came
_ON_THEIR_WAY = 30  # frames, at most, between browser and browser
_MOST_PIXELS = 4096 * 4096  # of a frame


class _Recording:
    """What is shown, as a video, and what the driver's face did, as codes; from one moment to another."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], comment: str | None):
        self._folder, self._start = folder, None
        self._size, alpha = shape[:2], shape[2] == 4
        self._channels = shape[2]
        self._file = folder / ("live.webm" if alpha else "live.mp4")
        self._writer = VideoWriter(self._file, shape[1], shape[0], preset="ultrafast", comment=comment, alpha=alpha)
        self._codes = PerformanceRecorder()

    def write(self, image: np.ndarray, time: float) -> None:
        self._start = time if self._start is None else self._start
        if time - self._start < _LONGEST:
            if image.shape[2] < self._channels:  # the background has changed meanwhile
                image = np.dstack([image, np.full(image.shape[:2], 255, np.uint8)])
            picture = np.ascontiguousarray(image[..., : self._channels])
            self._writer.write(fitted(picture, self._size[1], self._size[0]), time - self._start)

    def heard(self, followed: Followed) -> None:
        self._codes.heard(followed)

    def close(self) -> list[str]:
        """The files written; none where nothing was shown meanwhile."""
        if self._start is None:
            self._writer.discard()
            return []
        self._writer.close()
        files = [self._file]
        if self._codes:
            files.append(self._folder / "live.safetensors")
            self._codes.performance().save(files[-1])
        return [str(file) for file in files]


class Made(NamedTuple):
    """A picture on its way to the browser: its file, and the moment its frame was taken, by the browser's clock (NaN: none)."""

    file: bytes
    taken: float


class _Arrived(NamedTuple):
    jpeg: bytes
    taken: float
    time: float  # monotonic seconds


class _Moments:
    """When frames on their way were taken, by the browser's clock; put and taken in two threads."""

    def __init__(self) -> None:
        self._lock, self._taken = threading.Lock(), deque(maxlen=_ON_THEIR_WAY)

    def put(self, time: float, taken: float) -> None:
        with self._lock:
            self._taken.append((time, taken))

    def take(self, time: float) -> float:
        """NaN where no frame was of that time; those before it are forgotten."""
        with self._lock:
            while self._taken and self._taken[0][0] <= time:
                at, taken = self._taken.popleft()
                if at == time:
                    return taken
        return math.nan


class _Shown(NullSink):
    """Encodes pictures as the browser takes them."""

    def __init__(self, loop: LiveLoop) -> None:
        self.loop: LiveLoop | None = loop
        self.hand_over: Callable[[Made], None] = lambda made: None
        self.moments = _Moments()
        self.recording: _Recording | None = None
        self.lock = threading.Lock()  # held while a recording is written to, begun or ended

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        image = marked(limited(image))
        with self.lock:
            if self.recording is not None:
                self.recording.write(image, time)
        self.hand_over(Made(encoded(halved(image) if self.loop.sparing else image), self.moments.take(time)))

    def heard(self, followed: Followed) -> None:
        with self.lock:
            if self.recording is not None:
                self.recording.heard(followed)


class LiveVisit:
    """A camera in a browser, what is made of it, and how it goes. Threads of its own, until `close`."""

    def __init__(self, loop: LiveLoop, left: Callable[[], None] = lambda: None):
        """Args:
        left: is called once, when it is over.
        """
        self.loop: LiveLoop | None = loop  # None once it is over: Gradio keeps a visitor's things for an hour
        self._left = left
        self._reason: str | None = None  # of the end, in words
        self._say: Callable[[str], None] = lambda words: None
        self._ended: Callable[[str | None], None] = lambda words: None
        self._arrived: Mailbox[_Arrived] = Mailbox()
        self._shown = _Shown(loop)
        self._last, self._patience = monotonic(), _UNCONNECTED
        self.engine: Engine | None = Engine(
            self._frames, loop, self._shown, Pace(real_time=False, max_age=_OLDEST, epoch=0.0), lambda words: self._say(words),
            self._shown.heard,
        )  # fmt: skip
        self._thread = threading.Thread(target=self._run, name="live visit", daemon=True)
        self._thread.start()

    def connect(
        self, hand_over: Callable[[Made], None], say: Callable[[str], None], ended: Callable[[str | None], None]
    ) -> None:  # fmt: skip
        """Who is shown the pictures, is told in words how it goes, and hears of the end (and, where there is one, its reason).

        They are called from other threads.
        """
        self._shown.hand_over, self._say, self._ended = hand_over, say, ended
        self._last, self._patience = monotonic(), _NOTHING_CAME
        if self.loop is None:
            ended(None)

    def arrive(self, jpeg: bytes, taken: float, late: float) -> None:
        """A camera frame as a JPEG; what it replaces is gone.

        Args:
            taken: the moment it was taken, by the browser's clock, which comes back with the picture that is made of it.
            late: seconds since then.
        """
        late = min(max(late, 0.0), 1.0) if math.isfinite(late) else 0.0
        try:
            self._arrived.put(_Arrived(jpeg, taken, monotonic() - late))
        except Closed:
            pass

    def seen(self, age: float) -> None:
        """A picture is on the screen, `age` seconds after its frame was taken."""
        if (engine := self.engine) is not None:
            engine.clock.add("screen", age)

    @property
    def records(self) -> bool:
        return self._shown.recording is not None

    def record(self, folder: Path, comment: str | None = None) -> None:
        """Begins to keep what is shown; no longer than two hours."""
        with self._shown.lock:
            if self.loop is not None:
                self._shown.recording = _Recording(folder, limited(self.loop.rest_picture()).shape, comment)

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
        if (engine := self.engine) is not None:
            engine.stop()
        if wait:
            self._thread.join(wait)

    def _frames(self) -> Iterator[Frame]:
        while True:
            try:
                arrived = self._arrived.take(monotonic() + 1.0)
            except Closed:
                return
            if arrived is not None:
                self._last = monotonic()
                image = decoded(arrived.jpeg)
                if image is not None:
                    self._shown.moments.put(arrived.time, arrived.taken)
                    yield Frame(image, arrived.time)
            elif monotonic() - self._last > self._patience:
                self._reason = "No picture of a camera came for a minute, so the place was given to others. Press Start again."
                return

    def _run(self) -> None:
        engine, loop = self.engine, self.loop
        try:
            engine.run()
        except Closed:
            pass
        except Exception:
            log.exception("a live visit failed")
            self._reason = "Something went wrong here; it is in the server's log. Press Start again."
        finally:
            self.close()
            loop.close()
            self.engine = self.loop = self._shown.loop = engine = loop = None
            self._left()
            self._ended(self._reason)
            give_back()


def limited(image: np.ndarray) -> np.ndarray:
    """A picture no larger than a live one may be."""
    scale = _SIDE / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def encoded(image: np.ndarray) -> bytes:
    """A picture as a JPEG; a transparent one (x 4) as a PNG."""
    if image.shape[2] == 4:
        return cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGBA2BGRA), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def as_url(image: np.ndarray) -> str:
    """A picture as a data URL."""
    kind = "png" if image.shape[2] == 4 else "jpeg"
    return f"data:image/{kind};base64," + base64.b64encode(encoded(image)).decode()


def decoded(jpeg: bytes) -> np.ndarray | None:
    """H x W x 3 uint8 sRGB; None for what is no picture, or a huge one."""
    try:
        with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as header:  # reads no pixel
            if math.prod(header.size) > _MOST_PIXELS:
                return None
    except (OSError, Image.DecompressionBombError):
        return None
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
