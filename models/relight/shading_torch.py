"""`models.relight.shading` in torch: the oracle of the CPU's version, and the CUDA path.

A frame, its code and two lights go in, the relit frame comes out, and nothing in between leaves the device or waits for it;
shapes follow from the picture's size and from how many lamps there are, so that on CUDA one graph is captured and replayed. Sums
run in a fixed order. Never run on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from threading import Lock

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.code import Camera, FaceCode
from models.colour import DECODE, ENCODE
from models.light.gloss import F0, LEAST_COSINE, ROUGHNESS
from models.light.harmonics import LUMINANCE
from models.light.lights import ROWS, Lamp, Light
from models.light.transport import FAR, reach_of, view_of_lamp
from models.moved import Moved
from models.raster.differentiable import interpolate, rasterise
from models.relight.carried import ANEW, AROUND
from models.relight.shading import BIAS, BOUNCE, FLOOR, HAIR, MOST_GLOSS, SKIN, SURE, Shader, shadow_side, tone_blur
from models.relight.surface_torch import TorchSurface, filtered, resized, unit
from models.replay import Replay

_AT_ONCE = 1 << 22  # pixels lit by a lamp each, which take some hundred bytes
_REPLAYS = 4  # kept at once, of lights with other numbers of lamps and pictures of other sizes
_LIT = 1 + 3 + 3 + 3 + 9 + 3 + 1 + 1  # numbers of a lamp: near, colour, vector, weighed vector, axes, origin, reach, shadows


class TorchShader:
    """One person's head on a device, relit frame by frame."""

    def __init__(self, shader: Shader, device: str):
        self._shader, self.device = shader, torch.device(device)
        lit, send = shader.lit, self._send
        self._throwing = send(lit.throwing.astype(np.int32))
        self._surface = TorchSurface(lit, self.device)
        self._glossy, self._believed = send(lit.glossy), send(lit.believed)
        self._directions = send(shader.transport.directions.astype(np.float32))
        self._seen = send(shader.transport.seen.astype(np.float32) / 255)
        self._grey = send(np.float32([0.299, 0.587, 0.114]))  # as OpenCV's
        self._luminance = send(LUMINANCE.astype(np.float32))
        self._decode, self._encode = send(DECODE.astype(np.float32) / 65535), send(ENCODE)
        self._forward = send(np.float32([0, 0, 1]))
        self._replays: dict[tuple, Replay] = {}
        self._lock = Lock()

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
        centre = self._shader.lit.centre(posed)
        lamps = [[sample for one in light.lamps for sample in one.samples()] for light in lights]
        reach = reach_of(posed, centre)
        told = [_told(lamp, posed, reach, centre) for one in lamps for lamp in one]
        skies = np.stack([np.concatenate([one.soft, one.glossy, one.diffuse], -1) for one in lights]).astype(np.float32)
        skies = np.ascontiguousarray(np.concatenate([skies[:, :, -1:], skies, skies[:, :, :1]], 2).transpose(0, 3, 1, 2))
        numbers = np.concatenate(
            [
                np.asarray(code.rotation, np.float32).ravel(),
                np.float32([camera.focal, camera.width, camera.height, *(one.turn for one in lights), self._shader.glossiness]),
            ]
        )
        motion = np.zeros((height, width, 2), np.float32) if moved is None else cv2.resize(moved.motion, (width, height))
        arrays = (
            np.ascontiguousarray(image), np.ascontiguousarray(matte, np.float32),
            np.ascontiguousarray(np.atleast_3d(share), np.float32), posed,
            numbers, skies, np.array(told, np.float32).reshape(-1, _LIT), motion,
            np.float32([0.0 if moved is None else moved.kept]),
            np.ones(height, np.float32) if of_head is None else of_head,
        )  # fmt: skip
        counts = tuple(map(len, lamps))
        key = (image.shape, matte.shape, arrays[2].shape, height, width, counts)
        with self._lock:
            replay = self._replays.get(key)
            if replay is None:
                self._surface.prepare(matte.shape[:2], height, width)
                members = np.repeat(np.eye(len(counts), dtype=np.float32), counts, axis=0)  # L x K, whose light a lamp is of
                past = torch.zeros(height, width, 9, device=self.device)
                (size, _), spread = tone_blur(image.shape[1] / width, width)
                blur = self._send(cv2.getGaussianKernel(size, spread, cv2.CV_32F)[:, 0])
                replay = Replay(partial(self._drawn, height, width, self._send(members), past, blur), arrays, self.device)
                kept = list(self._replays.items())[1 - _REPLAYS :]
                self._replays = {**dict(kept), key: replay}
        return replay.picture(*arrays)

    def _drawn(
        self, height: int, width: int, members: Tensor, past: Tensor, blur: Tensor, image: Tensor, matte: Tensor, share: Tensor,
        posed: Tensor, numbers: Tensor, skies: Tensor, lamps: Tensor, motion: Tensor, kept: Tensor, of_head: Tensor,
    ) -> Tensor:  # fmt: skip
        # `past` is what is carried on to the next frame, `blur` the kernel of tones
        rotation, focal, wide, tall, *_, glossiness = numbers[:9].view(3, 3), *numbers[9:].unbind()
        turns, count = numbers[12:-1], len(skies)
        normals = self._surface.normals(posed)
        view = unit(-posed)
        cosine = (normals * view).sum(1)
        mirrored = 2 * cosine[:, None] * normals - view
        reach = (normals @ rotation @ self._directions.T).clamp(min=0)
        lit = reach * self._seen
        openness = lit.sum(1) / (reach.sum(1) + 1e-9)
        reflected = _brdf_of_environment(cosine.clamp(min=LEAST_COSINE)) * openness
        sky = _sampled(skies[:, :6], torch.cat([self._directions @ rotation.T, mirrored]), turns)
        far_away, mirrors = sky.split((len(self._directions), len(posed)))
        diffuse = lit @ far_away[..., :3].flatten(1) * (4 / len(self._directions))
        gloss = mirrors[..., 3:].flatten(1) * reflected[:, None]
        # as `models.relight.surface.surface`
        below = self._surface.neck_below(posed)
        x, y, z = torch.cat([posed, below]).unbind(1)
        points = torch.stack(
            [(focal * x / z + 0.5 * wide) * (width / wide), (focal * y / z + 0.5 * tall) * (height / tall), z], 1
        )  # fmt: skip
        hits = rasterise(points[None], self._surface.with_neck, height, width)
        own = torch.cat([normals, openness[:, None], diffuse, gloss, self._glossy[:, None], self._believed[:, None]], 1)
        seen = interpolate(hits, self._surface.with_neck, self._surface.carried(own, posed, below))[0]
        normal, far, _, diffuse, gloss, glossy, believed = seen.split((3, 1, 1, 3 * count, 3 * count, 1, 1), -1)
        scale = focal * width / wide
        head, placed = self._surface.head_shares(hits.triangle[0], far[..., 0], believed[..., 0], scale)
        around = self._surface.around(seen[..., :5], head, placed, matte)
        beyond = resized(around, height, width)
        wanted = resized(matte[..., None], height, width)[..., 0] > 0
        wanted = F.max_pool2d(wanted.float()[None], 5, 1, 2)[0] > 0
        a = head[..., None]
        normal = unit(a * normal + (1 - a) * beyond[..., :3])
        far = placed * far[..., 0] + (1 - placed) * beyond[..., 3]
        x = torch.arange(width, device=self.device) + 0.5 - 0.5 * width
        y = (torch.arange(height, device=self.device) + 0.5 - 0.5 * height)[:, None]
        position = torch.stack([x * far / scale, y * far / scale, far], -1)
        facing = (cosine > 0.3).float()[:, None]
        front = unit((normals * facing).sum(0))
        front = torch.where(facing.sum() > 0, front, -self._forward)
        around_and_front = torch.cat([unit(around[..., :3]).reshape(-1, 3), front[None]])
        soft, bounce = _sampled(skies[:, 6:], around_and_front, turns).split((around[..., 0].numel(), 1))
        soft = resized(soft.flatten(1).view(*around.shape[:2], 3 * count) * around[..., 4:5], height, width)
        bounce = bounce.flatten()
        shine = head * glossy[..., 0] * glossiness
        gloss = shine[..., None] * gloss
        diffuse = a * diffuse + (1 - a) * soft
        at_once = max(1, _AT_ONCE // (height * width))
        for some, whose in zip(lamps.split(at_once), members.split(at_once)) if len(lamps) else ():
            shadows = self._shadow_maps(some, posed, shadow_side(height, width))
            lit, glitter = _lamp_light(some, shadows, normal, position, shine)
            colours = (whose[..., None] * some[:, None, 1:4]).flatten(1)  # L x 3 K, of one light each
            more = torch.cat([(some[:, 7:10] @ front).clamp(min=0)[:, None], lit.flatten(1), glitter.flatten(1)], 1).T @ colours
            bounce, lit, glitter = bounce + more[0], *more[1:].view(2, height, width, 3 * count)
            diffuse, gloss = diffuse + lit, gloss + glitter
        diffuse = diffuse + BOUNCE * bounce
        (was, becomes, *still), (was_gloss, gloss, *still_gloss) = (one.split(3, -1) for one in (diffuse, gloss))
        if still:  # as `joined`
            was = still[0] + of_head[:, None, None] * (was - still[0])
            was_gloss = still_gloss[0] + of_head[:, None, None] * (was_gloss - still_gloss[0])
        if self._shader.lit.is_softened:
            share_of_gloss = self._skin_like(image, was, head, blur)[..., None]
            was_gloss, gloss = was_gloss * share_of_gloss, gloss * share_of_gloss
        # as `change`
        inside = wanted.float()[..., None]
        sums = (torch.cat([was, becomes], -1) * inside).sum((0, 1))
        floor = (FLOOR * sums[:3].mean() / inside.sum().clamp(min=1)).clamp(min=1e-6)
        safe = torch.where(was < 2 * floor, floor + was * was / (4 * floor), was)
        before, after = ((one + FLOOR * one.mean()).clamp(min=1e-6) for one in sums.split(3))
        ratio = (becomes + (safe - was) * (after / before)) / safe
        fields = torch.cat([torch.where(wanted[..., None], ratio, 1.0), was_gloss * inside, gloss * inside], -1)
        fields = _carried(fields, past, motion, kept)
        past.copy_(fields)
        return self._applied(image, resized(fields, *image.shape[:2]), share)

    def _skin_like(self, image: Tensor, was: Tensor, head: Tensor, blur: Tensor) -> Tensor:
        """As `skin_like`."""
        grey = filtered((image.float() @ self._grey).round(), blur).round()
        small = F.interpolate(grey[None, None], size=head.shape, mode="nearest-exact")[0, 0]
        tone = torch.square(small) / (was @ self._luminance).clamp(min=1e-3)
        some = torch.where(head > SURE, tone, torch.inf).flatten().sort().values
        count = (some < torch.inf).sum()
        middle = some.gather(0, ((count - 1).clamp(min=0) // 2)[None]).clamp(min=1e-9)
        share = ((tone / middle - HAIR) / (SKIN - HAIR)).clamp(0, 1)
        return torch.where(count > 0, share * share * (3 - 2 * share), 1.0)

    def _applied(self, image: Tensor, fields: Tensor, share: Tensor) -> Tensor:
        """As `applied`."""
        ratio, was, becomes = fields.split(3, -1)
        pixel = self._decode[image.long()]
        kept = (MOST_GLOSS * pixel / was.clamp(min=1e-12)).clamp(max=1).amin(-1, keepdim=True)
        lit = (pixel - was * kept) * ratio + becomes * kept
        part = torch.where(lit > pixel, share[..., :1], share[..., -1:])
        lit = (pixel + part * (lit - pixel)).clamp(0, 1)
        out = self._encode[(lit * 65535 + 0.5).long()]
        return torch.where(share.amax(-1, keepdim=True) > 0, out, image)

    def _shadow_maps(self, lamps: Tensor, posed: Tensor, size: int) -> Tensor:
        """L x S x S: what each lamp sees of the head, metres from it (beyond a plane, where it is far)."""
        near, axes, origin, reach = lamps[:, 0, None], lamps[:, 10:19].view(-1, 3, 3), lamps[:, 19:22], lamps[:, 22, None]
        local = (posed[None] - origin[:, None]) @ axes
        away = torch.where(near > 0, local[..., 2].clamp(min=1e-3), torch.ones_like(local[..., 2]))
        across = (local[..., :2] / away[..., None] / reach.clamp(min=1e-6)[..., None] + 1) * (size / 2)
        depth = torch.where(near > 0, away, FAR + local[..., 2])
        seen = rasterise(torch.cat([across, depth[..., None]], -1), self._throwing, size, size).depth
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


def _told(lamp: Lamp, posed: np.ndarray, reach: float, centre: np.ndarray) -> np.ndarray:
    """A lamp as `_LIT` numbers; `reach` metres of a head."""
    axes, origin, reach = view_of_lamp(lamp, posed, reach, centre)
    near = lamp.position is not None
    vector = centre + lamp.position if near else lamp.direction
    weighed = lamp.position / max(float(np.linalg.norm(lamp.position)), 0.05) ** 3 if near else lamp.direction
    kept = [reach if reach > 0 else 1.0, float(lamp.shadows and reach > 0)]
    return np.concatenate([[float(near)], lamp.colour, vector, weighed, axes.ravel(), origin, kept])


def _lamp_light(lamps: Tensor, shadows: Tensor, normal: Tensor, position: Tensor, shine: Tensor) -> tuple[Tensor, Tensor]:
    """As `_add_lamp`: L x H x W of light on a white surface and of gloss, by white lamps."""
    of = lambda first, last: lamps[:, None, None, first:last]
    near, vector, shadowed = of(0, 1) > 0, of(4, 7), of(23, 24)[..., 0] > 0
    towards = torch.where(near, vector - position, vector)
    square = (towards * towards).sum(-1, keepdim=True) + 1e-6 * near
    towards, near = towards / square.sqrt(), near[..., 0]
    strength = torch.where(near, 1 / square[..., 0].clamp(min=1e-3), 1.0)
    cosine = (normal * towards).sum(-1)
    seen = _unshadowed(lamps, shadows, position + BIAS * normal)
    lit = cosine.clamp(min=0) * torch.where(shadowed, seen, 1.0) * strength
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
    return lit, torch.where(cosine > 0, glitter, 0.0)


def _unshadowed(lamps: Tensor, depth: Tensor, place: Tensor) -> Tensor:
    """L x H x W, as `models.light.transport.unshadowed`; `depth` is L x S x S."""
    count, size = depth.shape[:2]
    height, width = place.shape[:2]
    local = (place.reshape(-1, 3) - lamps[:, None, 19:22]) @ lamps[:, 10:19].view(count, 3, 3)  # L x N x 3
    near, w = lamps[:, :1] > 0, local[..., 2]
    away = torch.where(near, w.clamp(min=1e-3), 1.0)
    at = (local[..., :2] / (away * lamps[:, 22:23])[..., None] + 1) * (0.5 * size) - 0.5
    corner = at.floor()
    fraction = at - corner
    taps = corner.long()[..., None] + torch.arange(-1, 3, device=depth.device)  # L x N x 2 x 4
    inside = (taps >= 0) & (taps < size)
    taps = taps.clamp(0, size - 1)
    there = taps[..., 1, :, None] * size + taps[..., 0, None, :]
    found = depth.flatten(1).gather(1, there.flatten(1)).view_as(there)
    lit = (2 - (w[..., None, None] - found) / BIAS).clamp(0, 1)
    lit = torch.where(inside[..., 1, :, None] & inside[..., 0, None, :], lit, 1.0)
    # four pixels each way, the outer two by halves of one: three in all
    weights = torch.cat(
        [1 - fraction[..., None], torch.ones_like(fraction)[..., None].expand(-1, -1, -1, 2), fraction[..., None]], -1
    )
    share = torch.einsum("lnyx,lny,lnx->ln", lit, weights[..., 1, :], weights[..., 0, :]) / 9
    return torch.where(near & (w < 1e-3), 1.0, share).view(count, height, width)


def _brdf_of_environment(cosine: Tensor) -> Tensor:
    """As `brdf_of_environment`."""
    a, b, c, d = 1 - ROUGHNESS, 0.0425 - 0.0275 * ROUGHNESS, 1.04 - 0.572 * ROUGHNESS, 0.022 * ROUGHNESS - 0.04
    x = torch.exp2(-9.28 * cosine).clamp(max=a * a) * a + b
    return (F0 * (-1.04 * x + c) + (1.04 * x + d)).clamp(min=0)


def _sampled(skies: Tensor, direction: Tensor, turns: Tensor) -> Tensor:
    """As `models.light.lights.sampled`: N x K x C of K skies, each turned by its radians, at N x 3 unit directions.

    Args:
        skies: K x C x ROWS x 2 ROWS + 2, a column more at either end, so that they go all round.
    """
    x, y, z = direction.unbind(-1)
    across = ((torch.atan2(x, z) - turns[:, None]) / (2 * torch.pi) + 0.5) % 1.0
    down = torch.acos((-y).clamp(-1, 1)) * (2 / torch.pi) - 1
    there = torch.stack([(2 * ROWS * across + 1) / (ROWS + 1) - 1, down.expand_as(across)], -1)
    return F.grid_sample(skies, there[:, None], "bilinear", "border", False)[:, :, 0].permute(2, 0, 1)
