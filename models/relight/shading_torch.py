"""`models.relight.shading` in torch: the oracle of the CPU's version, and the CUDA path.

A frame, its code and two lights go in, the relit frame comes out, and nothing in between leaves the device or waits for it;
shapes follow from the picture's size and from how many lamps there are, so that on CUDA one graph is captured and replayed. Sums
run in a fixed order. Resizing and averaging are products with small matrices. Never run on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.code import Camera, FaceCode
from models.colour import DECODE, ENCODE
from models.light.gloss import F0, LEAST_COSINE, ROUGHNESS
from models.light.lights import ROWS, Lamp, Light
from models.light.transport import FAR, view_of_lamp
from models.moved import Moved
from models.raster.differentiable import interpolate, rasterise
from models.relight.carried import ANEW, AROUND
from models.relight.shading import BIAS, BOUNCE, FLOOR, MOST_GLOSS, Shader, shadow_side
from models.relight.surface import BEHIND, COARSE, FLAT, MESH, RIM, SOFTENINGS
from models.replay import Replay

_LIT = 1 + 3 + 3 + 3 + 9 + 3 + 1 + 1  # numbers of a lamp: near, colour, vector, weighed vector, axes, origin, reach, shadows


class TorchShader:
    """One person's head on a device, relit frame by frame."""

    def __init__(self, shader: Shader, device: str):
        self._shader, self.device = shader, torch.device(device)
        lit, send = shader.lit, self._send
        prior = lit.prior
        self._triangles, self._outside = send(lit.triangles.astype(np.int32)), send(lit.outside.astype(np.int32))
        self._cells = send(lit.cells.astype(np.int64))
        self._around_vertex = send(_triangles_of(lit.triangles, len(prior.mean)))
        self._around_landmark = send(_triangles_of(lit.cells, MESH))
        self._neighbours, self._shares = (send(one) for one in _padded(lit.average))
        self._corners, self._weights, self._share = send(lit.corners.astype(np.int64)), send(lit.weights), send(lit.share)
        self._landmarks = send(np.asarray(prior.landmark_vertices[:MESH], np.int64))
        self._barycentric = send(np.asarray(prior.landmark_barycentric[:MESH], np.float32))
        self._balls, self._inner, self._lips = send(lit.balls), send(lit.inner), send(lit.lips)
        self._glossy, self._believed = send(lit.glossy), send(lit.believed)
        self._directions = send(shader.transport.directions.astype(np.float32))
        self._seen = send(shader.transport.seen.astype(np.float32) / 255)
        self._face = send(np.flatnonzero(prior.part == 0))
        self._decode, self._encode = send(DECODE.astype(np.float32) / 65535), send(ENCODE)
        self._forward = send(np.float32([0, 0, 1]))
        self._blur = send(cv2.getGaussianKernel(11, 1.2, cv2.CV_32F)[:, 0])
        self._matrices: dict[tuple[str, int, int], Tensor] = {}
        self._replays: dict[tuple, Replay] = {}

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def __call__(
        self, image: np.ndarray, code: FaceCode, matte: np.ndarray, lights: Sequence[Light], share: np.ndarray,
        height: int, width: int, camera: Camera, moved: Moved | None = None, of_head: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """H x W x 3 uint8 sRGB: the picture from the first light to the second; arguments as of `Relit` and `Shader`.

        Args:
            height, width: in which it is shaded.
            moved: since the picture that was drawn before; None is for one by itself.
            of_head: H in [0, 1], rows in which the first light is the picture's; a third one is of the rest.
        """
        posed = self._shader.lit.head.posed(code).astype(np.float32)
        centre = posed[self._shader.lit.prior.part == 0].mean(0).astype(np.float64)
        lamps = [[sample for one in light.lamps for sample in one.samples()] for light in lights]
        told = [_told(lamp, posed, centre) for one in lamps for lamp in one]
        grids = np.stack([np.concatenate([one.soft, one.glossy, one.diffuse], -1) for one in lights]).astype(np.float32)
        numbers = np.concatenate(
            [
                np.asarray(code.rotation, np.float32).ravel(),
                np.float32([camera.focal, camera.width, camera.height, *(one.turn for one in lights), self._shader.glossiness]),
            ]
        )
        motion = np.zeros((height, width, 2), np.float32) if moved is None else cv2.resize(moved.motion, (width, height))
        arrays = (
            np.ascontiguousarray(image), np.ascontiguousarray(matte, np.float32), np.ascontiguousarray(share, np.float32), posed,
            numbers, grids, np.array(told, np.float32).reshape(-1, _LIT), motion,
            np.float32([0.0 if moved is None else moved.kept]),
            np.ones(height, np.float32) if of_head is None else of_head,
        )  # fmt: skip
        counts = tuple(map(len, lamps))
        key = (image.shape, matte.shape, height, width, counts)
        if key not in self._replays:
            self._prepare(matte.shape[:2], height, width)
            draw = partial(self._drawn, height, width, counts)
            self._replays = {key: Replay(draw, arrays, self.device)}
        return self._replays[key].picture(*arrays)

    def _drawn(
        self, height: int, width: int, counts: tuple[int, ...], image: Tensor, matte: Tensor, share: Tensor, posed: Tensor,
        numbers: Tensor, grids: Tensor, lamps: Tensor, motion: Tensor, kept: Tensor, of_head: Tensor,
    ) -> Tensor:  # fmt: skip
        rotation, (focal, wide, tall, *turns, glossiness) = numbers[:9].view(3, 3), numbers[9:].unbind()
        normals = self._normals(posed)
        there = self._directions @ rotation.T
        view = _unit(-posed)
        cosine = (normals * view).sum(1)
        mirrored = 2 * cosine[:, None] * normals - view
        reflected = _brdf_of_environment(cosine.clamp(min=LEAST_COSINE))
        reach = (normals @ rotation @ self._directions.T).clamp(min=0)
        lit = reach * self._seen
        openness = lit.sum(1) / (reach.sum(1) + 1e-9)
        values = []
        for grid, turned in zip(grids, turns):
            diffuse = lit @ _sampled(grid[..., :3], there, turned) * (4 / len(self._directions))
            values += [diffuse, _sampled(grid[..., 3:6], mirrored, turned) * (reflected * openness)[:, None]]
        # as `models.relight.surface.surface`
        points = torch.stack(
            [
                (focal * posed[:, 0] / posed[:, 2] + 0.5 * wide) * (width / wide),
                (focal * posed[:, 1] / posed[:, 2] + 0.5 * tall) * (height / tall),
                posed[:, 2],
            ],
            1,
        )
        depth = posed[:, 2:].clone()
        depth[self._inner] = torch.quantile(posed[self._lips, 2], 0.2)
        hits = rasterise(points[None], self._triangles, height, width)
        own = [self._glossy[:, None], self._believed[:, None]]
        seen = interpolate(hits, self._triangles, torch.cat([normals, depth, openness[:, None], *values, *own], 1))[0]
        head = self._head_share(hits.triangle[0] >= 0, seen[..., -1])
        around = self._around(seen[..., :5], head, matte)
        beyond = _resized(around, height, width)
        wanted = _resized(matte[..., None], height, width)[..., 0] > 0
        wanted = F.max_pool2d(wanted.float()[None], 5, 1, 2)[0] > 0
        a = head[..., None]
        normal = _unit(a * seen[..., :3] + (1 - a) * beyond[..., :3])
        far = head * seen[..., 3] + (1 - head) * beyond[..., 3]
        scale = focal * width / wide
        x = torch.arange(width, device=self.device) + 0.5 - 0.5 * width
        y = (torch.arange(height, device=self.device) + 0.5 - 0.5 * height)[:, None]
        position = torch.stack([x * far / scale, y * far / scale, far], -1)
        facing = (cosine > 0.3).float()[:, None]
        front = _unit((normals * facing).sum(0))
        front = torch.where(facing.sum() > 0, front, -self._forward)
        shaded = []
        for k, (grid, turned, own) in enumerate(zip(grids, turns, lamps.split(counts))):
            soft = _sampled(grid[..., 6:], _unit(around[..., :3]).reshape(-1, 3), turned).view(*around.shape[:2], 3)
            soft = _resized(soft * around[..., 4:], height, width)
            bounce = BOUNCE * _sampled(grid[..., 6:], front[None], turned)[0]
            for lamp in own:
                bounce = bounce + BOUNCE * lamp[1:4] * (lamp[7:10] @ front).clamp(min=0)
            diffuse = a * seen[..., 5 + 6 * k : 8 + 6 * k] + (1 - a) * soft + bounce
            shine = head * seen[..., -2] * glossiness
            gloss = shine[..., None] * seen[..., 8 + 6 * k : 11 + 6 * k]
            if len(own):
                shadows = self._shadow_maps(own, posed, shadow_side(height, width))
            for lamp, shadow in zip(own, shadows if len(own) else ()):
                more, glitter = _lamp_light(lamp, shadow, normal, position, shine)
                diffuse, gloss = diffuse + more, gloss + glitter
            shaded.append((diffuse, gloss))
        (was, was_gloss), (becomes, gloss), *rest = shaded
        for still, still_gloss in rest:  # as `joined`
            part = of_head[:, None, None]
            was, was_gloss = still + part * (was - still), still_gloss + part * (was_gloss - still_gloss)
        # as `change`
        inside = wanted.float()[..., None]
        count = inside.sum().clamp(min=1)
        means = [(one * inside).sum((0, 1)) / count for one in (was, becomes)]
        floor = (FLOOR * means[0].mean()).clamp(min=1e-6)
        safe = torch.where(was < 2 * floor, floor + was * was / (4 * floor), was)
        ratio = (becomes + (safe - was) * (means[1] / means[0].clamp(min=1e-9))) / safe
        fields = torch.cat([torch.where(wanted[..., None], ratio, 1.0), was_gloss * inside, gloss * inside], -1)
        fields = _carried(fields, self._past, motion, kept)
        self._past.copy_(fields)
        return self._applied(image, _resized(fields, *image.shape[:2]), share)

    def _applied(self, image: Tensor, fields: Tensor, share: Tensor) -> Tensor:
        """As `applied`."""
        ratio, was, becomes = fields.split(3, -1)
        pixel = self._decode[image.long()]
        kept = (MOST_GLOSS * pixel / was.clamp(min=1e-12)).clamp(max=1).amin(-1, keepdim=True)
        lit = (pixel - was * kept) * ratio + becomes * kept
        lit = (pixel + share[..., None] * (lit - pixel)).clamp(0, 1)
        out = self._encode[(lit * 65535 + 0.5).long()]
        return torch.where(share[..., None] > 0, out, image)

    def _normals(self, vertices: Tensor) -> Tensor:
        """As `LitHead.normals`."""
        sharp = _unit(_outward(vertices, self._triangles.long(), self._around_vertex))
        if not self._shader.lit.is_softened:
            return sharp
        points = (self._barycentric[..., None] * vertices[self._landmarks]).sum(1)
        smooth = _unit(_outward(points, self._cells, self._around_landmark))
        smooth = _unit((self._weights[..., None] * smooth[self._corners]).sum(1))
        average = lambda field: (self._shares[..., None] * field[self._neighbours]).sum(1)
        mixed = self._share[:, None] * smooth + (1 - self._share[:, None]) * _unit(average(average(sharp)))
        for _ in range(SOFTENINGS):
            mixed = average(mixed)
        out = torch.where(self._balls[:, None], sharp, _unit(mixed))
        out[self._inner] = _unit(out[self._lips].mean(0))
        return out

    def _head_share(self, drawn: Tensor, believed: Tensor) -> Tensor:
        """H x W in [0, 1]: 1 on the head, fading before its rim and where it is not `believed`.

        Distances are exact, where OpenCV's are good to a few per cent.
        """
        height, width = drawn.shape
        columns = torch.arange(width, device=self.device)
        any_ = drawn.any(0)
        first, last = torch.where(any_, columns, width).min(), torch.where(any_, columns, -1).max()
        rim = (RIM * (last - first)).clamp(min=1)
        most = int(np.ceil(RIM * width)) + 1
        steps = torch.arange(-most, most + 1, device=self.device).float() ** 2
        far = float(4 * most * most)
        nearest = torch.where(drawn, far, 0.0)
        across = F.pad(nearest[None, None], (most, most, 0, 0), mode="replicate")[0, 0]
        across = (across.unfold(1, 2 * most + 1, 1) + steps).amin(-1)
        down = F.pad(across[None, None], (0, 0, most, most), mode="replicate")[0, 0]
        inside = (down.unfold(0, 2 * most + 1, 1) + steps).amin(-1).sqrt()
        share = (inside / rim).clamp(0, 1) * believed * drawn
        return share * share * (3 - 2 * share)

    def _around(self, there: Tensor, head: Tensor, matte: Tensor) -> Tensor:
        """As `models.relight.surface._around`."""
        height, width = head.shape
        rows, columns = _coarse(height, width)
        sure = (head > 0.98).float()[..., None]
        down, across = (self._matrices["cells", n, m] for n, m in ((height, rows), (width, columns)))
        known = _both(down, torch.cat([there * sure, sure], -1), across)
        known, weight = known[..., :5], known[..., 5]
        tall, wide = matte.shape
        small = _both(self._matrices["areas", tall, rows], matte[..., None], self._matrices["areas", wide, columns])
        person = _filtered(small[..., 0], self._blur)
        right, below = _slopes(person)
        slope = torch.sqrt(right * right + below * below)
        free = 1 - (4 * weight).clamp(0, 1)
        steep = (slope / 0.15).clamp(0, 1)
        outline = steep * free
        sideways = _unit(torch.stack([-right, -below, -BEHIND * slope], -1)) * outline[..., None]
        flat = FLAT * (2 * person - 1).clamp(0, 1) * (1 - steep) * free
        normal = known[..., :3] + sideways - flat[..., None] * self._forward
        weights = torch.stack([weight + outline + flat] * 3 + [weight] * 2, -1)
        return self._pulled_and_pushed(torch.cat([normal, known[..., 3:]], -1), weights)

    def _pulled_and_pushed(self, fields: Tensor, weights: Tensor) -> Tensor:
        height, width = fields.shape[:2]
        if min(height, width) <= 2:
            return (fields.sum((0, 1)) / weights.sum((0, 1)).clamp(min=1e-6)).expand_as(fields)
        rows, columns = (height + 1) // 2, (width + 1) // 2
        down, across = self._matrices["areas", height, rows], self._matrices["areas", width, columns]
        half, full = _both(down, fields, across), _both(down, weights, across)
        full = (3 * full).clamp(min=1)
        coarse = self._pulled_and_pushed(half * 3 / full, _both(down, weights, across) * 3 / full)
        coarse = _resized(coarse, height, width).permute(2, 0, 1)[None]
        coarse = F.avg_pool2d(F.pad(coarse, (1, 1, 1, 1), mode="reflect"), 3, 1)[0].permute(1, 2, 0)
        return fields / weights.clamp(min=1) + (1 - weights.clamp(max=1)) * coarse

    def _prepare(self, matte: tuple[int, int], height: int, width: int) -> None:
        """Sends the matrices that averages over these sizes take, and makes room for what is carried on; a graph can't."""
        self._past = torch.zeros(height, width, 9, device=self.device)
        send = lambda kind, make, size, smaller: self._matrices.setdefault((kind, size, smaller), self._send(make(size, smaller)))
        rows, columns = _coarse(height, width)
        for own, size, smaller in ((matte[0], height, rows), (matte[1], width, columns)):
            send("cells", _cells, size, smaller)
            send("areas", _areas, own, smaller)
        while min(rows, columns) > 2:
            for size in (rows, columns):
                send("areas", _areas, size, (size + 1) // 2)
            rows, columns = (rows + 1) // 2, (columns + 1) // 2

    def _shadow_maps(self, lamps: Tensor, posed: Tensor, size: int) -> Tensor:
        """L x S x S: what each lamp sees of the head, metres from it (beyond a plane, where it is far)."""
        near, axes, origin, reach = lamps[:, 0, None], lamps[:, 10:19].view(-1, 3, 3), lamps[:, 19:22], lamps[:, 22, None]
        local = (posed[None] - origin[:, None]) @ axes
        away = torch.where(near > 0, local[..., 2].clamp(min=1e-3), torch.ones_like(local[..., 2]))
        across = (local[..., :2] / away[..., None] / reach.clamp(min=1e-6)[..., None] + 1) * (size / 2)
        depth = torch.where(near > 0, away, FAR + local[..., 2])
        seen = rasterise(torch.cat([across, depth[..., None]], -1), self._outside, size, size).depth
        return seen - torch.where(near > 0, 0.0, FAR)[..., None]


def _carried(fields: Tensor, past: Tensor, motion: Tensor, kept: Tensor) -> Tensor:
    """As `models.relight.carried.Carried`: H x W x 9 of ratio and both glosses, of which `kept` (1) stays of the `past`."""
    height, width = fields.shape[:2]
    x = (torch.arange(width, device=fields.device) + 0.5) / width
    y = ((torch.arange(height, device=fields.device) + 0.5) / height)[:, None]
    there = torch.stack([x + motion[..., 0], y + motion[..., 1]], -1) * 2 - 1
    before = F.grid_sample(past.permute(2, 0, 1)[None], there[None], "bilinear", "border", False)[0].permute(1, 2, 0)
    ratios = fields[..., :3], before[..., :3]
    apart = ((ratios[0] - ratios[1]).abs() / (ratios[0].abs() + ratios[1].abs() + 1e-6)).mean(-1)
    reach = AROUND // 2
    apart = F.avg_pool2d(F.pad(apart[None, None], (reach,) * 4, mode="reflect"), AROUND, 1)[0, 0]
    return fields + (kept / (1 + (apart / ANEW) ** 4))[..., None] * (before - fields)


def _coarse(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of what is guessed around a head."""
    scale = min(1.0, COARSE / max(height, width))
    return max(8, round(height * scale)), max(8, round(width * scale))


def _told(lamp: Lamp, posed: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """A lamp as `_LIT` numbers."""
    axes, origin, reach = view_of_lamp(lamp, posed, centre)
    near = lamp.position is not None
    vector = centre + lamp.position if near else lamp.direction
    weighed = lamp.position / max(float(np.linalg.norm(lamp.position)), 0.05) ** 3 if near else lamp.direction
    kept = [reach if reach > 0 else 1.0, float(lamp.shadows and reach > 0)]
    return np.concatenate([[float(near)], lamp.colour, vector, weighed, axes.ravel(), origin, kept])


def _lamp_light(lamp: Tensor, shadow: Tensor, normal: Tensor, position: Tensor, shine: Tensor) -> tuple[Tensor, Tensor]:
    """As `_add_lamp`: H x W x 3 of diffuse light and of gloss."""
    near, vector = lamp[0] > 0, lamp[4:7]
    towards = torch.where(near, vector - position, vector.expand_as(position))
    square = (towards * towards).sum(-1) + torch.where(near, 1e-6, 0.0)
    towards = towards / square.sqrt()[..., None]
    strength = torch.where(near, 1 / square.clamp(min=1e-3), 1.0)
    cosine = (normal * towards).sum(-1)
    seen = _unshadowed(lamp, shadow, position + BIAS * normal)
    lit = cosine.clamp(min=0) * torch.where(lamp[23] > 0, seen, 1.0) * strength
    view = -position / (position.norm(dim=-1, keepdim=True) + 1e-9)
    half = towards + view
    half = half / (half.norm(dim=-1, keepdim=True) + 1e-9)
    nh, vh = (normal * half).sum(-1).clamp(min=0), (view * half).sum(-1).clamp(min=0)
    nv = (normal * view).sum(-1).clamp(min=LEAST_COSINE)
    alpha = ROUGHNESS**2
    flat = nh * nh * (alpha * alpha - 1) + 1
    k = alpha * 0.5
    hidden = 1 / ((cosine * (1 - k) + k) * (nv * (1 - k) + k))
    fresnel = F0 + (1 - F0) * (1 - vh) ** 5
    glitter = alpha * alpha / (flat * flat) * hidden * fresnel * 0.25 * lit * shine
    glitter = torch.where(cosine > 0, glitter, 0.0)
    return lit[..., None] * lamp[1:4], glitter[..., None] * lamp[1:4]


def _unshadowed(lamp: Tensor, depth: Tensor, place: Tensor) -> Tensor:
    """As `models.light.transport.unshadowed`."""
    size = depth.shape[0]
    local = (place - lamp[19:22]) @ lamp[10:19].view(3, 3)
    near, w = lamp[0] > 0, local[..., 2]
    away = torch.where(near, w.clamp(min=1e-3), torch.ones_like(w))
    at = ((local[..., :2] / away[..., None] / lamp[22]) + 1) * 0.5 * size - 0.5
    corner = at.floor()
    fraction = at - corner
    corner = corner.long() - 1
    weights = lambda f: torch.stack([1 - f, torch.ones_like(f), torch.ones_like(f), f], -1)
    steps = torch.arange(4, device=depth.device)
    columns, rows = corner[..., 0, None] + steps, corner[..., 1, None] + steps
    inside = ((columns >= 0) & (columns < size))[..., None, :] & ((rows >= 0) & (rows < size))[..., :, None]
    taps = depth[rows.clamp(0, size - 1)[..., :, None], columns.clamp(0, size - 1)[..., None, :]]
    lit = (2 - (w[..., None, None] - taps) / BIAS).clamp(0, 1)
    lit = torch.where(inside, lit, torch.ones_like(lit))
    both = weights(fraction[..., 1])[..., :, None] * weights(fraction[..., 0])[..., None, :]
    share = (lit * both).sum((-1, -2)) / both.sum((-1, -2))
    return torch.where(near & (w < 1e-3), torch.ones_like(share), share)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp(min=1e-9)


def _brdf_of_environment(cosine: Tensor) -> Tensor:
    """As `brdf_of_environment`."""
    a, b, c, d = 1 - ROUGHNESS, 0.0425 - 0.0275 * ROUGHNESS, 1.04 - 0.572 * ROUGHNESS, 0.022 * ROUGHNESS - 0.04
    x = torch.exp2(-9.28 * cosine).clamp(max=a * a) * a + b
    return (F0 * (-1.04 * x + c) + (1.04 * x + d)).clamp(min=0)


def _sampled(grid: Tensor, direction: Tensor, turn: Tensor) -> Tensor:
    """As `models.light.lights.sampled`: N x C of ROWS x 2 ROWS x C at N x 3 unit directions."""
    x, y, z = direction.unbind(-1)
    column = (((torch.atan2(x, z) - turn) / (2 * torch.pi) + 0.5) % 1.0) * (2 * ROWS) - 0.5
    row = (torch.acos((-y).clamp(-1, 1)) / torch.pi * ROWS - 0.5).clamp(0, ROWS - 1)
    left, top = column.floor(), row.floor().clamp(max=ROWS - 2)
    u, v = (column - left)[:, None], (row - top)[:, None]
    left, top = left.long() % (2 * ROWS), top.long()
    right, below = (left + 1) % (2 * ROWS), top + 1
    upper, lower = ((1 - u) * grid[line, left] + u * grid[line, right] for line in (top, below))
    return (1 - v) * upper + v * lower


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


def _resized(field: Tensor, height: int, width: int) -> Tensor:
    """h x w x C stretched linearly, pixel centres on pixel centres."""
    out = F.interpolate(field.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", align_corners=False)
    return out[0].permute(1, 2, 0)


def _both(down: Tensor, field: Tensor, across: Tensor) -> Tensor:
    """h x w x C of H x W x C by a matrix for its columns (h x H) and one for its rows (w x W)."""
    return torch.einsum("hH,HWc,wW->hwc", down, field, across)


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


def _filtered(picture: Tensor, kernel: Tensor) -> Tensor:
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
