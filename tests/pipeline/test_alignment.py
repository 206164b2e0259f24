"""Alignment: codes that landmarks have slightly wrong come nearer to the pixels; what can't be aligned stays as it is."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from capture.media import StillPicture, open_media
from models.avatar.mesh_colours import MeshColours
from models.avatar.render import draw_mesh
from models.code import FaceCode
from models.head import Head, look_in_camera
from models.raster.cpu import rasterise
from pipeline import alignment
from pipeline.alignment import align
from pipeline.performance import Performance
from pipeline.tracking import track
from tests.conftest import Synthetic, expression, turned, write_clip

FRAMES = 40


def performance_of(head: Synthetic, codes: list[FaceCode]) -> Performance:
    count = len(codes)
    arrays = {name: np.stack([getattr(c, name) for c in codes]) for name in ("expression", "rotation", "translation", "gaze")}
    return Performance(
        head.person, np.arange(count) / 30, np.full(count, 1 / 30), np.ones(count, bool), confidence=np.ones(count),
        error=np.zeros(count), **arrays,
    )  # fmt: skip


def away(a: Performance, b: Performance, head: Synthetic) -> tuple[float, float]:
    """Mean angle (degrees) and mean distance across the picture (pixels) between two performances' heads."""
    angles = [np.linalg.norm(cv2.Rodrigues(x @ y.T)[0]) for x, y in zip(a.rotation, b.rotation)]
    focal = head.person.camera.focal
    moves = np.linalg.norm(a.translation[:, :2] - b.translation[:, :2], axis=1) * focal / b.translation[:, 2]
    return float(np.degrees(np.mean(angles))), float(np.mean(moves))


def pictures_of(head: Synthetic, codes: list[FaceCode]) -> list[np.ndarray]:
    """The head with freckles, as skin has them."""
    prior, camera = head.prior, head.person.camera
    model = Head(prior, head.person)
    colours = MeshColours.of(prior.triangles, np.full(len(prior.triangles), 2))
    skin = np.random.default_rng(3).normal(0, 25, (len(colours), 1)).astype(np.float32) + np.float32([170, 130, 110])
    out = []
    for code in codes:
        posed = model.posed(code).astype(np.float32)
        seen = rasterise(camera.project(posed), prior.triangles, camera.height, camera.width)
        freckled = draw_mesh(np.zeros((camera.height, camera.width, 3), np.uint8), seen, prior.triangles, colours, skin)
        picture = head.picture(code)
        there = (seen.triangle >= 0)[..., None]
        out.append(np.where(there, (0.5 * picture + 0.5 * freckled).astype(np.uint8), picture))
    return out


def apart(a: Performance, b: Performance, head: Synthetic) -> float:
    """Mean distance of two performances' landmarks in the picture, pixels."""
    model, camera = Head(head.prior, head.person), head.person.camera
    points = lambda code: camera.project(head.prior.at_landmarks(model.posed(code)))[:468, :2]
    return float(np.mean([np.linalg.norm(points(a.code(k)) - points(b.code(k)), axis=1).mean() for k in range(len(a))]))


@pytest.fixture(scope="module")
def shot(prior, tmp_path_factory):
    """A synthetic head in motion, its clip, its true performance and the same as wobbling landmarks would have it."""
    head = Synthetic(prior, 4, 256, 320.0)
    t = np.arange(FRAMES) / 12
    codes = [
        replace(
            head.code(
                expression(jawOpen=0.3 + 0.3 * np.sin(5 * s), browInnerUp=0.4 + 0.4 * np.sin(1.5 * s)),
                turned(0.25 * np.sin(1.1 * s), 0.12 * np.sin(1.9 * s), 0.05 * np.sin(s)),
            ),
            translation=np.array([0.02 * np.sin(0.9 * s), 0.01 * np.sin(1.3 * s), 0.6]),
        )
        for s in t
    ]
    path = write_clip(tmp_path_factory.mktemp("shot") / "head.mp4", pictures_of(head, codes), lossless=True)
    truth = performance_of(head, codes)
    wrong = [
        replace(
            code,
            rotation=turned(0.03 * np.sin(2.9 * s + 1), 0.03 * np.cos(2.3 * s)) @ code.rotation,
            translation=code.translation + np.array([0.002 * np.sin(3.1 * s), 0.002 * np.cos(2.7 * s), 0]),
            expression=np.clip(code.expression + 0.08 * np.sin(3.7 * s) * (code.expression > 0), 0, 1),
        )
        for s, code in zip(t, codes)
    ]
    return head, path, truth, performance_of(head, wrong)


def test_codes_come_nearer_to_the_truth(shot, prior):
    head, path, truth, wrong = shot
    found = align(open_media(path), wrong, prior)
    before, after = away(wrong, truth, head), away(found, truth, head)
    assert after[0] < 0.9 * before[0] and after[1] < 0.6 * before[1]
    assert apart(found, truth, head) < 0.6 * apart(wrong, truth, head)
    moved = truth.expression.std(0) > 0.05
    error = lambda p: np.abs(p.expression - truth.expression)[:, moved].mean()
    assert error(found) < 1.1 * error(wrong)
    assert found.expression.min() >= 0 and found.expression.max() <= 1


def test_eyes_look_where_they_looked(shot, prior):
    _, path, _, wrong = shot
    found = align(open_media(path), wrong, prior, smoothing=0)
    looks = [look_in_camera(p.rotation[7], p.gaze[7]) for p in (wrong, found)]
    np.testing.assert_allclose(looks[0], looks[1], atol=1e-6)
    assert np.abs(wrong.rotation[7] - found.rotation[7]).max() > 1e-4


def test_losses_stay_held(shot, prior):
    _, path, _, wrong = shot
    tracked = wrong.tracked.copy()
    tracked[20:25] = False
    found = align(open_media(path), replace(wrong, tracked=tracked), prior)
    for k in range(20, 25):
        np.testing.assert_array_equal(found.rotation[k], found.rotation[19])
        np.testing.assert_array_equal(found.expression[k], found.expression[19])


def test_what_cannot_be_aligned_stays(shot, prior):
    head, path, _, wrong = shot
    still = StillPicture(head.picture(head.code()), "still.png")
    one = performance_of(head, [head.code()])
    assert align(still, one, prior) is one
    few = replace(wrong, tracked=np.arange(FRAMES) < alignment._LEAST - 1)
    assert align(open_media(path), few, prior) is few


def test_a_picture_without_texture_moves_nothing(shot, prior, tmp_path):
    """No pixel says anything: landmarks keep their word."""
    _, _, truth, wrong = shot
    grey = write_clip(tmp_path / "grey.mp4", [np.full((256, 256, 3), 120, np.uint8)] * FRAMES, lossless=True)
    found = align(open_media(grey), wrong, prior, smoothing=0)
    assert max(np.linalg.norm(cv2.Rodrigues(a @ b.T)[0]) for a, b in zip(found.rotation, wrong.rotation)) < 2e-3
    assert np.abs(found.expression - wrong.expression).max() < 0.02


def test_a_picture_twice_as_large_gives_the_same(shot, prior, tmp_path, monkeypatch):
    head, path, truth, wrong = shot
    person = head.person
    large = [np.kron(frame.image, np.ones((2, 2, 1), np.uint8)) for frame in open_media(path)]
    twice = write_clip(tmp_path / "twice.mp4", large, lossless=True)
    camera = replace(person.camera, focal=2 * person.camera.focal, width=512, height=512)
    monkeypatch.setattr(alignment, "_EYES", 45.0)
    small = align(open_media(path), wrong, prior)
    again = align(open_media(twice), replace(wrong, person=replace(person, camera=camera)), prior)
    assert away(small, again, head)[0] < 0.15


@pytest.mark.media
def test_a_real_shot_keeps_its_landmarks(media, prior):
    """What the pixels say agrees with what landmarks say, to a pixel or so."""
    clip = open_media(media / "driver/driver_male_smile_greenscreen_25fps_512.mp4")
    performance = track(clip, prior).performances[0]
    found = align(clip, performance, prior)
    turned_by = [np.degrees(np.linalg.norm(cv2.Rodrigues(a @ b.T)[0])) for a, b in zip(found.rotation, performance.rotation)]
    assert 0.01 < np.mean(turned_by) < 2
    assert 0 < np.abs(found.expression - performance.expression).mean() < 0.1
