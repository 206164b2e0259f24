"""A portrait's drawing in plain torch: the oracle of the CPU's version, and the CUDA path.

Nothing is compiled on the user's machine. A view's pictures are sent to the device once and kept while the view lives. Every
pixel is shaded, also where no head is, so that shapes never change and on CUDA one graph can be replayed.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.colour import DECODE, ENCODE
from models.matting import ALONE, Matte
from models.portrait.render import FINE_MOST, FINER
from models.raster.differentiable import interpolate, rasterise
from models.replay import Replay

_LITTLE = 1e-3
_BOXES = 2  # at most


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
    canvas: Tensor, finer: Tensor, look: Tensor, matte: Tensor, there: Tensor, a: Tensor, decode: Tensor, encode: Tensor,
    alone: bool = False,
) -> Tensor:  # fmt: skip
    """N x C uint8 sRGB, sheet and head, of N pixels; arguments as `models.portrait.shade` describes them, but:

    Args:
        look: N x 2, where in the plate the sheet shows what each pixel sees.
        there: N bool, where the head is; a: N x (6 + 3 n), what it carries there.
    """
    tall, wide = matte.shape
    out = draw_sheet(finer, look)
    opacity = a[:, 4].clamp(max=1)
    mx, my = look[:, 0].long().clamp(0, wide - 1), look[:, 1].long().clamp(0, tall - 1)
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
    rest, both, whole = 1 - share, torch.ones_like(share), torch.ones_like(share)
    if out.shape[1] == 4:
        theirs = rest * out[:, 3:].float() / 255
        both = share + theirs
        if alone:
            rest, whole = theirs, both
    mixed = (share * colour + rest * decode[out[:, :3].long()]) / whole.clamp(min=_LITTLE)
    drawn = torch.cat([encode[(mixed.clamp(0, 65535) + 0.5).long()], (255 * both + 0.5).to(torch.uint8)], 1)
    return torch.where((there & (opacity > 0.004))[:, None], drawn[:, : out.shape[1]], out)


class TorchShader:
    """Draws views of a portrait on a device."""

    def __init__(self, device: str):
        self.device = torch.device(device)
        self._kept: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._decode, self._encode = self._send(DECODE.astype(np.float32)), self._send(ENCODE)

    def _send(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def draw(
        self, view, canvas: np.ndarray, projected: np.ndarray, triangles: np.ndarray, attributes: np.ndarray, knots: np.ndarray,
        boxes: Sequence[tuple[int, int, int, int]], matte: Matte = None,
    ) -> np.ndarray:  # fmt: skip
        """H x W x 3 uint8; with a matte x 4.

        Args:
            triangles: one of few arrays that never change.
            knots: of the view's sheet, where they have moved to.
            boxes: at most two, (left, top, right, bottom), drawn finer and averaged.
        """
        kept = self._kept.setdefault(view, {})
        lent = canvas is not view.canvas
        key = id(triangles), attributes.shape[1], lent, matte
        corners = np.zeros((_BOXES, 4), np.int64)
        corners[: len(boxes)] = boxes
        arrays = [projected.astype(np.float32), attributes.astype(np.float32), knots.astype(np.float32), corners]
        if lent:
            (tall, wide), rooms = view.room, view.rooms
            arrays.append(np.stack([canvas[top : top + tall, left : left + wide] for left, top in rooms]))
        if key not in kept:  # the triangles are held, so that their id stays their own
            kept[key] = triangles, Replay(_Drawing(self, view, triangles, matte).picture, arrays, self.device)
        return kept[key][1].picture(*arrays)

    def pictures(self, view, matte: Matte) -> tuple[Tensor, Tensor, Tensor]:
        """A view's canvas, matte and sheet on the device."""
        kept = self._kept.setdefault(view, {})
        if "canvas" not in kept:
            kept["canvas"], kept["matte"] = self._send(view.canvas), self._send(view.matte)
        sheet = "sheet", matte
        if sheet not in kept:
            kept[sheet] = self._send(view.sheet(matte))
        return kept["canvas"], kept["matte"], kept[sheet]


class _Drawing:
    """Everything that stays the same from frame to frame, on the device."""

    def __init__(self, shader: TorchShader, view, triangles: np.ndarray, matte: Matte):
        send, sheet = shader._send, view.surround
        self.canvas, self.matte, self.finer = shader.pictures(view, matte)
        self.alone = matte == ALONE
        self.decode, self.encode = shader._decode, shader._encode
        self.triangles, self.rooms, self.room = send(triangles), view.rooms, view.room
        self.sheet, self.rest, self.depth = send(sheet.cells), send(sheet.rest), 1 + 1e-3 * send(sheet.order)
        self.height, self.width = sheet.shape
        self.grid = grid(self.height, self.width, shader.device)
        half = (self.height + 1) // 2, (self.width + 1) // 2
        self.half, self.scale = half, send(np.float32([half[1] / self.width, half[0] / self.height]))
        self.cell = torch.arange(FINE_MOST, device=shader.device)
        self.twice = send(np.float32([FINER, FINER, 1]))

    def picture(
        self, projected: Tensor, attributes: Tensor, knots: Tensor, boxes: Tensor, mouths: Tensor | None = None
    ) -> Tensor:
        """Arguments as of `TorchShader.draw`; mouths: 2 x h x w x 3, what is in the canvas' rooms."""
        canvas, size = self.canvas, (self.height, self.width)
        if mouths is not None:
            canvas, (tall, wide) = canvas.clone(), self.room
            for mouth, (left, top) in zip(mouths, self.rooms):
                canvas[top : top + tall, left : left + wide] = mouth
        # as `Surround.motion`
        points = torch.cat([knots * self.scale, self.depth[:, None]], 1)
        hits = rasterise(points[None], self.sheet, *self.half)
        motion = resized(interpolate(hits, self.sheet, self.rest - knots)[0], *size)
        hits = rasterise(projected[None], self.triangles, *size)
        carried = interpolate(hits, self.triangles, attributes)[0].flatten(0, 1)
        look = (self.grid + motion).flatten(0, 1)
        out = self._shade(canvas, look, hits.triangle[0].flatten(), carried)
        out = torch.cat([out, out[:1]])  # the last is where what no one sees is written
        closer = rasterise((projected * self.twice)[None], self.triangles, FINER * size[0], FINER * size[1])
        owners, weights = closer.triangle[0], closer.barycentric[0]
        for box in boxes:
            self._refine(out, canvas, motion, owners, weights, attributes, box)
        return out[:-1].view(*size, -1)

    def _shade(self, canvas: Tensor, look: Tensor, triangle: Tensor, carried: Tensor) -> Tensor:
        return shade(canvas, self.finer, look, self.matte, triangle >= 0, carried, self.decode, self.encode, self.alone)

    def _refine(self, out, canvas, motion, owners, weights, attributes, box) -> None:
        """Draws a box finer and writes its cells' means into `out`; as many cells as of the largest box, whatever its size."""
        left, top, right, bottom = box
        wide = (right - left).clamp(min=1)
        x, y = left + self.cell % wide, top + self.cell // wide
        inside = (y < bottom) & (x < right)
        x, y = x.clamp(max=self.width - 1), y.clamp(max=self.height - 1)
        total = torch.zeros(len(x), out.shape[1], device=out.device)
        for down in range(FINER):
            for across in range(FINER):
                # the motion between its places, held at the box's sides, as cv2.resize does it
                beside = torch.minimum(torch.maximum(x + 2 * across - 1, left), right - 1).clamp(0, self.width - 1)
                above = torch.minimum(torch.maximum(y + 2 * down - 1, top), bottom - 1).clamp(0, self.height - 1)
                moved = 0.75 * (0.75 * motion[y, x] + 0.25 * motion[y, beside])
                moved = moved + 0.25 * (0.75 * motion[above, x] + 0.25 * motion[above, beside])
                fx, fy = FINER * x + across, FINER * y + down
                look = torch.stack([(fx + 0.5) / FINER, (fy + 0.5) / FINER], 1) + moved
                owner = owners[fy, fx]
                corners = attributes[self.triangles[owner.clamp(min=0).long()].long()]
                carried = (corners * weights[fy, fx][..., None]).sum(1)
                total += self._shade(canvas, look, owner, carried).float()
        cells = (total / FINER**2 + 0.5).to(out.dtype)
        out[torch.where(inside, y * self.width + x, len(out) - 1)] = cells


def grid(height: int, width: int, device: torch.device) -> Tensor:
    """H x W x 2 positions of the pixels' centres."""
    y, x = torch.arange(height, device=device) + 0.5, torch.arange(width, device=device) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)


def resized(field: Tensor, height: int, width: int) -> Tensor:
    """H x W x C field at another size, bilinear, pixel centres at half-integers, as cv2.resize does it."""
    moved = F.interpolate(field.permute(2, 0, 1)[None], size=(height, width), mode="bilinear", align_corners=False)
    return moved[0].permute(1, 2, 0).contiguous()
