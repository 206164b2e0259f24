"""What the encoder is told: on synthetic faces their codes, on real ones nothing but the picture itself."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.encoder.decoder import Decoder
from models.encoder.landmarks import Landmarks
from models.encoder.network import Codes, Inner
from models.encoder.synthetic import Truth
from models.light.harmonics import LUMINANCE, shading, spread_directions
from models.prior.face import EXPRESSIONS, AnnyPrior
from models.prior.reflectance import Reflectance

_BLINK = [EXPRESSIONS.index(n) for n in ("eyeBlinkLeft", "eyeBlinkRight")]
_OUTLIER = 0.25  # of an sRGB code from 0 to 1: a residual of this size pulls most
WEIGHTS = {
    "marks": 45.0, "shape": 200.0, "rotation": 6.0, "scale": 1.0, "expression": 6.0, "gaze": 5.0, "identity": 0.02,
    "albedo": 1.0, "skin": 1.0, "light": 0.7, "direction": 4.0, "radiance": 8.0, "face": 0.3,
}  # fmt: skip


class SyntheticLoss:
    """Sum and parts of how far codes are from the truth."""

    def __init__(self, prior: AnnyPrior, reflectance: Reflectance, device: str | torch.device = "cpu"):
        self.landmarks = Landmarks(prior).to(device)
        self._points = Landmarks(prior, prior.ibug68).to(device)
        self.device = device
        seen = reflectance.basis * np.sqrt(reflectance.skin / reflectance.skin.max())[:, None]
        spread = np.sqrt((reflectance.basis**2).mean((1, 2))) + np.sqrt((seen**2).mean((1, 2)))
        send = lambda array: torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(device)
        self.spread = send(spread / spread.sum() * 4)
        self.skin = send(np.einsum("v,kvc->kc", reflectance.skin, reflectance.basis))
        self.skin_mean = send(np.einsum("v,vc->c", reflectance.skin, reflectance.mean))
        towards = spread_directions(48)
        self.normals = send(towards[towards[:, 2] < 0.2])
        self.luminance = send(LUMINANCE)

    def _shown(self, albedo: Tensor, lit: Tensor) -> Tensor:
        """sRGB codes of average skin with the normals facing the camera."""
        return encoded_srgb((self.skin_mean + albedo @ self.skin).sigmoid()[:, None] * lit)

    def __call__(self, codes: Codes, truth: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Args:
        truth: the fields of `Truth` as tensors.
        """
        face = truth["face"]
        count = face.sum().clamp(min=1)
        mean = lambda value: (value.flatten(1).mean(1) * face).sum() / count
        made = self.landmarks.shape(codes.identity, codes.expression)
        true = self.landmarks.shape(truth["identity"], truth["expression"])
        focal = truth["focal"]
        shown = self.landmarks.shown(made, codes.rotation, codes.place, focal)
        true_shown = self.landmarks.shown(true, truth["rotation"], truth["place"], focal)
        known = truth["expression"].clamp(1e-6, 1 - 1e-6)
        entropy = -(known * known.log() + (1 - known) * (1 - known).log())
        open_ = 1 - truth["expression"][:, _BLINK]
        lit, true_lit = shading(codes.light, self.normals), shading(truth["light"], self.normals)
        bright = true_lit.clamp(min=0).mean((1, 2), keepdim=True) + 0.05
        band = codes.light[:, 1:4] @ self.luminance, truth["light"][:, 1:4] @ self.luminance
        strength = (band[1].norm(dim=1) / bright[:, 0, 0]).clamp(max=1)
        towards = [F.normalize(b + 1e-6, dim=1) for b in band]
        parts = {
            "marks": mean((shown - true_shown).abs()),
            "shape": mean((made - true).abs()),
            "rotation": mean((codes.rotation - truth["rotation"]).flatten(1).norm(dim=1, keepdim=True)),
            "scale": mean((codes.place[:, 2:] - truth["place"][:, 2:]).abs()),
            # most expressions are 0 most of the time: by their absolute error alone, 0 would be a good answer for long
            "expression": mean(F.binary_cross_entropy(codes.expression, truth["expression"], reduction="none") - entropy),
            "gaze": mean((codes.gaze - truth["gaze"]).abs().mean(2) * open_),
            "identity": mean((codes.identity - truth["identity"]).square()),
            "albedo": mean((codes.albedo - truth["albedo"]).abs() * self.spread),
            "skin": mean(((codes.albedo - truth["albedo"]) @ self.skin).abs()),
            "light": mean((lit - true_lit).abs() / bright),
            "direction": mean(((towards[0] - towards[1]).norm(dim=1) * strength.clamp(min=0.25))[:, None]),
            # what one sees of skin under light, however the two share it
            "radiance": mean((self._shown(codes.albedo, lit) - self._shown(truth["albedo"], true_lit)).abs()),
            "face": F.binary_cross_entropy_with_logits(codes.confidence, face),
        }  # fmt: skip
        total = sum(WEIGHTS[name] * value for name, value in parts.items())
        return total, {name: float(value.detach()) for name, value in parts.items()}

    def on_the_way(self, codes: Codes, inner: Inner, truth: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The same of what the encoder saw on its way to the codes (truth with maps)."""
        face = truth["face"]
        count = face.sum().clamp(min=1)
        true = self._points.shown(
            self._points.shape(truth["identity"], truth["expression"]), truth["rotation"], truth["place"], truth["focal"]
        )
        off = (codes.points - true).abs().mean((1, 2))
        turned = (inner.rotation - truth["rotation"]).flatten(1).norm(dim=1)
        moved = (inner.place - truth["place"]).abs().mean(1)
        parts = {
            "maps": map_loss(inner.maps, truth["maps"]), "points": 45 * (off * face).sum() / count,
            "first": ((2 * turned + 5 * moved) * face).sum() / count,
        }  # fmt: skip
        return sum(parts.values()), {name: float(value.detach()) for name, value in parts.items()}


def map_loss(maps: Float[Tensor, "n 7 24 24"], truth: Float[Tensor, "n 7 24 24"]) -> Tensor:
    """Of the dense maps: cross entropy of the head, mean distance of points and normals where it is."""
    head = truth[:, :1]
    apart = ((maps[:, 1:] - truth[:, 1:]).abs() * head).sum() / head.sum().clamp(min=1)
    return F.binary_cross_entropy_with_logits(maps[:, :1], head) + 0.5 * apart


def as_tensors(truth: Truth, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The fields of a truth as float32 tensors."""
    given = {name: value for name, value in vars(truth).items() if value is not None}
    return {name: torch.from_numpy(np.asarray(value, np.float32)).to(device) for name, value in given.items()}


class PhotometricLoss:
    """How far a decoded face is from the picture, without any label (Tewari et al. 2017, section 5).

    Robust: a pixel that the model can't explain (hair, glasses, hands) pulls less the farther off it is (Geman & McClure 1985).
    """

    def __init__(self, decoder: Decoder, size: int = 64, landmarks: float = 0.0):
        """Args:
        size: of the pictures that are compared.
        landmarks: weight of given landmarks; 0 leaves them out.
        """
        self.decoder, self.size, self.landmarks = decoder, size, landmarks
        self._model = Landmarks(decoder.prior).to(decoder.device)

    def __call__(
        self, codes: Codes, crops: Float[Tensor, "n 3 s s"], focal: Float[Tensor, " n"], marks: Tensor | None = None
    ) -> tuple[Tensor, dict[str, float]]:
        """Args:
        crops: sRGB in [0, 1].
        marks: N x 478 x 2, crop widths from the centre; NaN where there are none.
        """
        decoded = self.decoder(codes, focal, self.size)
        seen = F.interpolate(crops, size=(self.size, self.size), mode="area").permute(0, 2, 3, 1)
        residual = encoded_srgb(decoded.colour) - seen * decoded.coverage[..., None]
        square = residual.square().sum(-1)
        robust = square / (square + _OUTLIER**2)
        weight = decoded.face
        # a mean, gradient of the area included: else a smaller face would be a better one
        area = weight.sum((1, 2)).clamp(min=0.01 * self.size**2)
        photometric = ((robust * weight).sum((1, 2)) / area).mean()
        plain = ((square * weight).sum((1, 2)) / area).detach().mean()
        band = codes.light - codes.light.mean(2, keepdim=True)
        parts = {
            "photometric": photometric,
            "prior": 0.01 * (codes.identity.square().mean() + codes.albedo.square().mean()) + 0.02 * codes.expression.mean(),
            "grey light": 0.02 * band.square().mean(),
        }
        if self.landmarks and marks is not None:
            shape = self._model.shape(codes.identity, codes.expression)
            apart = (self._model.shown(shape, codes.rotation, codes.place, focal)[:, :468] - marks[:, :468]).abs()
            known = torch.isfinite(apart).all(2, keepdim=True)
            parts["marks"] = self.landmarks * torch.where(known, apart, torch.zeros_like(apart)).mean()
        total = sum(parts.values())
        return total, {k: float(v.detach()) for k, v in parts.items()} | {"rms": float(plain.sqrt())}


def encoded_srgb(linear: Tensor) -> Tensor:
    """Linear RGB to sRGB codes in [0, 1], with a gradient everywhere (a power law a little above black; 1.5 % off at most)."""
    return (linear.clamp(min=0) + 1e-3).pow(1 / 2.25).clamp(max=1.2) - (1e-3) ** (1 / 2.25)
