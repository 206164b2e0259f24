"""Finds how a person's skin is lit while their head turns (`models.avatar.lighting`)."""

from __future__ import annotations

import numpy as np

from models.avatar.lighting import RESPONSES, responses
from models.avatar.mesh_colours import MeshColours
from models.portrait.shade import outward
from models.prior.face import AnnyPrior
from pipeline.surface_flow import Seen

_MOST_SAMPLES = 16_000
_RIDGE = 0.01  # of the responses' mean variance
_DARK = 6.0  # codes: below, the logarithm is mostly noise
_OWN_LIGHT = ("eyeballs", "eye_socket", "mouth_interior", "teeth", "tongue")  # lit through a hole, or mirrors


def learn_light(
    seen: Seen, posed: list[np.ndarray], colours: MeshColours, area: np.ndarray, opacity: np.ndarray, prior: AnnyPrior
) -> np.ndarray:
    """8 x 3: least squares over how each sample's brightness changes from frame to frame, whatever its own colour is.

    Args:
        posed: of each frame, V x 3 in camera axes.
        area: S; opacity: V, of the mesh.
    """
    region, corners = prior.region[colours.triangle], prior.triangles[colours.triangle]
    lit = ~np.isin(region, [prior.regions.index(name) for name in _OWN_LIGHT]) & (opacity[corners].mean(1) > 0.5)
    chosen = np.flatnonzero(lit)
    chosen = chosen[:: -(-len(chosen) // _MOST_SAMPLES)]
    corners, barycentric = corners[chosen], colours.barycentric[chosen]
    normals = (outward(vertices, prior.triangles) for vertices in posed)
    at_vertex = (responses(normal) for normal in normals)
    response = np.stack([np.einsum("sk,skf->sf", barycentric, r[corners]) for r in at_vertex])  # N x S x 8
    weight = (seen.weight[:, chosen] / np.float32(255) * area[chosen]).astype(np.float32)
    bright = np.log(np.maximum(seen.colour[:, chosen], _DARK)).astype(np.float32)
    total = np.maximum(weight.sum(0), 1e-6)[:, None]
    for values in (response, bright):
        values -= (weight[..., None] * values).sum(0) / total
    weighted = (weight[..., None] * response).reshape(-1, RESPONSES)
    normal = weighted.T.astype(float) @ response.reshape(-1, RESPONSES)
    ridge = _RIDGE * np.trace(normal) / RESPONSES + 1e-9
    return np.linalg.solve(normal + ridge * np.eye(RESPONSES), weighted.T @ bright.reshape(-1, 3)).astype(np.float32)
