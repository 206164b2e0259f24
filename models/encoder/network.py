"""The encoder: a small residual network from one face crop to a whole face code.

Plain 3 x 3 convolutions: on a CPU few large operations beat many small ones, and batch norms fold into them (`folded`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.light.harmonics import AMBIENT, COUNT

WIDTHS = (32, 64, 128)
SIZE = 96  # pixels of the crop
MAP_SIZE, MAPS = 24, 7  # what the features are told of each place while they learn: head or not, where on the head, its normal
_EXPRESSIONS, _IDENTITY, _ALBEDO = 52, 80, 32
_PARTS = (_IDENTITY, _EXPRESSIONS, 4, 6, 3, _ALBEDO, 3 * COUNT, 1, 1)
_TYPICAL_SCALE = -1.0  # log crop widths that 0.1 m spans


class Codes(NamedTuple):
    """What the encoder says of N crops, in each crop camera's axes (see `models.encoder.synthetic.Truth`).

    Attributes:
        identity: N x 80.
        expression: N x 52 in (0, 1).
        gaze: N x (left, right) x (yaw, pitch), radians, head frame.
        rotation: N x 3 x 3.
        place: N x (x, y, log s), crop widths.
        albedo: N x 32 coefficients.
        light: N x 9 x 3.
        confidence: N logits of there being a face.
    """

    identity: Tensor
    expression: Tensor
    gaze: Tensor
    rotation: Tensor
    place: Tensor
    albedo: Tensor
    light: Tensor
    confidence: Tensor


class _Block(nn.Module):
    """Two convolutions around an identity (He et al. 2016)."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second, self.second_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second_norm(self.second(F.relu(self.first_norm(self.first(x))))))


class _Down(nn.Module):
    """Half the size, more channels; a quarter of it where it is the first, which meets the most pixels."""

    def __init__(self, before: int, after: int, first: bool):
        super().__init__()
        size, stride = (6, 4) if first else (3, 2)
        self.conv = nn.Conv2d(before, after, size, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


def rotation_of_six(six: Float[Tensor, "*b 6"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation whose first two columns are nearest to six numbers (Zhou et al. 2019, eq. 15); zeros give the identity."""
    a, b = six[..., :3] + six.new_tensor([1.0, 0, 0]), six[..., 3:] + six.new_tensor([0, 1.0, 0])
    x = F.normalize(a, dim=-1)
    y = F.normalize(b - (x * b).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], -1)


class Encoder(nn.Module):
    """Crops and their focal lengths in, `Codes` out."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, blocks in zip((3, *widths), widths, (1, 2, 2)):
            layers += [_Down(before, after, first=not layers), *(_Block(after) for _ in range(blocks))]
        self.trunk = nn.Sequential(*layers)
        self._middle = 5  # layers up to an eighth of the crop's size
        self.maps = nn.Conv2d(widths[1], MAPS * 4, 1)
        self.squeeze = nn.Conv2d(widths[-1], 96, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(96)
        self.mix = nn.Linear(96 * (SIZE // 16) ** 2 + 1, 320)
        self.out = nn.Linear(320, sum(_PARTS))
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[_IDENTITY : _IDENTITY + _EXPRESSIONS] = -2.0

    def forward(self, crops: Float[Tensor, "n 3 s s"], focal: Float[Tensor, " n"]) -> Codes:
        """Args:
        crops: sRGB in [0, 1].
        focal: of the crop's camera, crop widths.
        """
        return self._codes(self.trunk((crops - 0.45) * 4), focal)

    def with_maps(self, crops: Float[Tensor, "n 3 s s"], focal: Float[Tensor, " n"]) -> tuple[Codes, Float[Tensor, "n 7 24 24"]]:
        """The codes, and dense maps that only training asks for: the logit of the head, the point of the mean head (in 0.1 m),
        the normal. They tell local features what they see long before the codes do.
        """
        middle = self.trunk[: self._middle]((crops - 0.45) * 4)
        maps = F.pixel_shuffle(self.maps(middle), 2)
        return self._codes(self.trunk[self._middle :](middle), focal), maps

    def _codes(self, x: Tensor, focal: Tensor) -> Codes:
        x = F.relu(self.squeeze_norm(self.squeeze(x))).flatten(1)
        x = F.relu(self.mix(torch.cat([x, focal.log()[:, None] - 1.5], 1)))
        identity, expression, gaze, six, place, albedo, light, confidence, gain = self.out(x).split(_PARTS, 1)
        ambient = light.new_tensor([AMBIENT] + [0.0] * 8)[:, None]
        return Codes(
            identity, expression.sigmoid(), 0.5 * gaze.unflatten(1, (2, 2)), rotation_of_six(six),
            torch.stack([0.3 * place[:, 0], 0.3 * place[:, 1], _TYPICAL_SCALE + 0.3 * place[:, 2]], 1),
            # how bright spans decades (dark skin, well exposed), what from where does not
            albedo, gain.clamp(-4, 4).exp()[:, None] * (0.5 * ambient + light.unflatten(1, (COUNT, 3))), confidence[:, 0],
        )  # fmt: skip


def folded(encoder: Encoder) -> Encoder:
    """A copy for inference: batch norms melted into the convolutions, channels last."""
    copy = Encoder(tuple(m.conv.out_channels for m in encoder.trunk if isinstance(m, _Down)))
    copy.load_state_dict(encoder.state_dict())
    copy.eval()
    for module in copy.modules():
        for conv, norm in (("conv", "norm"), ("first", "first_norm"), ("second", "second_norm"), ("squeeze", "squeeze_norm")):
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return copy.to(memory_format=torch.channels_last).requires_grad_(False)
