"""Whoever is moved under a light: their outline is the puppet's own, and what is behind them stays."""

from __future__ import annotations

import copy
from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.colour import ENCODE
from models.light.lights import Lamp, ambient_light
from models.light.presets import PRESETS
from models.matting import ALONE, BESIDE
from models.portrait.view import Faceless
from pipeline.ensemble import open_ensemble
from pipeline.lit_puppet import lit
from pipeline.puppet import without_gaps
from tests.conftest import expression, turned
from tests.relight_figures import as_known


@pytest.fixture(scope="module")
def both(prior):
    who = open_ensemble("builtin", prior)
    return who.puppets[0], lit(who, PRESETS["noon"](), prior).puppets[0]


def codes(puppet):
    for angle in (0.0, 0.15, 0.35):
        yield replace(puppet.base, expression=expression(jawOpen=angle), rotation=puppet.base.rotation @ turned(angle))


def test_what_is_behind_whoever_is_lit_stays_as_it_is(both):
    plain, shining = both
    for code in codes(plain):
        seen = plain.again()(code, plain.person.camera, 0.0, matte=BESIDE)
        out = shining.again()(code, plain.person.camera, 0.0)
        nobody, somebody = seen[..., 3] == 0, seen[..., 3] == 255
        assert nobody.mean() > 0.2 and np.array_equal(out[nobody], seen[nobody, :3])
        assert np.abs(out[somebody].astype(int) - seen[somebody, :3]).mean() > 5


def test_cut_out_their_alpha_is_the_same_with_and_without_a_light(both):
    plain, shining = both
    for code in codes(plain):
        seen = plain.again()(code, plain.person.camera, 0.0, matte=ALONE)
        out = shining.again()(code, plain.person.camera, 0.0, matte=ALONE)
        assert out.shape == seen.shape and np.array_equal(out[..., 3], seen[..., 3])
        assert np.abs(out[..., :3].astype(int) - seen[..., :3])[seen[..., 3] == 255].mean() > 5


def test_a_frame_without_its_face_stands_in_the_same_light(both):
    """Of a video that keeps its own motion; the frames beside it are lit, so that it would flash."""
    plain, shining = both
    view = plain.source.views[0]
    faceless = Faceless(view.image, view.alpha, view.code)
    elsewhere = replace(view.code, expression=expression(jawOpen=0.5), translation=view.code.translation + 0.05)
    shown = lambda puppet, matte=None: puppet.again()(elsewhere, plain.person.camera, 0.0, faceless, matte)
    assert np.array_equal(shown(plain), view.image)
    beside = shining.again()(view.code, plain.person.camera, 0.0, view)
    people = view.alpha > 250
    off = lambda picture: np.abs(picture.astype(int) - beside)[people].mean()
    assert off(shown(shining)) < 3 and off(view.image) > 15
    assert np.array_equal(shown(shining)[view.alpha == 0], view.image[view.alpha == 0])
    assert np.array_equal(shown(shining, ALONE)[..., 3], view.alpha)


def test_light_that_went_along_with_a_turned_head_is_known(shot):
    """A grey head that was turned in a picture: under another light it looks as if it had stood there turned."""
    relit, performance = shot.people[0]
    relit = copy.copy(as_known(shot, lamp_from(-0.8)).people[0][0])
    base, turn = performance.code(0), turned(0.4)
    code = replace(base, rotation=turn @ base.rotation)
    matte, size = np.ones((288, 288), np.float32), (288, 288)
    seen = lambda light: [0.4 * one.diffuse + one.gloss for one in relit.shader(code, matte, [light], *size)][0]
    coded = lambda linear: ENCODE[np.round(65535 * np.clip(linear, 0, 1)).astype(np.uint16)]
    after = lamp_from(0.5)
    image, wanted = coded(seen(relit.source.carried(turn))), coded(seen(after)).astype(float)
    off = [np.abs(relit(image, code, matte, after, turned=how) - wanted).mean(-1) for how in (turn, None)]
    posed = relit.shader.lit.head.posed(code)
    points = relit.person.camera.project(relit.shader.lit.prior.at_landmarks(posed)) * (288 / relit.person.camera.width)
    head = np.zeros(size, bool)
    (left, top), (right, chin) = points[:468, :2].min(0).astype(int), points[:468, :2].max(0).astype(int)
    head[top : chin - 2, left:right] = True
    assert off[0][head].mean() < 1 and off[1][head].mean() > 8
    # shoulders stay, and so does their light
    below = slice(chin + (chin - top) // 2, None)
    assert np.allclose(off[0][below], off[1][below])


def lamp_from(x: float):
    direction = np.array([x, -0.3, -1]) / np.linalg.norm([x, -0.3, -1])
    return ambient_light(np.full(3, 0.2), (Lamp("directional", np.full(3, 0.8), direction=direction),))


def test_a_portrait_says_how_far_it_has_turned(both):
    plain = both[0].again()
    for angle in (0.0, 0.3):
        code = replace(plain.base, rotation=turned(angle) @ plain.base.rotation)
        plain(code, plain.person.camera, 0.0)
        assert np.allclose(plain.turned(code), turned(angle), atol=1e-6)


def test_a_narrow_gap_at_a_neck_is_closed_and_nothing_else_changes():
    alpha = np.zeros((512, 400), np.uint8)
    cv2.ellipse(alpha, (200, 200), (80, 110), 0, 0, 360, 255, -1)
    alpha[330:, 80:320] = 255
    alpha[300:330, 150:250] = 255
    whole = cv2.GaussianBlur(alpha, (0, 0), 1.5)
    gap = whole.copy()
    gap[312:320, 150:250] = 0
    out = without_gaps(gap)
    assert out[316, 160:240].min() > 250
    rest = np.ones_like(alpha, bool)
    rest[290:345, 60:340] = False
    assert np.abs(out[rest].astype(int) - whole[rest]).max() < 40  # corners of a round outline in pixels
    # what is closed of corners is a few pixels
    assert (np.abs(out.astype(int) - whole) > 30).sum() < 400
