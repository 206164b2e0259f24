"""The fast rasteriser against the torch oracle, and both against geometry with known answers."""

import numpy as np
import pytest
import torch
from numba import get_num_threads, set_num_threads

from models.raster import oracle
from models.raster.cpu import interpolate, rasterise


def soup(seed: int, triangles: int = 300, size: int = 96):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(-10, size + 10, (triangles, 1, 2))
    points = centres + rng.normal(0, 12, (triangles, 3, 2))
    depth = rng.uniform(-0.3, 5, (triangles, 3, 1))
    vertices = np.concatenate([points, depth], -1).reshape(-1, 3).astype(np.float32)
    return vertices, np.arange(3 * triangles, dtype=np.int32).reshape(-1, 3)


def by_oracle(vertices, triangles, height, width, dtype=torch.float32):
    points = torch.from_numpy(vertices).to(dtype)
    return oracle.rasterise(points, torch.from_numpy(triangles).long(), height, width)


@pytest.mark.parametrize("seed", range(4))
def test_fast_version_agrees_with_the_oracle(seed):
    vertices, triangles = soup(seed)
    fast = rasterise(vertices, triangles, 80, 96)
    triangle, barycentric, depth = (x.numpy() for x in by_oracle(vertices, triangles, 80, 96))
    same = fast.triangle == triangle
    assert same.mean() > 0.999  # a pixel centre on an edge may round either way
    assert np.abs(fast.barycentric - barycentric)[same].max() < 2e-3
    hit = same & (triangle >= 0)
    assert np.abs(fast.depth[hit] / depth[hit] - 1).max() < 1e-3
    assert np.isinf(fast.depth[triangle < 0]).all() or not (triangle < 0).any()


def test_a_head_agrees_with_the_oracle(prior):
    camera = prior.mean + np.array([0, 0, 0.6], np.float32)
    points = np.stack([300 * camera[:, 0] / camera[:, 2] + 80, 300 * camera[:, 1] / camera[:, 2] + 80, camera[:, 2]], 1)
    fast = rasterise(points, prior.triangles, 160, 160)
    triangle, _, depth = (x.numpy() for x in by_oracle(points.astype(np.float32), prior.triangles, 160, 160))
    assert (fast.triangle == triangle).mean() > 0.998
    both = np.isfinite(depth) & np.isfinite(fast.depth)
    assert both.sum() > 3000 and np.median(np.abs(depth - fast.depth)[both]) < 1e-6


def test_it_is_the_same_on_any_number_of_cores():
    vertices, triangles = soup(7, 2000, 256)
    many = rasterise(vertices, triangles, 250, 256)
    before = get_num_threads()
    try:
        set_num_threads(1)
        one = rasterise(vertices, triangles, 250, 256)
    finally:
        set_num_threads(before)
    assert all((a == b).all() for a, b in zip(many, one))


def test_coverage_is_that_of_the_shape():
    corners = np.array([[10, 10, 1], [74, 10, 1], [74, 42, 1], [10, 42, 1]], np.float32)
    hit = rasterise(corners, np.array([[0, 1, 2], [0, 2, 3]], np.int32), 64, 96).triangle >= 0
    assert hit.sum() == 64 * 32 and hit[10:42, 10:74].all()


def test_depth_and_attributes_are_perspective_correct():
    """A plane tilted in depth: what is linear in space is linear in space in the picture, too."""
    focal, width = 100.0, 80
    space = np.array([[-1, -1, 2.0], [1, -1, 4.0], [1, 1, 4.0], [-1, 1, 2.0]])
    pixels = np.stack([focal * space[:, 0] / space[:, 2] + 40, focal * space[:, 1] / space[:, 2] + 40, space[:, 2]], 1)
    triangles = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    fragments = rasterise(pixels.astype(np.float32), triangles, width, width)
    carried = interpolate(fragments, triangles, space.astype(np.float32))
    y, x = np.nonzero(fragments.triangle >= 0)
    expected = np.stack([(x + 0.5 - 40) / focal, (y + 0.5 - 40) / focal], 1) * carried[y, x, 2:]
    assert len(x) > 1000
    assert np.abs(carried[y, x, :2] - expected).max() < 1e-3
    assert np.abs(carried[y, x, 2] - fragments.depth[y, x]).max() < 1e-4


def test_what_is_behind_the_camera_is_dropped():
    corners = np.array([[0, 0, 1], [50, 0, 1], [0, 50, -1]], np.float32)
    assert (rasterise(corners, np.array([[0, 1, 2]], np.int32), 64, 64).triangle == -1).all()


def test_triangles_that_are_not_wanted_hide_nothing():
    vertices, triangles = soup(3)
    wanted = np.random.default_rng(3).random(len(triangles)) < 0.5
    some = rasterise(vertices, triangles, 80, 96, wanted)
    alone = rasterise(vertices, triangles[wanted], 80, 96)
    assert (some.depth == alone.depth).all() and wanted[some.triangle[some.triangle >= 0]].all()
    assert (np.flatnonzero(wanted)[alone.triangle] == some.triangle)[alone.triangle >= 0].all()


def test_the_oracles_interpolation_has_right_gradients():
    vertices, triangles = soup(9, 12, 24)
    triangle, barycentric, _ = by_oracle(vertices, triangles, 24, 24, torch.float64)
    attributes = torch.randn(len(vertices), 2, dtype=torch.float64, requires_grad=True)
    cells = torch.from_numpy(triangles).long()
    assert torch.autograd.gradcheck(lambda a: oracle.interpolate(triangle, barycentric, cells, a), attributes)
