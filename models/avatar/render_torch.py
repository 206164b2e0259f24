"""`models.avatar.render` in torch: the oracle of the CPU's version, and the CUDA path.

69 numbers of a code go in, a picture comes out, and nothing in between leaves the device or waits for it; shapes never change,
so that on CUDA one graph is captured and replayed. Sums run in a fixed order: the same code gives the same pixels.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.avatar.avatar import LAYERS, Avatar, motion_shape
from models.avatar.lighting import MOST, Lighting, responses
from models.avatar.linear import Linear
from models.avatar.mesh_colours import MeshColours
from models.avatar.render import EDGE, EDGE_WIDTH, SHELL_EDGE_WIDTH, SURE
from models.avatar.shape import AvatarHead
from models.avatar.space import FACE, POSE, POSE_REACH, REACH, CodeSpace
from models.code import Camera, FaceCode
from models.matting import ALONE, BESIDE, Matte, with_alpha
from models.prior.face import LEFT_EYE, RIGHT_EYE, AnnyPrior
from models.raster.differentiable import interpolate, rasterise
from models.replay import Replay


class TorchAvatarRenderer:
    """One avatar on a device, ready to be drawn again and again."""

    def __init__(self, avatar: Avatar, prior: AnnyPrior, device: str):
        self.avatar, self.device = avatar, torch.device(device)
        self.shape = AvatarHead(prior, avatar.person, avatar.lift)
        send = self._send
        head = self.shape.head
        self._neutral, self._lift = send(head.neutral), send(self.shape.lift)
        self._expression = send(prior.expression.reshape(len(prior.expression), -1))
        self._balls = [send(np.flatnonzero(prior.part == ball)) for ball in (LEFT_EYE, RIGHT_EYE)]
        self._eyes = send(head.eyes.astype(np.float32))
        self._push = send(self.shape.push)
        self._place = _Place(avatar.space, self._send)
        self._layers = {name: _Blended(getattr(avatar, name), send) for name in LAYERS}
        self._mesh = _Surface(prior.triangles, self.shape.opacity, avatar.colours(prior), send)
        self._shell = _Surface(avatar.shell.triangles, avatar.shell.opacity, avatar.shell_colours, send)
        lighting = Lighting(self.shape, avatar.space, avatar.light)
        self._light, self._middle = send(lighting.light), send(lighting.middle)
        self._bare = send(avatar.shell.vertices)
        # pixels as `grid_sample` counts them: from -1 to 1 between the picture's sides
        columns, rows = np.arange(avatar.width, dtype=np.float32), np.arange(avatar.height, dtype=np.float32)
        self._grid = send(np.stack(np.meshgrid(columns, rows), -1))
        self._to_sides = send(np.float32([2 / avatar.width, 2 / avatar.height]))
        self._scenes: dict[Matte, Tensor] = {None: send(avatar.scene).float().permute(2, 0, 1)[None]}
        self._replays: dict[Matte, Replay] = {}

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def set_alpha(self, alpha: np.ndarray) -> None:
        """As `AvatarRenderer.set_alpha`."""
        for matte in (ALONE, BESIDE):
            scene = with_alpha(self.avatar.scene, alpha, matte)
            self._scenes[matte] = self._send(scene).float().permute(2, 0, 1)[None]
            self._replays.pop(matte, None)

    def render(self, code: FaceCode, camera: Camera | None = None, matte: Matte = None) -> np.ndarray:
        """As `AvatarRenderer.render`."""
        numbers = self._numbers(code, camera)
        return self._replay(matte, numbers).picture(numbers)

    def draw(self, code: FaceCode, camera: Camera | None = None, matte: Matte = None) -> Tensor:
        """H x W x 3 (with a matte x 4) uint8 sRGB on the device; on CUDA it holds until the next call.

        Use from one thread: whoever draws owns the device's part of it.
        """
        numbers = self._numbers(code, camera)
        return self._replay(matte, numbers).draw(numbers)

    def _numbers(self, code: FaceCode, camera: Camera | None) -> np.ndarray:
        """69 float64: expression 52, gaze 4, rotation 9, translation 3, focal length."""
        camera = camera or self.avatar.person.camera
        code = self.avatar.space.drawn_in(code)
        return np.concatenate([code.expression, code.gaze.ravel(), code.rotation.ravel(), code.translation, [camera.focal]])

    def _replay(self, matte: Matte, numbers: np.ndarray) -> Replay:
        if matte not in self._replays:
            self._replays[matte] = Replay(partial(self._drawn, matte), [numbers], self.device)
        return self._replays[matte]

    def _drawn(self, matte: Matte, numbers: Tensor) -> Tensor:
        expression, gaze, rotation, translation, focal = numbers.split([52, 4, 9, 3, 1])
        near, near_pose = self._place(expression, gaze, rotation.view(3, 3), translation)
        blended = {name: layer(near if name in _OF_CODE else near_pose) for name, layer in self._layers.items()}
        turn, move = rotation.view(3, 3).float(), translation.float()
        # as `AvatarHead.posed`
        vertices = self._neutral + (expression.float() @ self._expression).view(-1, 3)
        for side, (ball, centre) in enumerate(zip(self._balls, self._eyes)):
            own = vertices[ball]
            vertices[ball] = (own - centre) @ _rotation_of_gaze(gaze[2 * side : 2 * side + 2]).float().T + centre
        posed = (vertices + self._lift + blended["shift"].view(-1, 3)) @ turn.T + move
        around = (self._bare + blended["swell"].view(-1, 3)) @ turn.T + move
        height, width = self.avatar.height, self.avatar.width
        length, size = focal.float(), (height, width)
        project = lambda v, push: torch.stack(
            [length * v[:, 0] / v[:, 2] + 0.5 * width, length * v[:, 1] / v[:, 2] + 0.5 * height, v[:, 2] + push], 1
        )
        normals = self._mesh.outward(posed)
        gain = torch.exp((responses(normals) @ self._light - self._middle).clamp(-MOST, MOST))
        opacity, skin, gain = self._mesh.seen(
            posed, normals, project(posed, self._push), EDGE_WIDTH, size, blended["skin"].view(-1, 3), gain
        )
        outer = torch.cat([blended["halo"].view(-1, 3), blended["veil"].view(-1, 1) / 255], 1)
        edge, halo, _ = self._shell.seen(around, self._shell.outward(around), project(around, 0), SHELL_EDGE_WIDTH, size, outer)
        # as `_compose`
        veil = ((halo[..., 3:] - SURE) / (1 - 2 * SURE)).clamp(0, 1)
        veil = veil * veil * (3 - 2 * veil) * edge
        change = blended["scene_change"].view(1, height // 2, width // 2, 3).permute(0, 3, 1, 2)
        change = F.interpolate(change, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        motion = blended["scene_motion"].view(1, *motion_shape(height, width), 2).permute(0, 3, 1, 2)
        motion = F.interpolate(motion, size=size, mode="bilinear", align_corners=False)[0].permute(1, 2, 0)
        there = (self._grid + motion + 0.5) * self._to_sides - 1
        scene = self._scenes[matte]
        scene = F.grid_sample(scene, there[None], mode="bilinear", padding_mode="border", align_corners=False)[0].permute(1, 2, 0)
        picture = scene[..., :3] + change
        if matte is not None:
            below = scene[..., 3:].clamp(0, 255) / 255
            under = veil + below * (1 - veil)
            both = opacity + under * (1 - opacity)
            if matte == ALONE:
                veil, opacity = veil / under.clamp(min=1e-6), opacity / both.clamp(min=1e-6)
        picture = picture + veil * (halo[..., :3] - picture)
        picture = picture + opacity * (skin * gain - picture)
        picture = torch.cat([picture, 255 * both], -1) if matte is not None else picture
        return (picture.clamp(0, 255) + 0.5).to(torch.uint8)


_OF_CODE = ("shift", "skin")


class _Blended:
    """A `Linear` on the device."""

    def __init__(self, layer: Linear, send):
        self.mean, self.basis = send(layer.mean), send(layer.basis).float()
        scale = send(layer.scale).double()
        self.mixing, self.within = send(layer.mixing).double() * scale, send(layer.within).double() * scale

    def __call__(self, nearness: Tensor) -> Tensor:
        return self.mean + (nearness @ self.mixing).clamp(*self.within).float() @ self.basis


class _Place:
    """`CodeSpace.place` and its two kernels, in double precision: mixings found later may weigh examples against each other."""

    def __init__(self, space: CodeSpace, send):
        take = lambda name: send(np.asarray(getattr(space, name), np.float64))
        self.reference, self.centre, self.scale, self.low, self.high, self.examples = map(
            take, ("reference", "centre", "scale", "low", "high", "examples")
        )
        self.margin = take("margin")

    def __call__(self, expression: Tensor, gaze: Tensor, rotation: Tensor, translation: Tensor) -> tuple[Tensor, Tensor]:
        """N, by the whole code, and N, by the pose alone."""
        feature = torch.cat([expression, gaze, _vector_of_rotation(rotation @ self.reference.T), translation])
        at = (feature - self.centre) / self.scale
        over, under = (at - self.high).clamp(min=0), (self.low - at).clamp(min=0)
        at = torch.minimum(torch.maximum(at, self.low), self.high) + self.margin * (
            torch.tanh(over / self.margin) - torch.tanh(under / self.margin)
        )
        pose = self._gaussian(at, POSE, POSE_REACH)
        whole = 1 + 0.5 * (self.examples @ at) / REACH**2 + self._gaussian(at, FACE, REACH) + pose
        return whole, 1 + 0.5 * (self.examples[:, POSE] @ at[POSE]) / POSE_REACH**2 + pose

    def _gaussian(self, at: Tensor, part: slice, reach: float) -> Tensor:
        return torch.exp(-0.5 * (self.examples[:, part] - at[part]).square().sum(1) / reach**2)


class _Surface:
    """A textured surface on the device."""

    def __init__(self, triangles: np.ndarray, opacity: np.ndarray, colours: MeshColours, send):
        self.triangles, self.opacity = send(triangles), send(opacity.astype(np.float32))
        self.cells = self.triangles.long()
        self.around = send(_triangles_around(triangles, len(opacity)))
        self.segments, self.offset, self.index = (send(a).long() for a in (colours.segments, colours.offset, colours.index))

    def seen(
        self, posed: Tensor, normals: Tensor, projected: Tensor, edge_width: float, size: tuple[int, int], values: Tensor,
        of_vertices: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """H x W x 1 opacity, 0 where the surface isn't, H x W x C of its samples' values (S x C), and H x W x K of its vertices'.

        Args:
            posed: V x 3 camera axes; normals: V x 3 of any length; projected: V x 3 pixels and depth.
            of_vertices: V x K, none where None.
        """
        hits = rasterise(projected[None], self.triangles, *size)
        triangle, weights = hits.triangle[0], hits.barycentric[0]
        length = normals.norm(dim=1) * posed.norm(dim=1) + 1e-20
        facing = -(normals * posed).sum(1) / length
        carried = [facing[:, None], self.opacity[:, None]] + ([] if of_vertices is None else [of_vertices])
        there = interpolate(hits, self.triangles, torch.cat(carried, 1))[0]
        cosine, own = there[..., 0], there[..., 1]
        edge = ((cosine - EDGE) / edge_width).clamp(0, 1)
        opacity = edge * edge * (3 - 2 * edge) * own * (triangle >= 0)
        t = triangle.clamp(min=0).long()
        taps, shares = _look_up(self.offset[t], self.segments[t], weights[..., 0], weights[..., 1])
        value = sum(share[..., None] * values[self.index[tap]] for tap, share in zip(taps, shares))
        return opacity[..., None], value, there[..., 2:]

    def outward(self, vertices: Tensor) -> Tensor:
        """V x 3, as `models.portrait.shade.outward`."""
        a, b, c = vertices[self.cells].unbind(1)
        normals = torch.linalg.cross(b - a, c - a)
        return torch.cat([normals, torch.zeros_like(normals[:1])])[self.around].sum(1)


def _triangles_around(triangles: np.ndarray, vertices: int) -> np.ndarray:
    """V x K int64: the triangles at each vertex, filled up with their number."""
    vertex = triangles.ravel()
    order = np.argsort(vertex, kind="stable")
    count = np.bincount(vertex, minlength=vertices)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    out = np.full((vertices, max(int(count.max()), 1)), len(triangles), np.int64)
    out[vertex[order], rank] = order // 3
    return out


def _look_up(offset: Tensor, segments: Tensor, wa: Tensor, wb: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """As `models.avatar.mesh_colours.look_up`, of many places."""
    u, v = wa * segments, wb * segments
    i, j = torch.minimum(u.long(), segments - 1), torch.minimum(v.long(), segments - 1)
    j = torch.minimum(j, segments - 1 - i)
    fu, fv = u - i, v - j
    here = offset + i * (segments + 1) - i * (i - 1) // 2 + j
    below = offset + (i + 1) * (segments + 1) - (i + 1) * i // 2 + j
    low = (fu + fv <= 1) | (i + j >= segments - 1)
    taps = torch.where(low, here, below + 1), torch.where(low, below, here + 1), torch.where(low, here + 1, below)
    shares = torch.where(low, 1 - fu - fv, fu + fv - 1), torch.where(low, fu, 1 - fu), torch.where(low, fv, 1 - fv)
    return taps, shares


def _rotation_of_gaze(gaze: Tensor) -> Tensor:
    """As `models.head.rotation_of_gaze`."""
    (cy, cp), (sy, sp) = torch.cos(gaze), torch.sin(gaze)
    zero = torch.zeros_like(cy)
    return torch.stack([cy, -sy * sp, -sy * cp, zero, cp, -sp, sy, cy * sp, cy * cp]).view(3, 3)


def _vector_of_rotation(rotation: Tensor) -> Tensor:
    """3: axis times angle (radians), well defined below half a turn."""
    axis = 0.5 * torch.stack(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )  # fmt: skip
    sine = axis.norm()
    angle = torch.atan2(sine, 0.5 * (rotation.diagonal().sum() - 1))
    return torch.where(sine > 1e-9, axis * angle / sine.clamp(min=1e-9), axis)
