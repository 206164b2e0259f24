"""Distant light as second-order spherical harmonics, in linear RGB.

Convention:
    Directions are unit vectors in camera axes (+x right, +y down, +z forward) and point *towards* the light, so a lamp at the
    camera is (0, 0, -1). Coefficients are of radiance, 9 x 3 (band by band, red green blue), in the real orthonormal basis
        Y_0 = 1/2 sqrt(1/pi)
        Y_1..3 = sqrt(3/(4 pi)) (y, z, x)
        Y_4..8 = 1/2 sqrt(15/pi) (xy, yz, (3 z^2 - 1) / (2 sqrt 3), xz, (x^2 - y^2) / 2)
    that is m = -l..l without the Condon-Shortley phase. A Lambertian surface of albedo a under radiance L sends back
        a * sum_l A_l / pi * L_lm Y_lm(n),  A = (pi, 2 pi / 3, pi / 4)   (Ramamoorthi & Hanrahan 2001, eq. 8 to 10)
    and so, under white radiance of 1 from everywhere (L_00 = sqrt(4 pi)), its own albedo.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

COUNT = 9
_C0 = 0.5 * np.sqrt(1 / np.pi)
_C1 = np.sqrt(3 / (4 * np.pi))
_C2 = 0.5 * np.sqrt(15 / np.pi)
LAMBERT = np.array([1.0] + [2 / 3] * 3 + [1 / 4] * 5)  # A_l / pi, for each coefficient
AMBIENT = float(np.sqrt(4 * np.pi))  # L_00 of radiance 1 from everywhere
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])  # of linear sRGB (IEC 61966-2-1)


def basis(direction):
    """... x 9 values of the basis at ... x 3 unit vectors; numpy arrays or tensors."""
    x, y, z = direction[..., 0], direction[..., 1], direction[..., 2]
    values = [
        _C0 + 0 * x, _C1 * y, _C1 * z, _C1 * x,
        _C2 * x * y, _C2 * y * z, _C2 / (2 * np.sqrt(3)) * (3 * z * z - 1), _C2 * x * z, 0.5 * _C2 * (x * x - y * y),
    ]  # fmt: skip
    return torch.stack(values, -1) if isinstance(direction, Tensor) else np.stack(values, -1)


def shading(light: Float[Tensor, "*b 9 3"], normal: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
    """What a white Lambertian surface sends back; differentiable. Below 0 where the light's second order rings: not clipped."""
    weight = torch.as_tensor(LAMBERT, dtype=light.dtype, device=light.device)
    return basis(normal) @ (light * weight[:, None])


@dataclass(frozen=True)
class HarmonicLight:
    """Light from far away.

    Attributes:
        coefficients: 9 x 3 of radiance, linear RGB.
    """

    coefficients: np.ndarray

    def shading(self, normal: np.ndarray) -> np.ndarray:
        """... x 3 linear RGB of a white Lambertian surface with ... x 3 normals."""
        return basis(normal) @ (self.coefficients * LAMBERT[:, None])

    def dominant_direction(self) -> np.ndarray:
        """Unit vector towards where most light comes from: the first band of luminance. Straight ahead where there is none."""
        return dominant_direction(self.coefficients)

    def rotated(self, rotation: np.ndarray) -> HarmonicLight:
        """The same light turned by a 3 x 3 rotation: what came from d now comes from R d."""
        # a band-limited function is known by its values at a few directions; those are turned back and fitted again
        there = _SPREAD @ rotation  # rows: R^T d
        return HarmonicLight(_FIT @ (basis(there) @ self.coefficients))


def dominant_direction(coefficients: np.ndarray) -> np.ndarray:
    """... x 9 x 3 to ... x 3 unit vectors in camera axes (Ramamoorthi & Hanrahan's linear band, luminance-weighted)."""
    y, z, x = np.moveaxis(coefficients[..., 1:4, :] @ LUMINANCE, -1, 0)
    direction = np.stack([x, y, z], -1)
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    return np.where(length > 1e-9, direction / np.maximum(length, 1e-9), np.array([0.0, 0.0, -1.0]))


def lamp(direction: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """9 x 3 of a distant lamp whose irradiance on a surface facing it is pi * `colour`: white facing it sends back `colour`."""
    return np.pi * basis(np.asarray(direction, float))[:, None] * np.asarray(colour, float)


def environment_directions(height: int, width: int) -> np.ndarray:
    """H x W x 3 towards the sky at each pixel of a latitude-longitude picture.

    Its top row is up (-y), its middle column ahead of the viewer (+z), and it is seen from inside: its right side lies to the
    right (+x).
    """
    theta = (np.arange(height) + 0.5) / height * np.pi
    phi = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    out = np.empty((height, width, 3))
    out[..., 0] = np.sin(theta)[:, None] * np.sin(phi)
    out[..., 1] = -np.cos(theta)[:, None]
    out[..., 2] = np.sin(theta)[:, None] * np.cos(phi)
    return out


def project_environment(picture: np.ndarray) -> HarmonicLight:
    """H x W x 3 linear radiance in latitude-longitude, as `environment_directions`, to harmonics."""
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"an environment of shape {picture.shape}, expected height x width x 3. Give linear RGB radiance.")
    height, width = picture.shape[:2]
    edges = np.cos(np.arange(height + 1) / height * np.pi)
    solid = (edges[:-1] - edges[1:]) * 2 * np.pi / width  # exact for each row
    values = basis(environment_directions(height, width))
    return HarmonicLight(np.einsum("hwk,hwc,h->kc", values, picture, solid, optimize=True))


def spread_directions(count: int) -> np.ndarray:
    """count x 3 directions spread evenly over the sphere (Fibonacci)."""
    k = np.arange(count) + 0.5
    y, turn = 1 - 2 * k / count, k * np.pi * (1 + np.sqrt(5))
    ring = np.sqrt(1 - y * y)
    return np.stack([ring * np.cos(turn), y, ring * np.sin(turn)], -1)


_SPREAD = spread_directions(64)
_FIT = np.linalg.pinv(basis(_SPREAD))
