"""Video in and out: exact times, exact pixels where promised, sound that stays where it was."""

from fractions import Fraction

import av
import numpy as np
import pytest

from capture.errors import MediaError
from capture.media import open_media
from capture.video import VideoReader
from capture.writer import VideoWriter
from tests.conftest import write_clip


def flat(value: int, height: int = 64, width: int = 96) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_irregular_times_survive_a_round_trip(tmp_path):
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.011, 0.2, 40))
    times -= times[0]
    path = write_clip(tmp_path / "vfr.mp4", [flat(i * 5) for i in range(40)], times)
    frames = list(VideoReader(path))
    assert len(frames) == 40
    assert np.abs(np.array([f.time for f in frames]) - times).max() < 1 / 90_000
    assert np.abs(np.array([f.duration for f in frames[:-1]]) - np.diff(times)).max() < 2 / 90_000


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(24000, 1001), Fraction(60)])
def test_ten_seconds_of_any_rate_last_ten_seconds(tmp_path, rate):
    count = round(10 * rate)
    times = [float(i / rate) for i in range(count)]
    path = write_clip(tmp_path / "a.mp4", [flat(100)] * count, times, rate=float(rate))
    frames = list(VideoReader(path))
    assert abs(frames[-1].time + frames[-1].duration - count / float(rate)) < 1e-3


@pytest.mark.parametrize(("width", "height"), [(96, 64), (97, 64), (96, 65), (33, 27)])
def test_odd_sizes_keep_their_size(tmp_path, width, height):
    path = write_clip(tmp_path / "odd.mp4", [flat(120, height, width)] * 3)
    frame = next(iter(VideoReader(path)))
    assert frame.image.shape == (height, width, 3)
    assert np.abs(frame.image.astype(int) - 120).max() <= 3


def test_lossless_gives_the_same_bytes(tmp_path):
    rng = np.random.default_rng(1)
    pictures = [rng.integers(0, 256, (64, 96, 3), np.uint8) for _ in range(4)]
    path = write_clip(tmp_path / "exact.mp4", pictures, lossless=True)
    for frame, picture in zip(VideoReader(path), pictures):
        assert np.array_equal(frame.image, picture)


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    path = tmp_path / "out.mp4"
    path.write_bytes(b"precious")
    with pytest.raises(KeyboardInterrupt):
        with VideoWriter(path, 96, 64) as writer:
            writer.write(flat(1), 0.0, 0.04)
            raise KeyboardInterrupt
    assert path.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("name", ["out.avi", "missing/out.mp4", "folder.mp4"])
def test_places_that_cannot_be_written_are_refused_at_once(tmp_path, name):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(MediaError) as caught:
        VideoWriter(tmp_path / name, 64, 64)
    assert name.split("/")[-1] in str(caught.value) and "\n" not in str(caught.value)


def tone(path, seconds: float, codec: str = "aac"):
    """A file with a beep every half second beside a plain picture."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = file.add_stream(codec, rate=48_000)
        sound.layout = "mono"
        for i in range(round(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(flat(90, 48, 64), format="rgb24")
            frame.pts = i
            for packet in video.encode(frame):
                file.mux(packet)
        time = np.arange(int(seconds * 48_000)) / 48_000
        wave = (0.5 * np.sin(2 * np.pi * 880 * time) * ((time % 0.5) < 0.05)).astype(np.float32)
        for start in range(0, len(wave), 1024):
            frame = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
            frame.rate, frame.pts = 48_000, start
            for packet in sound.encode(frame):
                file.mux(packet)
        for stream in (video, sound):
            for packet in stream.encode():
                file.mux(packet)
    return path


def beeps(path) -> np.ndarray:
    """Times at which beeps begin."""
    with av.open(str(path)) as file:
        rate = file.streams.audio[0].rate
        parts = [(float(f.time), f.to_ndarray().mean(0)) for f in file.decode(audio=0)]
    loud = np.concatenate([np.stack([t + np.arange(len(a)) / rate, np.abs(a)], 1) for t, a in parts])
    times = loud[loud[:, 1] > 0.2, 0]
    return times[np.concatenate([[True], np.diff(times) > 0.2])]


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_sound_goes_along_unchanged_and_in_time(tmp_path, ending):
    source = tone(tmp_path / "tone.mp4", 4.0)
    path = write_clip(tmp_path / f"out.{ending}", [flat(i) for i in range(100)], rate=25, audio_from=source)
    with av.open(str(path)) as made, av.open(str(source)) as was:
        assert made.streams.audio[0].codec_context.name == was.streams.audio[0].codec_context.name == "aac"
    assert np.abs(beeps(path) - beeps(source)).max() < 1 / 25
    assert len(beeps(path)) == 8


@pytest.mark.parametrize(("codec", "ending"), [("pcm_s16le", "mp4"), ("aac", "webm")])
def test_sound_that_a_container_cannot_hold_is_encoded_anew(tmp_path, codec, ending):
    source = tone(tmp_path / "tone.mkv", 2.0, codec)
    path = write_clip(tmp_path / f"out.{ending}", [flat(i) for i in range(50)], rate=25, audio_from=source)
    assert np.abs(beeps(path)[:4] - beeps(source)[:4]).max() < 1 / 25


def test_a_cut_off_file_gives_what_it_holds(tmp_path):
    rng = np.random.default_rng(0)
    path = write_clip(tmp_path / "whole.mkv", [rng.integers(0, 255, (128, 128, 3), np.uint8) for _ in range(60)])
    (tmp_path / "cut.mkv").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = list(VideoReader(tmp_path / "cut.mkv"))
    assert 5 < len(frames) < 60


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50, b"version https://git-lfs.github.com/spec/v1\n"])
def test_what_is_no_media_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        list(open_media(path))
    assert "clip.mp4" in str(caught.value) and "\n" not in str(caught.value)


def test_a_picture_with_a_videos_name_is_a_picture(tmp_path):
    from PIL import Image

    Image.fromarray(flat(50)).save(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.mp4")
    media = open_media(tmp_path / "photo.mp4")
    assert media.is_photo and np.array_equal(next(iter(media)).image, flat(50))


def test_a_folder_of_pictures_is_a_film(tmp_path):
    from PIL import Image

    for k in range(3):
        Image.fromarray(flat(k * 50)).save(tmp_path / f"{k}.png")
    frames = list(open_media(tmp_path))
    assert [int(f.image[0, 0, 0]) for f in frames] == [0, 50, 100]
    assert [f.time for f in frames] == pytest.approx([0, 0.04, 0.08])


@pytest.mark.media
def test_every_odd_file_reads_or_refuses_in_one_line(media):
    files = sorted(p for p in (media / "odd").iterdir() if p.is_file())
    assert files
    for path in files:
        try:
            frames = 0
            last = -1.0
            for frame in open_media(path):
                assert frame.image.dtype == np.uint8 and frame.image.ndim == 3, path
                assert frame.time > last, path
                last = frame.time
                frames += 1
                if frames == 40:
                    break
            assert frames, path
        except MediaError as error:
            assert path.name in str(error) and "\n" not in str(error)
