"""From clips to avatars and back: files, the command line and the page; bad clips, and learnings that were stopped."""

import json
import re
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from capture.media import Excerpt, open_media
from capture.photo import write_photo
from capture.video import VideoReader
from models.avatar.avatar import load_avatar
from models.avatar.render import AvatarRenderer
from models.code import FaceCode
from models.errors import ModelError
from pipeline.avatar.footage import avatar_size, read_clips
from pipeline.avatar.learning import LearningSettings, learn_avatar
from pipeline.avatar.shots import complaints
from pipeline.errors import Refusal
from pipeline.evaluation import psnr
from tests.conftest import Synthetic, command, expression, write_clip
from tests.pipeline.test_learning_avatars import FRAMES, HELD_OUT, performance, pictures_of, shots_of


@pytest.fixture(scope="module")
def shots(prior):
    return shots_of(prior)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, prior):
    head = Synthetic(prior, 4, 320, 400.0)
    images, _ = pictures_of(head, performance(head, FRAMES + HELD_OUT))
    return write_clip(tmp_path_factory.mktemp("clip") / "person.mp4", list(images), rate=24)


@pytest.fixture(scope="module")
def learned_file(clip):
    path = clip.with_name("person.avatar")
    done = command(
        "avatar", "--input", clip, "--output", path, "--holdout", 0.17, "--turns", 1, "--minutes", 60,
        "--json", path.with_suffix(".json"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def test_from_a_clip_to_a_picture_of_it(clip, learned_file, prior, tmp_path):
    """The whole way by the command line: learn, reenact the clip's own person, measure."""
    told = json.loads(learned_file.with_suffix(".json").read_text())
    assert told["first_held_out"] == [60] and told["frames"] == 60 and told["bytes"] == learned_file.stat().st_size
    assert [point["frames"] for point in told["curve"]] == [60, 60, 60]
    assert load_avatar(learned_file, prior).origin["clips"] == ["person.mp4"]
    out = tmp_path / "out.mp4"
    words = "reenact", "--source", learned_file, "--driver", clip, "--output", out
    done = command(*words, "--pose", "absolute", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["same_person"]
    pairs = list(zip(VideoReader(clip), VideoReader(out)))
    assert len(pairs) == FRAMES + HELD_OUT
    assert np.mean([psnr(float(((a.image.astype(float) - b.image) ** 2).mean())) for a, b in pairs]) > 22
    done = command(
        "evaluate", "--avatar", learned_file, "--clip", clip, "--from-frame", 60, "--json", tmp_path / "e.json",
        "--sheet", tmp_path / "sheet.png",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "e.json").read_text())
    assert report["frames"] == HELD_OUT and len(report["methods"]) >= 3 and (tmp_path / "sheet.png").is_file()
    ours = report["methods"]["avatar"]
    assert ours["psnr_mask"] == pytest.approx(report["gain_db"] + report["methods"][report["best_baseline"]]["psnr_mask"])
    named = "psnr_mouth", "psnr_eyes", "ssim_mask", "ms_ssim_all", "landmarks_mouth", "flicker", "flicker_own_motion"
    assert set(named) <= set(ours)


def test_a_stopped_learning_goes_on(clip, learned_file, prior, tmp_path):
    """Without tracking again, to the same pixels as one that was never stopped; and not from what it was not begun with."""
    path = tmp_path / "person.avatar"
    settings = LearningSettings(holdout=0.17, turns=1, minutes=0.01)
    said = []
    learn = lambda **change: learn_avatar([str(clip)], path, prior, replace(settings, **change), listen, said.append, resume=True)
    stages = []
    listen = lambda stage, done, total: stages.append(stage)
    with pytest.raises(Refusal, match="no such file, expected a learning that was stopped"):
        learn()
    told = learn_avatar([str(clip)], path, prior, settings, say=said.append)
    aside = Path(told["unfinished"])
    assert aside == tmp_path / "person.avatar.unfinished" and len(told["curve"]) == 1 and aside.stat().st_size < 3e6
    for change, why in (({"bases": 5}, "begun with bases 24, got 5"), ({"holdout": 0.3}, "begun with holdout 0.17, got 0.3")):
        with pytest.raises(Refusal, match=why):
            learn(**change)
    other = tmp_path / clip.name
    other.write_bytes(clip.read_bytes() + b"0")
    with pytest.raises(Refusal, match="got other clips"):
        learn_avatar([str(other)], path, prior, settings, resume=True)
    kept = aside.read_bytes()
    for damaged in (kept[: len(kept) // 2], re.sub(rb"understudy-learning-\d", b"understudy-learning-0", kept)):
        aside.write_bytes(damaged)
        with pytest.raises((Refusal, ModelError), match="Leave out --resume"):
            learn()
    aside.write_bytes(kept)
    stages.clear()
    told = learn(minutes=60)
    assert told["unfinished"] is None and not aside.exists() and [p["frames"] for p in told["curve"]] == [60, 60, 60]
    assert "track" not in stages and told["curve"][1]["seconds"] > told["curve"][0]["seconds"]
    a, b = (load_avatar(one, prior) for one in (path, learned_file))  # that one was never stopped
    for code in (a.space.middle, FaceCode(expression(jawOpen=0.5), a.space.reference, a.space.middle.translation)):
        pictures = [AvatarRenderer(one, prior).render(code).astype(int) for one in (a, b)]
        assert np.abs(pictures[0] - pictures[1]).max() <= 1


def test_another_person_drives_it(learned_file, tmp_path):
    done = command("reenact", "--source", learned_file, "--driver", "builtin", "--output", tmp_path / "out.mp4")
    assert done.returncode == 0, done.stderr
    frames = [f.image.astype(int) for f in VideoReader(tmp_path / "out.mp4")]
    assert len(frames) == 360 and frames[0].shape == (320, 320, 3)
    assert np.std(frames[::24], axis=0)[100:220, 100:220].mean() > 2


def test_held_out_frames_are_never_looked_at(clip, prior, monkeypatch):
    numbers = []
    seen = Excerpt.__iter__
    monkeypatch.setattr(Excerpt, "__iter__", lambda self: (numbers.append(f.time) or f for f in seen(self)))
    footage, ends, _ = read_clips([open_media(clip)], prior, holdout=0.17)
    assert ends == [60] and footage.numbers.max() == 59
    assert max(numbers) < 60 / 24


def test_a_large_clip_is_made_smaller():
    class Large:
        width, height = 1920, 1080

    assert avatar_size(Large()) == (288, 512)


def test_bad_clips_are_refused_in_one_line(clip, prior, tmp_path):
    write_photo(tmp_path / "photo.png", np.full((64, 64, 3), 99, np.uint8))
    with pytest.raises(Refusal, match="a photo, expected a video"):
        read_clips([open_media(tmp_path / "photo.png")], prior)
    with pytest.raises(Refusal, match="too few frames to learn from: 30, expected at least 50"):
        read_clips([Excerpt(open_media(clip), 0, 30)], prior)
    blank = write_clip(tmp_path / "blank.mp4", [np.full((320, 320, 3), 90, np.uint8)] * 20)
    small = write_clip(tmp_path / "small.mp4", [np.full((64, 320, 3), 90, np.uint8)] * 60)
    with pytest.raises(Refusal, match="no face"):
        read_clips([open_media(small)], prior)
    with pytest.raises(Refusal, match="expected the shape of"):
        read_clips([open_media(clip), open_media(small)], prior)
    still = VideoReader(clip)
    first = next(iter(still)).image
    frozen = write_clip(tmp_path / "frozen.mp4", [first] * 56)
    _, _, warnings = read_clips([open_media(frozen)], prior)
    assert any("hardly moves" in line for line in warnings)
    fading = [cv2.addWeighted(first, 1 - t, np.full_like(first, 90), t, 0) for t in np.linspace(0, 1, 20)]
    gaps = write_clip(tmp_path / "gaps.mp4", [first] * 30 + fading + [np.full((320, 320, 3), 90, np.uint8)] * 20)
    with pytest.raises(Refusal, match="frames show the face"):
        read_clips([open_media(gaps)], prior)
    cut = write_clip(tmp_path / "cut.mp4", [first] * 30 + [255 - first] * 40)
    with pytest.raises(Refusal, match="cuts at frames 30; the longest shot has 40 frames"):
        read_clips([open_media(cut)], prior)
    for words, said in (
        (("--input", clip, "--output", tmp_path / "x.mp4"), "expected .avatar"),
        (("--input", tmp_path / "none.mp4", "--output", tmp_path / "x.avatar"), "no such file"),
        (("--input", "webcam:0", "--output", tmp_path / "x.avatar"), "a webcam has no end"),
        (("--input", clip, "--output", tmp_path / "x.avatar", "--resume"), "Leave out --resume"),
        (("--input", blank, "--output", tmp_path / "no" / "x.avatar"), "does not exist"),
        (("--input", clip, "--output", tmp_path / "x.avatar", "--holdout", 0.95), "out of range"),
    ):
        done = command("avatar", *words)
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("*.avatar")) and not list(tmp_path.glob(".*"))


def test_of_a_clip_with_cuts_the_longest_shot_is_learned(shots, prior, tmp_path):
    images = [cv2.resize(i, (320, 320)) for i in shots[0].images]
    other = np.random.default_rng(0).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    # after the person a longer shot without a face, as titles are
    path = write_clip(tmp_path / "cuts.mp4", [other] * 7 + images + [255 - other] * 70)
    footage, _, warnings = read_clips([open_media(path)], prior)
    assert any("2 cuts; frames 7 to 66" in line for line in warnings)
    assert footage.numbers.min() == 7 and footage.numbers.max() == 66
    # what was learned from are those frames themselves
    frame = list(VideoReader(path))[int(footage.numbers[3])].image
    assert np.abs(footage.images[3].astype(int) - frame).max() == 0


def test_of_two_people_one_is_learned_and_it_is_said(shots, prior, tmp_path):
    pair = [np.hstack([cv2.resize(i, (320, 320)), cv2.resize(i, (320, 320))]) for i in shots[0].images]
    footage, _, warnings = read_clips([open_media(write_clip(tmp_path / "two.mp4", pair))], prior)
    assert any("2 people; person 0 is learned" in line for line in warnings)
    across = np.array([footage.person.camera.project(c.translation[None])[0, 0] for c in footage.codes]) - footage.size[1] / 2
    assert (across > 0).all() or (across < 0).all()  # one of them, all the time


@pytest.mark.parametrize("fault, said", [(None, ""), ("light", "brightness"), ("camera", "camera moves"), ("border", "border")])
def test_what_makes_a_shot_hard_is_said(fault, said, shots, prior):
    train = shots[0]
    images, codes = train.images.copy(), train.codes
    if fault == "light":
        gain = np.linspace(0.8, 1.1, len(images))[:, None, None, None]
        images = np.clip(images * gain, 0, 255).astype(np.uint8)
    if fault == "camera":
        images = np.stack([np.roll(i, round(10 * np.sin(k / 9)), 1) for k, i in enumerate(images)])
    if fault == "border":
        codes = [replace(c, translation=c.translation + [0.2, 0, 0]) for c in codes]
    found = complaints(replace(train, images=images, codes=codes), prior)
    assert (not found) if fault is None else any(said in line for line in found), found


def test_the_page_takes_an_avatar(learned_file, prior, tmp_path):
    """It joins the gallery with a picture of its own; a damaged one is refused in words."""
    import gradio as gr

    from pipeline.builtin import BUILTIN
    from pipeline.page.actions import Page

    page = Page(prior)
    names, gallery, chosen = page.add_source(str(learned_file), [BUILTIN], True)
    items = gallery["value"]
    assert chosen == str(learned_file) == names[-1] and items[-1][1] == "person.avatar" and gallery["selected_index"] == 1
    assert items[-1][0].shape == (256, 256, 3) and items[-1][0].std() > 20
    bad = tmp_path / "bad.avatar"
    bad.write_bytes(learned_file.read_bytes()[:5000])
    with pytest.raises(gr.Error, match="has agreed"):
        page.add_source(str(learned_file), [BUILTIN], False)
    with pytest.raises(gr.Error, match="bad.avatar: not an avatar"):
        page.add_source(str(bad), names, True)


def test_the_page_shows_an_avatar_learning(clip, prior, monkeypatch):
    """Progress in words, a picture and a curve after every stage; the avatar joins the gallery, and goes with its visitor."""
    from pipeline.builtin import BUILTIN
    from pipeline.page import actions as module
    from pipeline.page.layout import _removed

    monkeypatch.setattr(module, "LearningSettings", lambda **given: LearningSettings(turns=1, minutes=60, **given))
    page = module.Page(prior)
    told = list(page.learn(str(clip), 0, [BUILTIN], [], True))
    pictures = [one[0] for one in told if isinstance(one[0], np.ndarray)]
    curves = [one[1].axes[0].lines[0].get_ydata() for one in told if isinstance(one[0], np.ndarray)]
    assert [len(curve) for curve in curves] == [1, 2, 3] and all(p.shape == (320, 640, 3) for p in pictures)
    assert curves[-1][-1] > curves[0][0]
    assert psnr(float(((pictures[-1][:, 320:].astype(float) - pictures[-1][:, :320]) ** 2).mean())) > 22
    words = [one[2] for one in told]
    assert any(w.startswith("Track: ") for w in words) and "It is chosen above" in words[-1]
    _, _, _, file, names, gallery, chosen, folders = told[-1]
    assert chosen == file == names[-1] and gallery["value"][-1][1] == "person.avatar" and gallery["selected_index"] == 1
    assert load_avatar(file, prior).height == 320
    _removed(folders)
    assert not Path(file).exists()


def test_the_page_says_why_a_clip_teaches_nothing(prior, tmp_path):
    import gradio as gr

    from pipeline.page.actions import Page

    plain = write_clip(tmp_path / "plain.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 60)
    with pytest.raises(gr.Error, match="plain.mp4"):
        list(Page(prior).learn(str(plain), 0, [], [], True))
    with pytest.raises(gr.Error, match="video of one person"):
        list(Page(prior).learn(None, 0, [], [], True))
