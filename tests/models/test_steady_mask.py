"""Masks of people from frame to frame: what comes and goes is steadied, what moves moves along, what is new is seen."""

from __future__ import annotations

import numpy as np
import pytest

from models.moved import Moved
from models.steady_mask import SteadyMask

KEPT = 0.8
SIZE = 64


def moved(right: float = 0.0) -> Moved:
    """Everything has moved by so many pixels."""
    return Moved(np.full((16, 16, 2), (-right / SIZE, 0), np.float32), KEPT)


def disc(x: float, radius: float = 12.0) -> np.ndarray:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    return np.clip(radius - np.hypot(columns - x, rows - SIZE / 2), 0, 1).astype(np.float32)


def test_what_comes_and_goes_is_steadied():
    rng, masks, out = np.random.default_rng(3), SteadyMask(), []
    for _ in range(80):
        out.append(masks(np.float32(0.5) + rng.normal(0, 0.1, (SIZE, SIZE)).astype(np.float32), moved()))
    assert np.std(out[40:]) / 0.1 == pytest.approx(np.sqrt((1 - KEPT) / (1 + KEPT)), rel=0.05)


def test_whoever_walks_takes_their_outline_along():
    masks = SteadyMask()
    for step in range(15):
        now = disc(20 + 1.5 * step)
        along = masks(now, moved(right=1.5))
    # what is left of linear interpolation, frame after frame
    assert np.abs(along - now).mean() < 0.01 and np.abs(along - now).max() < 0.3


def test_whoever_comes_in_is_seen_at_once():
    masks = SteadyMask()
    masks(np.zeros((SIZE, SIZE), np.float32), None)
    there = masks(disc(32, radius=20), moved())
    assert there[disc(32, radius=16) > 0].min() > 0.94


def test_it_begins_anew_where_nothing_is_known():
    masks = SteadyMask()
    masks(disc(20), None)
    assert np.array_equal(masks(disc(40), None), disc(40))
    assert np.array_equal(masks(disc(40)[:32], moved()), disc(40)[:32])
