"""What lies behind a head: one picture, how it moves along with the head (the torso does), and how its colours change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from numba import njit, prange

from models.avatar.avatar import motion_shape
from models.avatar.linear import POSE_HOLD, Linear, Smoother, regress
from models.raster.cpu import PARALLEL
from pipeline.surface_flow import flow_search

SCENE_RANK, MOTION_RANK = 8, 6
_MOTION_RIDGE = 0.03  # a torso follows the head only roughly
_LOOKS = 120  # frames that the motion is learned from
_SPREAD_CELLS = 3.0  # of the motion's grid: sigma of the surroundings that go along with a place
_CONTRAST = 60.0  # Sobel units at which a place says half of how it moved
_STILL = 0.1  # weight of places without a person, which stay where they are; _UNKNOWN: of no motion anywhere
_UNKNOWN = 2e-3
_FARTHEST = 20.0  # pixels
_LEAST_FLOW = 16  # pixels that a picture needs for flow
_NOBODY = 26  # of a matte: below it nobody is there
_RARE = 0.02  # share of the frames below which a pixel of the scene counts as never seen


class Scene(NamedTuple):
    """As in `Avatar`: H x W x 3 uint8; h x w x 2 values; H/2 x W/2 x 3 values."""

    picture: np.ndarray
    motion: Linear
    change: Linear


def learn_scene(images: np.ndarray, mattes: np.ndarray, behind: np.ndarray, smoother: Smoother, moves: bool = True) -> Scene:
    """The scene of N frames.

    Args:
        images: N x H x W x 3 uint8 sRGB; mattes: N x H x W uint8, 255 on people.
        behind: N x H x W uint8, 255 where a frame shows the scene.
        smoother: of the frames, by pose.
        moves: False: it stays where it is, whatever the head does.
    """
    count, height, width = behind.shape
    rows, columns = motion_shape(height, width)
    cell = np.float32([width / columns, height / rows])
    search = flow_search()
    # a few numbers of motion are known from fewer frames
    chosen = np.unique(np.linspace(0, count - 1, min(count, _LOOKS)).round().astype(int))
    by_pose = Smoother.of(smoother.kernel[np.ix_(chosen, chosen)], _MOTION_RIDGE, smoother.device)
    expected = lambda k: motion.blend(smoother.kernel[k, chosen]).reshape(rows, columns, 2)
    picture = _mean(zip(images[chosen], behind[chosen]), (height, width), len(chosen))
    for shown in (chosen, range(count)):
        moved = np.zeros((len(chosen), rows, columns, 2), np.float32)
        for flow, k in zip(moved, chosen if moves else ()):
            flow[:] = _moved(search, picture, images[k], mattes[k], behind[k])
        everywhere = np.full((len(chosen), rows * columns), 255, np.uint8)
        motion = regress(moved.reshape(len(chosen), -1, 2), everywhere, by_pose, MOTION_RANK)
        back = ((_inverse(expected(k), cell), np.dstack([images[k], behind[k]])) for k in shown)
        still = (_sampled(frame, there) for there, frame in back)
        picture = _mean(((frame[..., :3], frame[..., 3]) for frame in still), (height, width), len(shown))
    low = (width // 2, height // 2)
    change = np.empty((count, low[1], low[0], 3), np.float32)
    weight = np.empty((count, low[1], low[0]), np.uint8)
    for k, image in enumerate(images):
        change[k] = cv2.resize(image - _sampled(picture, expected(k)), low, interpolation=cv2.INTER_AREA)
        weight[k] = cv2.resize(behind[k], low, interpolation=cv2.INTER_AREA)
    changes = regress(change.reshape(count, -1, 3), weight.reshape(count, -1), smoother, SCENE_RANK, hold=POSE_HOLD)
    mixing = np.zeros((count, motion.mixing.shape[1]), np.float32)
    mixing[chosen] = motion.mixing
    motion = replace(motion, mixing=mixing)
    return Scene(np.clip(picture + 0.5, 0, 255).astype(np.uint8), motion, changes)


def _moved(search, picture: np.ndarray, image: np.ndarray, matte: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """h x w x 2 pixels: from a place in a frame to the same in the scene's picture, by flow at half the size."""
    half = (image.shape[1] // 2, image.shape[0] // 2)
    small = lambda array: cv2.resize(array, half, interpolation=cv2.INTER_AREA)
    share = small(behind).astype(np.float32) / 255
    scene = small(picture)
    rows, columns = motion_shape(*image.shape[:2])
    if min(half) < _LEAST_FLOW:
        return np.zeros((rows, columns, 2), np.float32)
    # where the frame shows the head, what is expected stands in for it, so that the head's motion leads nothing astray
    shown = share[..., None] * small(image) + (1 - share[..., None]) * scene
    grey, wanted = (cv2.cvtColor(np.clip(p, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY) for p in (shown, scene))
    flow = 2 * search.calc(grey, wanted, None)
    slope = cv2.Sobel(grey, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(grey, cv2.CV_32F, 0, 1) ** 2
    sure = slope / (slope + _CONTRAST**2) * share**2 * (np.abs(flow).max(-1) < _FARTHEST)
    nobody = small(matte) < _NOBODY
    flow[nobody], sure[nobody] = 0, _STILL
    coarse = lambda array: cv2.GaussianBlur(
        cv2.resize(array.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA), (0, 0), _SPREAD_CELLS
    )
    return coarse(flow * sure[..., None]) / (coarse(sure) + _UNKNOWN)[..., None]


def _inverse(motion: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """h x w x 2 pixels from a place in the scene's picture to the same in the frame, by fixed-point steps on the grid.

    Args:
        motion: h x w x 2 pixels, the other way; cell: 2, a grid cell's size in pixels.
    """
    back = -motion
    for _ in range(3):
        back = -_sampled(motion, back / cell)
    return back


def _sampled(picture: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """A picture looked up where each place goes."""
    height, width = picture.shape[:2]
    there = cv2.resize(motion, (width, height), interpolation=cv2.INTER_LINEAR)
    there += np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    return cv2.remap(picture, there, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _mean(frames: Iterable, size: tuple[int, int], count: int) -> np.ndarray:
    """H x W x 3 float32: the weighted mean; where the scene was never seen, what lies around it.

    Args:
        frames: H x W x 3 pictures with H x W uint8 weights, `count` of them.
    """
    total, weight = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    for image, share in frames:
        with PARALLEL:
            _add(image, share, total, weight)
    mean = total / np.maximum(weight, 1e-3)[..., None]
    sure = np.clip(weight / max(_RARE * count, 1), 0, 1)
    return sure[..., None] * mean + (1 - sure)[..., None] * _spread(mean, sure)


@njit(parallel=True, cache=True, nogil=True)
def _add(image, share, total, weight):
    """Adds a picture, weighted by H x W uint8 (255 is 1), and its weights."""
    for y in prange(image.shape[0]):
        for x in range(image.shape[1]):
            w = np.float32(share[y, x]) / np.float32(255)
            weight[y, x] += w
            for c in range(3):
                total[y, x, c] += w * image[y, x, c]


def _spread(values: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The picture smoothed from what is sure into what isn't, wider and wider (pull-push: Gortler et al. 1996, 3.4)."""
    if min(sure.shape) <= 2 or (sure > 0.5).all():
        total = max(float(sure.sum()), 1e-6)
        middle = (values * sure[..., None]).sum((0, 1)) / total
        return np.where(sure[..., None] > 0.5, values, middle).astype(np.float32)
    height, width = sure.shape
    small = (max(width // 2, 1), max(height // 2, 1))
    weight = cv2.resize(sure, small, interpolation=cv2.INTER_AREA)
    low = cv2.resize(values * sure[..., None], small, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-4)[..., None]
    wide = cv2.resize(_spread(low, np.clip(2 * weight, 0, 1)), (width, height), interpolation=cv2.INTER_LINEAR)
    return sure[..., None] * values + (1 - sure)[..., None] * wide
