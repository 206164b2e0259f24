"""Skin from two pigments, and the Gaussian over it."""

import numpy as np
import pytest
import torch

from models.prior.reflectance import ambient_openness, draw_logits, laplace_beltrami, load_reflectance
from models.prior.skin import MELANIN, skin_colour


@pytest.fixture(scope="module")
def reflectance(prior):
    return load_reflectance(prior)


def test_melanin_darkens_and_blood_reddens():
    melanin = np.linspace(*MELANIN, 12)
    tones = skin_colour(melanin, np.full(12, 0.03))
    assert (np.diff(tones, axis=0) < 0).all()
    blood = skin_colour(np.full(8, 0.04), np.linspace(0.01, 0.1, 8))
    assert (np.diff(blood[:, 0] / blood[:, 1]) > 0).all()
    assert (tones[:, 0] > tones[:, 1]).all() and (tones[:, 1] > tones[:, 2]).all()  # skin is reddish at every tone


def test_skin_spans_what_people_span():
    """From about one half of the light sent back to about one twentieth."""
    light, dark = (skin_colour(m, 0.02) @ [0.2126, 0.7152, 0.0722] for m in MELANIN)
    assert 0.4 < light < 0.6 and 0.02 < dark < 0.06


def test_a_perfect_reflector_would_be_white():
    from models.prior.skin import _to_linear_srgb

    assert np.allclose(_to_linear_srgb().sum(0), 1)


def test_harmonics_of_a_sphere_are_known():
    """Eigenvalues l (l + 1), each 2 l + 1 times."""
    from tests.models.test_differentiable import ball

    points, triangles = ball(torch.zeros(2, dtype=torch.float64), 1.0, 40)
    points = (points[0].numpy() - [0, 0, 4]) * [1, 1, 2]
    # the mesh's poles and seam are several vertices at one place; merge them
    keys, index = np.unique(points.round(9), axis=0, return_inverse=True)
    cells = index.reshape(-1)[triangles.numpy()]
    cells = cells[(cells[:, 0] != cells[:, 1]) & (cells[:, 1] != cells[:, 2]) & (cells[:, 2] != cells[:, 0])]
    values, functions = laplace_beltrami(keys, cells, 9)
    assert np.allclose(values, [0, 2, 2, 2, 6, 6, 6, 6, 6], atol=0.1)
    assert np.isfinite(functions).all()


def test_coefficients_are_standard_normal(prior, reflectance):
    """Drawn heads, put into the basis, have unit variance in each component: the Gaussian is the one that was learnt."""
    drawn = draw_logits(prior, 300, np.random.default_rng(7)) - reflectance.mean
    flat = reflectance.basis.reshape(len(reflectance.basis), -1)
    coefficients = np.linalg.lstsq(flat.T, drawn.reshape(300, -1).T, rcond=None)[0][:8]
    assert (np.abs(coefficients.std(1) - 1) < 0.3).all()
    assert float(reflectance.explained[0]) > 0.99


def test_albedo_is_a_reflectance_and_its_mean_the_skins(reflectance):
    coefficients = torch.randn(64, 32, generator=torch.Generator().manual_seed(0))
    albedo = reflectance.albedo(coefficients).numpy()
    skin = reflectance.mean_skin(coefficients.numpy())
    assert (albedo > 0).all() and albedo.max() < 1
    assert np.allclose(np.einsum("v,nvc->nc", reflectance.skin, albedo), skin, rtol=1e-4)
    assert skin.max() < 0.9 and np.ptp(np.log(skin.mean(1))) > 1.5  # light and dark people


def test_albedo_has_right_gradients(reflectance):
    coefficients = torch.randn(1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda c: reflectance.albedo(c)[:, ::500], coefficients)


def test_a_ball_is_open_and_a_bowl_is_not():
    theta, phi = np.meshgrid(np.linspace(0.05, np.pi - 0.05, 30), np.linspace(0, 2 * np.pi, 60, endpoint=False), indexing="ij")
    ball = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    cell = np.arange(1800).reshape(30, 60)
    right = np.roll(cell, -1, 1)
    quads = np.stack([cell[:-1], right[:-1], right[1:], cell[1:]], -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    from models.prior.synthetic import vertex_normals

    outward = (vertex_normals(ball, triangles) * ball).sum(1).mean() > 0
    assert ambient_openness(ball, triangles if outward else triangles[:, ::-1].copy()).mean() > 0.95
    assert ambient_openness(ball, triangles[:, ::-1].copy() if outward else triangles).mean() < 0.2
