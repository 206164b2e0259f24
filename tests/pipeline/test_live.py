"""The live loop: nothing of the driver leaks, whatever fails, and a clip gives the pixels of the batch command."""

from __future__ import annotations

import numpy as np
import pytest

from capture.face_tracker import FaceTracker
from capture.frame import Frame
from capture.video import VideoReader
from models.avatar.avatar import SUFFIX
from models.errors import ModelError
from models.prior.face import EXPRESSIONS
from pipeline.builtin import builtin_portrait
from pipeline.flow import reenact
from pipeline.live.driver import LiveDriver
from pipeline.live.loop import LiveLoop
from pipeline.live.stream import Delivery, go_live
from pipeline.performance import Performance
from pipeline.puppet import PortraitPuppet, open_puppet
from pipeline.reenactment import Settings
from pipeline.source import prepare_picture
from tests.conftest import Synthetic, write_clip
from tests.pipeline.conftest import MARKER, leaks


@pytest.fixture(scope="module")
def portrait(prior):
    return PortraitPuppet(prepare_picture(builtin_portrait(), prior))


@pytest.fixture
def loop(prior, portrait):
    loop = LiveLoop(prior, portrait.again(), background=False)
    yield loop
    loop.close()


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
