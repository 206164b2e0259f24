"""The live engine: the newest frame wins, nothing of the driver leaks, and a clip gives the pixels of the batch command."""

from __future__ import annotations

import os
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from capture.errors import MediaError
from capture.face_tracker import FaceTracker
from capture.frame import Frame
from capture.sinks import Copied, NullSink, SinkClosed, check_sink, fitted, open_sink
from capture.video import VideoReader
from models.avatar.avatar import SUFFIX
from models.errors import ModelError
from models.prior.face import EXPRESSIONS
from pipeline.builtin import builtin_portrait
from pipeline.errors import Refusal
from pipeline.flow import reenact
from pipeline.live.driver import LiveDriver
from pipeline.live.engine import Engine, Pace
from pipeline.live.loop import Followed, LiveLoop, Performing
from pipeline.live.mailbox import Closed, Mailbox
from pipeline.live.shedding import Shedding
from pipeline.live.stream import Delivery, go_live
from pipeline.mark import marked
from pipeline.performance import Performance
from pipeline.puppet import PortraitPuppet, open_puppet
from pipeline.reenactment import Settings
from pipeline.source import prepare_picture
from tests.conftest import Synthetic, expression, turned, write_clip

MARKER = np.array([255, 0, 255])


@pytest.fixture(scope="module")
def portrait(prior):
    return PortraitPuppet(prepare_picture(builtin_portrait(), prior))


@pytest.fixture(scope="module")
def performer(prior) -> list[np.ndarray]:
    """A head that talks and turns, on a colour that is nowhere in the source."""
    head = Synthetic(prior, 2, 320, 400.0)
    pictures = []
    for i in range(24):
        picture = head.picture(head.code(expression(jawOpen=0.5 * (i % 7) / 7), turned(0.2 * np.sin(i / 5))))
        picture[np.abs(picture.astype(int) - picture[0, 0]).sum(-1) == 0] = MARKER
        pictures.append(picture)
    return pictures


def leaks(picture: np.ndarray) -> bool:
    return bool((np.abs(picture.astype(int) - MARKER).max(-1) < 40).any())


@pytest.fixture
def loop(prior, portrait):
    loop = LiveLoop(prior, portrait.again(), background=False)
    yield loop
    loop.close()


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


# live and batch


def test_a_clip_live_into_a_file_is_the_batch_in_causal_mode(tmp_path, prior, performer):
    clip = write_clip(tmp_path / "driver.mp4", [*performer, np.zeros_like(performer[0]), *performer[:6]], rate=24)
    live = go_live("builtin", str(clip), str(tmp_path / "live.mp4"), Settings(), Delivery(), prior)
    batch = reenact("builtin", str(clip), tmp_path / "batch.mp4", Settings(), prior=prior, causal=True)
    assert live["frames_out"] == batch["frames"] == 31 and live["dropped"] == {"newer_came": 0, "too_old": 0}
    assert live["frames_without_face"] == batch["lost_frames"] == 1
    pairs = list(zip(VideoReader(tmp_path / "live.mp4"), VideoReader(tmp_path / "batch.mp4"), strict=True))
    assert all(a.time == b.time and np.array_equal(a.image, b.image) for a, b in pairs)
    moved = np.stack([a.image[100:220, 150:300] for a, _ in pairs[::4]]).astype(float)
    assert moved.std(0).mean() > 1  # it performs


def test_what_the_face_did_is_kept_without_a_pixel(tmp_path, prior, performer):
    clip = write_clip(tmp_path / "driver.mp4", performer, rate=24)
    delivery = Delivery(performance=str(tmp_path / "p.safetensors"), record=str(tmp_path / "r.mp4"), width=400, height=300)
    report = go_live("builtin", str(clip), "null", Settings(), delivery, prior)
    performance = Performance.load(tmp_path / "p.safetensors")
    assert 0 < len(performance) <= 24 and performance.tracked.any()
    assert performance.expression[:, 0].shape == (len(performance),)
    shown = list(VideoReader(tmp_path / "r.mp4"))
    assert shown[0].image.shape == (300, 400, 3) and abs(len(shown) - report["frames_out"]) <= 1
    assert (tmp_path / "p.safetensors").stat().st_size < 60_000


# fail closed


def faults() -> dict:
    """Name: (before frame i, changes what the loop meets)."""

    def tracker(monkeypatch):
        def fails(self, frame):
            raise RuntimeError("graph has errors")

        monkeypatch.setattr(FaceTracker, "__call__", fails)

    def fit(monkeypatch):
        def fails(self, seen, frame):
            raise np.linalg.LinAlgError("singular")

        monkeypatch.setattr(LiveDriver, "__call__", fails)

    def renderer(monkeypatch):
        def fails(self, *_):
            raise RuntimeError("no memory")

        monkeypatch.setattr(PortraitPuppet, "__call__", fails)

    return {"tracker throws": tracker, "fit throws": fit, "renderer throws": renderer}


@pytest.mark.parametrize("name", faults())
def test_whatever_throws_the_picture_holds_then_rests_and_comes_back(loop, performer, monkeypatch, name):
    for i in range(8):
        last = loop(Frame(performer[i], i / 30))
    with monkeypatch.context() as patched:
        faults()[name](patched)
        shown = [loop(Frame(performer[i % 24], i / 30)) for i in range(8, 60)]
    assert not any(leaks(picture) for picture in shown)
    assert loop.faults == 52
    assert np.abs(shown[0].astype(int) - last).mean() < 2  # it holds
    assert np.abs(shown[-1].astype(int) - loop.rest_picture()).mean() < 0.6  # and rests
    back = [loop(Frame(performer[i % 24], i / 30)) for i in range(60, 90)]
    assert loop.faults == 52 and not any(leaks(picture) for picture in back)
    assert np.abs(back[-1].astype(int) - loop.rest_picture()).mean() > 1  # it performs again


def test_nothing_leaks_through_losses_changes_of_size_and_switches(loop, prior, portrait, performer):
    black, plain = np.zeros_like(performer[0]), np.full_like(performer[0], MARKER)
    small = np.ascontiguousarray(performer[0][::2, ::2])
    wide = np.ascontiguousarray(np.hstack([performer[0], performer[0][:, :107]]))
    stream = [plain] * 3 + performer[:8] + [black] * 5 + performer[:4] + [small] * 4 + [wide] * 4 + [plain] * 50 + performer[:6]
    for i, picture in enumerate(stream):
        if i == 12:
            loop.choose(PortraitPuppet(prepare_picture(builtin_portrait()[:, ::-1].copy(), prior)))
        if i == 18:
            loop.calibrate()
        out = loop(Frame(picture, i / 30))
        assert out.shape == builtin_portrait().shape and not leaks(out), i
    assert loop.faults == 0


def test_the_same_camera_at_another_resolution_is_the_same_driver(loop, performer):
    for i in range(6):
        loop(Frame(performer[0], i / 30))
    before = loop.follow(Frame(performer[0], 6 / 30)).drivers[0]
    double = np.ascontiguousarray(performer[0].repeat(2, 0).repeat(2, 1))
    after = loop.follow(Frame(double, 7 / 30)).drivers[0]
    assert after.version == before.version
    assert np.abs(after.code.translation - before.code.translation).max() < 0.01
    met_anew = loop.follow(Frame(np.ascontiguousarray(np.pad(performer[0], ((0, 0), (0, 99), (0, 0)))), 8 / 30)).drivers[0]
    assert met_anew.version > before.version


def test_a_second_person_who_comes_in_is_not_the_driver(loop, prior, performer):
    """A larger face beside the driver's, from the middle of the stream on: code and person stay the driver's."""
    other = Synthetic(prior, 7, 320, 480.0)
    closed = other.picture(other.code())
    alone = np.hstack([performer[0], np.full_like(performer[0], 120)])
    both = np.hstack([performer[6], closed])
    for i in range(10):
        before = loop.follow(Frame(np.ascontiguousarray(alone), i / 30)).drivers[0]
    for i in range(10, 30):
        after = loop.follow(Frame(np.ascontiguousarray(both), i / 30)).drivers[0]
    assert after.code is not None and abs(after.code.translation[0] - before.code.translation[0]) < 0.05
    jaw = EXPRESSIONS.index("jawOpen")
    assert after.code.expression[jaw] > before.code.expression[jaw] + 0.1


def test_a_source_that_cannot_be_drawn_changes_nothing(loop, prior, performer, tmp_path):
    loop(Frame(performer[0], 0.0))
    rest = loop.rest_picture()
    broken = tmp_path / f"broken{SUFFIX}"
    broken.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ModelError):
        loop.choose(open_puppet(str(broken), prior))
    assert loop.rest_picture() is rest and not leaks(loop(Frame(performer[1], 0.03)))


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


# what goes out


@pytest.fixture
def loopback(monkeypatch):
    """A stand-in for pyvirtualcam: what it was asked for, and the frames sent."""

    class Camera:
        def __init__(self, width, height, fps, fmt):
            if width > 2000:
                raise RuntimeError("'v4l2loopback' backend: No v4l2 loopback device found.\nDid you load the module?")
            self.size, self.sent = (width, height), []
            made.append(self)

        def send(self, frame):
            assert frame.shape == (self.size[1], self.size[0], 3) and frame.flags.c_contiguous
            self.sent.append(frame)

        def close(self):
            self.sent.append(None)

    made = []
    module = SimpleNamespace(Camera=Camera, PixelFormat=SimpleNamespace(RGB="RGB"))
    monkeypatch.setitem(sys.modules, "pyvirtualcam", module)
    return made


def test_a_virtual_camera_gets_pictures_of_its_size_with_the_mark(tmp_path, prior, performer, loopback):
    clip = write_clip(tmp_path / "driver.mp4", performer, rate=24)
    delivery = Delivery(width=640, height=360)
    go_live("builtin", str(clip), "virtualcam", Settings(mark=True), delivery, prior)
    (camera,) = loopback
    assert len(camera.sent) > 3 and camera.sent[-1] is None
    assert camera.sent[0][0, 0].max() == 0 and camera.sent[0][180, 320].max() > 0  # whole, on black, and rest comes first
    with pytest.raises(MediaError, match="no virtual camera takes 4000x16.*v4l2loopback") as told:
        open_sink("virtualcam", 4000, 16)
    assert "\n" not in str(told.value)


def test_without_the_package_a_virtual_camera_is_refused_in_a_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyvirtualcam", None)
    with pytest.raises(MediaError, match="pip install pyvirtualcam"):
        check_sink("virtualcam")


@pytest.mark.skipif(bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")), reason="there is a screen here")
def test_without_a_screen_a_window_is_refused_in_a_line():
    with pytest.raises(MediaError, match="no screen answers"):
        check_sink("window")


@pytest.mark.parametrize("name", ["builtin", "photo.png", "missing.mp4", "webcam:77", "webcam:x"])
def test_drivers_that_cannot_be_live_are_refused_in_a_line(tmp_path, prior, name):
    Image.fromarray(builtin_portrait()).save(tmp_path / "photo.png")
    driver = str(tmp_path / name) if "." in name else name
    with pytest.raises((MediaError, Refusal)) as told:
        go_live("builtin", driver, "null", Settings(), Delivery(), prior)
    assert "\n" not in str(told.value) and str(told.value).endswith(".")


def test_a_record_that_fails_is_told_and_stops_nothing():
    class Full(NullSink):
        def write(self, image, at, duration=0.0):
            raise OSError(28, "No space left on device")

    shown = Watched()
    both = Copied(shown, Full())
    for k in range(3):
        both.write(np.zeros((4, 4, 3), np.uint8), k / 30)
    both.close()
    assert len(shown.pictures) == 3 and both.failed.errno == 28


def test_a_sink_that_fails_is_told_in_a_line(tmp_path, prior, performer, monkeypatch):
    def full(self, image, at, duration=0.0):
        raise OSError(28, "No space left on device")

    clip = write_clip(tmp_path / "driver.mp4", performer, rate=24)
    monkeypatch.setattr("capture.writer.VideoWriter.write", full)
    with pytest.raises(MediaError, match="can't be written any more .No space left on device"):
        go_live("builtin", str(clip), str(tmp_path / "out.mp4"), Settings(), Delivery(), prior)
    assert [p.name for p in tmp_path.iterdir()] == ["driver.mp4"]


def test_a_clip_without_a_face_leaves_no_file(tmp_path, prior):
    clip = write_clip(tmp_path / "plain.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 8)
    with pytest.raises(Refusal, match="no face found"):
        go_live("builtin", str(clip), str(tmp_path / "out.mp4"), Settings(), Delivery(), prior)
    assert [p.name for p in tmp_path.iterdir()] == ["plain.mp4"]


def test_a_camera_into_a_file_keeps_what_came_until_it_was_stopped(tmp_path, prior, performer, monkeypatch):
    """Through a stand-in for OpenCV's camera, which is unplugged after twenty frames; then Ctrl-C."""
    taken = []

    class Camera:
        def __init__(self, index):
            self.left = 20 if not taken else 0
            taken.append(index)

        def isOpened(self):
            if len(taken) > 2:
                raise KeyboardInterrupt
            return len(taken) < 2

        def set(self, *_):
            return True

        def get(self, what):
            import cv2

            return {cv2.CAP_PROP_FRAME_WIDTH: 320, cv2.CAP_PROP_FRAME_HEIGHT: 320}.get(what, 0.0)

        def read(self):
            time.sleep(0.03)
            self.left -= 1
            return self.left >= 0, performer[self.left % 24][..., ::-1]

        def release(self):
            pass

    monkeypatch.setattr("capture.webcam.cv2.VideoCapture", Camera)
    report = None
    with pytest.raises(KeyboardInterrupt):
        report = go_live("builtin", "webcam:0", str(tmp_path / "out.mp4"), Settings(), Delivery(), prior)
    assert report is None
    shown = list(VideoReader(tmp_path / "out.mp4"))
    assert len(shown) > 5 and not any(leaks(f.image) for f in shown)


def test_a_picture_is_fitted_whole_on_black():
    picture = np.full((100, 50, 3), 200, np.uint8)
    out = fitted(picture, 160, 90)
    assert out.shape == (90, 160, 3) and out[:, 58:102].min() == 200 and out[:, :56].max() == 0 and out[:, 104:].max() == 0
    assert fitted(picture, 50, 100) is picture


@pytest.mark.parametrize("grey", [0, 128, 255])
def test_the_mark_is_seen_on_anything_and_lies_in_a_corner(grey):
    picture = np.full((480, 640, 3), grey, np.uint8)
    out = marked(picture)
    changed = np.abs(out.astype(int) - picture).max(-1) > 40
    assert 200 < changed.sum() < 0.01 * changed.size
    rows, columns = np.nonzero(changed)
    assert rows.min() > 440 and columns.min() > 480 and picture.min() == grey == picture.max()
