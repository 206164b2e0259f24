"""How high noses are told to be, and what is nose at all."""

from __future__ import annotations

import numpy as np
import pytest

from models.relight.nose import HIGHER, from_foot_to_tip, nose, nose_height, raised


def test_noses_alone_are_nose(prior):
    surely = nose(prior)
    at = prior.at_landmarks(surely[:, None] * np.ones(3))[:, 0]
    assert at[[4, 5, 195, 197, 49, 279, 98, 327]].min() > 0.75
    assert at[[50, 280, 105, 334, 0, 17, 152, 10, 33, 263, 133, 362]].max() < 0.1  # cheeks, brows, lips, chin, forehead, eyes


def test_the_priors_nose_stands_out_by_two_centimetres(prior):
    height = nose_height(prior, prior.mean)
    tip = prior.at_landmarks(height[:, None] * np.ones(3))[[1, 4], 0]
    assert (tip > 0.017).all() and height.max() < 0.025
    assert not height[nose(prior) == 0].any()


def test_a_face_without_a_nose_has_no_height(prior):
    plane = prior.mean.copy()
    plane[:, 2] = 0.1 * plane[:, 0] - 0.2 * plane[:, 1]
    # harmonic over unlike edges: a plane is one only about
    assert nose_height(prior, plane).max() < 0.1 * nose_height(prior, prior.mean).max()


def test_noses_are_raised_by_a_share_of_their_height_and_nothing_else_is(prior):
    more = raised(prior, prior.mean)
    before, after = nose_height(prior, prior.mean), nose_height(prior, prior.mean + more)
    assert after.max() / before.max() == pytest.approx(1 + HIGHER, abs=0.02)
    assert not more[nose(prior) == 0].any() and not more[:, :2].any()


def test_a_tips_rise_is_told_and_a_faces_move_is_not(prior):
    weights = from_foot_to_tip(prior)
    assert abs(weights.sum()) < 1e-9
    height = nose_height(prior, prior.mean)
    assert 0.6 * height.max() < weights @ height < height.max()
