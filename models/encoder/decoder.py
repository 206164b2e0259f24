"""The decoder: codes to pictures with gradients (the parametric decoder of MoFA; Tewari et al. 2017, section 4).

Geometry from the prior, albedo from the reflectance prior, light in harmonics, drawn by the differentiable rasteriser.

Convention: linear RGB; crops as in `models.encoder.synthetic`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.encoder.network import Codes
from models.light.harmonics import shading
from models.prior.face import LEFT_EYE, RIGHT_EYE, AnnyPrior, gaze_rotation
from models.prior.reflectance import Reflectance
from models.raster.differentiable import Hits, antialias, interpolate, rasterise


class Decoded(NamedTuple):
    """N pictures of faces.

    Attributes:
        colour: N x S x S x 3 linear RGB, 0 where nothing is.
        coverage: N x S x S, 1 inside, 0 outside, between at silhouettes.
        face: N x S x S, how much of the face's skin it is: 1 there, falling to 0 towards ears, scalp, neck, eyes and mouth.
        normal: N x S x S x 3 unit vectors in crop camera axes.
    """

    colour: Tensor
    coverage: Tensor
    face: Tensor
    normal: Tensor


def place_in_camera(place: Float[Tensor, "n 3"], focal: Float[Tensor, " n"]) -> Float[Tensor, "n 3"]:
    """Metres in crop camera axes of where the head's origin is, see `Codes.place`."""
    depth = 0.1 * focal / place[:, 2].exp()
    return torch.stack([place[:, 0] * depth / focal, place[:, 1] * depth / focal, depth], 1)


class Decoder:
    """Codes in, pictures out; differentiable in every code, on CPU and CUDA."""

    def __init__(self, prior: AnnyPrior, reflectance: Reflectance, device: str | torch.device = "cpu"):
        self.prior, self.reflectance, self.device = prior, reflectance, torch.device(device)
        send = lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(device)
        self.triangles = send(prior.triangles)
        self._corners = self.triangles.long()
        self._mean = send(prior.mean)
        self._identity = send(prior.identity).flatten(1)
        self._expression = send(prior.expression).flatten(1)
        self._openness = send(reflectance.reached)
        self._balls = [send(np.flatnonzero(prior.part == part)) for part in (LEFT_EYE, RIGHT_EYE)]
        skin = np.isin(prior.region, [prior.regions.index(n) for n in ("skin", "eyelids", "lips")])
        share, count = np.zeros(len(prior.mean)), np.zeros(len(prior.mean))
        for k in range(3):
            np.add.at(share, prior.triangles[:, k], skin)
            np.add.at(count, prior.triangles[:, k], 1)
        self._face = send((prior.face_weight * share / np.maximum(count, 1)).astype(np.float32))

    def vertices(self, codes: Codes, focal: Tensor) -> Float[Tensor, "n v 3"]:
        """Metres, crop camera axes."""
        flat = self._mean.flatten() + codes.identity @ self._identity + codes.expression @ self._expression
        shape = flat.unflatten(1, (-1, 3))
        for side, ball in enumerate(self._balls):
            eye = shape[:, ball]
            centre = eye.mean(1, keepdim=True)
            turned = (eye - centre) @ gaze_rotation(codes.gaze[:, side]).transpose(1, 2) + centre
            shape = shape.index_copy(1, ball, turned)
        return shape @ codes.rotation.transpose(1, 2) + place_in_camera(codes.place, focal)[:, None]

    def normals(self, vertices: Float[Tensor, "n v 3"]) -> Float[Tensor, "n v 3"]:
        """Unit vectors out of the surface, weighted by area."""
        a, b, c = vertices[:, self._corners].unbind(2)
        across = torch.linalg.cross(b - a, c - a)
        out = torch.zeros_like(vertices)
        for k in range(3):
            out = out.index_add(1, self._corners[:, k], across)
        return F.normalize(out, dim=2)

    def projected(self, vertices: Tensor, focal: Tensor, size: int) -> Float[Tensor, "n v 3"]:
        """Pixels of an S x S crop, and depth."""
        z = vertices[..., 2]
        scale = (focal[:, None] * size) / z.clamp(min=1e-3)
        return torch.stack([vertices[..., 0] * scale + size / 2, vertices[..., 1] * scale + size / 2, z], 2)

    def __call__(self, codes: Codes, focal: Float[Tensor, " n"], size: int, silhouettes: bool = True) -> Decoded:
        """Args:
        focal: crop widths.
        silhouettes: blend over them, so that they have gradients.
        """
        vertices = self.vertices(codes, focal)
        points = self.projected(vertices, focal, size)
        hits = rasterise(points, self.triangles, size, size)
        albedo = self.reflectance.albedo(codes.albedo)
        count = len(vertices)
        constant = torch.stack([self._openness, self._face], 1).expand(count, -1, -1)
        carried = interpolate(hits, self.triangles, torch.cat([self.normals(vertices), albedo, constant], 2))
        normal = F.normalize(carried[..., :3], dim=3)
        # what is seen from behind (the inside of a mouth) is lit as if from this side
        normal = torch.where(normal[..., 2:] > 0.3, -normal, normal)
        lit = shading(codes.light, normal.flatten(1, 2)).view_as(normal).clamp(min=0)
        inside = (hits.triangle >= 0).to(lit.dtype)[..., None]
        layers = torch.cat([carried[..., 3:6] * lit * carried[..., 6:7], inside, carried[..., 7:8]], 3)
        if silhouettes:
            layers = antialias(layers, Hits(*hits), points, self.triangles)
        return Decoded(layers[..., :3], layers[..., 3], layers[..., 4], normal)
