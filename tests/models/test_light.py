"""Harmonics against integrals over the sphere, and environments against light whose answer is known."""

import numpy as np
import pytest
import torch

from models.light import harmonics as H


def sphere(count: int = 20000) -> np.ndarray:
    return H.spread_directions(count)


def turned(axis, degrees: float) -> np.ndarray:
    import cv2

    return cv2.Rodrigues(np.radians(degrees) * np.asarray(axis, float) / np.linalg.norm(axis))[0]


def test_the_basis_is_orthonormal():
    values = H.basis(sphere())
    gram = values.T @ values * (4 * np.pi / len(values))
    assert np.abs(gram - np.eye(9)).max() < 1e-3


def test_shading_is_the_cosine_integral():
    """Under radiance that the harmonics hold exactly, shading is 1/pi of the clamped cosine's integral (the analytic A_l)."""
    rng = np.random.default_rng(0)
    light = rng.normal(size=(9, 3))
    directions = sphere()
    radiance = H.basis(directions) @ light
    for normal in sphere(7):
        integral = (np.maximum(directions @ normal, 0)[:, None] * radiance).mean(0) * 4 * np.pi / np.pi
        assert np.abs(H.HarmonicLight(light).shading(normal) - integral).max() < 2e-3


def test_white_light_from_everywhere_shows_the_albedo():
    light = np.zeros((9, 3))
    light[0] = H.AMBIENT
    assert np.allclose(H.HarmonicLight(light).shading(sphere(50)), 1)


def test_a_lamp_lights_a_sphere_as_a_lamp_does():
    """The second order keeps 99 % of a clamped cosine's energy (Ramamoorthi & Hanrahan 2001, section 3)."""
    towards = np.array([0.36, -0.48, -0.8])
    light = H.HarmonicLight(H.lamp(towards, np.array([1.0, 0.5, 0.2])))
    normals = sphere(5000)
    true = np.maximum(normals @ towards, 0)[:, None] * np.array([1.0, 0.5, 0.2])
    shown = light.shading(normals)
    assert ((shown - true) ** 2).sum() / (true**2).sum() < 0.01
    assert abs(shown[np.argmax(true[:, 0]), 0] - 1) < 0.1
    assert np.allclose(light.dominant_direction(), towards)


def test_tensors_and_arrays_agree():
    rng = np.random.default_rng(1)
    light, normals = rng.normal(size=(9, 3)), sphere(64)
    tensor = H.shading(torch.from_numpy(light)[None], torch.from_numpy(normals)[None])[0]
    assert np.allclose(tensor.numpy(), H.HarmonicLight(light).shading(normals))


def test_turned_light_lights_turned_normals_alike():
    rng = np.random.default_rng(2)
    light = H.HarmonicLight(rng.normal(size=(9, 3)))
    turn = turned((1, 2, -0.5), 73)
    normals = sphere(40)
    assert np.allclose(light.rotated(turn).shading(normals @ turn.T), light.shading(normals), atol=1e-9)
    assert np.allclose(light.rotated(turn).dominant_direction(), turn @ light.dominant_direction(), atol=1e-9)


def test_an_environment_is_projected_where_its_light_is():
    height, width = 64, 128
    sky = np.zeros((height, width, 3))
    directions = H.environment_directions(height, width)
    towards = np.array([-0.6, -0.64, 0.48])
    sky[np.unravel_index(np.argmax(directions @ towards), (height, width))] = 1.0
    found = H.project_environment(sky)
    assert np.degrees(np.arccos(found.dominant_direction() @ towards)) < 2.5  # half a pixel
    flat = H.project_environment(np.full((16, 32, 3), 0.7))
    assert np.allclose(flat.coefficients[0], 0.7 * H.AMBIENT) and np.abs(flat.coefficients[1:]).max() < 0.01


def test_the_environments_axes_are_the_cameras():
    directions = H.environment_directions(90, 180)
    assert directions[0, 0] @ [0, -1, 0] > 0.99  # top: up
    assert directions[45, 90] @ [0, 0, 1] > 0.99  # middle: ahead
    assert directions[45, 135] @ [1, 0, 0] > 0.99  # right of it: right


def test_no_light_has_a_direction_all_the_same():
    assert np.allclose(H.dominant_direction(np.zeros((9, 3))), [0, 0, -1])


def test_a_picture_without_colour_is_refused():
    with pytest.raises(ValueError, match="expected height x width x 3"):
        H.project_environment(np.zeros((4, 8)))
