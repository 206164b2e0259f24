"""Whoever is moved under a light: their outline is the puppet's own, and what is behind them stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.light.presets import PRESETS
from models.matting import ALONE, BESIDE
from pipeline.ensemble import open_ensemble
from pipeline.lit_puppet import lit
from tests.conftest import expression, turned


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
