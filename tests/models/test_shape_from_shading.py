"""Shape from shading on the prior's head: what it must tell, what it must leave, and its derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from models.code import Camera, FaceCode, Person
from models.head import Head, rotation_of_angles
from models.light.lights import Lamp, Light, ambient_light
from models.prior.face import AnnyPrior
from models.prior.reflectance import load_reflectance
from models.relight import shape_from_shading as module
from models.relight.nose import nose, nose_height
from models.relight.shading import Shader
from models.relight.shape_from_shading import Glance, shape_from_shading
from models.relight.surface import LitHead

CODE = FaceCode(np.zeros(52), rotation_of_angles(0.2, -0.1), np.array([0.0, 0.0, 0.6]))
LIGHT = ambient_light(np.full(3, 0.3), (Lamp("directional", np.full(3, 0.7), direction=np.array([-0.6, -0.48, -0.64])),))


def somebody(prior: AnnyPrior) -> Person:
    return Person(np.zeros(len(prior.identity)), np.zeros((478, 3)), Camera(600.0, 400, 400), np.zeros(52), np.zeros((2, 2)))


def bump(prior: AnnyPrior, height: float = 0.004, width: float = 0.012) -> np.ndarray:
    """V x 3: both cheeks bulging towards the face's front."""
    out = np.zeros_like(prior.mean)
    for landmark in (50, 280):
        away = prior.mean - prior.at_landmarks(prior.mean)[landmark]
        out[:, 2] -= height * np.exp(-0.5 * (away**2).sum(1) / width**2)
    out[prior.part != 0] = 0
    return out


def glance(prior: AnnyPrior, moved: np.ndarray | None, light: Light, spots: float = 0.0) -> Glance:
    """Skin as it would be seen on a head with moved vertices: no gloss, albedo 0.4, or darker in spots."""
    shader = Shader(LitHead(Head(prior, somebody(prior), moved)))
    posed = shader.lit.head.posed(CODE)
    normals = shader.lit.normals(posed)
    cosine = -(normals * posed).sum(1) / np.linalg.norm(posed, axis=1)
    chosen = np.flatnonzero((load_reflectance(prior).skin > 0) & (cosine > 0.3) & (normals @ light.lamps[0].direction > 0.05))
    albedo = np.full((len(chosen), 3), 0.4)
    odd = np.random.default_rng(0).random((len(chosen), 1)) < spots
    return Glance(CODE, chosen, shader.irradiance(CODE, light)[chosen] * np.where(odd, 0.1, albedo), albedo)


@pytest.fixture(scope="module")
def shader(prior) -> Shader:
    return Shader(LitHead(Head(prior, somebody(prior))))


@pytest.fixture
def without_bounce(monkeypatch):
    monkeypatch.setattr(module, "bounced", lambda light, front: np.zeros(3))


def turned(prior: AnnyPrior, first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    """Mean degrees between the normals of a head moved in two ways."""
    one, other = (module.sharp_normals(LitHead(Head(prior, somebody(prior))), prior.mean + moved)[1] for moved in (first, second))
    return float(np.degrees(np.arccos(np.clip((one * other).sum(1), -1, 1)))[where].mean())


@pytest.mark.parametrize("spots", [0.0, 0.05])
def test_a_bulge_is_told_from_its_shading(prior, shader, without_bounce, spots):
    true = bump(prior)
    seen = glance(prior, true, LIGHT, spots)
    told = shape_from_shading(shader.lit, shader.transport, [seen], LIGHT, 0.0)
    near = seen.vertices[np.linalg.norm(true[seen.vertices], axis=1) > 0.0005]
    before, after = turned(prior, np.zeros_like(true), true, near), turned(prior, told, true, near)
    assert before > 5
    assert after < 0.75 * before  # one lamp tells one way of two


def test_a_head_that_looks_as_expected_stays_as_it_is(prior, shader, without_bounce):
    seen = glance(prior, None, LIGHT)
    brighter = Glance(seen.code, seen.vertices, 1.7 * seen.colour, seen.albedo)  # how bright skin is tells no shape
    for one in (seen, brighter):
        told = shape_from_shading(shader.lit, shader.transport, [one], LIGHT, 0.0)
        assert np.abs(told).max() < 1e-4


def test_vertices_move_along_the_rays_and_eyes_and_teeth_stay(prior, shader, without_bounce):
    told = shape_from_shading(shader.lit, shader.transport, [glance(prior, bump(prior), LIGHT)], LIGHT, 0.0)
    posed = shader.lit.head.posed(CODE)
    after = posed + told @ CODE.rotation.T
    camera = somebody(prior).camera
    assert np.abs(told).max() > 5e-4
    assert np.abs(camera.project(after)[:, :2] - camera.project(posed)[:, :2]).max() < 0.01
    assert not told[prior.part != 0].any()


def test_two_looks_agree_with_one(prior, shader, without_bounce):
    seen = glance(prior, bump(prior), LIGHT)
    once = shape_from_shading(shader.lit, shader.transport, [seen], LIGHT, 0.0)
    twice = shape_from_shading(shader.lit, shader.transport, [seen, seen], LIGHT, 0.0)
    assert np.abs(once - twice).max() < 1e-5


def test_what_a_move_does_is_the_derivative_of_the_brightness(prior, shader):
    seen = glance(prior, None, LIGHT)
    shape = shader.lit.head.shaped(CODE.expression, CODE.gaze).astype(np.float64)
    one = module._Seen(shader.lit, shader.transport, shape, seen, LIGHT, 0.0, nose(prior))
    away = np.tile(CODE.rotation[2], (len(shape), 1)) * (prior.part == 0)[:, None]
    _, _, slopes = one.told(away, np.zeros(len(shape)))
    # smooth moves of a tenth of a millimetre: float32 normals bear no less
    wave = 1e-4 * np.sin(shape @ np.array([90.0, 60.0, 0]))
    ahead, behind = (one.told(away, sign * wave)[0] for sign in (1, -1))
    expected = slopes @ wave
    change = (behind - ahead) / 2  # of the shaded brightness' logarithm, but for a gain
    change -= np.median(change - expected)
    assert np.corrcoef(change, expected)[0, 1] > 0.98
    assert np.abs(change - expected).mean() < 0.15 * np.abs(expected).mean()


def test_skin_in_a_lamps_shadow_tells_no_shape(prior, shader):
    seen = glance(prior, None, LIGHT)
    shape = shader.lit.head.shaped(CODE.expression, CODE.gaze).astype(np.float64)
    side = ambient_light(np.full(3, 0.1), (Lamp("directional", np.ones(3), direction=np.array([-0.96, 0, -0.28])),))
    one = module._Seen(shader.lit, shader.transport, shape, seen, side, 0.0, nose(prior))
    _, weights, _ = one.told(np.zeros_like(shape), np.zeros(len(shape)))
    posed = shader.lit.head.posed(CODE)[seen.vertices]
    beyond = posed[:, 0] - posed[:, 0].mean() > 0.04  # the cheek turned away
    assert (weights[beyond] == 0).mean() > 0.8
    assert (weights[~beyond] > 0).mean() > 0.5


def test_a_nose_whose_sides_are_brighter_stays_about_as_high(prior, shader, without_bounce):
    """Light between nose and cheeks, which is not reckoned with, must not flatten it."""
    seen = glance(prior, None, LIGHT)
    sides = (nose(prior) * (nose_height(prior, prior.mean) < 0.015))[seen.vertices]
    lit = Glance(seen.code, seen.vertices, seen.colour * (1 + 0.5 * sides[:, None]), seen.albedo)
    told = shape_from_shading(shader.lit, shader.transport, [lit], LIGHT, 0.0)
    assert np.abs(told).max() > 5e-4  # it does tell something
    before, after = (nose_height(prior, prior.mean + moved).max() for moved in (0 * told, told))
    assert abs(after - before) < 0.0015
