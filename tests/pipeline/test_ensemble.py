"""Several people in one picture: who moves whom, and that everyone keeps to their own part of it."""

from __future__ import annotations

import numpy as np
import pytest

from capture.frame import Frame
from capture.photo import write_photo
from capture.video import VideoReader
from pipeline.ensemble import Ensemble, open_ensemble
from pipeline.flow import reenact
from pipeline.live.loop import LiveLoop
from pipeline.reenactment import Settings
from pipeline.source import territories
from tests.conftest import Synthetic, expression, turned, write_clip

SIDE = 256
LEFT, RIGHT = slice(0, SIDE), slice(SIDE, None)


@pytest.fixture(scope="module")
def pair(prior):
    """Two synthetic people; what one code each makes of them side by side. The left one is nearer."""
    heads = [Synthetic(prior, seed, SIDE, focal) for seed, focal in ((2, 330.0), (5, 300.0))]

    def picture(*what):
        return np.hstack([head.picture(head.code(*one)) for head, one in zip(heads, what)])

    return picture


@pytest.fixture(scope="module")
def photo(pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("pair") / "pair.png"
    write_photo(path, pair((expression(),), (expression(),)))
    return path


@pytest.fixture(scope="module")
def clip(pair, tmp_path_factory):
    """The left one opens the mouth; the right one turns the head."""
    frames = [pair((expression(jawOpen=0.8 * k / 11),), (expression(), turned(0.35 * k / 11))) for k in range(12)]
    return write_clip(tmp_path_factory.mktemp("pair") / "pair.mp4", [frames[0]] * 6 + frames + [frames[-1]] * 4, preset="fast")


def motion(path) -> tuple[float, float]:
    """How far the last picture is from the first, left and right."""
    pictures = [frame.image.astype(int) for frame in VideoReader(path)]
    change = np.abs(pictures[-1] - pictures[0])
    return float(change[:, LEFT].mean()), float(change[:, RIGHT].mean())


@pytest.mark.parametrize("causal", [False, True])
def test_who_moves_whom(prior, photo, clip, tmp_path, causal):
    moved = {}
    for cast in ("one", "all", "each"):
        out = tmp_path / f"{cast}.mp4"
        report = reenact(str(photo), str(clip), out, Settings(cast=cast), prior=prior, lossless=True, causal=causal)
        assert report["frames"] == 22
        moved[cast] = motion(out)
    assert moved["one"][0] > 0.5 > 5 * moved["one"][1]  # the largest alone
    assert min(moved["all"]) > 0.5  # both open the mouth
    assert min(moved["each"]) > 0.5 and moved["each"][1] > 1.3 * moved["all"][1]  # the right one turns, which moves more


def test_live_each_keeps_to_their_own_part(prior, photo, pair):
    """While only the left driver moves, nothing of the right one's part does."""
    loop = LiveLoop(prior, open_ensemble(str(photo), prior, everyone=True), Settings(cast="each"), background=False)
    shown = []
    for k in range(44):  # by frame 29 the drivers are known, and what that changed has been taken up
        frame = pair((expression(jawOpen=0.8 * max(k - 29, 0) / 14),), (expression(),))
        shown.append(loop(Frame(frame, k / 30, 1 / 30)).astype(int))
    loop.close()
    change = np.abs(shown[-1] - shown[29])
    assert change[:, LEFT].mean() > 0.5 and change[:, RIGHT].mean() < 0.3


def test_a_driver_who_is_missing_leaves_their_target_at_rest(prior, photo, clip, pair, tmp_path):
    alone = write_clip(tmp_path / "alone.mp4", [frame.image[:, LEFT] for frame in VideoReader(clip)])
    reenact(str(photo), str(alone), tmp_path / "o.mp4", Settings(cast="each"), prior=prior, lossless=True)
    left, right = motion(tmp_path / "o.mp4")
    assert left > 0.5 and right < 0.1


def test_one_person_is_everyone_there_is(prior):
    assert len(open_ensemble("builtin", prior, everyone=True).puppets) == 1


def test_territories_share_a_picture_out():
    rng = np.random.default_rng(0)
    faces = [rng.uniform((x - 20, 60, 0), (x + 20, 110, 1), (478, 3)) for x in (60, 200, 300)]
    parts = territories(faces, 160, 360)
    assert np.allclose(parts.sum(0), 1, atol=1e-5)
    for part, x in zip(parts, (60, 200, 300)):
        assert part[80, x] > 0.99


def test_pictures_are_merged_by_their_shares():
    a, b, c = (np.full((4, 6, 3), value, np.uint8) for value in (30, 90, 200))
    parts = np.zeros((3, 4, 6), np.float32)
    parts[0, :, :2], parts[1, :, 2:4], parts[2, :, 4:] = 1, 1, 1
    parts[:, 0] = 1 / 3
    merged = Ensemble([None] * 3, parts).merged([a, b, c])
    assert (merged[1:, :2] == 30).all() and (merged[1:, 2:4] == 90).all() and (merged[1:, 4:] == 200).all()
    assert np.abs(merged[0].astype(int) - 320 / 3).max() <= 1
