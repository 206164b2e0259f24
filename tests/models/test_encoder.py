"""The encoder's parts: synthetic faces and their truth, the decoder, crops as cameras, the network, its weights on disk."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models import tensors as tensors_module
from models.code import Camera
from models.encoder import weights as weights_module
from models.encoder.compiled import CompiledEncoder
from models.encoder.crop import Crop
from models.encoder.decoder import Decoder
from models.encoder.landmarks import Correction, Landmarks, rotation_of_vector
from models.encoder.losses import PhotometricLoss, SyntheticLoss, as_tensors
from models.encoder.network import SIZE, Codes, Encoder, folded, rotation_of_six
from models.encoder.render import rendered
from models.encoder.synthetic import SyntheticFaces, translation_of_place
from models.encoder.weights import SHIPPED, load_weights, save_weights
from models.errors import ModelError
from models.prior.reflectance import load_reflectance
from models.prior.synthetic import encode_srgb
from models.tensors import save_aside


@pytest.fixture(scope="module")
def reflectance(prior):
    return load_reflectance(prior)


@pytest.fixture(scope="module")
def drawn(prior, reflectance):
    return SyntheticFaces(prior, reflectance, 11).batch(24)


def codes_of(truth) -> Codes:
    tensors = as_tensors(truth)
    names = ("identity", "expression", "gaze", "rotation", "place", "albedo", "light", "face")
    nowhere = torch.zeros(len(truth.face), 68, 2)
    return Codes(*(tensors[name] for name in names), nowhere, nowhere[..., 0])


def test_the_same_seed_draws_the_same_faces(prior, reflectance, drawn):
    again = SyntheticFaces(prior, reflectance, 11).batch(24)
    other = SyntheticFaces(prior, reflectance, 12).batch(24)
    assert np.array_equal(drawn[0], again[0]) and all(np.array_equal(v, getattr(again[1], k)) for k, v in vars(drawn[1]).items())
    assert not np.array_equal(drawn[0], other[0])


def test_truth_and_picture_agree(prior, reflectance, drawn):
    """The codes, drawn again without hair, noise or anything in the way, explain most of each face's pixels."""
    pictures, truth = drawn
    model = Landmarks(prior)
    codes = codes_of(truth)
    focal = torch.from_numpy(truth.focal.astype(np.float32))
    marks = model.shown(model.shape(codes.identity, codes.expression), codes.rotation, codes.place, focal).numpy()
    assert np.abs(marks.mean(1)).max() < 0.3 and (np.ptp(marks[..., 0], axis=1) < 1).all()
    made = rendered(codes, truth.focal, prior, reflectance, SIZE, pictures)
    middle = slice(SIZE // 3, -SIZE // 3)
    apart = np.abs(made.astype(float) - pictures)[:, middle, middle].mean((1, 2, 3))
    shuffled = np.abs(made[::-1].astype(float) - pictures)[:, middle, middle].mean((1, 2, 3))
    assert np.median(apart) < 0.6 * np.median(shuffled)


def test_a_place_is_where_the_heads_origin_appears():
    place, focal = np.array([[0.1, -0.2, -1.0]]), np.array([3.0])
    x, y, z = translation_of_place(place, focal)[0]
    assert np.allclose([3 * x / z, 3 * y / z, np.log(0.1 * 3 / z)], place[0])


def test_the_decoder_draws_what_the_drawing_draws(prior, reflectance, drawn):
    truth = drawn[1][:4]
    codes, focal = codes_of(truth), torch.from_numpy(truth.focal.astype(np.float32))
    decoded = Decoder(prior, reflectance)(codes, focal, SIZE, silhouettes=False)
    other = rendered(codes, truth.focal, prior, reflectance, SIZE, np.zeros((4, SIZE, SIZE, 3), np.uint8))
    mine = encode_srgb(decoded.colour.numpy())
    inside = decoded.coverage.numpy() > 0
    assert inside.mean() > 0.1
    assert np.percentile(np.abs(mine.astype(int) - other)[inside], 95) <= 6


def test_the_decoders_gradients_match_differences(prior, reflectance, drawn):
    """Of the photometric loss, to every code: central differences along random directions, over some faces.

    Colour's are smooth. Geometry's differences jump where pixels change owner inside the face (lids, lips), which has no
    gradient, so there it is the agreement over all faces that counts.
    """
    loss = PhotometricLoss(Decoder(prior, reflectance), size=SIZE)
    generator = torch.Generator().manual_seed(0)
    steps = {"albedo": 0.02, "light": 0.02, "identity": 0.1, "expression": 0.05, "place": 0.005}
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for index in np.flatnonzero(drawn[1].face)[:5]:
        truth = drawn[1][index : index + 1]
        crops = torch.from_numpy(drawn[0][index : index + 1]).permute(0, 3, 1, 2).float() / 255
        focal = torch.from_numpy(truth.focal.astype(np.float32))
        base = codes_of(truth)
        for name, size in steps.items():
            value = getattr(base, name)
            along = torch.randn(value.shape, generator=generator)
            leaf = value.clone().requires_grad_()
            loss(base._replace(**{name: leaf}), crops, focal)[0].backward()
            at = lambda s: float(loss(base._replace(**{name: value + s * along}), crops, focal)[0])
            pairs[name].append((float((leaf.grad * along).sum()), (at(size) - at(-size)) / (2 * size)))
    for name, found in pairs.items():
        made, expected = np.array(found).T
        if name in ("albedo", "light"):
            assert np.abs(made - expected).max() < 0.03 * np.abs(expected).max(), name
        else:
            assert made @ expected > 0.7 * np.linalg.norm(made) * np.linalg.norm(expected), name


def test_photometric_descent_brings_a_shifted_face_home(prior, reflectance, drawn):
    index = np.flatnonzero((drawn[1].face > 0) & (np.abs(drawn[1].rotation[:, 0, 2]) < 0.4))[:2]
    truth = drawn[1][index]
    base, focal = codes_of(truth), torch.from_numpy(truth.focal.astype(np.float32))
    clean = rendered(base, truth.focal, prior, reflectance, SIZE, np.full((2, SIZE, SIZE, 3), 90, np.uint8))
    crops = torch.from_numpy(clean).permute(0, 3, 1, 2).float() / 255
    loss = PhotometricLoss(Decoder(prior, reflectance), size=SIZE)
    start = base.place + torch.tensor([0.03, -0.02, 0.03])
    place = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([place], lr=0.003)
    for _ in range(40):
        optimiser.zero_grad()
        loss(base._replace(place=place), crops, focal)[0].backward()
        optimiser.step()
    away = (place.detach() - base.place).abs().amax(0), (start - base.place).abs().amax(0)
    assert (away[0] < torch.tensor([0.35, 0.35, 0.7]) * away[1]).all()


def test_true_codes_cost_least(prior, reflectance, drawn):
    loss = SyntheticLoss(prior, reflectance)
    truth = as_tensors(drawn[1])
    best = codes_of(drawn[1])._replace(confidence=(truth["face"] - 0.5) * 40)
    least = float(loss(best, truth)[0])
    assert least < 0.05
    for name in ("identity", "expression", "gaze", "place", "albedo", "light"):
        wrong = getattr(best, name) + 0.1
        assert float(loss(best._replace(**{name: wrong.clamp(0, 1) if name == "expression" else wrong}), truth)[0]) > least


def test_six_numbers_make_a_rotation():
    six = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    rotation = rotation_of_six(six)
    assert torch.allclose(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(50), atol=1e-5)
    assert torch.allclose(rotation_of_six(torch.zeros(1, 6)), torch.eye(3)[None])


@pytest.fixture(scope="module")
def points(prior):
    return Landmarks(prior, prior.ibug68).double()


def some_codes(points, count: int = 6):
    """(identity, expression, rotation, place, focal), drawn alike each time."""
    rng = torch.Generator().manual_seed(0)
    normal = lambda *shape: torch.randn(*shape, generator=rng, dtype=torch.float64)
    expression = torch.rand(count, len(points.expression), generator=rng, dtype=torch.float64)
    place = 0.05 * normal(count, 3) + torch.tensor([0.0, 0.0, -1.0])
    return (
        normal(count, len(points.identity)),
        expression,
        rotation_of_vector(0.4 * normal(count, 3)),
        place,
        3 + normal(count).abs(),
    )


def test_derivatives_of_the_points_are_those_of_central_differences(points):
    identity, expression, rotation, place, focal = some_codes(points)
    shown, slope = points.linearised(identity, expression, rotation, place, focal)
    assert torch.equal(shown, points.shown(points.shape(identity, expression), rotation, place, focal))

    def at(step):
        turned = rotation_of_vector(step[:3].expand(len(focal), 3)) @ rotation
        return points.shown(
            points.shape(identity + step[6:86], expression + step[86:]), turned, place + step[3:6], focal
        ).flatten(1)

    for k in (*range(7), 40, 85, 86, 110, 137):
        step = torch.zeros(138, dtype=torch.float64)
        step[k] = 1e-5
        expected = (at(step) - at(-step)) / 2e-5
        assert torch.allclose(slope[..., k], expected, atol=1e-7), k


def test_a_correction_goes_as_far_as_points_are_trusted(prior, points):
    """Codes a little off come home where points are sharp, stay where they are doubtful, and never leave [0, 1]."""
    identity, expression, rotation, place, focal = some_codes(points)
    expression = 0.3 * expression
    seen = points.shown(points.shape(identity, expression), rotation, place, focal)
    rng = torch.Generator().manual_seed(1)
    off = rotation_of_vector(0.05 * torch.randn(len(focal), 3, generator=rng, dtype=torch.float64)) @ rotation
    moved = place + 0.02 * torch.randn(len(focal), 3, generator=rng, dtype=torch.float64)
    correction = Correction(points).double()
    how_far = lambda codes: (points.shown(points.shape(codes[0], codes[1]), *codes[2:], focal) - seen).norm(dim=2).mean()
    sharp, blind = (torch.full(seen.shape[:2], d, dtype=torch.float64) for d in (1e-3, 1e3))
    before = how_far((identity, expression, off, moved))
    codes = identity, expression, off, moved
    correct = lambda doubt: correction.moved(*codes, correction.solved(*correction.system(*codes, focal, seen, doubt)))
    after = correct(sharp)
    assert how_far(after) < 0.1 * before
    assert (after[2] - rotation).flatten(1).norm(dim=1).mean() < 0.5 * (off - rotation).flatten(1).norm(dim=1).mean()
    assert torch.allclose(after[2] @ after[2].transpose(1, 2), torch.eye(3, dtype=torch.float64), atol=1e-9)
    assert 0 <= after[1].min() and after[1].max() <= 1
    kept = correct(blind)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(kept, (identity, expression, off, moved)))


def test_an_encoders_parts_all_learn(prior, reflectance):
    """No part of the network is cut off from what it is told (some start at nothing and learn from the third step on)."""
    pictures, truth = SyntheticFaces(prior, reflectance, 3).batch(4, maps=True)
    torch.manual_seed(0)
    encoder, loss, tensors = Encoder(prior), SyntheticLoss(prior, reflectance), as_tensors(truth)
    crops = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    optimiser = torch.optim.SGD(encoder.parameters(), lr=1e-4)
    for _ in range(3):
        codes, inner = encoder.with_inner(crops, tensors["focal"])
        total = loss(codes, tensors)[0] + loss.on_the_way(codes, inner, tensors)[0]
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
        optimiser.step()
    silent = [name for name, p in encoder.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert not silent


def test_folding_changes_no_answer(drawn):
    encoder, _ = load_weights()
    crops = torch.from_numpy(drawn[0][:4]).permute(0, 3, 1, 2).float() / 255
    focal = torch.full((4,), 4.0)
    with torch.inference_mode():
        for whole, melted in zip(encoder(crops, focal), folded(encoder)(crops, focal)):
            assert (whole - melted).abs().max() < 2e-3


def test_openvino_gives_torchs_answers(drawn):
    encoder = folded(load_weights()[0])
    compiled = CompiledEncoder(encoder)
    for picture, focal in zip(drawn[0][:4], (2.0, 3.0, 4.0, 6.0)):
        crop = torch.from_numpy(picture)[None].permute(0, 3, 1, 2).float() / 255
        with torch.inference_mode():
            plain = encoder(crop, torch.tensor([focal]))
        for name, a, b in zip(Codes._fields, compiled(picture, focal), plain):
            assert a.shape == b.shape and (a - b).abs().max() < 1e-4 * max(1.0, float(b.abs().max())), name


def test_a_compiled_encoder_may_be_asked_from_many_threads(drawn):
    compiled = CompiledEncoder(folded(load_weights()[0]))
    alone = [compiled(picture, 4.0) for picture in drawn[0][:8]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda picture: compiled(picture, 4.0), drawn[0][:8]))
    assert all(torch.equal(a, b) for one, other in zip(alone, together) for a, b in zip(one, other))


def test_openvino_reports_to_nobody(tmp_path):
    """It would tell its makers of every import, and keep a number for this user in their home folder."""
    work = (
        "from models.encoder.compiled import _openvino; _openvino(); import sys, openvino.tools.ovc; "
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry.')]; print(openvino.tools.ovc.telemetry)"
    )
    told = subprocess.run(
        [sys.executable, "-c", work], env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )
    assert "telemetry_stub" in told.stdout and not list(tmp_path.iterdir())


def test_a_crops_camera_sees_what_the_camera_sees():
    """Points in space land on the same place through the camera and the homography as through the crop's own camera."""
    rng = np.random.default_rng(0)
    for centre in ((320, 240), (90, 400), (600, 60)):
        crop = Crop(Camera(800.0, 640, 480), centre, 150.0)
        points = rng.normal(0, 0.1, (30, 3)) + crop.rotation[:, 2] * 1.4
        pixels = crop.camera.project(points)[:, :2]
        own = points @ crop.rotation  # crop axes
        expected = crop.focal * SIZE * own[:, :2] / own[:, 2:] + SIZE / 2
        found = np.concatenate([pixels, np.ones((30, 1))], 1) @ np.linalg.inv(crop.homography()).T
        assert np.allclose(found[:, :2] / found[:, 2:], expected)
        # near its centre, the crop spans as many pixels as it says
        step = np.array([[0.5, 0.5, 1], [0.5 + 1 / SIZE, 0.5, 1]]) * [SIZE, SIZE, 1] @ crop.homography().T
        step = step[:, :2] / step[:, 2:]
        assert np.linalg.norm(step[1] - step[0]) == pytest.approx(150 / SIZE, rel=0.1)


@pytest.mark.parametrize("side", [60.0, 150.0, 400.0])
def test_a_crop_shows_pixels_where_its_camera_says(side):
    image = np.zeros((480, 640, 3), np.uint8)
    image[200:206, 300:306] = 255
    crop = Crop(Camera(800.0, 640, 480), (310.0, 215.0), side)
    shown = crop.take(image).astype(float)[..., 0]
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    found = np.array([(shown * x).sum(), (shown * y).sum()]) / shown.sum()
    expected = np.linalg.inv(crop.homography()) @ [303.0, 203.0, 1]
    assert np.abs(found - expected[:2] / expected[2]).max() < 0.25


def test_weights_come_back_as_they_went(prior, tmp_path):
    torch.manual_seed(0)
    encoder = Encoder(prior).eval()
    save_weights(tmp_path / "w.safetensors", encoder, {"data": "none"})
    again, origin = load_weights(tmp_path / "w.safetensors")
    assert origin == {"data": "none"} and not list(tmp_path.glob(".*"))
    crops, focal = torch.rand(1, 3, SIZE, SIZE), torch.ones(1)
    with torch.inference_mode():
        assert all((a - b).abs().max() < 0.02 for a, b in zip(encoder(crops, focal), again(crops, focal)))


def test_unusable_weights_say_why(tmp_path):
    good = SHIPPED.read_bytes()
    cases = {
        "missing": (None, "no encoder weights there"), "cut": (good[: len(good) // 2], "not whole"), "empty": (b"", "not whole"),
        "noise": (bytes(range(256)) * 40, "not whole"),
    }  # fmt: skip
    for name, (content, said) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelError, match=said) as caught:
            load_weights(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_version_or_kind_are_refused(prior, tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module, "VERSION", "0")
    save_weights(tmp_path / "old.safetensors", Encoder(prior), {})
    monkeypatch.undo()
    with pytest.raises(ModelError, match="version 0, expected 3"):
        load_weights(tmp_path / "old.safetensors")
    save_aside(tmp_path / "other.safetensors", {"a": torch.zeros(1)}, {"format": "something"})
    with pytest.raises(ModelError, match="not an encoder's weights"):
        load_weights(tmp_path / "other.safetensors")


def test_a_full_disk_leaves_the_old_weights(prior, tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensors_module, "save_file", full)
    with pytest.raises(ModelError, match="No space left on device.*unharmed"):
        save_weights(path, Encoder(prior), {})
    assert path.read_bytes() == b"old" and not list(tmp_path.glob(".*"))


def test_shipped_weights_are_small_and_say_where_they_come_from():
    assert SHIPPED.stat().st_size <= 12e6
    assert load_weights()[1]["data"]
