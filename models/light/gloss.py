"""What skin sends back as a mirror would, roughly: split-sum GGX under soft light, GGX under lamps."""

from __future__ import annotations

import numpy as np

F0 = 0.028  # of skin, index of refraction 1.4
ROUGHNESS = 0.5  # of skin: GGX alpha is its square
LEAST_COSINE = 0.05  # to the camera, below which gloss grows no more


def brdf_of_environment(cosine: np.ndarray) -> np.ndarray:
    """Share of soft light from about the mirror direction that gloss sends back (Karis 2014, the polynomial for phones)."""
    a, b, c, d = 1 - ROUGHNESS, 0.0425 - 0.0275 * ROUGHNESS, 1.04 - 0.572 * ROUGHNESS, 0.022 * ROUGHNESS - 0.04
    x = np.minimum(a * a, 2.0 ** (-9.28 * np.maximum(cosine, LEAST_COSINE))) * a + b
    return np.maximum(F0 * (-1.04 * x + c) + (1.04 * x + d), 0)


def gloss_of_lamp(normal: np.ndarray, view: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """C: gloss of a lamp as bright as makes a white surface that faces it send back 1 (GGX, Walter et al. 2007).

    Args:
        normal: C x 3 unit; view: C x 3 unit, towards the camera; direction: 3 unit, towards the lamp.
    """
    cosine, facing = np.maximum(normal @ direction, 0), np.maximum((normal * view).sum(1), LEAST_COSINE)
    half = view + direction
    half = half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-9)
    nh, vh = np.maximum((normal * half).sum(1), 0), np.maximum((view * half).sum(1), 0)
    alpha = ROUGHNESS**2
    spread = (alpha / (nh * nh * (alpha**2 - 1) + 1)) ** 2  # times pi
    k = alpha / 2
    hidden = 1 / ((cosine * (1 - k) + k) * (facing * (1 - k) + k))
    return spread * hidden * (F0 + (1 - F0) * (1 - vh) ** 5) * 0.25 * cosine
