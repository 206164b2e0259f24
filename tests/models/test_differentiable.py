"""Gradients of the rasteriser: against central differences, against the torch oracle, and put to work on silhouettes."""

import numpy as np
import pytest
import torch

from models.raster import differentiable as R

SIZE = 40


def patch(seed: int = 0, bumps: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """A bumpy sheet seen in perspective, double precision: N x V x 3 points and triangles."""
    rng = np.random.default_rng(seed)
    steps = np.linspace(4, SIZE - 4, bumps)
    x, y = np.meshgrid(steps, steps)
    points = np.stack([x, y, 2 + 0 * x], -1).reshape(-1, 3) + rng.normal(0, 0.6, (bumps * bumps, 3)) * [1, 1, 0.3]
    cell = np.arange(bumps * bumps).reshape(bumps, bumps)
    quads = np.stack([cell[:-1, :-1], cell[:-1, 1:], cell[1:, 1:], cell[1:, :-1]], -1).reshape(-1, 4)
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    return torch.from_numpy(points)[None], torch.from_numpy(triangles)


def interior(points: torch.Tensor, triangles: torch.Tensor, margin: float = 0.02) -> torch.Tensor:
    """Pixels well inside their triangles, where a small step changes no owner."""
    hits = R.rasterise_plain(points, triangles, SIZE, SIZE)
    return (hits.triangle >= 0) & (hits.barycentric.amin(-1) > margin)


def test_gradients_match_central_differences():
    points, triangles = patch()
    inside = interior(points, triangles)
    attributes = torch.randn(1, points.shape[1], 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    goal = torch.randn(1, SIZE, SIZE, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def loss(points, attributes):
        hits = R.rasterise(points, triangles, SIZE, SIZE)
        values = R.interpolate(hits, triangles, attributes)
        depth = torch.where(inside, hits.depth, torch.zeros_like(hits.depth))
        return ((values - goal).square().sum(-1) * inside).sum() + depth.square().sum()

    p, a = points.clone().requires_grad_(), attributes.clone().requires_grad_()
    loss(p, a).backward()
    step = 1e-6
    for tensor, gradient, other in ((points, p.grad, 0), (attributes, a.grad, 1)):
        expected = torch.zeros_like(tensor)
        for index in np.ndindex(*tensor.shape):
            up, down = tensor.clone(), tensor.clone()
            up[index] += step
            down[index] -= step
            pair = (loss(up, attributes), loss(down, attributes)) if other == 0 else (loss(points, up), loss(points, down))
            expected[index] = (pair[0] - pair[1]) / (2 * step)
        assert (gradient - expected).norm() / expected.norm() < 1e-6  # the bar is 1e-3
        assert ((gradient - expected).abs() <= 1e-3 * expected.abs() + 1e-5).all()


def test_fast_and_plain_versions_agree(prior):
    generator = torch.Generator().manual_seed(0)
    camera = torch.from_numpy(prior.mean)[None] + torch.tensor([0, 0, 0.6])
    camera = camera.repeat(3, 1, 1) + 0.01 * torch.randn(3, 1, 3, generator=generator)
    points = torch.stack(
        [200 * camera[..., 0] / camera[..., 2] + 64, 200 * camera[..., 1] / camera[..., 2] + 64, camera[..., 2]], -1
    )
    triangles = torch.from_numpy(prior.triangles)
    attributes = torch.randn(3, len(prior.mean), 4, generator=generator)
    goal = torch.randn(3, 128, 128, 4, generator=generator)
    gradients, pictures = [], []
    for rasterise, interpolate in ((R.rasterise, R.interpolate), (R.rasterise_plain, R.interpolate_plain)):
        p, a = points.clone().requires_grad_(), attributes.clone().requires_grad_()
        hits = rasterise(p, triangles, 128, 128)
        values = interpolate(hits, triangles, a)
        # interior only: at slivers of a pixel the two may choose different owners
        well = hits.barycentric.detach().amin(-1) > 0.02
        (((values - goal).square().sum(-1) + torch.where(well, hits.depth, 0)) * well).sum().backward()
        gradients.append((p.grad, a.grad))
        pictures.append((hits.triangle, values.detach()))
    same = pictures[0][0] == pictures[1][0]
    assert same.float().mean() > 0.998
    assert (pictures[0][1] - pictures[1][1]).abs()[same].max() < 2e-2
    for fast, plain in zip(*gradients):
        assert (fast - plain).norm() / plain.norm() < 0.05
        assert ((fast - plain).abs() > 0.01 * plain.abs() + 1e-2 * plain.abs().mean()).float().mean() < 0.02


def ball(centre: torch.Tensor, radius: float, rings: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    """A sphere in pixels about a differentiable centre (2), triangles smaller than pixels near its rim."""
    theta = torch.linspace(0, np.pi, rings, dtype=torch.float64)
    phi = torch.arange(2 * rings, dtype=torch.float64) * np.pi / rings
    unit = torch.stack(
        [theta.sin()[:, None] * phi.cos(), theta.sin()[:, None] * phi.sin(), theta.cos()[:, None].expand(-1, 2 * rings)], -1
    ).reshape(-1, 3)
    cell = np.arange(rings * 2 * rings).reshape(rings, -1)
    right = np.roll(cell, -1, 1)
    quads = np.stack([cell[:-1], right[:-1], right[1:], cell[1:]], -1).reshape(-1, 4)
    triangles = torch.from_numpy(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32))
    place = torch.cat([centre, centre.new_tensor([4.0])])
    return (unit * unit.new_tensor([radius, radius, 0.5]) + place)[None], triangles


def silhouette(centre: torch.Tensor, radius: float = 11.0) -> torch.Tensor:
    points, triangles = ball(centre, radius)
    hits = R.rasterise(points, triangles, SIZE, SIZE)
    mask = (hits.triangle >= 0).to(points.dtype)[..., None]
    return R.antialias(mask, hits, points, triangles)


def test_an_antialiased_disc_has_the_area_of_a_disc():
    for shift in (0.0, 0.3, 0.77):
        area = float(silhouette(torch.tensor([20.0 + shift, 19.6], dtype=torch.float64)).sum())
        assert abs(area / (np.pi * 11**2) - 1) < 0.01  # the polygon itself is 0.6 % smaller than the disc


def test_silhouette_gradient_is_that_of_the_area_moved():
    """d/dx of the picture's first moment is the disc's area: moving it by dx moves all of its mass by dx."""
    column = torch.arange(SIZE, dtype=torch.float64)[None, None, :, None] + 0.5
    for at in (20.05, 20.31, 20.66):
        centre = torch.tensor([at, 19.4], dtype=torch.float64, requires_grad=True)
        (silhouette(centre) * column).sum().backward()
        # where the rim turns from steep to flat, one row more or less is met: some 1/11 of one of its four corners
        assert abs(float(centre.grad[0]) / (np.pi * 11**2) - 1) < 0.08
        assert abs(float(centre.grad[1])) < 0.05 * np.pi * 11**2


@pytest.mark.parametrize("start", [(24.0, 17.5), (15.2, 23.3), (20.4, 20.6)])
def test_silhouettes_alone_bring_an_offset_disc_home(start):
    goal = silhouette(torch.tensor([20.3, 20.45], dtype=torch.float64))
    centre = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([centre], lr=0.3)
    for step in range(120):
        for group in optimiser.param_groups:
            group["lr"] = 0.3 * 0.96**step
        optimiser.zero_grad()
        (silhouette(centre) - goal).square().sum().backward()
        optimiser.step()
    away = float((centre.detach() - torch.tensor([20.3, 20.45], dtype=torch.float64)).norm())
    assert away < 0.02  # the bar is 0.1 px


def test_a_silhouette_behind_another_surface_changes_nothing():
    back, triangles = ball(torch.tensor([20.0, 20.0], dtype=torch.float64), 6)
    wall = torch.tensor([[1.0, 1, 1], [39, 1, 1], [39, 39, 1], [1, 39, 1]], dtype=torch.float64)
    points = torch.cat([back[0], wall])[None]
    both = torch.cat([triangles, torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32) + len(back[0])])
    hits = R.rasterise(points, both, SIZE, SIZE)
    values = (hits.triangle >= 0).to(points.dtype)[..., None]
    made = R.antialias(values, hits, points, both)
    assert torch.equal(made[:, 8:32, 8:32], values[:, 8:32, 8:32])


def test_texture_gradients_match_central_differences():
    generator = torch.Generator().manual_seed(0)
    texture = torch.rand(1, 5, 6, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    uv = (0.15 + 0.7 * torch.rand(1, 4, 3, 2, dtype=torch.float64, generator=generator)).requires_grad_()
    assert torch.autograd.gradcheck(R.sample, (texture, uv))


def test_a_texel_is_where_it_is_said_to_be():
    texture = torch.arange(12.0).reshape(1, 3, 4, 1)
    uv = torch.tensor([[[[0.5 / 4, 0.5 / 3], [3.5 / 4, 2.5 / 3]]]])
    assert R.sample(texture, uv).flatten().tolist() == pytest.approx([8.0, 3.0])  # lower left texel, then upper right
