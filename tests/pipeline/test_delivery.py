"""Where live pictures go: sinks and what fails there, files that are finished, the mark."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from capture.errors import MediaError
from capture.sinks import Copied, NullSink, check_sink, fitted, open_sink
from capture.video import VideoReader
from pipeline.builtin import builtin_portrait
from pipeline.errors import Refusal
from pipeline.live.stream import Delivery, go_live
from pipeline.mark import marked
from pipeline.reenactment import Settings
from tests.conftest import write_clip
from tests.pipeline.conftest import leaks


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
    assert len(camera.sent) >= 3 and camera.sent[-1] is None  # however slow the machine is
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


class Kept(NullSink):
    """Keeps what it was given."""

    def __init__(self):
        self.given = []

    def write(self, image, time, duration=0.0):
        self.given.append((image, time))


def test_a_record_that_fails_is_told_and_stops_nothing():
    class Full(NullSink):
        def write(self, image, at, duration=0.0):
            raise OSError(28, "No space left on device")

    shown = Kept()
    both = Copied(shown, Full())
    for k in range(3):
        both.write(np.zeros((4, 4, 3), np.uint8), k / 30)
    both.close()
    assert len(shown.given) == 3 and both.failed.errno == 28


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
