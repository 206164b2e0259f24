"""The encoder at work: synthetic clips with known codes, refinement, dense and encoder-only tracking, bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from capture.face_finder import FaceFinder
from capture.media import StillPicture, open_media
from models.code import Camera, FaceCode
from models.encoder.crop import Crop
from models.encoder.network import SIZE, Codes
from models.encoder.render import rendered
from models.encoder.synthetic import SyntheticFaces
from models.head import rotation_of_angles
from models.light.harmonics import HarmonicLight
from models.prior.reflectance import load_reflectance
from pipeline import tracking
from pipeline.encoder_evaluation import HELD_OUT, angle, code_errors, evaluate_encoder, refined_codes, table, turn, turn_by_axis
from pipeline.encoder_tracking import track_by_encoder
from pipeline.encoding import FaceEncoder, crop_of_box, out_of_crop, typical_camera
from pipeline.performance import Performance
from pipeline.real_faces import read_real_faces
from pipeline.refinement import Refiner, Seen, SeenPoints
from pipeline.report import track_report
from pipeline.tracking import track
from tests.conftest import command, expression, turned, write_clip
from tests.models.test_encoder import codes_of

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def encoder(prior):
    return FaceEncoder(prior)


@pytest.fixture(scope="module")
def reflectance(prior):
    return load_reflectance(prior)


@pytest.fixture(scope="module")
def held_out(prior, reflectance):
    return SyntheticFaces(prior, reflectance, HELD_OUT).batch(96)


@pytest.fixture
def clip(synthetic, tmp_path):
    """A head that turns from side to side and speaks: (path, its codes)."""
    head = synthetic(size=256, focal=320.0)
    codes = [head.code(expression(jawOpen=0.3 * (k % 8) / 8), turned(0.35 * np.sin(k / 40 * 2 * np.pi), 0.05)) for k in range(40)]
    return write_clip(tmp_path / "head.mp4", [head.picture(c) for c in codes]), codes


def test_held_out_faces_are_told(held_out, encoder, prior, reflectance):
    """Far from the bars on purpose: this fails where the weights are broken, the bars are measured by evaluate-encoder."""
    pictures, truth = held_out
    errors = code_errors(encoder.codes(pictures, truth.focal), truth, prior, reflectance)
    assert errors["landmarks"].mean() < 12 and errors["pose"].mean() < 9 and np.median(errors["light"]) < 30


def test_refinement_brings_codes_nearer_to_a_clean_picture(held_out, prior, reflectance):
    """Pictures that the model explains in full, and a start beside the truth: what pixels can tell gets better."""
    truth = held_out[1][np.flatnonzero(held_out[1].face)[:8]]
    size = 192
    pictures = rendered(codes_of(truth), truth.focal, prior, reflectance, size, np.full((8, size, size, 3), 100, np.uint8))
    refiner, rng = Refiner(prior, reflectance), np.random.default_rng(0)
    before, after, left = [], [], []
    for n in range(8):
        camera = Camera(float(truth.focal[n] * size), size, size)
        exact = out_of_crop(codes_of(truth), n, Crop(camera, (size / 2, size / 2), size))
        wrong = replace(exact.code, translation=exact.code.translation + [0.004, -0.003, 0])
        light = HarmonicLight(exact.light.coefficients * 1.15)
        found = refiner(camera, [Seen(pictures[n], wrong)], exact.identity, exact.albedo + rng.normal(0, 0.2, 32), light)
        apart = lambda code: np.linalg.norm((code.translation - exact.code.translation)[:2])
        before.append(apart(wrong)), after.append(apart(found.codes[0])), left.append(found.residual[0])
    assert np.mean(after) < 0.7 * np.mean(before)
    assert np.mean(left) < 0.06  # of sRGB codes from 0 to 1


def test_refinement_never_leaves_more_than_it_found(held_out, encoder, prior, reflectance):
    pictures, truth = held_out
    refiner = Refiner(prior, reflectance)
    for n in np.flatnonzero(truth.face)[8:12]:
        camera = Camera(float(truth.focal[n] * SIZE), SIZE, SIZE)
        start = encoder(pictures[n], Crop(camera, (SIZE / 2, SIZE / 2), SIZE))
        seen = [Seen(pictures[n], start.code)]
        first = refiner(camera, seen, start.identity, start.albedo, start.light, steps=0)
        last = refiner(camera, seen, start.identity, start.albedo, start.light)
        assert last.residual[0] <= first.residual[0] + 0.01
        assert (last.codes[0].expression >= 0).all() and (last.codes[0].expression <= 1).all()


def test_turns_are_told_by_angle_and_by_axis():
    rng = np.random.default_rng(0)
    angles = rng.uniform(-0.7, 0.7, (50, 3))
    away = np.radians([[3.0, -6, 1.5]])
    a, b = rotation_of_angles(*angles.T), rotation_of_angles(*(angles + away).T)
    assert np.allclose(turn_by_axis(a, b), 3.5)
    assert np.allclose(turn(a, rotation_of_angles(*(angles + [0, 0, np.radians(5)]).T)), 5)


def test_landmarks_and_points_weigh_alike(prior, reflectance):
    """Two sources that disagree by a shift, on a picture without anything to see: the face goes halfway."""
    size, focal = 200, 500.0
    camera, refiner = Camera(focal, size, size), Refiner(prior, reflectance)
    code = FaceCode(np.zeros(52), np.eye(3), np.array([0, 0, 0.6]), np.zeros((2, 2)), 1.0)
    light = HarmonicLight(np.zeros((9, 3)))
    shown = camera.project(prior.at_landmarks(prior.mean) + code.translation)[:, :2]
    points = SeenPoints(prior.ibug68 @ shown + [4.0, 0], np.full(68, 1.0))
    blank = np.zeros((size, size, 3), np.uint8)
    start = replace(code, translation=code.translation + [0.001, 0.002, 0])
    moved = {}
    for name, told in {"landmarks": (shown, None), "points": (None, points), "both": (shown, points)}.items():
        seen = Seen(blank, start, *told)
        found = refiner(camera, [seen], np.zeros(80), np.zeros(32), light)
        moved[name] = float((found.codes[0].translation - code.translation)[0] * focal / 0.6)
    assert moved["landmarks"] == pytest.approx(0, abs=0.2)
    assert moved["points"] == pytest.approx(4, abs=0.6)
    assert moved["both"] == pytest.approx(2, abs=0.7)


def test_points_lie_where_the_crop_saw_them(prior):
    """From crop widths to pixels of the whole picture, through a crop beside its middle."""
    crop = Crop(Camera(700.0, 640, 480), (500.0, 120.0), 160.0)
    rng = np.random.default_rng(0)
    space = rng.normal(0, 0.05, (68, 3)) + 0.9 * crop.rotation[:, 2]
    own = space @ crop.rotation
    nothing = [np.zeros((1, *shape)) for shape in ((80,), (52,), (2, 2), (3, 3), (3,), (32,), (9, 3), ())]
    shown = crop.focal * own[None, :, :2] / own[None, :, 2:]
    seen = out_of_crop(Codes(*nothing, shown, np.full((1, 68), 0.01)), 0, crop).points
    assert np.allclose(seen.at, crop.camera.project(space)[:, :2]) and np.allclose(seen.doubt, 1.6)


def test_dense_tracking_tells_skin_and_light_and_fits_no_worse(clip, prior, encoder, reflectance, tmp_path):
    path, _ = clip
    plain = track(open_media(path), prior, smoothing=0)
    dense = track(open_media(path), prior, smoothing=0, encoder=encoder)
    assert np.nanmean(dense.performances[0].error) <= np.nanmean(plain.performances[0].error)
    report = track_report(dense, prior, open_media(path))
    people = [frame["people"][0] for frame in report["frames"]]
    assert len(people) == 40
    for one in people:
        assert np.array(one["light"]).shape == (9, 3) and len(one["skin_albedo"]) == 3 and 0 <= one["confidence"] <= 1
        assert np.linalg.norm(one["light_direction"]) == pytest.approx(1, abs=1e-3)
        assert all(0 < channel < 1 for channel in one["skin_albedo"])
    assert np.ptp([one["light"] for one in people], axis=0).max() == 0  # one shot, one light
    assert angle(np.array(people[0]["light_direction"]), np.array([0.2, -0.5, -0.85])) < 60  # see models.prior.synthetic
    dense.performances[0].save(tmp_path / "p.safetensors")
    again = Performance.load(tmp_path / "p.safetensors")
    assert np.array_equal(again.light, dense.performances[0].light) and len(again.person.albedo) == 32
    assert "light" not in track_report(plain, prior, open_media(path))["frames"][0]["people"][0]


def test_the_encoder_alone_follows_a_turning_head(clip, prior, encoder):
    path, codes = clip
    tracked = track_by_encoder(open_media(path), prior, encoder, smoothing=0.5)
    performance = tracked.performances[0]
    assert performance.tracked.all() and len(performance) == 40 and np.isnan(performance.error).all()
    assert np.mean([turn(performance.rotation[k], codes[k].rotation) for k in range(40)]) < 12
    yaw = performance.rotation[:, 0, 2]
    assert np.corrcoef(yaw, [c.rotation[0, 2] for c in codes])[0, 1] > 0.95
    assert performance.light.shape == (40, 9, 3)


def test_a_face_that_leaves_is_lost_and_found_again(synthetic, prior, encoder, tmp_path):
    head = synthetic(size=256, focal=320.0)
    picture = head.picture(head.code())
    empty = np.full_like(picture, 90)
    path = write_clip(tmp_path / "gone.mp4", [picture] * 20 + [empty] * 30 + [picture] * 30)
    performance = track_by_encoder(open_media(path), prior, encoder).performances
    assert list(performance) == [0]
    tracked = performance[0].tracked
    assert tracked[:20].all() and not tracked[22:48].any() and tracked[-10:].all()
    assert np.isfinite(performance[0].rotation).all()


def crop_confidence(encoder, image: np.ndarray) -> float:
    height, width = image.shape[:2]
    camera = typical_camera(width, height)
    return encoder(image, Crop(camera, (width / 2, height / 2), float(min(width, height)))).code.confidence


def test_crops_without_a_face_say_so(encoder):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (200, 200, 3)).astype(np.uint8)
    flat = np.full((200, 200, 3), 120, np.uint8)
    stripes = np.tile((np.arange(200) // 10 % 2 * 200).astype(np.uint8)[None, :, None], (200, 1, 3))
    assert max(crop_confidence(encoder, image) for image in (noise, flat, stripes, np.zeros_like(flat))) < 0.5


@pytest.mark.parametrize("change", ["grey", "dark", "bright", "half"])
def test_poor_pictures_still_give_a_face(encoder, change):
    from pipeline.builtin import builtin_portrait

    image = builtin_portrait()
    with FaceFinder() as finder:
        box = finder(image)[0]
    if change == "grey":
        image = np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    elif change == "dark":
        image = (image * 0.15).astype(np.uint8)
    elif change == "bright":
        image = np.clip(image.astype(float) * 2.5, 0, 255).astype(np.uint8)
    else:
        image = image.copy()
        image[:, : int(box.centre[0])] = 0
    found = encoder(image, crop_of_box(typical_camera(512, 512), box))
    assert found.code.confidence > 0.5
    assert all(np.isfinite(v).all() for v in (found.identity, found.albedo, found.code.expression, found.light.coefficients))


def test_the_report_reads_well(prior):
    report = evaluate_encoder(prior, count=64, refined=8)
    json.dumps(report, allow_nan=False)
    text = table(report)
    assert "skin tones" in text and "batch of one" in text and len(report["tones"]) == 5
    assert report["refined"]["pose"]["mean"] > 0 and abs(sum(report["encoder"]["light"]["histogram"]["share"]) - 1) < 0.01


def test_refined_codes_keep_their_shape(held_out, encoder, prior, reflectance):
    pictures, truth = held_out[0][:3], held_out[1][:3]
    codes = encoder.codes(pictures, truth.focal)
    after = refined_codes(codes, pictures, truth, prior, reflectance)
    assert all(a.shape == b.shape for a, b in zip(codes, after)) and isinstance(after, Codes)


def test_training_folders_may_hold_anything(synthetic, tmp_path):
    from capture.photo import write_photo

    head = synthetic(size=256, focal=320.0)
    write_photo(tmp_path / "face.png", head.picture(head.code()))
    write_photo(tmp_path / "wall.png", np.full((200, 200, 3), 90, np.uint8))
    (tmp_path / "broken.mp4").write_bytes(b"\x00" * 300)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no picture")
    faces = read_real_faces([tmp_path], looks=2)
    assert len(faces) == 2 and [Path(f).name for f in faces.files] == ["face.png"]
    assert {Path(name).name for name, _ in faces.skipped} == {"wall.png", "broken.mp4", "empty.jpg", "notes.txt"}
    assert np.isfinite(faces.marks).any() and faces.crops.shape == (2, SIZE, SIZE, 3)


def test_bad_commands_say_one_line(tmp_path):
    cases = (
        (("track", "--input", "x.mp4", "--output", tmp_path / "p.safetensors", "--dense", "--encoder-only"), "x.mp4"),
        (("evaluate-encoder", "--weights", tmp_path / "none.safetensors"), "no encoder weights there"),
        (("train-encoder", "--output", tmp_path / "w.pt"), "expected .safetensors"),
        (("train-encoder", "--output", tmp_path / "w.safetensors", "--data", tmp_path / "nowhere"), "does not exist"),
        (("train-encoder", "--output", tmp_path / "w.safetensors", "--resume"), "no encoder weights there"),
    )
    for words, said in cases:
        done = command(*words)
        assert done.returncode == 2 and said in done.stderr.strip().splitlines()[-1], (words, done.stderr)
    assert not list(tmp_path.iterdir())


def test_a_picture_without_a_face_is_refused(prior, encoder):
    with pytest.raises(ValueError, match="no face found"):
        track_by_encoder(StillPicture(np.full((120, 160, 3), 80, np.uint8), "wall.png"), prior, encoder)


def test_looks_let_a_fit_expect_somebody(held_out, encoder):
    """Several looks make one expectation; what is no face makes none."""
    pictures, truth = held_out
    one = np.full((200, 200, 3), 127, np.uint8)
    landmarks = np.random.default_rng(0).uniform(60, 140, (478, 3))
    assert encoder.who(one, landmarks)() is None and encoder.expected([]) is None and encoder.expected([lambda: None]) is None
    seen = [lambda: np.full(80, 0.5), lambda: None, lambda: np.full(80, 1.5)]
    expected = encoder.expected(seen)
    assert np.allclose(expected.identity, 1.0) and expected.spread.shape == (80,) and (0 < expected.spread).all()
    assert (expected.spread < 1).all()
    off = np.abs(encoder.codes(pictures, truth.focal).identity.numpy() - truth.identity)[truth.face > 0.5]
    assert 0.5 < off.mean() / encoder.identity_spread.mean() < 1.2  # normal errors: 0.8


def test_who_is_tracked_is_expected_to_be_who_was_seen(clip, prior, monkeypatch):
    """`track` hands the looks at its keyframes to the fit."""
    given = []
    fit = tracking.fit_person
    monkeypatch.setattr(tracking, "fit_person", lambda *a: given.append(a[-1]) or fit(*a))
    track(open_media(clip[0]), prior)
    assert len(given) == 1 and np.abs(given[0].identity).max() > 0.1
