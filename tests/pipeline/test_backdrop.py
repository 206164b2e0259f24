"""What is behind whoever is moved: kept, blurred, a picture, nothing."""

from __future__ import annotations

import av
import numpy as np
import pytest

from capture.errors import MediaError
from capture.frame import Frame
from capture.photo import write_photo
from capture.video import VideoReader
from models.matting import background, foreground
from pipeline.backdrop import Backdrop, check_background, covering
from pipeline.builtin import BUILTIN
from pipeline.ensemble import open_ensemble
from pipeline.errors import Refusal
from pipeline.flow import reenact
from pipeline.live.loop import LiveLoop
from pipeline.mark import marked
from pipeline.page.visit import encoded
from pipeline.reenactment import Settings
from tests.conftest import Synthetic, command, expression, write_clip


@pytest.fixture(scope="module")
def astronaut(prior):
    return open_ensemble(BUILTIN, prior)


@pytest.fixture(scope="module")
def clip(prior, tmp_path_factory):
    head = Synthetic(prior, 2, 320, 400.0)
    pictures = [head.picture(head.code(expression(jawOpen=j))) for j in (0, 0, 0.3, 0.6, 0.6, 0.2)]
    return write_clip(tmp_path_factory.mktemp("clip") / "driver.mp4", pictures)


@pytest.fixture(scope="module")
def green(tmp_path_factory):
    path = tmp_path_factory.mktemp("behind") / "green.png"
    write_photo(path, np.full((90, 160, 3), (0, 255, 0), np.uint8))
    return str(path)


def green_share(picture: np.ndarray) -> float:
    return float((np.abs(picture[..., :3].astype(int) - (0, 255, 0)).max(-1) < 3).mean())


def test_a_picture_stands_behind_the_person(astronaut, green):
    kept, shown = Backdrop("keep", astronaut).rest, Backdrop(green, astronaut).rest
    assert 0.3 < green_share(shown) < 0.7
    chest = (slice(300, 340), slice(200, 260))
    assert np.abs(kept[chest].astype(int) - shown[chest]).max() < 3
    assert (shown[10:20, 10:20] == (0, 255, 0)).all()


def test_a_blurred_background_is_smooth_and_the_person_is_not(astronaut):
    kept, shown = Backdrop("keep", astronaut).rest.astype(int), Backdrop("blur", astronaut).rest.astype(int)
    detail = lambda picture, place: np.abs(np.diff(picture[place], axis=1)).mean()
    rocket, face = (slice(10, 120), slice(390, 500)), (slice(90, 150), slice(200, 250))
    assert detail(shown, rocket) < 0.3 * detail(kept, rocket)
    assert np.abs(shown[face] - kept[face]).mean() < 2
    halo = shown[20:60, 140:170].mean((0, 1))  # beside the head: no hair's colour is spread there
    assert np.abs(halo - kept[5:40, 120:150].mean((0, 1))).max() < 25


@pytest.mark.parametrize("choice", ["blur", "picture"])
def test_live_equals_batch(prior, clip, green, tmp_path, choice):
    settings = Settings(background=green if choice == "picture" else choice)
    reenact(BUILTIN, str(clip), tmp_path / "o.mkv", settings, prior=prior, lossless=True, causal=True)
    loop = LiveLoop(prior, open_ensemble(BUILTIN, prior), settings, background=False)
    pictures = [loop(frame) for frame in VideoReader(clip)]
    loop.close()
    assert all(np.array_equal(a, b.image) for a, b in zip(pictures, VideoReader(tmp_path / "o.mkv"), strict=True))


def test_another_background_is_taken_while_live(prior, astronaut, clip, green):
    loop = LiveLoop(prior, astronaut, background=False)
    frame = next(iter(VideoReader(clip)))
    assert green_share(loop(frame)) < 0.01
    loop.settings = Settings(background=green)
    assert green_share(loop(Frame(frame.image, 0.04))) > 0.3
    loop.settings = Settings(background="transparent")
    assert loop(Frame(frame.image, 0.08)).shape[2] == 4 and loop.faults == 0
    loop.close()


@pytest.mark.parametrize("causal", [False, True])
def test_a_transparent_video_keeps_its_alpha(prior, clip, tmp_path, causal):
    settings = Settings(background="transparent", mark=True)
    reenact(BUILTIN, str(clip), tmp_path / "o.webm", settings, prior=prior, causal=causal)
    with av.open(str(tmp_path / "o.webm")) as file:
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = [frame for packet in file.demux(video=0) for frame in decoder.decode(packet if packet.size else None)]
    assert len(frames) == 6
    alpha = frames[-1].to_ndarray(format="rgba")[..., 3]
    assert 0.3 < (alpha < 5).mean() < 0.7 and (alpha[300:340, 200:260] > 250).all() and (alpha[10:20, 10:20] < 5).all()


def test_bad_backgrounds_are_refused_in_a_line(prior, clip, tmp_path):
    cases = [
        ({"background": "transparent"}, "o.mp4", "can't hold a transparent video"),
        ({"background": str(clip)}, "o.mp4", "has to be a picture"),
        ({"background": str(tmp_path / "none.png")}, "o.mp4", "none.png"),
    ]
    for settings, name, words in cases:
        with pytest.raises((MediaError, Refusal), match=words):
            reenact(BUILTIN, str(clip), tmp_path / name, Settings(**settings), prior=prior)
        assert not list(tmp_path.iterdir())
    done = command("live", "--source", "builtin", "--driver", clip, "--sink", "virtualcam", "--background", "transparent")
    assert done.returncode == 2 and "shows nothing transparent" in done.stderr and len(done.stderr.strip().splitlines()) == 1
    with pytest.raises(MediaError):
        check_background("blurred")


def test_the_mark_is_seen_on_nothing():
    nothing = np.zeros((240, 320, 4), np.uint8)
    assert (marked(nothing)[..., 3] > 0).sum() > 100 and not marked(nothing)[:100].any()


def test_a_transparent_picture_goes_to_the_browser_as_png():
    assert encoded(np.zeros((8, 8, 4), np.uint8))[1:4] == b"PNG" and encoded(np.zeros((8, 8, 3), np.uint8))[:2] == b"\xff\xd8"


def test_a_picture_covers_what_it_stands_behind():
    wide = np.zeros((50, 200, 3), np.uint8)
    wide[:, 75:125] = 200
    out = covering(wide, 80, 80)
    assert out.shape == (80, 80, 3) and (out[10:-10, 10:-10] == 200).all()


def test_a_persons_own_colours_are_found():
    """Where red hair is half transparent before a blue wall, it is red."""
    rng = np.random.default_rng(0)
    alpha = np.zeros((120, 160), np.float32)
    alpha[:, :70] = 1
    alpha[:, 70:82] = np.linspace(1, 0, 12)
    noise = rng.normal(0, 6, (2, 120, 160, 3))
    own, wall = np.array([180, 40, 30]) + noise[0], np.array([30, 50, 190]) + noise[1]
    image = np.clip(alpha[..., None] * own + (1 - alpha[..., None]) * wall, 0, 255).astype(np.uint8)
    found = foreground(image, np.round(255 * alpha).astype(np.uint8)).astype(float)
    half = (slice(None), slice(71, 80))
    assert np.abs(found[half] - (180, 40, 30)).mean() < 10 < 40 < np.abs(image[half] - (180.0, 40, 30)).mean()


def test_a_background_is_smooth_where_someone_stood():
    x = np.linspace(60, 180, 160)
    image = np.dstack([np.tile(x, (120, 1))] * 3).astype(np.uint8)
    alpha = np.zeros((120, 160), np.uint8)
    alpha[40:, 50:110] = 255
    hidden = image.copy()
    hidden[alpha > 0] = (255, 0, 0)
    found = background(hidden, alpha).astype(int)
    assert np.abs(found[alpha == 0] - image[alpha == 0].astype(int)).mean() < 2
    assert np.abs(found[alpha > 0] - image[alpha > 0].astype(int)).mean() < 20
    everywhere = np.full((120, 160), 255, np.uint8)
    assert background(hidden, everywhere).shape == hidden.shape
