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


def smoothed_yaw(times: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    count = len(times)
    rotation = np.stack([turned(y) for y in yaw])
    out = smooth_both_ways(times, rotation, np.zeros((count, 3)), np.zeros((count, 52)), np.zeros((count, 2, 2)))[0]
    return np.arctan2(-out[:, 0, 2], out[:, 2, 2])


def test_a_nod_keeps_its_height_and_a_still_head_loses_its_noise():
    """What both sides are known for: neither lag, nor nods cut short, nor jitter."""
    times = np.arange(150) / 30
    noise = np.random.default_rng(0).normal(0, 0.001, 150)
    nod = np.where(times < 2, 0, 0.06 * np.sin(2 * np.pi * 2.5 * (times - 2)))
    found = smoothed_yaw(times, nod + noise)
    assert found[5:40].std() < 0.45 * noise[5:40].std()
    assert np.abs(found - nod)[70:].max() < 0.005  # of 0.06


def test_frames_that_are_far_apart_do_not_pull_at_each_other():
    """Of uneven length, and with a gap of a second over which the head turned."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.uniform(0.02, 0.05, 80)) + np.where(np.arange(80) >= 40, 1.0, 0.0)
    yaw = np.where(np.arange(80) >= 40, 0.4, 0.0) + rng.normal(0, 0.001, 80)
    found = smoothed_yaw(times, yaw)
    assert np.abs(found[:40]).max() < 0.002 and np.abs(found[40:] - 0.4).max() < 0.002
