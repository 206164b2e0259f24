"""The same rasteriser in plain torch: runs on every device, and is what the fast versions are tested against.

Every pair of a triangle and a pixel of its bounding box is tested at once; the nearest hit of each pixel wins, and of equally
near ones the triangle with the lowest number, as in `models.raster.cpu`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

_NEAR = 1e-6


def rasterise(
    points: Float[Tensor, "v 3"], triangles: Int[Tensor, "t 3"], height: int, width: int
) -> tuple[Int[Tensor, "h w"], Float[Tensor, "h w 3"], Float[Tensor, "h w"]]:
    """Triangle, barycentrics and depth under each pixel's centre, as `models.raster.Fragments` describes them."""
    device = points.device
    corners = points[triangles]  # t x 3 x 3
    low, high = corners[..., :2].amin(1), corners[..., :2].amax(1)
    x0 = (low[:, 0] - 0.5).ceil().clamp(min=0).long()
    y0 = (low[:, 1] - 0.5).ceil().clamp(min=0).long()
    x1 = (high[:, 0] - 0.5).floor().clamp(max=width - 1).long()
    y1 = (high[:, 1] - 0.5).floor().clamp(max=height - 1).long()
    a, b, c = corners.unbind(1)
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    usable = (corners[..., 2] > _NEAR).all(1) & (area != 0)
    columns = (x1 - x0 + 1).clamp(min=0) * usable
    pairs = columns * (y1 - y0 + 1).clamp(min=0)
    owner = torch.repeat_interleave(torch.arange(len(triangles), device=device), pairs)
    within = torch.arange(len(owner), device=device) - (pairs.cumsum(0) - pairs)[owner]
    column = x0[owner] + within % columns[owner]
    row = y0[owner] + within // columns[owner]
    px, py = column + 0.5, row + 0.5
    a, b, c, area = a[owner], b[owner], c[owner], area[owner]
    wa = ((b[:, 0] - px) * (c[:, 1] - py) - (b[:, 1] - py) * (c[:, 0] - px)) / area
    wb = ((c[:, 0] - px) * (a[:, 1] - py) - (c[:, 1] - py) * (a[:, 0] - px)) / area
    weights = torch.stack([wa, wb, 1 - wa - wb], -1)
    inside = (weights >= 0).all(-1)
    owner, pixel, weights = owner[inside], (row * width + column)[inside], weights[inside]
    inverse = weights / torch.stack([a[:, 2], b[:, 2], c[:, 2]], -1)[inside]
    total = inverse.sum(-1)
    nearest = torch.zeros(height * width, dtype=points.dtype, device=device).scatter_reduce(0, pixel, total, "amax")
    wins = total == nearest[pixel]
    none = len(triangles)
    first = torch.full((height * width,), none, device=device).scatter_reduce(0, pixel[wins], owner[wins], "amin")
    chosen = wins & (owner == first[pixel])
    triangle = torch.where(first == none, -1, first).int()
    barycentric = torch.zeros(height * width, 3, dtype=points.dtype, device=device)
    barycentric[pixel[chosen]] = inverse[chosen] / total[chosen, None]
    return triangle.view(height, width), barycentric.view(height, width, 3), (1 / nearest).view(height, width)


def interpolate(
    triangle: Int[Tensor, "h w"], barycentric: Float[Tensor, "h w 3"], triangles: Int[Tensor, "t 3"],
    attributes: Float[Tensor, "v c"],
) -> Float[Tensor, "h w c"]:  # fmt: skip
    """Per-vertex attributes at the pixels, 0 where no triangle is; differentiable in attributes and barycentrics."""
    corners = attributes[triangles[triangle.clamp(min=0).long()]]
    return (corners * barycentric[..., None]).sum(-2) * (triangle >= 0)[..., None]
