"""The regression that an avatar's layers come from: what is linear is found, what was never seen says nothing."""

from dataclasses import replace

import numpy as np
import pytest

from models.avatar import linear, linear_torch
from models.avatar.linear import Linear, Smoother, regress


def linear_world(examples: int = 60, inner: int = 4, places: int = 300):
    """Values that are linear in a code of `inner` numbers."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(examples, inner))
    codes -= codes.mean(0)
    truth = rng.normal(size=(inner, places * 3)) * 6
    values = (codes @ truth + 128).reshape(examples, places, 3).astype(np.float32)
    fresh = rng.normal(size=inner)
    return codes, values, fresh, fresh @ truth + 128


def test_the_regression_finds_what_is_linear():
    codes, values, fresh, wanted = linear_world()
    smoother = Smoother.of(codes @ codes.T, 1e-5)
    everywhere = np.full(values.shape[:2], 255, np.uint8)
    full = regress(values, everywhere, smoother, 4)
    # eight bits a basis: half a step of each, weighed
    assert np.abs(full.blend(fresh @ codes.T) - wanted).max() < 0.5
    less = regress(values, everywhere, smoother, 2)
    error = [np.abs(one.blend(fresh @ codes.T) - wanted).mean() for one in (less, full)]
    assert error[0] > 4 * error[1] and len(less.scale) == 2


def the_same_blends(a: Linear, b: Linear, kernel: np.ndarray) -> None:
    """Bases may differ in sign and by a step of their eight bits."""
    apart = [np.abs(a.blend(near) - b.blend(near)) for near in kernel]
    assert np.mean(apart) < 0.05 and np.max(apart) < 1.0
    assert np.abs(a.mean - b.mean).max() < 1e-2


def half_seen() -> tuple[np.ndarray, np.ndarray, np.ndarray, Smoother]:
    """Values, how well they are seen, their importance, and a smoother."""
    codes, values, _, _ = linear_world()
    rng = np.random.default_rng(5)
    weight = np.where(rng.random(values.shape[:2]) < 0.3, 0, rng.integers(90, 256, values.shape[:2])).astype(np.uint8)
    weight[2:, :5] = 0  # hardly ever seen
    return values, weight, rng.uniform(0.2, 4.0, values.shape[1]), Smoother.of(1 + codes @ codes.T, 1e-2)


def test_torch_regresses_as_numba_does():
    values, weight, importance, smoother = half_seen()
    wanted = regress(values, weight, smoother, 3, importance, rounds=2, hold=2.0)
    found = linear_torch.solve(values, weight, smoother.fit, smoother.solve, 3, importance.astype(np.float32), 2, "cpu")
    given = linear._solve(values, weight, smoother, 3, importance.astype(np.float32), 2)
    told = [smoother.kernel @ mixing @ basis + mean.ravel() for mean, basis, mixing in (found, given)]
    assert np.abs(told[0] - told[1]).max() < 0.05 and np.ptp(told[0] - found[0].ravel()) > 5
    assert np.abs(told[0] - np.stack([wanted.blend(near) for near in smoother.kernel])).mean() < 0.5


@pytest.mark.cuda
def test_a_gpu_regresses_as_numba_does():
    values, weight, importance, smoother = half_seen()
    there = replace(smoother, device="cuda")
    for seen in (weight, np.full_like(weight, 255)):
        a, b = (regress(values, seen, one, 3, importance, hold=2.0) for one in (smoother, there))
        the_same_blends(a, b, smoother.kernel)


def test_a_held_regression_does_not_overshoot():
    codes = np.linspace(-1, 1, 41)[:, None]
    values = np.full((41, 2, 1), 100.0) + 30 * codes[..., None] * np.array([[1.0], [-1.0]])
    everywhere = np.full((41, 2), 255, np.uint8)
    smoother = Smoother.of(1 + codes @ codes.T, 1e-6)
    free, held = (regress(values, everywhere, smoother, 1, hold=hold) for hold in (None, 5.0))
    ask = lambda layer, at: layer.blend(1 + np.array([at]) @ codes.T)
    for at in (-0.8, 0.0, 0.8):
        np.testing.assert_array_equal(ask(held, at), ask(free, at))
    np.testing.assert_allclose(ask(free, 3.0), [190, 10], atol=0.5)
    np.testing.assert_allclose(ask(held, 3.0), [127, 73], atol=0.5)  # nine tenths of the examples: -0.9 to 0.9
    np.testing.assert_allclose(ask(held, -3.0), [73, 127], atol=0.5)


def test_important_places_get_the_bases():
    """Twenty places that alone follow one part of the code are lost among the others, unless they matter more."""
    codes, values, _, _ = linear_world()
    apart = np.arange(300) < 20
    share = np.where(apart[None], codes[:, 3:] * 20, 0)[..., None]
    values = np.where(apart[None, :, None], 128 + share, values).astype(np.float32)
    smoother = Smoother.of(codes @ codes.T, 1e-5)
    everywhere = np.full(values.shape[:2], 255, np.uint8)
    error = []
    for importance in (None, np.where(apart, 1000.0, 1.0)):
        found = regress(values, everywhere, smoother, 1, importance)
        made = np.stack([found.blend(code @ codes.T) for code in codes]).reshape(values.shape)
        error.append(np.sqrt(((made - values) ** 2)[:, apart].mean()))
    assert error[1] < 0.2 * error[0]


def test_what_was_never_seen_says_nothing():
    codes, values, fresh, wanted = linear_world()
    smoother = Smoother.of(1 + codes @ codes.T, 1e-5)
    rng = np.random.default_rng(1)
    seen = (rng.random(values.shape[:2]) > 0.2).astype(np.uint8) * 255
    seen[:, :7] = 0
    spoilt = np.where(seen[..., None] > 0, values, 9999.0).astype(np.float32)
    found = regress(spoilt, seen, smoother, 4, rounds=30).blend(1 + fresh @ codes.T).reshape(300, 3)
    assert (found[:7] == 0).all()
    assert np.abs(found[7:] - wanted.reshape(300, 3)[7:]).mean() < 0.15 * np.abs(wanted - 128).mean()
