"""The encoder: a small residual network from one face crop to a whole face code.

Plain 3 x 3 convolutions: on a CPU few large operations beat many small ones, and batch norms fold into them (`folded`).
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from models.encoder.landmarks import Correction, Landmarks
from models.light.harmonics import AMBIENT, COUNT
from models.prior.face import AnnyPrior

WIDTHS = (32, 64, 128)
SIZE = 96  # pixels of the crop
MAP_SIZE, MAPS = 24, 7
POINTS = 68  # of the iBUG order
_COARSE = 16  # features that the coarse half of the network hands to the fine one
_SITES = 28  # places on the skin between them
_BEYOND = 1.1  # the heat maps' reach, crop widths
_TYPICAL_DOUBT = 0.02  # crop widths
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
        points: N x 68 x 2, where the points of the iBUG order were seen: crop widths from the centre.
        doubt: N x 68, their standard deviations, crop widths.
    """

    identity: Tensor
    expression: Tensor
    gaze: Tensor
    rotation: Tensor
    place: Tensor
    albedo: Tensor
    light: Tensor
    confidence: Tensor
    points: Tensor
    doubt: Tensor


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


class Inner(NamedTuple):
    """What an encoder saw on its way to the codes of N crops, for training.

    Attributes:
        maps: N x 7 x 24 x 24: the logit of the head, the point of the mean head (in 0.1 m), the normal. They tell local features
            what they see long before the codes do.
        rotation, place: as expected before the points were taken into account.
    """

    maps: Tensor
    rotation: Tensor
    place: Tensor


def _sites(prior: AnnyPrior) -> np.ndarray:
    """Weights of the 68 points in places spread over the face's skin: affine, so that they follow any view from afar."""
    points = prior.ibug68 @ prior.at_landmarks(prior.mean)
    skin = np.unique(prior.triangles[prior.region == prior.regions.index("skin")])
    skin = prior.mean[skin[prior.face_weight[skin] > 0.6]]
    chosen = [0]
    far = np.full(len(skin), np.inf)
    for _ in range(_SITES):
        far = np.minimum(far, np.linalg.norm(skin - skin[chosen[-1]], axis=1))
        chosen.append(int(far.argmax()))
    at = np.concatenate([skin[chosen[1:]].T, np.ones((1, _SITES))])
    return (np.linalg.pinv(np.concatenate([points.T, np.ones((1, len(points)))])) @ at).T


class Encoder(nn.Module):
    """Crops and their focal lengths in, `Codes` out.

    Heat maps find 68 points by their expectation (Sun et al. 2018, integral regression); features are read there and at
    places between, whichever way the head is turned; a first guess of the codes from all of it is brought to the points seen.
    """

    def __init__(self, prior: AnnyPrior, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        self.widths = tuple(widths)
        layers: list[nn.Module] = []
        for before, after, blocks in zip((3, *widths), widths, (1, 2, 2)):
            layers += [_Down(before, after, first=not layers), *(_Block(after) for _ in range(blocks))]
        self.trunk = nn.Sequential(*layers)
        self._early, self._middle = 2, 5  # layers up to a quarter and an eighth of the crop's size
        self.up = nn.Conv2d(widths[-1], widths[1], 1)
        self.blend = _Block(widths[1])
        self.maps = nn.Conv2d(widths[1], MAPS * 4, 1)
        self.heat = nn.Conv2d(widths[1], POINTS * 4, 1)
        self.local = nn.Conv2d(widths[0], widths[0], 1)
        self.squeeze = nn.Conv2d(widths[-1], 96, 1, bias=False)
        self.squeeze_norm = nn.BatchNorm2d(96)
        read = 2 * POINTS + (POINTS + _SITES) * (widths[0] + 3)
        self.mix = nn.Linear(96 * (SIZE // 16) ** 2 + 1, 320)
        self.mix_read = nn.Linear(read, 320, bias=False)
        self.out = nn.Linear(320, sum(_PARTS))
        self.out_points = nn.Linear(2 * POINTS, sum(_PARTS), bias=False)
        self.doubt = nn.Linear(320, POINTS)
        self.correction = Correction(Landmarks(prior, prior.ibug68))
        # fine features place the points, knowing what the coarse ones make of the whole
        self.coarse = nn.Conv2d(widths[1], 4 * _COARSE, 1)
        self.fine = nn.Conv2d(widths[0] + _COARSE, widths[0], 3, padding=1)
        self.finer = _Block(widths[0])
        self.fine_heat = nn.Conv2d(widths[0], POINTS, 1)
        sites = POINTS + _SITES
        self.lit = nn.Sequential(nn.Linear(3 * sites + 1 + 9, 160), nn.ReLU(), nn.Linear(160, _ALBEDO + 3 * COUNT + 1))
        along = ((torch.arange(MAP_SIZE) + 0.5) / MAP_SIZE - 0.5) * _BEYOND
        grid = torch.stack([along.repeat(MAP_SIZE), along.repeat_interleave(MAP_SIZE)], 1)
        self.register_buffer("grid", grid, persistent=False)
        sites = np.concatenate([np.eye(POINTS), _sites(prior)]).astype(np.float32)
        self.register_buffer("sites", torch.from_numpy(sites), persistent=False)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.zero_()
            self.out.bias[_IDENTITY : _IDENTITY + _EXPRESSIONS] = -2.0
            # these join in as they learn
            for late in (self.up, self.mix_read, self.out_points, self.doubt, self.lit[-1], self.fine_heat):
                for parameter in late.parameters():
                    parameter.zero_()
            for late in (self.blend, self.finer):
                late.second_norm.weight.zero_()

    def forward(self, crops: Float[Tensor, "n 3 s s"], focal: Float[Tensor, " n"]) -> Codes:
        """Args:
        crops: sRGB in [0, 1].
        focal: of the crop's camera, crop widths.
        """
        codes, system = self.expected(crops, focal)
        return self.corrected(codes, self.correction.solved(*system))

    def with_inner(self, crops: Float[Tensor, "n 3 s s"], focal: Float[Tensor, " n"]) -> tuple[Codes, Inner]:
        codes, fused = self._look(crops, focal)
        corrected = self.corrected(codes, self.correction.solved(*self._system(codes, focal)))
        return corrected, Inner(F.pixel_shuffle(self.maps(fused), 2), codes.rotation, codes.place)

    def expected(self, crops: Tensor, focal: Tensor) -> tuple[Codes, tuple[Tensor, Tensor, Tensor]]:
        """(the first guess, the system whose step brings it to the points seen)."""
        codes, _ = self._look(crops, focal)
        return codes, self._system(codes, focal)

    def corrected(self, codes: Codes, step: Float[Tensor, "n 138"]) -> Codes:
        """A first guess brought to the points seen."""
        identity, expression, rotation, place = self.correction.moved(
            codes.identity, codes.expression, codes.rotation, codes.place, step
        )
        return codes._replace(identity=identity, expression=expression, rotation=rotation, place=place)

    def _system(self, codes: Codes, focal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.correction.system(
            codes.identity, codes.expression, codes.rotation, codes.place, focal, codes.points, codes.doubt
        )

    def _look(self, crops: Tensor, focal: Tensor) -> tuple[Codes, Tensor]:
        """(the codes expected, coarse features of the whole)."""
        centred = (crops - 0.45) * 4
        early = self.trunk[: self._early](centred)
        middle = self.trunk[self._early : self._middle](early)
        late = self.trunk[self._middle :](middle)
        fused = self.blend(F.relu(middle + F.interpolate(self.up(late), scale_factor=2.0)))
        points = self._find(early, fused)
        flat = 4 * points.flatten(1)
        around = torch.cat([self.local(early), F.avg_pool2d(centred, SIZE // MAP_SIZE)], 1)
        at = (2 * (self.sites @ points)).clamp(-1, 1)[:, None]
        read = F.grid_sample(around, at, align_corners=False)[:, :, 0]
        x = F.relu(self.squeeze_norm(self.squeeze(late))).flatten(1)
        x = self.mix(torch.cat([x, focal.log()[:, None] - 1.5], 1)) + self.mix_read(torch.cat([flat, read.flatten(1)], 1))
        x = F.relu(x)
        parts = (self.out(x) + self.out_points(flat)).split(_PARTS, 1)
        identity, expression, gaze, six, place, albedo, light, confidence, gain = parts
        doubt = _TYPICAL_DOUBT * self.doubt(x).clamp(-2, 3).exp()
        rotation, expression = rotation_of_six(six), expression.sigmoid()
        place = torch.stack([0.3 * place[:, 0], 0.3 * place[:, 1], _TYPICAL_SCALE + 0.3 * place[:, 2]], 1)
        more = self._from_colours(read[:, -3:], rotation)
        albedo, light, gain = albedo + more[0], light + more[1], gain + more[2]
        ambient = light.new_tensor([AMBIENT] + [0.0] * 8)[:, None]
        # how bright spans decades (dark skin, well exposed), what from where does not
        light = gain.clamp(-4, 4).exp()[:, None] * (0.5 * ambient + light.unflatten(1, (COUNT, 3)))
        gaze = 0.5 * gaze.unflatten(1, (2, 2))
        return Codes(identity, expression, gaze, rotation, place, albedo, light, confidence[:, 0], points, doubt), fused

    def _find(self, early: Tensor, fused: Tensor) -> Float[Tensor, "n 68 2"]:
        fine = self.finer(F.relu(self.fine(torch.cat([early, F.pixel_shuffle(self.coarse(fused), 2)], 1))))
        heat = F.pixel_shuffle(self.heat(fused), 2) + self.fine_heat(fine)
        return heat.flatten(2).softmax(2) @ self.grid

    def _from_colours(self, colours: Float[Tensor, "n 3 m"], rotation: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What colours at the sites add to albedo, light and gain.

        In logarithms, skin and light add up, and what is brighter than the rest tells where the light comes from.
        """
        logs = (colours / 4 + 0.45).clamp(0, 1).add(0.03).log().flatten(1)
        level = logs.mean(1, keepdim=True)
        told = self.lit(torch.cat([logs - level, level, rotation.detach().flatten(1)], 1))
        return told.split((_ALBEDO, 3 * COUNT, 1), 1)


def folded(encoder: Encoder) -> Encoder:
    """A copy for inference: batch norms melted into the convolutions, channels last."""
    twin = copy.deepcopy(encoder).eval()
    for module in twin.modules():
        for conv, norm in (("conv", "norm"), ("first", "first_norm"), ("second", "second_norm"), ("squeeze", "squeeze_norm")):
            if isinstance(getattr(module, norm, None), nn.BatchNorm2d):
                setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
                setattr(module, norm, nn.Identity())
    return twin.to(memory_format=torch.channels_last).requires_grad_(False)
