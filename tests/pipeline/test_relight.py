"""The command relight: lights by name and by file, photos, videos, and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from capture.environment import read_environment
from capture.errors import MediaError
from capture.matte import SelfieMatte
from capture.media import Excerpt, StillPicture, open_media
from capture.photo import read_photo, write_photo
from capture.video import VideoReader
from models.colour import DECODE
from models.light.lights import Lamp, ambient_light
from models.light.presets import PRESETS
from pipeline.builtin import BUILTIN
from pipeline.errors import Refusal
from pipeline.flow import reenact
from pipeline.lights import open_light
from pipeline.looking import Shot, look_at
from pipeline.page.lighting import Lighting, Wanted
from pipeline.reenactment import Settings
from pipeline.relight import Behind, Relighting, relight, relit_picture
from tests.conftest import command, write_clip
from tests.relight_figures import as_known, decibels, linear, made


def under(portrait: np.ndarray, shot: Shot, light) -> np.ndarray:
    behind = Behind("keep", portrait.shape[1], portrait.shape[0])
    return relit_picture(portrait, shot, 0, light, behind, np.ones(portrait.shape[:2], np.float32))


def face(shot: Shot) -> tuple[slice, slice]:
    points = shot.people[0][0].landmarks_at(shot.people[0][1].code(0))[:468]
    (left, top), (right, bottom) = points[:, :2].min(0).astype(int), points[:, :2].max(0).astype(int)
    return slice(top, bottom), slice(left, right)


def lamps(**told) -> str:
    kind = told.get("type", "directional")
    way = {"direction": [0, 0, -1]} if kind == "directional" else {}
    return json.dumps({"lights": [{"type": kind, **way, **told}]})


def test_its_own_light_leaves_a_picture_as_it_is(portrait, shot):
    out = under(portrait, shot, shot.source)
    assert -10 * np.log10(np.mean(((out.astype(float) - portrait) / 255) ** 2)) > 40


def test_a_lamp_at_the_left_lights_the_left(portrait, shot):
    rows, columns = face(shot)
    lit = []
    for side in (-1, 1):
        direction = np.array([side, -0.1, -0.4]) / np.linalg.norm([1, 0.1, 0.4])
        out = under(portrait, shot, ambient_light(np.full(3, 0.02), (Lamp("directional", np.ones(3), direction=direction),)))
        halves = np.array_split(DECODE[out[rows, columns, 1]].astype(float), 2, axis=1)
        lit.append(halves[0].mean() / halves[1].mean())
    assert lit[0] > 1.5 and lit[1] < 1 / 1.5


def test_light_from_nowhere_near_leaves_the_dark(portrait, shot):
    behind = ambient_light(np.zeros(3), (Lamp("directional", np.ones(3), direction=np.array([0.0, 0, 1])),))
    rows, columns = face(shot)
    assert DECODE[under(portrait, shot, behind)[rows, columns]].mean() < 0.1 * DECODE[portrait[rows, columns]].mean()


def test_a_photo_goes_in_and_comes_out_as_a_photo(portrait, prior, tmp_path):
    photo, told = tmp_path / "me.png", tmp_path / "left.json"
    write_photo(photo, portrait)
    told.write_text('{"ambient": [0.1, 0.1, 0.1], "lights": [{"type": "point", "position": [-1, 0, -1], "intensity": 2}]}')
    report = relight(str(photo), str(told), tmp_path / "out.png", Relighting(background="light"), prior=prior)
    out = read_photo(tmp_path / "out.png").image
    assert out.shape == portrait.shape and report["people"] == 1 and not report["hints"]
    assert np.abs(out[:60].astype(int) - out[:60].mean((0, 1))).mean() < 12  # the ambient light is seen behind


def test_a_folder_of_lights_gives_one_result_each(portrait, prior, tmp_path):
    folder = tmp_path / "lights"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.json").write_text(lamps(color=[1, 0.2, 0.2] if name == "one" else [0.2, 0.2, 1]))
    report = relight(BUILTIN, str(folder), tmp_path / "results", prior=prior)
    one, two = (read_photo(tmp_path / "results" / f"{name}.png").image for name in ("one", "two"))
    assert [r["frames"] for r in report["results"]] == [1, 1]
    assert one[..., 0].mean() > two[..., 0].mean() + 5 and two[..., 2].mean() > one[..., 2].mean() + 5


def test_a_video_keeps_its_times_and_a_turning_light_turns(performer, prior, tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", performer[:20], times=[k / 20 + (k % 3) * 0.01 for k in range(20)])
    relight(str(clip), "window", tmp_path / "out.mp4", Relighting(turn=(0, 180)), prior=prior, lossless=True)
    before, after = (list(VideoReader(path)) for path in (clip, tmp_path / "out.mp4"))
    assert np.allclose([f.time for f in before], [f.time for f in after], atol=1e-3)
    pictures = np.stack([f.image.astype(float) for f in after])
    halves = [pictures[:, :, :160].mean((1, 2, 3)), pictures[:, :, 160:].mean((1, 2, 3))]
    share = halves[0] / halves[1]
    assert share[0] > share[-1] and np.abs(np.diff(share)).max() < 0.1 * share[0]  # from left to right, without a jump


def test_transparent_and_picture_backgrounds(portrait, prior, tmp_path):
    relight(BUILTIN, "studio", tmp_path / "cut.png", Relighting(background="transparent"), prior=prior)
    cut = cv2.imread(str(tmp_path / "cut.png"), cv2.IMREAD_UNCHANGED)
    assert cut.shape[2] == 4 and cut[20, 350, 3] < 40 and cut[300, 200, 3] > 200
    red = tmp_path / "red.png"
    write_photo(red, np.full((64, 64, 3), (200, 10, 10), np.uint8))
    relight(BUILTIN, "studio", tmp_path / "on.png", Relighting(background=str(red)), prior=prior)
    assert np.abs(read_photo(tmp_path / "on.png").image[10, 350].astype(int) - (200, 10, 10)).max() < 40


def test_reenacted_and_relit_in_one_pass(performer, prior, tmp_path):
    clip = write_clip(tmp_path / "driver.mp4", performer[:12])
    told = tmp_path / "red.json"
    told.write_text(lamps(color=[1, 0.1, 0.1]))
    plain = Settings(audio="none")
    for name, settings in (("plain", plain), ("lit", Settings(audio="none", light=str(told)))):
        reenact(BUILTIN, str(clip), tmp_path / f"{name}.mp4", settings, prior=prior, lossless=True)
    one, lit = (list(VideoReader(tmp_path / f"{name}.mp4"))[-1].image.astype(float) for name in ("plain", "lit"))
    person, wall = (slice(330, 400), slice(180, 300)), (slice(0, 20), slice(330, 380))
    assert np.abs(one[wall] - lit[wall]).mean() < 3
    ratio = lambda p: p[person][..., 1].mean() / p[person][..., 0].mean()
    assert ratio(lit) < 0.7 * ratio(one)
    causal = [tmp_path / "once.mp4", tmp_path / "again.mp4"]
    for path in causal:  # what live makes, twice the same
        reenact(BUILTIN, str(clip), path, Settings(audio="none", light=str(told)), prior=prior, lossless=True, causal=True)
    assert causal[0].read_bytes() == causal[1].read_bytes()


def hdr(path: Path, picture: np.ndarray) -> Path:
    cv2.imwrite(str(path), picture[..., ::-1].astype(np.float32))
    return path


def exr(path: Path, picture: np.ndarray) -> Path:
    import OpenEXR

    with OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": np.ascontiguousarray(picture, np.float32)}) as file:
        file.write(str(path))
    return path


def test_environments_are_read_uncut(tmp_path):
    picture = np.random.default_rng(0).random((32, 64, 3)) * 50
    for path in (hdr(tmp_path / "a.hdr", picture), exr(tmp_path / "a.exr", picture)):
        assert np.allclose(read_environment(path), picture, rtol=0.02, atol=0.3)
    wide = read_environment(exr(tmp_path / "wide.exr", np.ones((1100, 2200, 3)) * 2))
    assert wide.shape == (1024, 2048, 3) and wide.max() == pytest.approx(2)


def _bad_environments(folder: Path) -> list[tuple[Path, str]]:
    good = np.ones((32, 64, 3))
    holed, endless = good.copy(), good.copy()
    holed[3, 4], endless[5, 6, 0] = np.nan, np.inf
    cut, cut_exr = hdr(folder / "cut.hdr", np.random.default_rng(0).random((64, 128, 3))), exr(folder / "cut.exr", good)
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    cut_exr.write_bytes(cut_exr.read_bytes()[: cut_exr.stat().st_size // 2])
    text = folder / "text.hdr"
    text.write_text("not a picture")
    huge = folder / "huge.hdr"
    huge.write_bytes(b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 16384 +X 32768\n" + b"\0" * 100)
    return [
        (exr(folder / "nan.exr", holed), "1 of 2048 texels are not a number or infinite"),
        (exr(folder / "inf.exr", endless), "1 of 2048 texels are not a number or infinite"),
        (hdr(folder / "zero.hdr", 0 * good), "every texel is 0"),
        (hdr(folder / "square.hdr", np.ones((64, 64, 3))), "64x64 is no latitude-longitude picture"),
        (cut, "cut off"), (cut_exr, "cut off"), (text, "not an environment map"), (huge, "32768x16384 is too large"),
        (folder / "none.hdr", "no such file"),
    ]  # fmt: skip


def test_bad_environments_are_refused_in_a_line(tmp_path):
    for path, said in _bad_environments(tmp_path):
        with pytest.raises(MediaError) as refused:
            read_environment(path)
        line = str(refused.value)
        assert said in line and "\n" not in line and line.endswith("."), line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n2\n3\n4\n5\n6\n7\n8\n9", "9 numbers in 9 rows, expected 9 rows of red, green and blue"),
        ("1 2 3\n" * 16, "order 3, 48 numbers in 16 rows"),
        ("1 2 3\n" * 4, "order 1, 12 numbers"),
        ("red green blue\n" * 9, "harmonics that are no numbers"),
        ("nan 0 0\n" + "0 0 0\n" * 8, "harmonics that are not below 1e\\+06"),
        ("1e39 0 0\n" + "0 0 0\n" * 8, "harmonics that are not below 1e\\+06"),
        ("1 " * 27, "order 2, 27 numbers in 1 rows, expected 9 rows"),
        ("1\n" * 27, "27 numbers in 27 rows"),
        ("-1 -1 -1\n" + "0 0 0\n" * 8, "no light from anywhere"),
        ("", "0 numbers"),
    ],
)
def test_bad_harmonics_are_refused_in_a_line(text, said, prior, tmp_path):
    path = tmp_path / "sh.txt"
    path.write_text(text)
    with pytest.raises(Refusal, match=said):
        open_light(str(path), prior)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"), ("[]", 'expected {"ambient"'), ('{"lights": 3}', "expected a list"), ("{}", "no light at all"),
        ('{"ambient": [1, 1]}', "expected three numbers from 0"), ('{"ambient": [1, 1, -1]}', "expected three numbers from 0"),
        (lamps(type="laser"), "type 'laser' is unknown"), (lamps(direction=[0, 0, 0]), "direction is 0"),
        (lamps(direction="up"), "expected three numbers"), (lamps(colour=[1, 1, 1]), "colour says nothing of a directional lamp"),
        (lamps(size=0.5), "size says nothing of a directional lamp"), (lamps(type=["point"]), "type ['point'] is unknown"),
        (lamps(type="point", position=[0, 0, -1], direction=[0, 0, 1]), "direction is away from the lamp's position"),
        (lamps(type="point", position=[0, 0, -1], size=0.5), "size says nothing of a point lamp"),
        ('{"lights": ["lamp"]}', '"lamp" is unknown'), ("[" * 100000, "not JSON"),
        ('{"ambient": [' + "1" * 5000 + "]}", "not JSON"),
        (lamps(intensity=-1), "expected a number from 0"), (lamps(type="point", position=[0, 0, 0]), "inside the head"),
        (lamps(type="point", position=[0, 0, 0.1]), "inside the head"),
        (lamps(type="point"), "position: got null"), (lamps(type="area", position=[0, 0, -1], size=True), "size: got true"),
    ],
)  # fmt: skip
def test_bad_lamps_are_refused_in_a_line(text, said, prior, tmp_path):
    path = tmp_path / "lights.json"
    path.write_text(text)
    with pytest.raises(Refusal) as refused:
        open_light(str(path), prior)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("source", "light", "output", "how", "said"),
    [
        (BUILTIN, "candle", "out.png", Relighting(), "candle: unknown light, expected"),
        (BUILTIN, "studio", "out.mp3", Relighting(), "can't write a picture as .mp3"),
        (BUILTIN, "studio", "out.jpg", Relighting(background="transparent"), "a JPEG can't be transparent"),
        (BUILTIN, "studio", "out.png", Relighting(turn=(0, 90)), "a photo has no time to turn in"),
        (BUILTIN, "studio", "out.png", Relighting(background="nowhere.png"), "nowhere.png"),
        ("webcam:0", "studio", "out.png", Relighting(), "a webcam has no end"),
        (BUILTIN, "from:clip.mp4", "out.png", Relighting(), "light is taken from one picture"),
        ("wall.png", "studio", "out.png", Relighting(), "no face found in"),
        ("black.png", "studio", "out.png", Relighting(), "no face found in|too dark or too bright"),
        (BUILTIN, "empty", "out", Relighting(), "no light in this folder"),
        (BUILTIN, "empty/../lights", "out.png", Relighting(), "a folder of lights makes many results"),
        (BUILTIN, "lights", "file", Relighting(), "file: file is a file, expected a folder"),
        (BUILTIN, "lights", "file/below", Relighting(), "file/below: file is a file, expected a folder"),
        (BUILTIN, "lights", "new/below", Relighting(turn=(0, 90)), "a photo has no time to turn in"),
        ("wall.png", "lights", "new/below", Relighting(), "no face found in"),
        ("wall.png", "studio", "wall.png", Relighting(), "wall.png: the same file as the input wall.png, which would be lost"),
        ("one.mp4", "lights", ".", Relighting(), "one.mp4: the same file as the input"),
        (BUILTIN, "studio", "out.png", Relighting(background="blur"), "relighting blurs nothing"),
        (BUILTIN, "studio", "out.png", Relighting(background="clip.mp4"), "a background has to be a picture. Use a photo"),
    ],
)
def test_bad_requests_are_refused_in_a_line_and_leave_no_file(
    source, light, output, how, said, performer, portrait, prior, tmp_path, monkeypatch
):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for clip in ("clip.mp4", "one.mp4"):
        write_clip(tmp_path / clip, performer[:2])
    (tmp_path / "file").write_text("a file")
    write_photo(tmp_path / "wall.png", np.full((200, 200, 3), 120, np.uint8))
    write_photo(tmp_path / "black.png", (portrait // 60).astype(np.uint8))
    for folder in ("empty", "lights"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lights" / "one.json").write_text(lamps())
    there = set(tmp_path.rglob("*"))
    with pytest.raises((Refusal, MediaError), match=said) as refused:
        relight(source, light, output, how, prior=prior)
    assert "\n" not in str(refused.value) and set(tmp_path.rglob("*")) == there


def test_a_saturated_face_is_said(portrait, prior):
    with pytest.raises(Refusal, match="too dark or too bright to tell its light"):
        look_at(StillPicture(np.where(portrait > 110, 255, portrait).astype(np.uint8), "white.png"), prior)


def test_a_photo_that_a_face_fills_is_relit_as_well(portrait, shot, prior):
    rows, columns = face(shot)
    close = np.ascontiguousarray(portrait[rows, columns])
    there = look_at(StillPicture(close, "close.png"), prior)
    person, performance = there.people[0]
    camera = person.person.camera
    assert (camera.width, camera.height) == (close.shape[1], close.shape[0])
    mine = person.landmarks_at(performance.code(0))[:468, :2] + (columns.start, rows.start)
    before = shot.people[0][0].landmarks_at(shot.people[0][1].code(0))[:468, :2]
    assert np.linalg.norm(mine - before, axis=1).mean() < 0.04 * close.shape[1]


def test_hints_say_how_far_off_a_light_is(prior, tmp_path):
    path = tmp_path / "bright.json"
    path.write_text(lamps(intensity=400))
    report = relight(BUILTIN, str(path), tmp_path / "out.png", prior=prior)
    assert report["hints"] and "--exposure -9" in report["hints"][0]
    path.write_text(lamps(direction=[1, 0, 0.3], intensity=0.8))  # beside and behind, and as bright as is right
    assert relight(BUILTIN, str(path), tmp_path / "out.png", prior=prior)["hints"] == []
    path.write_text(lamps(intensity=1e-9))
    assert "--exposure 20" in relight(BUILTIN, str(path), tmp_path / "out.png", prior=prior)["hints"][0]
    walled = relight(BUILTIN, "window", tmp_path / "out.png", Relighting(wall=0.3), prior=prior)
    assert "nothing throws a shadow on the wall" in walled["hints"][0]


def test_a_folder_of_lights_that_is_stopped_says_what_is_there(performer, prior, tmp_path):
    clip, lights, out = write_clip(tmp_path / "clip.mp4", performer[:3]), tmp_path / "lights", tmp_path / "out"
    lights.mkdir()
    for name in ("one", "two"):
        (lights / f"{name}.json").write_text(lamps())
    begun = []

    def stop(stage: str, done: int, total: int | None) -> None:
        begun.append(stage)
        if begun.count("relight") == 6:  # four times for the first film
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="stopped; 1 of 2 results were written"):
        relight(str(clip), str(lights), out, prior=prior, listen=stop)
    assert [one.name for one in out.iterdir()] == ["one.mp4"]


def test_a_picture_without_colours_keeps_without_them_under_a_grey_light(portrait, prior):
    grey = np.repeat(cv2.cvtColor(portrait, cv2.COLOR_RGB2GRAY)[..., None], 3, -1)
    shot = look_at(StillPicture(grey, "grey.png"), prior)
    out = under(grey, shot, ambient_light(np.full(3, 0.8)))
    assert np.ptp(out.astype(int), axis=-1).max() <= 1 and np.abs(out.astype(int) - grey).mean() > 3


def test_a_lamp_of_the_pages_that_is_out_leaves_the_rest_of_a_light(prior):
    lighting, out = Lighting(prior), [{"direction": [0, 0, -1], "color": [1, 1, 1], "intensity": 0}]
    assert lighting.light(Wanted("studio", lamps=json.dumps(out))).lamps == PRESETS["studio"]().lamps
    with pytest.raises(Refusal, match="no lamp is lit"):
        lighting.light(Wanted("lamps", lamps=json.dumps(out)))


def test_every_preset_lights_something():
    for light in (make() for make in PRESETS.values()):
        assert 0.15 < light.brightness() < 5


def test_a_still_person_under_a_turning_light_changes_smoothly(portrait, shot):
    for name in ("window", "noon"):
        light, rows = PRESETS[name](), face(shot)
        pictures = [under(portrait, shot, light.turned(np.radians(angle)))[rows].astype(float) for angle in range(0, 90, 2)]
        steps = np.array([np.abs(b - a).mean() for a, b in pairwise(pictures)])
        assert steps.max() < 3 * np.median(steps) and steps.max() < 4
        jumps = np.abs(np.diff(steps))  # and no step is much unlike the one before
        assert jumps.max() < 0.6 * np.median(steps)


_CLIPS = ("talking_head_male_turning_25fps_512", "outdoor_female_smiling_30fps_1280x720", "speech_female_blue_30fps_700_audio")


@pytest.mark.media
@pytest.mark.parametrize("name", _CLIPS)
def test_real_clips_keep_the_laws_of_light(name, media, prior):
    """Figures for all clips: `python -m tests.figures relight`."""
    clip = Excerpt(open_media(media / f"face/{name}.mp4"), 0, 8)
    shot, frame = look_at(clip, prior), next(iter(clip)).image
    with SelfieMatte() as mattes:
        matte = mattes(frame)
    where = matte > 0.9
    assert decibels(made(frame, shot, shot.source, matte), frame, where) > 40
    window = PRESETS["window"]()
    there = made(frame, shot, window, matte)
    assert decibels(there, frame, where) < 30  # it does change
    assert decibels(made(there, as_known(shot, window), shot.source, matte), frame, where) > 35
    total, stops, turned, hue = linear(frame, shot, matte)
    assert total > 45 and abs(stops - 1) < 0.02 and turned > 60 and hue < 2


@pytest.mark.media
def test_light_that_changes_is_followed(media, prior):
    clip = Excerpt(open_media(media / "odd/global_brightness_pulsing.mp4"), 0, 60)
    shot = look_at(clip, prior)
    assert shot.gains is not None
    seen = shot.people[0][1].tracked
    level = np.array([frame.image.mean() for frame in clip])[seen]
    assert np.corrcoef(np.log(shot.gains[seen].mean(1)), np.log(level))[0, 1] > 0.7
    steady = look_at(Excerpt(open_media(media / "face/talking_head_male_turning_25fps_512.mp4"), 0, 60), prior)
    assert steady.gains is None


def test_the_command_says_what_it_made_and_what_is_wrong_with_it(tmp_path):
    out, told = tmp_path / "out.png", tmp_path / "r.json"
    words = "relight", "--input", BUILTIN, "--light", "studio", "--output", out
    done = command(*words, "--rotate=-90", "--exposure", 1, "--json", told)
    assert done.returncode == 0 and "512x512, under studio" in done.stdout, done.stderr
    assert json.loads(told.read_text())["people"] == 1 and out.is_file()
    for more, said in ((("--rotate", "round"), "expected degrees"), (("--exposure", 40), "out of range")):
        done = command(*words, *more)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_people_throw_shadows_on_a_wall(portrait, shot):
    height, width = portrait.shape[:2]
    with SelfieMatte() as mattes:
        matte = mattes(portrait)
    light = ambient_light(np.full(3, 0.2), (Lamp("directional", np.full(3, 0.8), direction=np.array([-0.6, 0.0, -0.8])),))
    plain, before = (relit_picture(portrait, shot, 0, light, Behind("keep", width, height, wall), matte) for wall in (None, 0.3))
    beyond, people = matte < 0.01, matte > 0.999
    assert np.array_equal(plain[beyond], portrait[beyond])
    assert np.array_equal(plain[people], before[people])
    darker = beyond & (before.astype(int).mean(-1) < 0.8 * plain.mean(-1))
    assert darker.sum() > 0.02 * beyond.sum()
    assert np.nonzero(darker)[1].mean() > width / 2  # the lamp is at the left
    assert (before <= plain).all()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (("--wall", "0"), "--wall 0.0: out of range, expected 0.05 to 10"),
        (("--wall", "0.5", "--background", "light"), "--wall 0.5: no wall behind people"),
    ],
)
def test_a_wall_that_can_not_be_is_refused(tmp_path, how, said):
    done = command("relight", "--input", "builtin", "--light", "noon", "--output", str(tmp_path / "out.mp4"), *how)
    assert done.returncode == 2
    assert said in done.stderr
    assert not list(tmp_path.iterdir())
