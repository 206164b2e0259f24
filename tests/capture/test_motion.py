"""Optical flow between a video's frames."""

from __future__ import annotations

import cv2
import numpy as np

from capture.motion import Motion


def textured(height: int, width: int, right: float = 0.0, down: float = 0.0) -> np.ndarray:
    noise = np.random.default_rng(0).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    smooth = 128 + (smooth - smooth.mean()) * (40 / smooth.std())
    moved = cv2.warpAffine(smooth, np.float32([[1, 0, right], [0, 1, down]]), (width, height), borderMode=cv2.BORDER_REFLECT)
    return np.clip(moved, 0, 255).astype(np.uint8)


def test_a_shift_is_told_in_shares_of_the_picture():
    motion = Motion()
    assert motion(textured(240, 320)) is None
    told = motion(textured(240, 320, right=3.0, down=-2.0))
    inner = told[30:-30, 30:-30].reshape(-1, 2)
    assert np.allclose(np.median(inner, 0), [-3 / 320, 2 / 240], atol=0.0005)


def test_a_large_picture_is_searched_small():
    motion = Motion()
    motion(textured(600, 800))
    told = motion(textured(600, 800, right=8.0))
    assert max(told.shape[:2]) == 256
    assert np.allclose(np.median(told[20:-20, 20:-20].reshape(-1, 2), 0), [-8 / 800, 0], atol=0.001)


def test_frames_of_another_size_or_too_small_tell_nothing():
    motion = Motion()
    motion(textured(240, 320))
    assert motion(textured(200, 200)) is None
    assert motion(textured(200, 200)) is not None
    tiny = Motion()
    assert tiny(textured(16, 200)) is None and tiny(textured(16, 200)) is None
