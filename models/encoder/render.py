"""Codes as pictures, for looking at."""

from __future__ import annotations

import numpy as np

from models.encoder.draw import draw_heads
from models.encoder.network import Codes
from models.encoder.synthetic import translation_of_place
from models.head import shapes
from models.prior.face import AnnyPrior
from models.prior.reflectance import Reflectance
from models.prior.synthetic import encode_srgb


def posed_heads(codes: Codes, focal: np.ndarray, prior: AnnyPrior) -> np.ndarray:
    """N x V x 3 float32 in crop camera axes."""
    identity, expression, gaze, rotation, place = (np.asarray(c, np.float32) for c in codes[:5])
    shape = shapes(prior, identity, expression, gaze)
    return shape @ rotation.transpose(0, 2, 1) + translation_of_place(place, focal)[:, None].astype(np.float32)


def rendered(
    codes: Codes, focal: np.ndarray, prior: AnnyPrior, reflectance: Reflectance, size: int, background=None
) -> np.ndarray:
    """N x S x S x 3 uint8 sRGB of N codes seen by their crops' cameras.

    Args:
        focal: N, crop widths.
        background: N x S x S x 3 uint8 sRGB to stand on; grey where None.
    """
    count = len(focal)
    albedo = reflectance.albedo_of(np.asarray(codes.albedo))
    shade = np.tile(reflectance.reached, (count, 1))
    gloss, lamp = np.tile([0.0, 1.0], (count, 1)), np.tile([0.0, 0.0, -1.0], (count, 1))
    layers = draw_heads(
        posed_heads(codes, focal, prior), prior.triangles, albedo, np.asarray(codes.light), gloss, lamp, np.asarray(focal) * size,
        shade, size,
    )  # fmt: skip
    made = encode_srgb(layers[..., :3])
    behind = np.full_like(made, 128) if background is None else background
    return np.where(layers[..., 3:] > 0, made, behind)
