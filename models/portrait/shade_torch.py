"""`models.portrait.shade` and the sheet's motion in plain torch: the oracle of the CPU's version, and the CUDA path.

Nothing is compiled on the user's machine. A view's pictures are sent to the device once and kept while the view lives.
"""

from __future__ import annotations

import weakref

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.colour import DECODE, ENCODE
from models.raster.oracle import interpolate, rasterise

_LITTLE = 1e-3


def catmull_rom(canvas: Tensor, position: Tensor, height: int, width: int) -> Tensor:
    """N x 3 samples of a canvas' top left height x width pixels at N x 2 positions, clamped at their edge."""
    corner = (position - 0.5).floor()
    t = position - 0.5 - corner
    weights = torch.stack(
        [-0.5 * t**3 + t**2 - 0.5 * t, 1.5 * t**3 - 2.5 * t**2 + 1, -1.5 * t**3 + 2 * t**2 + 0.5 * t, 0.5 * t**3 - 0.5 * t**2], -1
    )  # N x 2 x 4
    steps = torch.arange(-1, 3, device=canvas.device)
    columns = (corner[:, 0, None].long() + steps).clamp(0, width - 1)
    rows = (corner[:, 1, None].long() + steps).clamp(0, height - 1)
    flat = canvas.reshape(-1, 3)
    taps = flat[(rows[:, :, None] * canvas.shape[1] + columns[:, None, :]).reshape(len(position), -1)]
    both = (weights[:, 1, :, None] * weights[:, 0, None, :]).reshape(len(position), -1, 1)
    return (taps * both).sum(1)


def draw_sheet(finer: Tensor, look: Tensor) -> Tensor:
    """N x C uint8: as `models.portrait.shade.draw_sheet`, at N x 2 positions in the plate; steps of 1/32 are OpenCV's."""
    at = ((2 * look - 1) * 32).round() / 32
    tall, wide = finer.shape[:2]
    corner = at.floor()
    t = at - corner
    x, y = corner[:, 0].long(), corner[:, 1].long()
    pixels = finer.reshape(-1, finer.shape[2])
    tap = lambda dx, dy: pixels[(y + dy).clamp(0, tall - 1) * wide + (x + dx).clamp(0, wide - 1)].float()
    tx, ty = t[:, 0, None], t[:, 1, None]
    above, below = tap(0, 0) * (1 - tx) + tap(1, 0) * tx, tap(0, 1) * (1 - tx) + tap(1, 1) * tx
    return (above * (1 - ty) + below * ty + 0.5).to(torch.uint8)


def shade(
    canvas: Tensor, finer: Tensor, motion: Tensor, place: tuple[float, float, float], matte: Tensor, triangle: Tensor,
    barycentric: Tensor, triangles: Tensor, attributes: Tensor, decode: Tensor, encode: Tensor,
) -> Tensor:  # fmt: skip
    """H x W x C uint8 sRGB, sheet and head; arguments as `models.portrait.shade` describes them."""
    height, width = triangle.shape
    tall, wide = matte.shape
    look = (grid(height, width, canvas.device) / place[2] + motion).reshape(-1, 2)
    look = look + torch.tensor(place[:2], dtype=look.dtype, device=look.device)
    out = draw_sheet(finer, look)
    hit = (triangle.reshape(-1) >= 0).nonzero()[:, 0]
    a = interpolate(triangle, barycentric, triangles, attributes).reshape(height * width, -1)[hit]
    opacity = a[:, 4].clamp(max=1)
    mx, my = look[hit, 0].long().clamp(0, wide - 1), look[hit, 1].long().clamp(0, tall - 1)
    behind = a[:, 5].clamp(max=1) * (1 - matte[my, mx].float() / 255)
    opacity = torch.where((a[:, 5] > _LITTLE) & (opacity < 1), opacity + (1 - opacity) * behind, opacity)
    colour, total = torch.zeros_like(a[:, :3]), torch.zeros_like(a[:, :1])
    for slot in range(6, a.shape[1], 3):
        trust = torch.where(a[:, slot + 2] > _LITTLE, a[:, slot + 2], 0)[:, None]
        colour = colour + trust * catmull_rom(canvas, a[:, slot : slot + 2], *canvas.shape[:2])
        total = total + trust
    own = (1 - total).clamp(min=0) * a[:, 3:4]
    colour, total = colour + own * a[:, :3], total + own
    guess = catmull_rom(canvas, a[:, 6:8], *canvas.shape[:2])
    colour = torch.where(total < _LITTLE, guess, colour / total.clamp(min=_LITTLE))
    share = torch.where(opacity < 0.996, opacity, 1)[:, None]
    rest, both = 1 - share, torch.ones_like(share)
    if out.shape[1] == 4:
        rest = rest * out[hit, 3:].float() / 255
        both = share + rest
    mixed = (share * colour + rest * decode[out[hit, :3].long()]) / both.clamp(min=_LITTLE)
    drawn = torch.cat([encode[(mixed.clamp(0, 65535) + 0.5).long()], (255 * both + 0.5).to(torch.uint8)], 1)
    shown = opacity > 0.004
    out[hit[shown]] = drawn[shown, : out.shape[1]]
    return out.view(height, width, -1)


class TorchShader:
    """Draws views of a portrait on a device."""

    def __init__(self, device: str):
        self.device = torch.device(device)
        self._kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._decode, self._encode = self._send(DECODE.astype(np.float32)), self._send(ENCODE)
        self._constants: dict[int, tuple[np.ndarray, Tensor]] = {}

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _constant(self, array: np.ndarray) -> Tensor:
        """An array that never changes; it is held, so that its id stays its own."""
        key = id(array)
        if key not in self._constants:
            self._constants[key] = array, self._send(array)
        return self._constants[key][1]

    def motion(self, surround, knots: np.ndarray) -> Tensor:
        """H x W x 2, as `Surround.motion`."""
        height, width = surround.shape
        half = (height + 1) // 2, (width + 1) // 2
        scale = torch.tensor([half[1] / width, half[0] / height], device=self.device)
        kept = self._kept.setdefault(surround, {})
        if not kept:
            kept.update(rest=self._send(surround.rest), cells=self._send(surround.cells).long(), order=self._send(surround.order))
        points = torch.cat([self._send(knots) * scale, 1 + 1e-3 * kept["order"][:, None]], 1)
        triangle, barycentric, _ = rasterise(points, kept["cells"], *half)
        moved = interpolate(triangle, barycentric, kept["cells"], kept["rest"] - self._send(knots))
        return resized(moved, height, width)

    def draw(
        self, view, canvas: np.ndarray, projected: np.ndarray, triangles: np.ndarray, attributes: np.ndarray, motion: Tensor,
        place: tuple[float, float, float], cut_out: bool = False,
    ) -> Tensor:  # fmt: skip
        """H x W x 3 uint8 on the device, of the motion's size; with `cut_out` x 4, the people alone."""
        kept = self._kept.setdefault(view, {})
        if not kept:
            kept.update(canvas=self._send(view.canvas), matte=self._send(view.matte))
        sheet = "finer_cut_out" if cut_out else "finer"
        if sheet not in kept:
            kept[sheet] = self._send(getattr(view, sheet))
        picture = kept["canvas"] if canvas is view.canvas else self._send(canvas)
        cells = self._constant(triangles).long()
        triangle, barycentric, _ = rasterise(self._send(projected.astype(np.float32)), cells, *motion.shape[:2])
        return shade(
            picture, kept[sheet], motion, place, kept["matte"], triangle, barycentric, cells, self._send(attributes),
            self._decode, self._encode,
        )  # fmt: skip


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """H x W x 2 positions of the pixels' centres."""
    y, x = torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)


def resized(field: Tensor, height: int, width: int) -> Tensor:
    """H x W x C field at another size, bilinear, pixel centres at half-integers, as cv2.resize does it."""
    moved = F.interpolate(field.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", align_corners=False)
    return moved[0].permute(1, 2, 0).contiguous()
