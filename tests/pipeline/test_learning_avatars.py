"""Learning an avatar: what it shows of a synthetic person in frames it never saw, what each part is worth, bad clips."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from capture.media import Excerpt, open_media
from capture.photo import write_photo
from capture.video import VideoReader
from models.avatar.avatar import load_avatar
from models.avatar.linear import Linear
from models.avatar.mesh_colours import MeshColours
from models.avatar.render import AvatarRenderer
from models.avatar.shape import posed_shell
from models.avatar.shell import Shell, icosphere
from models.avatar.space import CodeSpace
from models.code import Camera, FaceCode, Person
from models.errors import ModelError
from models.head import Head
from models.raster.cpu import rasterise
from pipeline.avatar import evaluation, outer
from pipeline.avatar.footage import Footage, avatar_size, read_clips
from pipeline.avatar.learning import Learner, LearningSettings, learn_avatar
from pipeline.avatar.regions import chin_of, head_region
from pipeline.avatar.shots import complaints
from pipeline.errors import Refusal
from pipeline.evaluation import psnr
from pipeline.surface_flow import completed
from tests.conftest import Synthetic, expression, turned, write_clip
from tests.pipeline.test_flow import command

FRAMES, HELD_OUT = 60, 12


def performance(head: Synthetic, count: int) -> list[FaceCode]:
    """Speech, blinks and a moving head."""
    codes = []
    for i in range(count):
        t = i / 12
        values = expression(
            jawOpen=0.3 + 0.3 * np.sin(5 * t), eyeBlinkLeft=max(np.sin(2 * t), 0), eyeBlinkRight=max(np.sin(2 * t), 0),
            mouthSmileLeft=0.3 + 0.3 * np.sin(1.7 * t), mouthSmileRight=0.3 + 0.3 * np.sin(1.7 * t),
        )  # fmt: skip
        code = head.code(values, turned(0.25 * np.sin(1.1 * t), 0.12 * np.sin(1.9 * t), 0.05 * np.sin(t)))
        codes.append(replace(code, translation=np.array([0.02 * np.sin(0.9 * t), 0.01 * np.sin(1.3 * t), 0.6])))
    return codes


def pictures_of(head: Synthetic, codes: list[FaceCode]) -> tuple[np.ndarray, np.ndarray]:
    """The head before a patterned wall, and its mattes."""
    size = head.person.camera.height
    y, x = np.mgrid[0:size, 0:size]
    wall = np.stack([90 + 60 * ((x // 16 + y // 16) % 2), 120 + 0 * x, 60 + y * 120 // size], -1).astype(np.uint8)
    images, mattes = [], []
    for code in codes:
        picture = head.picture(code)
        there = np.abs(picture.astype(int) - picture[0, 0]).sum(-1) > 0
        images.append(np.where(there[..., None], picture, wall))
        mattes.append(cv2.GaussianBlur(np.where(there, 255, 0).astype(np.uint8), (3, 3), 0))
    return np.stack(images), np.stack(mattes)


@pytest.fixture(scope="module")
def shots(prior):
    """A synthetic person's frames to learn from, and later ones."""
    head = Synthetic(prior, 4, 192, 240.0)
    codes = performance(head, FRAMES + HELD_OUT)
    images, mattes = pictures_of(head, codes)
    part = lambda s: Footage(
        head.person, images[s], mattes[s], codes[s], np.arange(len(images))[s], np.zeros(len(images[s]), int)
    )
    return part(slice(0, FRAMES)), part(slice(FRAMES, None))


def reached(avatar, prior, footage: Footage) -> float:
    """Decibels over the head, a frame in the mean."""
    renderer = AvatarRenderer(avatar, prior)
    found = []
    for image, matte, code in zip(footage.images, footage.mattes, footage.codes):
        region = head_region(matte, code, footage.person.camera, chin_of(renderer.shape.head))
        found.append(psnr(float(((renderer.render(code)[region].astype(float) - image[region]) ** 2).mean())))
    return float(np.mean(found))


def learned(footage: Footage, prior, **settings):
    avatars = [avatar for avatar, _ in Learner(footage, prior, LearningSettings(**settings)).stages()]
    return avatars[-1]


@pytest.fixture(scope="module")
def avatar(shots, prior):
    return learned(shots[0], prior, turns=1)


def test_frames_never_seen_are_shown(shots, avatar, prior):
    train, test = shots
    still = []
    chin = chin_of(AvatarRenderer(avatar, prior).shape.head)
    for image, matte, code in zip(test.images, test.mattes, test.codes):
        region = head_region(matte, code, test.person.camera, chin)
        still.append(max(psnr(float(((seen[region].astype(float) - image[region]) ** 2).mean())) for seen in train.images))
    ours = reached(avatar, prior, test)
    # beside the best of all training frames, chosen with the truth in hand
    assert ours > 26 and ours > np.mean(still) + 3


def test_the_wall_stays_where_it_is(shots, avatar, prior):
    _, test = shots
    picture = AvatarRenderer(avatar, prior).render(test.codes[0]).astype(int)
    corner = (slice(0, 24), slice(0, 24))
    assert np.abs(picture[corner] - test.images[0][corner]).mean() < 3


def test_the_mouth_and_the_lids_follow(shots, avatar, prior):
    renderer, code = AvatarRenderer(avatar, prior), shots[0].codes[0]
    at = lambda **values: renderer.render(replace(code, expression=expression(**values))).astype(int)
    rest = at()
    for values, landmark in (({"jawOpen": 0.6}, 13), ({"eyeBlinkLeft": 1.0}, 386), ({"eyeBlinkRight": 1.0}, 159)):
        posed, projected = renderer.shape.posed(code, shots[0].person.camera)
        x, y = prior.at_landmarks(projected)[landmark, :2].astype(int)
        moved = np.abs(at(**values) - rest).mean(-1)
        assert moved[y - 4 : y + 5, x - 6 : x + 7].mean() > 4 * moved[:40].mean() + 2, values


def test_a_wrong_fit_is_corrected(shots, prior):
    """Heads that lie beside where the fit says: 3 mm aside, and up to 6 mm further down as the jaw opens."""
    train, test = shots

    def shifted(footage: Footage) -> Footage:
        codes = []
        for code in footage.codes:
            away = np.array([0.003, 0.010 * code.expression[expression(jawOpen=1).argmax()], 0])
            codes.append(replace(code, translation=code.translation + away))
        return replace(footage, codes=codes)

    wrong, later = shifted(train), shifted(test)
    before, after = (reached(learned(wrong, prior, turns=turns), prior, later) for turns in (0, 2))
    assert after > before + 0.3


def outlined(shell: Shell, motions: np.ndarray, codes: list[FaceCode], camera: Camera) -> Footage:
    """Footage of nothing but the shell's outline, moved by N x 6 motions."""
    mattes = []
    for code, motion in zip(codes, motions):
        move = np.cross(motion[:3], shell.vertices) + motion[3:]
        seen = rasterise(posed_shell(shell, code, camera, move)[1], shell.triangles, camera.height, camera.width)
        mattes.append(np.where(seen.triangle >= 0, 255, 0).astype(np.uint8))
    person = Person(np.zeros(80), np.zeros((478, 3)), camera, np.zeros(52), np.zeros((2, 2)))
    images = np.zeros((len(codes), camera.height, camera.width, 3), np.uint8)
    return Footage(person, images, np.stack(mattes), codes, np.arange(len(codes)), np.zeros(len(codes), int))


def test_a_shell_is_turned_and_shifted_onto_its_outline():
    directions = icosphere()[0]
    radius = 0.11 + 0.02 * directions[:, 1] + 0.012 * np.sin(5 * directions[:, 0]) * directions[:, 1]
    shell = Shell.star(np.zeros(3), radius, np.ones(len(directions), np.float32))
    camera = Camera(900.0, 320, 320)
    code = FaceCode(np.zeros(52), turned(0.2), np.array([0.0, 0.0, 0.8]))
    true = np.array([[0.03, -0.01, 0.05, 0.006, -0.004, 0.0]])
    footage, found = outlined(shell, true, [code], camera), np.zeros(6)

    def outline(motion: np.ndarray):
        move = (np.cross(motion[:3], shell.vertices) + motion[3:])[None]
        away, weight, out = outer._outline_distances(footage, shell, np.ones(len(directions)), move)
        return away[0], weight[0], out[0], (weight * np.abs(away)).sum() / weight.sum()

    for _ in range(5):
        found = found + outer._rigid_step(shell, code, *outline(found)[:3])
    # the outline's own vertices lie up to some millimetres inside it
    start, end, best = (outline(motion)[3] for motion in (np.zeros(6), found, true[0]))
    assert start > 3 * best and end < 1.2 * best
    # what an outline tells: the turn in the picture and the shift across it
    across = lambda motion: (np.cross(motion[:3], shell.vertices) + motion[3:]) @ code.rotation.T[:, :2]
    assert np.abs(across(found) - across(true[0])).mean() < 0.35 * np.abs(across(true[0])).mean()


def test_a_pose_that_is_too_small_leans_the_shell(shots, prior):
    """Codes that tell three quarters of each turn: the outline follows the head's own turn all the same."""
    train, _ = shots
    codes = [replace(c, rotation=cv2.Rodrigues(0.75 * cv2.Rodrigues(c.rotation)[0])[0]) for c in train.codes]
    footage, head = replace(train, codes=codes), Head(prior, train.person)
    shell, lean = outer.head_and_hair(footage, head, CodeSpace.of(codes))
    misfit = []
    for moves in (np.zeros((len(codes), 1, 3)), lean.moves(shell, codes)):
        away, weight, _ = outer._outline_distances(footage, shell, outer._outlined(shell, head), moves)
        misfit.append((weight * np.abs(away)).sum() / weight.sum())
    assert misfit[1] < 0.7 * misfit[0]


def test_what_was_never_seen_looks_like_what_lies_around_it():
    directions, faces = icosphere()
    shell = Shell.star(np.zeros(3), np.full(len(directions), 0.1), np.ones(len(directions)))
    samples = MeshColours.of(faces, np.full(len(faces), 2))
    place = np.einsum("sk,skc->sc", samples.barycentric, directions[faces[samples.triangle]])
    colours = 128 + 100 * place
    hidden = place[:, 2] > 0.9
    spoilt = np.where(hidden[:, None], 0, colours).astype(np.float32)
    layer = Linear(spoilt.ravel(), np.zeros((1, 3 * len(samples)), np.int8), np.ones(1, np.float32), np.zeros((9, 1), np.float32))
    weight = np.where(hidden, 0, 255).astype(np.uint8)[None].repeat(9, 0)
    filled = completed(layer, weight, shell.triangles, samples).mean.reshape(-1, 3)
    assert np.abs(filled - colours)[~hidden].max() < 1e-3
    assert np.abs(filled - colours)[hidden].mean() < 12 and np.abs(filled - colours)[hidden].max() < 30


def test_flicker_is_what_motion_does_not_explain():
    rng = np.random.default_rng(0)
    wide = cv2.GaussianBlur(rng.integers(0, 256, (140, 140, 3)).astype(np.float32), (0, 0), 3)
    wide = cv2.normalize(wide, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    before, now = wide[4:132, 4:132], wide[4:132, 6:134]
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    back, region = evaluation._flow(search, now, before), np.zeros((128, 128), bool)
    region[20:108, 20:108] = True
    assert np.abs(back[region] - [2, 0]).mean() < 0.2
    own = evaluation._change(now, before, back, region)
    noisy = np.clip(now.astype(float) + rng.normal(0, 6, now.shape), 0, 255).astype(np.uint8)
    assert own < 2 and evaluation._change(noisy, before, back, region) > own + 3


def test_the_halo_carries_what_is_beyond_the_face(shots, avatar, prior):
    bare = learned(shots[0], prior, turns=0, halo=False)
    assert reached(avatar, prior, shots[1]) > reached(bare, prior, shots[1]) + 1


def test_more_bases_tell_more(shots, avatar, prior):
    few = learned(shots[0], prior, turns=1, bases=1)
    assert reached(avatar, prior, shots[0]) > reached(few, prior, shots[0]) + 0.5


@pytest.fixture(scope="module")
def clip(tmp_path_factory, prior):
    head = Synthetic(prior, 4, 320, 400.0)
    images, _ = pictures_of(head, performance(head, FRAMES + HELD_OUT))
    return write_clip(tmp_path_factory.mktemp("clip") / "person.mp4", list(images), rate=24)


@pytest.fixture(scope="module")
def learned_file(clip):
    path = clip.with_name("person.avatar")
    done = command(
        "avatar", "--input", clip, "--output", path, "--holdout", 0.17, "--turns", 1, "--json", path.with_suffix(".json")
    )
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
    assert {"psnr_mouth", "psnr_eyes", "ssim_mask", "ms_ssim_all", "landmarks_mouth", "flicker"} <= set(ours)


def test_a_stopped_learning_goes_on(clip, prior, tmp_path):
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
    for damaged in (kept[: len(kept) // 2], kept.replace(b"understudy-learning-1", b"understudy-learning-9")):
        aside.write_bytes(damaged)
        with pytest.raises((Refusal, ModelError), match="Leave out --resume"):
            learn()
    aside.write_bytes(kept)
    stages.clear()
    told = learn(minutes=5)
    assert told["unfinished"] is None and not aside.exists() and [p["frames"] for p in told["curve"]] == [60, 60, 60]
    assert "track" not in stages and told["curve"][1]["seconds"] > told["curve"][0]["seconds"]
    whole = tmp_path / "whole.avatar"
    learn_avatar([str(clip)], whole, prior, replace(settings, minutes=5), say=said.append)
    a, b = (load_avatar(one, prior) for one in (path, whole))
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
    from pipeline.page import Page

    page = Page(prior)
    names, items, chosen = page.add_source(str(learned_file), [BUILTIN])
    assert chosen == str(learned_file) == names[-1] and items[-1][1] == "person.avatar"
    assert items[-1][0].shape == (256, 256, 3) and items[-1][0].std() > 20
    bad = tmp_path / "bad.avatar"
    bad.write_bytes(learned_file.read_bytes()[:5000])
    with pytest.raises(gr.Error, match="bad.avatar: not an avatar"):
        page.add_source(str(bad), names)


def test_the_page_shows_an_avatar_learning(clip, prior, monkeypatch):
    """Progress in words, a picture and a curve after every stage; the avatar joins the gallery, and goes with its visitor."""
    from pipeline import page as module
    from pipeline.builtin import BUILTIN

    monkeypatch.setattr(module, "LearningSettings", lambda **given: LearningSettings(turns=1, **given))
    page = module.Page(prior)
    told = list(page.learn(str(clip), 0, [BUILTIN], []))
    pictures = [one[0] for one in told if isinstance(one[0], np.ndarray)]
    curves = [one[1].axes[0].lines[0].get_ydata() for one in told if isinstance(one[0], np.ndarray)]
    assert [len(curve) for curve in curves] == [1, 2, 3] and all(p.shape == (320, 640, 3) for p in pictures)
    assert curves[-1][-1] > curves[0][0]
    assert psnr(float(((pictures[-1][:, 320:].astype(float) - pictures[-1][:, :320]) ** 2).mean())) > 22
    words = [one[2] for one in told]
    assert any(w.startswith("Track: ") for w in words) and "It is chosen above" in words[-1]
    _, _, _, file, names, items, chosen, folders = told[-1]
    assert chosen == file == names[-1] and items[-1][1] == "person.avatar"
    assert load_avatar(file, prior).height == 320
    module._removed(folders)
    assert not Path(file).exists()


def test_the_page_says_why_a_clip_teaches_nothing(prior, tmp_path):
    import gradio as gr

    from pipeline.page import Page

    plain = write_clip(tmp_path / "plain.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 60)
    with pytest.raises(gr.Error, match="plain.mp4"):
        list(Page(prior).learn(str(plain), 0, [], []))
    with pytest.raises(gr.Error, match="video of one person"):
        list(Page(prior).learn(None, 0, [], []))
