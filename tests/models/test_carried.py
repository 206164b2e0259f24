"""Changes carried along by motion: what trembles is steadied, what moves moves along, what is new is taken at once."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from models.moved import STAYS, Moved
from models.relight.carried import Carried
from models.relight.shading import Change
from models.relight.shading_torch import _carried

SIZE = 64
KEPT = 0.8


def change(ratio: np.ndarray, gloss: float = 0.01) -> Change:
    return Change(ratio.astype(np.float32), np.full_like(ratio, gloss, np.float32), np.full_like(ratio, 2 * gloss, np.float32))


def blob(x: float, y: float) -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    return np.repeat((1 + 0.1 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 200))[..., None], 3, -1)


def moved(right: float = 0.0, down: float = 0.0) -> Moved:
    """Everything has moved by so many pixels."""
    return Moved(np.full((16, 16, 2), (-right / SIZE, -down / SIZE), np.float32), KEPT)


def test_trembling_is_steadied_as_a_recursive_filter_does():
    rng, carried, out = np.random.default_rng(1), Carried(), []
    for _ in range(80):
        out.append(carried(change(1 + rng.normal(0, 0.01, (SIZE, SIZE, 3))), moved()).ratio)
    told = np.std(out[40:]) / 0.01
    assert told == pytest.approx(np.sqrt((1 - KEPT) / (1 + KEPT)), rel=0.05)


def test_what_moves_moves_along():
    along, behind = Carried(), Carried()
    for step in range(12):
        now = change(blob(20 + 1.5 * step, 30))
        followed, left = along(now, moved(right=1.5)), behind(now, moved())
    off, trail = (np.abs(one.ratio - now.ratio).max() for one in (followed, left))
    assert off < 0.01 and trail > 3 * off


def test_a_new_light_is_taken_at_once():
    carried = Carried()
    carried(change(np.ones((SIZE, SIZE, 3))), None)
    after = carried(change(np.full((SIZE, SIZE, 3), 2.0), gloss=0.05), moved())
    assert np.abs(after.ratio - 2).max() < 0.01 and np.abs(after.was - 0.05).max() < 5e-4


def test_it_begins_anew_where_nothing_is_known():
    carried = Carried()
    carried(change(np.ones((SIZE, SIZE, 3))), None)
    fresh = change(np.full((SIZE, SIZE, 3), 1.02))
    assert np.array_equal(carried(fresh, None).ratio, fresh.ratio)
    other = change(np.full((SIZE // 2, SIZE, 3), 1.03))
    assert np.array_equal(carried(other, moved()).ratio, other.ratio)


def test_less_is_kept_of_what_is_long_ago():
    motion = np.zeros((8, 8, 2), np.float32)
    assert Moved.after(0.04, None) is None
    soon, late = (Moved.after(seconds, motion).kept for seconds in (0.04, STAYS))
    assert soon > 0.8 and late == pytest.approx(np.exp(-1))


def test_torch_carries_on_what_numba_does():
    rng = np.random.default_rng(2)
    smooth = lambda: cv2.GaussianBlur(rng.uniform(0.5, 1.5, (SIZE, SIZE, 9)).astype(np.float32)[..., :3], (0, 0), 3)
    before = Change(smooth(), smooth(), smooth())
    after = Change(before.ratio * (1 + 0.1 * (smooth() - 1)), smooth(), smooth())
    here = Moved(cv2.resize(rng.normal(0, 0.02, (6, 6, 2)).astype(np.float32), (SIZE, SIZE)), KEPT)
    carried = Carried()
    carried(before, None)
    numba = carried(after, here)
    stacked = lambda one: torch.from_numpy(np.concatenate([one.ratio, one.was, one.becomes], -1))
    out = _carried(stacked(after), stacked(before), torch.from_numpy(here.motion), torch.tensor([KEPT])).numpy()
    # OpenCV looks up places in steps of a 32nd of a pixel
    assert np.abs(out - stacked(numba).numpy()).max() < 0.004
    assert np.abs(out - stacked(after).numpy()).max() > 0.1
