"""One visitor of the page's Live tab: camera frames come in, the engine runs beside, pictures go out as they are made."""

from __future__ import annotations

import base64
import logging
import threading
from collections.abc import Callable, Iterator
from time import monotonic

import cv2
import numpy as np

from capture.frame import Frame
from capture.sinks import NullSink
from pipeline.engine import Engine, Pace
from pipeline.live import LiveLoop
from pipeline.mailbox import Closed, Mailbox
from pipeline.mark import marked

log = logging.getLogger("understudy")
_SIDE = 720  # longest side of a live picture
_QUALITY = 82  # of its JPEG
_GONE = 20.0  # seconds without a frame after which a visitor has left without saying so


class _Shown(NullSink):
    """Encodes pictures as the browser takes them; the newest waits."""

    watched = True

    def __init__(self) -> None:
        self.box: Mailbox[str] = Mailbox()

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        self.box.put(encoded(marked(limited(image))))

    def close(self) -> None:
        self.box.close()


class LiveVisit:
    """A camera in a browser, what is made of it, and how it goes. Threads of its own, until `close`."""

    def __init__(self, loop: LiveLoop, source: str, left: Callable[[], None] = lambda: None):
        """Args:
        source: the name of who is moved.
        left: is called once, when it is over.
        """
        self.loop, self.source, self._left = loop, source, left
        self._arrived: Mailbox[Frame] = Mailbox()
        self._shown = _Shown()
        self._last = monotonic()
        self.engine = Engine(self._frames, loop, self._shown, Pace(real_time=False, max_age=0.25))
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
        spoke = -np.inf
        while True:
            try:
                picture = self._shown.box.take()
            except Closed:
                return
            words = None
            if monotonic() - spoke > 0.7:
                spoke = monotonic()
                words = self.engine.status()
            yield picture, words

    def close(self) -> None:
        """Ends it; may be called again, from any thread."""
        self._arrived.close()
        self.engine.stop()
        self._shown.close()

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
        try:
            self.engine.run()
        except Closed:
            pass
        except Exception:
            log.exception("a live visit failed")
        finally:
            self.close()
            self.loop.close()
            self._left()


def limited(image: np.ndarray) -> np.ndarray:
    """A picture no larger than a live one may be."""
    scale = _SIDE / max(image.shape[:2])
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image


def encoded(image: np.ndarray) -> str:
    """A picture as a data URL."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()
