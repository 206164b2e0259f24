"""The live engine: capture, follow, draw and deliver at the same time, each in a thread of its own.

Stages hand values on through one-slot mailboxes. From a camera, and wherever the result is watched, the newest frame wins and one
that is older than the limit when its turn comes is dropped; from a recorded clip into a file every frame is kept, and the result
is, pixel by pixel, that of the same loop without threads. Ages count from the moment a frame was taken.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import monotonic, sleep
from typing import NamedTuple

import numba
import numpy as np

from capture.errors import MediaError
from capture.frame import Frame
from capture.sinks import Sink, SinkClosed, halved
from pipeline.live.loop import Followed, LiveLoop
from pipeline.live.mailbox import Closed, Mailbox
from pipeline.live.shedding import Shedding
from pipeline.retargeting import HOLD

log = logging.getLogger(__name__)
_TICK = 1 / 30  # seconds between pictures while no frame comes
_MISSED = 3.0  # times the usual interval after which a frame is missed ...
_SOONEST, _LATEST = 0.1, 1.0  # ... but neither before nor after so many seconds
_STALE = 0.5  # seconds after which even an old frame is better than the same picture on
_BACK = 1.0  # seconds between looks for a camera that is gone
_FROZEN = 2.0  # seconds of exactly the same picture that no lens gives
_SWITCH = 0.0005  # seconds a thread may hold the interpreter while another waits: Python's own 5 ms are a fifth of a frame
_STATUS = 1.0  # seconds between words to the listener

Frames = Callable[[], Iterator[Frame]]


class Picture(NamedTuple):
    """What is delivered: H x W x 3 uint8 sRGB, its frame's time, seconds until the next, and whether there was no frame."""

    image: np.ndarray
    time: float
    duration: float
    missed: bool


@dataclass(frozen=True)
class Pace:
    """How frames come and go.

    Attributes:
        keep: every frame counts, however long it takes (a clip into a file); else the newest wins.
        real_time: frames of a recording come at their own times, as if filmed now.
        returns: frames that end are looked for again (a camera that was unplugged).
        max_age: seconds after which a frame whose turn comes is dropped; nothing is dropped with `keep`.
        epoch: time.monotonic() at the frames' time 0, where that is known; else the first frame counts as just taken.
    """

    keep: bool = False
    real_time: bool = True
    returns: bool = False
    max_age: float = 0.1
    epoch: float | None = None


class Engine:
    """Runs a live loop from frames to a sink until either ends, or `stop` is called."""

    def __init__(
        self, frames: Frames, loop: LiveLoop, sink: Sink, pace: Pace = Pace(), say: Callable[[str], None] | None = None,
        hears: Callable[[Followed], None] | None = None,
    ):  # fmt: skip
        """Args:
        frames: opens the stream of frames; called again where it ended and `pace.returns`.
        say: is told in a line how it goes, once a second.
        hears: gets what each frame told of the drivers.
        """
        self._frames, self._loop, self._sink, self._pace = frames, loop, sink, pace
        self._say, self._hears = say, hears
        self._taken: Mailbox[Frame] = Mailbox(pace.keep)
        self._followed: Mailbox[Followed] = Mailbox(pace.keep)
        self._drawn: Mailbox[Picture] = Mailbox(pace.keep)
        self._stopping = threading.Event()
        self._error: BaseException | None = None
        self._start = pace.epoch  # monotonic seconds at the stream's time 0
        self._shedding = Shedding(loop)
        self.clock = loop.clock  # with the stages deliver and age beside the loop's own, and screen where one tells
        self.frames_in = self.frames_out = self.too_old = self.lost = self.outages = self.frozen = 0
        self._seen, self._last_seen = False, 0.0
        self._moments: deque[float] = deque(maxlen=60)  # of the latest pictures

    def run(self) -> dict:
        """Works until the frames end or the sink is closed; returns `report()`. Raises what a camera, or the sink, raises.

        A KeyboardInterrupt ends it as `stop` does.
        """
        stages = [threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
                  for work in (self._capture, self._follow, self._draw)]  # fmt: skip
        sys.setswitchinterval(_SWITCH)
        self._began = self._shown = monotonic()
        for stage in stages:
            stage.start()
        try:
            self._deliver()
        except KeyboardInterrupt:
            pass
        finally:
            self.stop()
            for stage in stages:
                stage.join(5)
        if self._error is not None:
            raise self._error
        return self.report()

    def stop(self) -> None:
        """Ends it soon, from any thread."""
        self._stopping.set()
        for box in (self._taken, self._followed, self._drawn):
            box.close()

    def report(self) -> dict:
        """Counts, and milliseconds by stage."""
        span = max(monotonic() - self._began, 1e-9)
        ages = self.clock.latest("age", 10**9)
        newer = self._taken.dropped + self._followed.dropped + self._drawn.dropped
        return {
            "frames_in": self.frames_in, "frames_out": self.frames_out, "fps": self.frames_out / span, "seconds": span,
            "dropped": {"newer_came": newer, "too_old": self.too_old},
            "frames_without_face": self.lost, "faults": self._loop.faults, "camera_outages": self.outages,
            "frozen_frames": self.frozen,
            "age_ms": {"p50": _milliseconds(ages, 50), "p95": _milliseconds(ages, 95)},
            "shedding": self._shedding.report(), "stages": self.clock.rows(),
        }  # fmt: skip

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Closed:
            pass
        except BaseException as error:
            self._error = self._error or error
            self.stop()

    # capture

    def _capture(self) -> None:
        gone = False
        while not self._stopping.is_set():
            try:
                for frame in self._frames():
                    gone = False
                    self._hand_on(frame)
                    if self._stopping.is_set():
                        return
            except MediaError:
                if not self._pace.returns or not self.frames_in:
                    raise
            if not self._pace.returns or self._stopping.is_set():
                break
            if not gone:
                self.outages += 1
                log.warning("the camera is gone; it is looked for again")
            gone = True
            self._stopping.wait(_BACK)
        self._taken.close()

    def _hand_on(self, frame: Frame) -> None:
        now = monotonic()
        if self._start is None:
            self._start = now - frame.time
        if self._pace.returns:  # a camera that came back counts from 0 again: here time goes on
            if frame.time > now - self._start or frame.time < now - self._start - 1:
                frame = Frame(frame.image, now - self._start, frame.duration)
        elif self._pace.real_time and not self._pace.keep:
            self._sleep_until(self._start + frame.time)
        self.frames_in += 1
        if not self._shedding.wants(self.frames_in):
            return
        self._taken.put(frame)

    def _sleep_until(self, moment: float) -> None:
        while (left := moment - monotonic()) > 0 and not self._stopping.is_set():
            sleep(min(left, 0.1))

    # follow

    def _follow(self) -> None:
        previous: Frame | None = None
        changed = monotonic()
        arrived: float | None = None
        usual = _LATEST / _MISSED  # seconds between frames
        while True:
            until = None if self._pace.keep else monotonic() + _TICK
            if until is not None and arrived is not None:
                until = max(until, arrived + min(max(_MISSED * usual, _SOONEST), _LATEST))
            try:
                frame = self._taken.take(until)
            except Closed:
                self._followed.close()
                raise
            if frame is None:
                if arrived is not None:  # nothing has come in time: the picture goes on, towards rest
                    self._followed.put(self._loop.follow(None, monotonic() - self._start))
                continue
            now = monotonic()
            if arrived is not None:
                usual += 0.1 * (min(now - arrived, _LATEST) - usual)
            arrived = now
            if self._late(frame.time):
                continue
            if previous is None or self._pace.keep or not np.array_equal(previous.image, frame.image):
                changed = now
            elif now - changed > _FROZEN:
                self.frozen += 1
            previous = frame
            self._followed.put(self._loop.follow(frame))

    # draw

    def _draw(self) -> None:
        numba.set_num_threads(1)
        while True:
            try:
                followed = self._followed.take()
            except Closed:
                self._drawn.close()
                raise
            if self._late(followed.time):
                continue
            if not followed.missed or followed.time - self._last_seen > HOLD:
                self._seen = followed.seen
            if followed.seen:
                self._last_seen = followed.time
            self.lost += not followed.seen
            if self._hears is not None:
                self._hears(followed)
            self._drawn.put(Picture(self._loop.draw(followed), followed.time, followed.duration, followed.missed))

    # deliver

    def _deliver(self) -> None:
        spoke = monotonic()
        if not self._pace.keep:
            self._sink.write(self._loop.rest_picture(), 0.0)  # something to see until the first face is
        while True:
            try:
                picture = self._drawn.take(None if self._pace.keep else monotonic() + _STATUS)
            except Closed:
                return
            if picture is not None:
                try:
                    self.clock("deliver", lambda: self._sink.write(*self._spared(picture)[:3]))
                except SinkClosed:
                    return
                self.frames_out += 1
                self._shown = monotonic()
                self._moments.append(self._shown)
                if not self._pace.keep and not picture.missed:
                    self.clock.add("age", self._shown - self._start - picture.time)
                    self._shedding.heard(self.frames_in, self.frames_out, self.clock)
            if self._say is not None and monotonic() - spoke > _STATUS:
                spoke = monotonic()
                self._say(self.status())

    def status(self) -> str:
        """How it goes, in a line."""
        ages = self.clock.latest("screen", 90)
        seen = len(ages) > 0
        ages = ages if seen else self.clock.latest("age", 90)
        moments = list(self._moments)
        rate = (len(moments) - 1) / max(monotonic() - moments[0], 1e-9) if moments else 0.0
        words = [f"{rate:.0f} pictures a second"]
        if len(ages):
            spent = f"{_milliseconds(ages, 50):.0f} ms (p95 {_milliseconds(ages, 95):.0f})"
            words.append(f"camera to screen {spent}" if seen else f"age {spent}")
        dropped = self._taken.dropped + self._followed.dropped + self._drawn.dropped + self.too_old
        words.append(f"{dropped} of {self.frames_in} frames dropped")
        words.append("face seen" if self._seen else "no face seen: the picture holds, then rests")
        if self._shedding.level:
            words.append(self._shedding.words())
        return ", ".join(words)

    def _spared(self, picture: Picture) -> Picture:
        if self._shedding.level == 0 or not getattr(self._sink, "watched", False):
            return picture
        return picture._replace(image=halved(picture.image))

    def _late(self, time: float) -> bool:
        """Whether a frame is older than it may be, and something newer was shown a moment ago."""
        now = monotonic()
        if self._pace.keep or now - self._start - time <= self._pace.max_age or now - self._shown > _STALE:
            return False
        self.too_old += 1
        return True


def _milliseconds(seconds: np.ndarray, percent: float) -> float | None:
    return 1e3 * float(np.percentile(seconds, percent)) if len(seconds) else None
