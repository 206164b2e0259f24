"""How good the encoder is: on held-out synthetic heads against their codes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.encoder.losses import Landmarks
from models.encoder.network import Codes, Encoder
from models.encoder.synthetic import Truth
from models.light.harmonics import dominant_direction
from models.prior.face import IBUG68, AnnyPrior
from models.prior.reflectance import Reflectance

HELD_OUT = 10_000_019  # a seed that training never uses
_OUTER_EYES = (36, 45)  # of the 68


def as_input(pictures: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """N x S x S x 3 uint8 sRGB to what the encoder takes: N x 3 x S x S in [0, 1], channels last."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(255)


def encode(encoder: Encoder, pictures: np.ndarray, focal: np.ndarray, batch: int = 128) -> Codes:
    """The codes of N crops, on the CPU."""
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        parts = [
            encoder(as_input(pictures[k : k + batch], device), torch.from_numpy(np.float32(focal[k : k + batch])).to(device))
            for k in range(0, len(pictures), batch)
        ]
    return Codes(*(torch.cat(p).cpu() for p in zip(*parts)))


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between ... x 3 directions."""
    cosine = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between ... x 3 x 3 rotations."""
    trace = np.einsum("...ij,...ij->...", a, b)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def code_errors(codes: Codes, truth: Truth, prior: AnnyPrior, reflectance: Reflectance) -> dict[str, np.ndarray]:
    """Error of each face by name: landmarks (% of the outer eye corners' distance), pose and light (degrees), and so on."""
    seen = truth.face > 0.5
    codes = Codes(*(c[torch.from_numpy(seen)] for c in codes))
    truth = truth[seen]
    model = Landmarks(prior)
    tensor = lambda array: torch.from_numpy(np.asarray(array, np.float32))
    focal = tensor(truth.focal)
    made = model.shown(model.shape(codes.identity, codes.expression), codes.rotation, codes.place, focal)
    true = model.shown(
        model.shape(tensor(truth.identity), tensor(truth.expression)), tensor(truth.rotation), tensor(truth.place), focal
    )
    made, true = made[:, list(IBUG68)].numpy(), true[:, list(IBUG68)].numpy()
    eyes = np.linalg.norm(true[:, _OUTER_EYES[0]] - true[:, _OUTER_EYES[1]], axis=1)
    full_eyes = np.maximum(eyes, 0.5 * np.percentile(eyes, 90))  # seen from the side, the eyes lie close together
    albedo, true_albedo = reflectance.mean_skin(codes.albedo.numpy()), reflectance.mean_skin(truth.albedo)
    return {
        "landmarks": 100 * np.linalg.norm(made - true, axis=2).mean(1) / full_eyes,
        "expression": np.abs(codes.expression.numpy() - truth.expression).mean(1),
        "pose": turn(codes.rotation.numpy(), truth.rotation),
        "gaze": np.degrees(np.abs(codes.gaze.numpy() - truth.gaze)).mean((1, 2)),
        "light": angle(dominant_direction(codes.light.numpy()), dominant_direction(truth.light)),
        "albedo": np.abs(np.log(albedo / true_albedo)).mean(1),
    }
