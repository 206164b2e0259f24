"""What skin sends back as a mirror would, roughly: split-sum GGX under soft light, GGX under lamps."""

from __future__ import annotations

import numpy as np
from numba import njit

F0 = 0.028  # of skin, index of refraction 1.4
ROUGHNESS = 0.5  # of skin: GGX alpha is its square
LEAST_COSINE = 0.05  # to the camera, below which gloss grows no more
_ALPHA = np.float32(ROUGHNESS**2)


def brdf_of_environment(cosine: np.ndarray) -> np.ndarray:
    """Share of soft light from about the mirror direction that gloss sends back (Karis 2014, the polynomial for phones)."""
    a, b, c, d = 1 - ROUGHNESS, 0.0425 - 0.0275 * ROUGHNESS, 1.04 - 0.572 * ROUGHNESS, 0.022 * ROUGHNESS - 0.04
    x = np.minimum(a * a, 2.0 ** (-9.28 * np.maximum(cosine, LEAST_COSINE))) * a + b
    return np.maximum(F0 * (-1.04 * x + c) + (1.04 * x + d), 0)


@njit(cache=True, nogil=True, fastmath=True, inline="always")
def gloss_of_lamp(nx, ny, nz, vx, vy, vz, lx, ly, lz, cosine):
    """Gloss over diffuse light of a lamp, at one place (GGX, Walter et al. 2007).

    Args:
        nx, ny, nz: unit normal; vx, vy, vz: unit, towards the camera; lx, ly, lz: unit, towards the lamp.
        cosine: of the lamp to the normal, positive.
    """
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    length = np.sqrt(hx * hx + hy * hy + hz * hz) + np.float32(1e-9)
    nh = max((nx * hx + ny * hy + nz * hz) / length, np.float32(0))
    vh = max((vx * hx + vy * hy + vz * hz) / length, np.float32(0))
    nv = max(nx * vx + ny * vy + nz * vz, np.float32(LEAST_COSINE))
    flat = nh * nh * (_ALPHA * _ALPHA - np.float32(1)) + np.float32(1)
    spread = _ALPHA * _ALPHA / (flat * flat)  # times pi
    k = _ALPHA * np.float32(0.5)
    hidden = np.float32(1) / ((cosine * (np.float32(1) - k) + k) * (nv * (np.float32(1) - k) + k))
    fresnel = np.float32(F0) + np.float32(1 - F0) * (np.float32(1) - vh) ** 5
    return spread * hidden * fresnel * np.float32(0.25)
