"""The live engine: the newest frame wins, old ones are dropped, cameras come and go, work is left out and taken up again."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from capture.errors import MediaError
from capture.frame import Frame
from capture.sinks import NullSink, SinkClosed
from pipeline.live.engine import Engine, Pace
from pipeline.live.loop import Followed, Performing
from pipeline.live.mailbox import Closed, Mailbox
from pipeline.live.shedding import Shedding

# one slot


def test_the_newest_item_wins():
    box = Mailbox()
    for item in range(5):
        box.put(item)
    assert box.take() == 4 and box.dropped == 4
    assert box.take(until=time.monotonic() + 0.01) is None


def test_a_box_that_keeps_makes_the_giver_wait():
    box, taken = Mailbox(keeps=True), []

    def give():
        for item in range(50):
            box.put(item)
        box.close()

    giver = threading.Thread(target=give)
    giver.start()
    with pytest.raises(Closed):
        while True:
            taken.append(box.take())
    giver.join()
    assert taken == list(range(50)) and box.dropped == 0


def test_closing_wakes_whoever_waits():
    box, ended = Mailbox(), threading.Event()

    def wait():
        try:
            box.take()
        except Closed:
            ended.set()

    threading.Thread(target=wait).start()
    box.close()
    assert ended.wait(5)
    with pytest.raises(Closed):
        box.put(1)


# the engine


class Watched(NullSink):
    def __init__(self, until: int = 10**9):
        self.pictures, self.times, self._until = [], [], until

    def write(self, image, at, duration=0.0):
        self.pictures.append(image)
        self.times.append(at)
        if len(self.pictures) >= self._until:
            raise SinkClosed


class Counting:
    """Stands for a loop: its pictures tell the frame's number."""

    def __init__(self, seconds: float = 0.0, gate: threading.Event | None = None):
        self.seconds, self.gate, self.faults, self.sparing = seconds, gate, 0, 0
        from pipeline.clock import StageClock

        self.clock = StageClock()
        self.without = 0

    def follow(self, frame, at=None):
        self.without += frame is None
        code = None if frame is None else int(frame.image[0, 0, 0])
        return Followed(at if frame is None else frame.time, (Performing(code),))

    def draw(self, followed):
        time.sleep(self.seconds)
        if self.gate is not None:
            self.gate.wait(10)
        return np.full((4, 4, 3), followed.drivers[0].code or 0, np.uint8)

    def rest_picture(self):
        return np.zeros((4, 4, 3), np.uint8)


def numbered(count: int, step: float = 0.01):
    return [Frame(np.full((4, 4, 3), 1 + i, np.uint8), i * step) for i in range(count)]


def test_a_slow_renderer_gets_the_newest_frame_and_queues_none():
    gate, sink = threading.Event(), Watched()
    loop = Counting(gate=gate)

    def frames():
        yield from numbered(40)
        time.sleep(0.2)
        gate.set()

    report = Engine(frames, loop, sink, Pace(real_time=False, max_age=10)).run()
    shown = [int(p[0, 0, 0]) for p in sink.pictures]
    assert report["frames_in"] == 40 and report["frames_out"] <= 4  # rest, what was being drawn, what lay ready, ticks
    assert 40 in shown and report["dropped"]["newer_came"] >= 36


def test_old_frames_are_dropped_while_newer_ones_come():
    loop = Counting()
    late = [replace(f, time=f.time - (1.0 if f.image[0, 0, 0] % 2 == 0 else 0.0)) for f in numbered(30, 0.02)]

    def frames():
        for frame in late:
            time.sleep(0.02)
            yield frame

    report = Engine(frames, loop, Watched(), Pace(real_time=False, max_age=0.3)).run()
    assert report["dropped"]["too_old"] >= 10
    assert report["age_ms"]["p95"] < 300


def test_a_camera_that_goes_is_looked_for_and_comes_back():
    opened, sink, loop = [], Watched(), Counting()

    def frames():
        opened.append(len(opened))
        if len(opened) == 2:
            raise MediaError("webcam:0: no camera answers.")
        for frame in numbered(5):
            time.sleep(0.01)
            yield frame
        if len(opened) > 2:
            engine.stop()

    engine = Engine(frames, loop, sink, Pace(real_time=False, returns=True))
    report = engine.run()
    assert len(opened) == 3 and report["camera_outages"] == 1 and report["frames_in"] == 10
    assert loop.without > 5  # meanwhile the picture went on without a face
    assert np.all(np.diff(sink.times) >= 0)  # and so did time


def test_a_camera_that_was_never_there_is_said():
    def frames():
        raise MediaError("webcam:0: no camera answers.")

    with pytest.raises(MediaError, match="no camera"):
        Engine(frames, Counting(), Watched(), Pace(real_time=False, returns=True)).run()


def test_five_frames_a_second_are_no_outage():
    loop = Counting()

    report = Engine(lambda: iter(numbered(12, 0.2)), loop, Watched(), Pace()).run()
    assert loop.without == 0 and report["frames_without_face"] == 0 and report["frames_out"] == 12


def test_a_frozen_camera_is_told():
    def frames():
        for i in range(70):
            yield Frame(np.full((4, 4, 3), 7, np.uint8), i / 30)

    assert Engine(frames, Counting(), Watched(), Pace()).run()["frozen_frames"] > 0


def test_a_closed_window_and_a_failing_sink_end_it():
    def frames():
        yield from numbered(100)

    report = Engine(frames, Counting(), Watched(until=5), Pace()).run()
    assert report["frames_out"] == 3 + 1 - 1  # the rest, three more, and the one at which it was closed

    class Full(NullSink):
        def write(self, image, at, duration=0.0):
            raise OSError(28, "No space left on device")

    threads = threading.active_count()
    with pytest.raises(OSError, match="No space"):
        Engine(frames, Counting(), Full(), Pace()).run()
    assert threading.active_count() <= threads


def test_work_is_shed_in_order_and_taken_up_again():
    loop = Counting()
    shedding = Shedding(loop)
    arrived = shown = 0
    levels = []
    for second in range(60):
        slow = second < 14
        for _ in range(30):
            if shedding.wants(arrived := arrived + 1) and (not slow or arrived % 3 == 0):
                shown += 1
                loop.clock.add("draw", 0.09 if slow else 0.005)
                shedding.heard(arrived, shown, loop.clock, second + (arrived % 30) / 30)
        levels.append(shedding.level)
    assert sorted(levels[:12]) == levels[:12] and max(levels) == 3  # one after the other
    assert levels[-1] == 0 and shedding.report()["changes"] == 6


def test_moments_without_a_frame_are_not_counted_as_dropped():
    box = Mailbox()
    for missed in (True, True, False, False, True):
        box.put(Followed(0.0, (), missed=missed))
    assert box.dropped == 2
