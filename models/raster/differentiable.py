"""Rasterising with gradients, for batches of tensors: one contract on every device.

    fragments = rasterise(points, triangles, height, width)        # gradients to points through barycentrics and depth
    values = interpolate(fragments, triangles, attributes)         # gradients to attributes and barycentrics
    colours = sample(texture, uv)                                  # gradients to texture and uv
    picture = antialias(values, fragments, points, triangles)      # gradients to points across silhouettes

Inside a triangle this is Laine et al. 2020 ("nvdiffrast"), sections 3.2 to 3.4. Across silhouettes it is their antialiasing
(section 3.5) turned around: silhouette edges are walked along the picture's rows and columns, rather than sought in the
triangles under neighbouring pixels, so that triangles smaller than a pixel don't lose their outline.

Convention: points are N x V x 3: x, y in pixels (pixel centres at half-integers), z camera depth > 0.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from numba import get_num_threads, njit, prange
from torch import Tensor

from models.raster import cpu, oracle

_TINY = 1e-12


class Hits(NamedTuple):
    """`models.raster.Fragments` of N pictures, as tensors."""

    triangle: Int[Tensor, "n h w"]
    barycentric: Float[Tensor, "n h w 3"]
    depth: Float[Tensor, "n h w"]


def screen_weights(points: Tensor, triangles: Tensor, triangle: Tensor) -> tuple[Tensor, Tensor]:
    """(perspective-correct barycentrics, depth) of pixels whose triangles are known, in plain torch: the oracle of gradients.

    Args:
        points: N x V x 3.
        triangle: N x H x W, -1 where none.
    """
    count, height, width = triangle.shape
    cells = triangles[triangle.clamp(min=0).long()]  # n h w 3
    picture = torch.arange(count, device=points.device)[:, None, None, None]
    a, b, c = points[picture, cells].unbind(-2)
    x = torch.arange(width, device=points.device, dtype=points.dtype) + 0.5
    y = (torch.arange(height, device=points.device, dtype=points.dtype) + 0.5)[:, None]
    cross = lambda ux, uy, vx, vy: ux * vy - uy * vx
    area = cross(b[..., 0] - a[..., 0], b[..., 1] - a[..., 1], c[..., 0] - a[..., 0], c[..., 1] - a[..., 1])
    area = torch.where(area == 0, torch.ones_like(area), area)
    wa = cross(b[..., 0] - x, b[..., 1] - y, c[..., 0] - x, c[..., 1] - y) / area
    wb = cross(c[..., 0] - x, c[..., 1] - y, a[..., 0] - x, a[..., 1] - y) / area
    inverse = torch.stack([wa, wb, 1 - wa - wb], -1) / torch.stack([a[..., 2], b[..., 2], c[..., 2]], -1)
    total = inverse.sum(-1)
    hit = triangle >= 0
    total = torch.where(hit, total, torch.ones_like(total))
    barycentric = torch.where(hit[..., None], inverse / total[..., None], torch.zeros_like(inverse))
    return barycentric, torch.where(hit, 1 / total, torch.full_like(total, torch.inf))


@njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def _back_to_points(points, triangles, triangle, barycentric, depth, to_bary, to_depth, bands, out):
    """Gradients of barycentrics and depth to the points; `out` is N x bands x V x 3."""
    count, height, width = triangle.shape
    for job in prange(count * bands):
        n, band = job // bands, job % bands
        gradient = out[n, band]
        gradient[:] = 0.0
        for y in range(height * band // bands, height * (band + 1) // bands):
            for x in range(width):
                t = triangle[n, y, x]
                if t < 0:
                    continue
                total = 1.0 / depth[n, y, x]
                mixed = 0.0
                for k in range(3):
                    mixed += to_bary[n, y, x, k] * barycentric[n, y, x, k]
                a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
                ax, ay, bx, by = points[n, a, 0], points[n, a, 1], points[n, b, 0], points[n, b, 1]
                cx, cy = points[n, c, 0], points[n, c, 1]
                area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
                # each weight's gradient over the picture; their sum is 0
                gx = ((by - cy) / area, (cy - ay) / area, (ay - by) / area)
                gy = ((cx - bx) / area, (ax - cx) / area, (bx - ax) / area)
                along_x, along_y = 0.0, 0.0
                for k in range(3):
                    z = points[n, triangles[t, k], 2]
                    to_inverse = (to_bary[n, y, x, k] - mixed) / total - to_depth[n, y, x] / (total * total)
                    weight = barycentric[n, y, x, k] * total * z
                    along_x += to_inverse / z * gx[k]
                    along_y += to_inverse / z * gy[k]
                    gradient[triangles[t, k], 2] -= to_inverse * weight / (z * z)
                for k in range(3):
                    i = triangles[t, k]
                    weight = barycentric[n, y, x, k] * total * points[n, i, 2]
                    # moving a corner moves the pixel's place in the triangle the other way, by its weight
                    gradient[i, 0] -= weight * along_x
                    gradient[i, 1] -= weight * along_y


@njit(parallel=True, cache=True, nogil=True)
def _back_to_attributes(triangles, triangle, barycentric, attributes, to_values, bands, to_attributes, to_bary):
    count, height, width = triangle.shape
    channels = attributes.shape[2]
    for job in prange(count * bands):
        n, band = job // bands, job % bands
        gradient = to_attributes[n, band]
        gradient[:] = 0.0
        for y in range(height * band // bands, height * (band + 1) // bands):
            for x in range(width):
                t = triangle[n, y, x]
                for k in range(3):
                    to_bary[n, y, x, k] = 0.0
                if t < 0:
                    continue
                for k in range(3):
                    i, weight, total = triangles[t, k], barycentric[n, y, x, k], 0.0
                    for c in range(channels):
                        gradient[i, c] += weight * to_values[n, y, x, c]
                        total += attributes[n, i, c] * to_values[n, y, x, c]
                    to_bary[n, y, x, k] = total


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, triangles: Tensor, height: int, width: int):
        cells = triangles.numpy()
        found = [cpu.rasterise(p, cells, height, width) for p in points.detach().numpy()]
        triangle, barycentric, depth = (torch.from_numpy(np.stack(part)) for part in zip(*found))
        if points.dtype == torch.float64:  # the pixels' owners in single, everything that has a gradient in double precision
            barycentric, depth = screen_weights(points, triangles, triangle)
        ctx.save_for_backward(points, triangles, triangle, barycentric, depth)
        ctx.mark_non_differentiable(triangle)
        return triangle, barycentric, depth

    @staticmethod
    def backward(ctx, _, to_bary: Tensor, to_depth: Tensor):
        points, triangles, triangle, barycentric, depth = ctx.saved_tensors
        bands = max(1, get_num_threads() // len(points)) if len(points) < get_num_threads() else 1
        out = np.empty((len(points), bands, *points.shape[1:]), points.numpy().dtype)
        to_depth = torch.where(triangle >= 0, to_depth, torch.zeros_like(to_depth))
        with cpu.PARALLEL:
            _back_to_points(
                points.numpy(), triangles.numpy(), triangle.numpy(), barycentric.numpy(), depth.numpy(),
                to_bary.contiguous().numpy(), to_depth.contiguous().numpy(), bands, out,
            )  # fmt: skip
        return torch.from_numpy(out.sum(1)), None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, triangle: Tensor, barycentric: Tensor, triangles: Tensor, attributes: Tensor):
        ctx.save_for_backward(triangle, barycentric, triangles, attributes)
        if attributes.dtype == torch.float64:
            return torch.stack([oracle.interpolate(t, b, triangles, a) for t, b, a in zip(triangle, barycentric, attributes)])
        out = np.empty((*triangle.shape, attributes.shape[-1]), np.float32)
        with cpu.PARALLEL:
            for n in range(len(out)):
                cpu._interpolate(triangle[n].numpy(), barycentric[n].numpy(), triangles.numpy(), attributes[n].numpy(), out[n])
        return torch.from_numpy(out)

    @staticmethod
    def backward(ctx, to_values: Tensor):
        triangle, barycentric, triangles, attributes = ctx.saved_tensors
        count = len(attributes)
        bands = max(1, get_num_threads() // count)
        to_attributes = np.empty((count, bands, *attributes.shape[1:]), attributes.numpy().dtype)
        to_bary = np.empty(barycentric.shape, barycentric.numpy().dtype)
        with cpu.PARALLEL:
            _back_to_attributes(
                triangles.numpy(), triangle.numpy(), barycentric.numpy(), attributes.numpy(), to_values.contiguous().numpy(),
                bands, to_attributes, to_bary,
            )  # fmt: skip
        return None, torch.from_numpy(to_bary), None, torch.from_numpy(to_attributes.sum(1))


def rasterise(points: Float[Tensor, "n v 3"], triangles: Int[Tensor, "t 3"], height: int, width: int) -> Hits:
    """What each pixel's centre sees of N meshes of the same triangles.

    Args:
        points: a triangle with a corner at or behind the camera is dropped.
        triangles: int32.
    """
    if points.device.type == "cpu":
        return Hits(*_Rasterise.apply(points.contiguous(), triangles.int().contiguous(), height, width))
    if points.device.type == "cuda":
        from models.raster import cuda

        return Hits(*cuda.rasterise(points, triangles, height, width))
    return rasterise_plain(points, triangles, height, width)


def rasterise_plain(points: Float[Tensor, "n v 3"], triangles: Int[Tensor, "t 3"], height: int, width: int) -> Hits:
    """`rasterise` in plain torch on any device, gradients by autograd: the oracle."""
    with torch.no_grad():
        triangle = torch.stack([oracle.rasterise(p, triangles.long(), height, width)[0] for p in points])
    return Hits(triangle, *screen_weights(points, triangles.long(), triangle))


def interpolate(
    hits: Hits, triangles: Int[Tensor, "t 3"], attributes: Float[Tensor, "n v c"] | Float[Tensor, "v c"]
) -> Float[Tensor, "n h w c"]:
    """Per-vertex attributes at the pixels, 0 where no triangle is."""
    if attributes.ndim == 2:
        attributes = attributes.expand(len(hits.triangle), -1, -1)
    if attributes.device.type == "cpu":
        return _Interpolate.apply(hits.triangle, hits.barycentric, triangles.int().contiguous(), attributes.contiguous())
    if attributes.device.type == "cuda":
        from models.raster import cuda

        return cuda.interpolate(hits.triangle, hits.barycentric, triangles, attributes)
    return interpolate_plain(hits, triangles, attributes)


def interpolate_plain(hits: Hits, triangles: Tensor, attributes: Tensor) -> Tensor:
    """`interpolate` in plain torch: the oracle."""
    return torch.stack(
        [oracle.interpolate(t, b, triangles, a) for t, b, a in zip(hits.triangle, hits.barycentric, attributes)]
    )  # fmt: skip


def sample(texture: Float[Tensor, "n tall wide c"], uv: Float[Tensor, "n h w 2"]) -> Float[Tensor, "n h w c"]:
    """Bilinear samples of textures, clamped at their edges.

    Args:
        uv: in [0, 1], v up as in the prior: (0, 0) is the lower left corner of the lower left texel.
    """
    grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1)
    out = F.grid_sample(texture.permute(0, 3, 1, 2), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return out.permute(0, 2, 3, 1)


@lru_cache(maxsize=8)
def _edges(cells: bytes) -> tuple[np.ndarray, np.ndarray]:
    """(E x 2 vertices, E x 2 triangles at each edge, -1 where only one is) of a mesh."""
    triangles = np.frombuffer(cells, np.int32).reshape(-1, 3)
    pairs = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    owner = np.tile(np.arange(len(triangles)), 3)
    pairs = np.sort(pairs, 1)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    pairs, owner = pairs[order], owner[order]
    first = np.flatnonzero(np.concatenate([[True], (pairs[1:] != pairs[:-1]).any(1)]))
    count = np.diff(np.append(first, len(pairs)))
    second = np.where(count > 1, owner[np.minimum(first + 1, len(owner) - 1)], -1)
    return pairs[first].astype(np.int64), np.stack([owner[first], second], 1).astype(np.int64)


def antialias(
    values: Float[Tensor, "n h w c"], hits: Hits, points: Float[Tensor, "n v 3"], triangles: Int[Tensor, "t 3"]
) -> Float[Tensor, "n h w c"]:
    """Blends neighbouring pixels where a silhouette runs between their centres, by how far it runs into the farther one.

    What the picture shows then depends on where silhouettes are, and so they get gradients.
    """
    edges, sides = (torch.from_numpy(a).to(values.device) for a in _edges(triangles.cpu().int().numpy().tobytes()))
    out = values
    for axis in (0, 1):
        out = _across(out, values, hits, points, triangles.long(), edges, sides, axis)
    return out


def _across(out, values, hits: Hits, points, triangles, edges, sides, axis: int) -> Tensor:
    """Adds the blends over silhouettes met along rows (axis 0) or columns (axis 1)."""
    count, height, width = hits.triangle.shape
    lines, along = (height, width) if axis == 0 else (width, height)
    go, on = (0, 1) if axis == 0 else (1, 0)  # coordinate along a line, and the one that says which line
    with torch.no_grad():
        p = points.detach()
        a, b, c = p[:, triangles].unbind(2)
        area = (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])
        turned = area > 0
        alone = sides[:, 1] < 0
        outline = alone | (turned[:, sides[:, 0]] != turned[:, sides[:, 1].clamp(min=0)])  # n e
        outline &= (p[:, edges, 2] > 1e-6).all(2)
        n, e = outline.nonzero().unbind(1)
        ends = p[n[:, None], edges[e]]  # k 2 3
        # steep edges are met along rows, flat ones along columns: were each met both ways, it would count twice
        run = (ends[:, 0, :2] - ends[:, 1, :2]).abs()
        mine = (run[:, on] >= run[:, go] if axis == 0 else run[:, on] > run[:, go]).nonzero()[:, 0]
        n, e, ends = n[mine], e[mine], ends[mine]
        low, high = ends[..., on].amin(1), ends[..., on].amax(1)
        first = (low - 0.5).ceil().clamp(min=0).long()
        last = (high - 0.5).floor().clamp(max=lines - 1).long()
        often = (last - first + 1).clamp(min=0)
        owner = torch.repeat_interleave(torch.arange(len(n), device=p.device), often)
        line = first[owner] + torch.arange(len(owner), device=p.device) - (often.cumsum(0) - often)[owner]
        n, e = n[owner], e[owner]
    if not len(n):
        return out
    start, end = points[n, edges[e, 0]], points[n, edges[e, 1]]
    reach = end[:, on] - start[:, on]
    usable = reach.abs() > 1e-9
    share = (line + 0.5 - start[:, on]) / torch.where(usable, reach, torch.ones_like(reach))
    where = start[:, go] + share * (end[:, go] - start[:, go])
    with torch.no_grad():
        before = (where - 0.5).floor().long()
        usable = (usable & (before >= 0) & (before + 1 < along) & (share >= 0) & (share <= 1)).nonzero()[:, 0]
        n, e, line, before, share = (v[usable] for v in (n, e, line, before, share))
        depth = 1 / ((1 - share) / p[n, edges[e, 0], 2] + share / p[n, edges[e, 1], 2])
        flat = lambda position: (n * height + line) * width + position if axis == 0 else (n * height + position) * width + line
        left, right = flat(before), flat(before + 1)
        z = hits.depth.detach().reshape(-1)
        # the surface lies on the side of the edge's triangle's third corner, or of both triangles' where both are there
        own = triangles[sides[e, 0]]
        third = own.sum(1) - edges[e].sum(1)
        corner = p[n, third]
        at = p[n, edges[e, 0], go] + (corner[:, on] - p[n, edges[e, 0], on]) * (
            (p[n, edges[e, 1], go] - p[n, edges[e, 0], go]) / (p[n, edges[e, 1], on] - p[n, edges[e, 0], on])
        )
        surface_left = corner[:, go] < at
        near, far = torch.where(surface_left, left, right), torch.where(surface_left, right, left)
        slack = 2e-3 * depth
        seen = (z[near] <= depth + slack) & (z[far] > depth + 1e-4 * depth) & (z[near] < z[far])
        keep = seen.nonzero()[:, 0]
        # of several silhouettes between the same two pixels the nearest one counts
        key = left[keep]
        nearest = torch.full((count * height * width,), torch.inf, dtype=depth.dtype, device=p.device)
        nearest.scatter_reduce_(0, key, depth[keep], "amin")
        keep = keep[depth[keep] == nearest[key]]
        order = torch.full((count * height * width,), len(depth), device=p.device)
        order.scatter_reduce_(0, left[keep], keep, "amin")
        keep = keep[order[left[keep]] == keep]
        near, far, surface_left = near[keep], far[keep], surface_left[keep]
    inside = where[usable[keep]] - (before[keep] + 0.5)  # 0..1 from the left pixel's centre
    covered = torch.where(surface_left, inside, 1 - inside) - 0.5
    flat_values = values.reshape(-1, values.shape[-1])
    apart = flat_values[near] - flat_values[far]
    into_far = covered.clamp(min=0)[:, None] * apart
    into_near = covered.clamp(max=0)[:, None] * apart
    mixed = out.reshape(-1, values.shape[-1]).index_add(0, far, into_far).index_add(0, near, into_near)
    return mixed.view_as(values)
