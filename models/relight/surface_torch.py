"""`models.relight.surface` in torch: what is lit, on a device.

Shapes follow from the picture's size alone, and nothing waits for the device. Resizing and averaging are products with small
matrices. Never run on a GPU so far.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.relight.surface import BEHIND, COARSE, FLAT, JUMP, MESH, NECK_GOES_ON, RIM, SOFTENINGS, STEEP, LitHead


class TorchSurface:
    """One person's head and what is around it."""

    def __init__(self, lit: LitHead, device: torch.device):
        self.device, prior, send = device, lit.prior, self._send
        self._softened = lit.is_softened
        self._triangles, self._cells = send(lit.triangles.astype(np.int64)), send(lit.cells.astype(np.int64))
        self._around_vertex = send(_triangles_of(lit.triangles, len(prior.mean)))
        self._around_landmark = send(_triangles_of(lit.cells, MESH))
        self._neighbours, self._shares = (send(one) for one in _padded(lit.average))
        self._corners, self._weights, self._share = send(lit.corners.astype(np.int64)), send(lit.weights), send(lit.share)
        self._landmarks = send(np.asarray(prior.landmark_vertices[:MESH], np.int64))
        self._barycentric = send(np.asarray(prior.landmark_barycentric[:MESH], np.float32))
        self._beyond, self._neck, self._neck_end = send(lit.beyond), send(lit.neck), send(lit.neck_end)
        self.with_neck = send(lit.with_neck)
        self._balls, self._inner, self._lips = send(lit.balls), send(lit.inner), send(lit.lips)
        self._forward = send(np.float32([0, 0, 1]))
        self._sure_by = send(np.array([0, 0, 0, 1, 0]))  # depth by where it is placed, the rest by the head
        self._blur = send(cv2.getGaussianKernel(11, 1.2, cv2.CV_32F)[:, 0])
        self._matrices: dict[tuple[str, int, int], Tensor] = {}

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def prepare(self, matte: tuple[int, int], height: int, width: int) -> None:
        """Sends the matrices that averages over these sizes take; a graph can't."""
        send = lambda kind, make, size, smaller: self._matrices.setdefault((kind, size, smaller), self._send(make(size, smaller)))
        rows, columns = _coarse(height, width)
        for own, size, smaller in ((matte[0], height, rows), (matte[1], width, columns)):
            send("cells", _cells, size, smaller)
            send("areas", _areas, own, smaller)
        while min(rows, columns) > 2:
            for size in (rows, columns):
                send("areas", _areas, size, (size + 1) // 2)
            rows, columns = (rows + 1) // 2, (columns + 1) // 2

    def normals(self, vertices: Tensor) -> Tensor:
        """As `LitHead.normals`."""
        sharp = unit(_outward(vertices, self._triangles, self._around_vertex))
        if not self._softened:
            return sharp
        points = (self._barycentric[..., None] * vertices[self._landmarks]).sum(1)
        smooth = unit(_outward(points, self._cells, self._around_landmark))
        smooth = unit((self._weights[..., None] * smooth[self._corners]).sum(1))
        average = lambda field: (self._shares[..., None] * field[self._neighbours]).sum(1)
        mixed = self._share[:, None] * smooth + (1 - self._share[:, None]) * unit(average(average(sharp)))
        for _ in range(SOFTENINGS):
            mixed = average(mixed)
        out = torch.where(self._balls[:, None], sharp, unit(mixed))
        out[self._inner] = unit(out[self._lips].mean(0))
        return out

    def lit_depths(self, posed: Tensor) -> Tensor:
        """As `LitHead.lit_depths`."""
        depth = posed[:, 2:].clone()
        depth[self._inner] = torch.quantile(posed[self._lips, 2], 0.2)
        return depth

    def neck_below(self, posed: Tensor) -> Tensor:
        """As `LitHead.neck_below`."""
        end = posed[self._neck_end]
        return end + NECK_GOES_ON * unit(end.mean(0) - posed[self._neck].mean(0)) if len(end) else end

    def carried(self, own: Tensor, posed: Tensor, below: Tensor) -> Tensor:
        """V + R x (3 + 1 + C) of V x (3 + C): normals, depths that light is worked out at, and what else pixels are told."""
        on_head = torch.cat([own[:, :3], self.lit_depths(posed), own[:, 3:]], 1)
        on_neck = on_head[self._neck_end]
        return torch.cat([on_head, torch.cat([on_neck[:, :3], below[:, 2:], on_neck[:, 4:-1], 0 * on_neck[:, -1:]], 1)])

    def head_shares(self, triangle: Tensor, depth: Tensor, believed: Tensor, focal: Tensor) -> Tensor:
        """2 x H x W in [0, 1], `head` and `placed` of `models.relight.surface.surface`.

        Distances are exact, where OpenCV's are good to a few per cent.
        """
        seen, width = triangle >= 0, triangle.shape[1]
        drawn = seen & (triangle < len(self._triangles))
        columns = torch.arange(width, device=self.device)
        any_ = drawn.any(0)
        first, last = torch.where(any_, columns, width).min(), torch.where(any_, columns, -1).max()
        rim = (RIM * (last - first)).clamp(min=1)
        apart = self._before(triangle, depth, focal) if self._softened else torch.zeros_like(drawn)
        most = int(np.ceil(RIM * width)) + 1
        steps = torch.arange(-most, most + 1, device=self.device).float() ** 2
        within = torch.where(torch.stack([drawn & ~apart, seen]), float(4 * most * most), 0.0)
        across = F.pad(within[:, None], (most, most, 0, 0), mode="replicate")[:, 0]
        across = (across.unfold(2, 2 * most + 1, 1) + steps).amin(-1)
        down = F.pad(across[:, None], (0, 0, most, most), mode="replicate")[:, 0]
        inside = (down.unfold(1, 2 * most + 1, 1) + steps).amin(-1).sqrt()
        share = (inside / rim).clamp(0, 1) * torch.stack([believed * drawn, torch.ones_like(believed)])
        return share * share * (3 - 2 * share)

    def _before(self, triangle: Tensor, depth: Tensor, focal: Tensor) -> Tensor:
        """As `models.relight.surface._before`."""
        seen = triangle >= 0
        beyond = self._beyond[triangle.long()] & seen
        ends = torch.stack([torch.where(beyond, depth, 0.0), torch.where(seen, -depth, -torch.inf)])
        farthest, nearest = F.max_pool2d(ends[:, None], 3, 1, 1)[:, 0]
        return farthest + nearest > (STEEP * depth / focal).clamp(min=JUMP)

    def around(self, there: Tensor, head: Tensor, placed: Tensor, matte: Tensor) -> Tensor:
        """As `models.relight.surface._around`."""
        height, width = head.shape
        rows, columns = _coarse(height, width)
        sure = (torch.stack([head, placed], -1) > 0.98).float()
        down, across = (self._matrices["cells", n, m] for n, m in ((height, rows), (width, columns)))
        sure = sure[..., self._sure_by]
        known, weights = _both(down, torch.cat([there * sure, sure], -1), across).split(5, -1)
        weight = weights[..., 0]
        tall, wide = matte.shape
        small = _both(self._matrices["areas", tall, rows], matte[..., None], self._matrices["areas", wide, columns])
        person = filtered(small[..., 0], self._blur)
        right, below = _slopes(person)
        slope = torch.sqrt(right * right + below * below)
        free = 1 - (4 * weight).clamp(0, 1)
        steep = (slope / 0.15).clamp(0, 1)
        outline = steep * free
        sideways = unit(torch.stack([-right, -below, -BEHIND * slope], -1)) * outline[..., None]
        flat = FLAT * (2 * person - 1).clamp(0, 1) * (1 - steep) * free
        normals = known[..., :3] + sideways - flat[..., None] * self._forward
        more = F.pad((outline + flat)[..., None].expand(-1, -1, 3), (0, 2))
        return self._pulled_and_pushed(torch.cat([normals, known[..., 3:]], -1), weights + more)

    def _pulled_and_pushed(self, fields: Tensor, weights: Tensor) -> Tensor:
        """As `pulled_and_pushed`."""
        height, width, channels = fields.shape
        if min(height, width) <= 2:
            return (fields.sum((0, 1)) / weights.sum((0, 1)).clamp(min=1e-6)).expand_as(fields)
        rows, columns = (height + 1) // 2, (width + 1) // 2
        down, across = self._matrices["areas", height, rows], self._matrices["areas", width, columns]
        half, full = (3 * _both(down, torch.cat([fields, weights], -1), across)).split(channels, -1)
        enough = full.clamp(min=1)
        coarse = self._pulled_and_pushed(half / enough, full / enough)
        coarse = resized(coarse, height, width).permute(2, 0, 1)[None]
        coarse = F.avg_pool2d(F.pad(coarse, (1, 1, 1, 1), mode="reflect"), 3, 1)[0].permute(1, 2, 0)
        return fields / weights.clamp(min=1) + (1 - weights.clamp(max=1)) * coarse


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length 1."""
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def _triangles_of(triangles: np.ndarray, count: int) -> np.ndarray:
    """V x M: the triangles of each vertex, beyond their number where there are fewer."""
    corners = np.concatenate([triangles[:, k] for k in range(3)])
    numbers = np.tile(np.arange(len(triangles)), 3)
    order = np.argsort(corners, kind="stable")
    corners, numbers = corners[order], numbers[order]
    first = np.searchsorted(corners, np.arange(count))
    place = np.arange(len(corners)) - first[corners]
    out = np.full((count, int(place.max()) + 1), len(triangles), np.int64)
    out[corners, place] = numbers
    return out


def _outward(vertices: Tensor, triangles: Tensor, of_vertex: Tensor) -> Tensor:
    """As `models.portrait.shade.outward`."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    normals = torch.cat([torch.linalg.cross(b - a, c - a), torch.zeros_like(vertices[:1])])
    return normals[of_vertex].sum(1)


def _padded(average) -> tuple[np.ndarray, np.ndarray]:
    """V x K neighbours and their shares of a sparse matrix with as many rows."""
    counts = np.diff(average.indptr)
    place = np.arange(average.nnz) - np.repeat(average.indptr[:-1], counts)
    rows = np.repeat(np.arange(len(counts)), counts)
    neighbours, shares = np.zeros((len(counts), counts.max()), np.int64), np.zeros((len(counts), counts.max()), np.float32)
    neighbours[rows, place], shares[rows, place] = average.indices, average.data
    return neighbours, shares


def resized(field: Tensor, height: int, width: int) -> Tensor:
    """h x w x C stretched linearly, pixel centres on pixel centres."""
    out = F.interpolate(field.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", align_corners=False)
    return out[0].permute(1, 2, 0)


def _both(down: Tensor, field: Tensor, across: Tensor) -> Tensor:
    """h x w x C of H x W x C by a matrix for its columns (h x H) and one for its rows (w x W)."""
    rows = (down @ field.flatten(1)).view(len(down), *field.shape[1:])
    return torch.bmm(across.expand(len(down), -1, -1), rows)


def _cells(size: int, smaller: int) -> np.ndarray:
    """smaller x size: means over whole cells, as of `models.relight.surface._averaged`."""
    out = np.zeros((smaller, size), np.float32)
    for v in range(smaller):
        first, last = v * size // smaller, (v + 1) * size // smaller
        out[v, first:last] = 1 / (last - first)
    return out


def _areas(size: int, smaller: int) -> np.ndarray:
    """smaller x size: means over areas, as OpenCV's INTER_AREA."""
    edges = np.arange(smaller + 1) * size / smaller
    pixels = np.arange(size)
    over = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return (np.clip(over, 0, None) * smaller / size).astype(np.float32)


def filtered(picture: Tensor, kernel: Tensor) -> Tensor:
    """H x W by a symmetric kernel both ways, mirrored at the edges."""
    reach = len(kernel) // 2
    out = F.conv2d(F.pad(picture[None, None], (reach, reach, 0, 0), mode="reflect"), kernel.view(1, 1, 1, -1))
    return F.conv2d(F.pad(out, (0, 0, reach, reach), mode="reflect"), kernel.view(1, 1, -1, 1))[0, 0]


def _slopes(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Sobel's derivatives to the right and down, over 8."""
    wide = F.pad(picture[None, None], (1, 1, 1, 1), mode="reflect")[0, 0]
    right = wide[:, 2:] - wide[:, :-2]
    down = wide[2:] - wide[:-2]
    return (right[:-2] + 2 * right[1:-1] + right[2:]) / 8, (down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]) / 8


def _coarse(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of what is guessed around a head."""
    scale = min(1.0, COARSE / max(height, width))
    return max(8, round(height * scale)), max(8, round(width * scale))
