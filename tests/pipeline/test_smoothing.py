"""Smoothing: still where the face is still, without lag where both sides are known."""

import numpy as np

from pipeline.smoothing import EXPRESSION, ROTATION, CodeSmoother, OneEuro, nearest_rotation, smooth_both_ways
from tests.conftest import turned


def test_a_constant_stays_itself():
    run = OneEuro(EXPRESSION)
    for i in range(50):
        assert np.allclose(run(np.array([0.3, 0.7]), i / 30), [0.3, 0.7])


def test_noise_shrinks_and_fast_motion_is_followed():
    rng = np.random.default_rng(0)
    run = OneEuro(ROTATION)
    noisy = rng.normal(0, 0.002, 300)
    out = np.array([run(np.array([v]), i / 30)[0] for i, v in enumerate(noisy)])
    assert out[60:].std() < 0.45 * noisy[60:].std()
    run = OneEuro(ROTATION)
    jump = np.concatenate([np.zeros(30), np.full(30, 0.5)])
    out = np.array([run(np.array([v]), i / 30)[0] for i, v in enumerate(jump)])
    assert out[33] > 0.4  # a tenth of a second later


def test_both_sided_smoothing_does_not_lag():
    times = np.arange(120) / 30
    yaw = 0.3 * np.sin(2 * np.pi * 0.7 * times)
    rotation = np.stack([turned(y) for y in yaw])
    zeros = np.zeros((120, 3))
    out = smooth_both_ways(times, rotation, zeros, np.zeros((120, 52)), np.zeros((120, 2, 2)))[0]
    found = np.arctan2(-out[:, 0, 2], out[:, 2, 2])
    lag = [np.abs(np.roll(found, k)[10:-10] - yaw[10:-10]).mean() for k in range(-3, 4)]
    assert int(np.argmin(lag)) == 3
    assert np.abs(found - yaw)[10:-10].max() < 0.02


def test_rotations_stay_rotations():
    rng = np.random.default_rng(1)
    matrices = rng.normal(0, 1, (20, 3, 3))
    out = nearest_rotation(matrices)
    assert np.allclose(out @ out.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(out), 1)


def test_strength_zero_changes_nothing(synthetic):
    smoother = CodeSmoother(0.0)
    head = synthetic()
    for i in range(5):
        code = head.code(rotation=turned(0.1 * i))
        assert np.allclose(smoother(code, i / 30).rotation, code.rotation)
