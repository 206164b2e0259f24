"""Heads rendered from the prior: known geometry with plausible colours, for the landmark embedding and for tests.

Convention: linear RGB albedo inside, sRGB uint8 out.
"""

from __future__ import annotations

import numpy as np

from models.prior.bake import REGIONS
from models.raster.cpu import interpolate, rasterise

_ALBEDO = {
    "skin": (0.50, 0.29, 0.21), "lips": (0.42, 0.14, 0.13), "eyelids": (0.44, 0.25, 0.18), "eyeballs": (0.80, 0.78, 0.76),
    "mouth_interior": (0.10, 0.02, 0.02), "teeth": (0.75, 0.70, 0.60), "tongue": (0.40, 0.13, 0.13),
    "ears": (0.50, 0.27, 0.20), "scalp": (0.06, 0.04, 0.03), "neck": (0.46, 0.27, 0.20), "eye_socket": (0.25, 0.10, 0.08),
}  # fmt: skip
IRIS_RADIUS = 0.0060 / 0.0135  # of the eyeball's radius; a human iris is 12 mm wide
_LIGHTS = ((0.35, -0.55, -0.75, 0.75), (-0.8, -0.1, -0.6, 0.3))  # towards the light, strength


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear RGB in [0, 1] to uint8 sRGB (IEC 61966-2-1)."""
    linear = np.clip(linear, 0, 1)
    return np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)).astype(np.uint8)


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """V x 3 unit normals, area-weighted, out of the surface for outward-wound triangles."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def brow_distance(position: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Distance of template positions from the brow's arc above one eye, in metres."""
    side = np.sign(eye[0])
    arc = eye + np.array(
        [[-0.019 * side, -0.017, 0], [-0.006 * side, -0.0225, 0], [0.008 * side, -0.0235, 0], [0.021 * side, -0.0185, 0]]
    )
    best = np.full(position.shape[:-1], np.inf)
    for p, q in zip(arc[:-1, :2], arc[1:, :2]):
        along = np.clip(((position[..., :2] - p) @ (q - p)) / ((q - p) @ (q - p)), 0, 1)
        best = np.minimum(best, np.linalg.norm(position[..., :2] - (p + along[..., None] * (q - p)), axis=-1))
    return best


def render_head(
    prior: dict[str, np.ndarray],
    vertices: np.ndarray,
    focal: float,
    width: int,
    height: int,
    background: tuple[float, float, float] = (0.35, 0.40, 0.45),
    skin: tuple[float, float, float] = (1.0, 1.0, 1.0),
):
    """Returns (H x W x 3 uint8 sRGB, Fragments) of a head given in camera axes.

    Args:
        prior: arrays `mean`, `triangles`, `region`, `part` as baked.
        vertices: V x 3 in camera axes, metres.
        focal: pixels; the principal point is the picture's centre.
        skin: factor on the skin's albedo.
    """
    projected = np.stack(
        [
            focal * vertices[:, 0] / vertices[:, 2] + width / 2,
            focal * vertices[:, 1] / vertices[:, 2] + height / 2,
            vertices[:, 2],
        ],
        1,
    )
    triangles, mean, part = prior["triangles"], prior["mean"], prior["part"]
    fragments = rasterise(projected, triangles, height, width)
    normals = vertex_normals(vertices, triangles)
    hit = fragments.triangle >= 0
    carried = interpolate(fragments, triangles, np.concatenate([normals, mean], 1))[hit]
    normal, position = carried[:, :3], carried[:, 3:]
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    normal *= -np.sign(normal[:, 2:] + 1e-9)  # two-sided
    region = prior["region"][fragments.triangle[hit]]
    albedo = np.array([_ALBEDO[name] for name in REGIONS])[region]
    skinlike = np.isin(region, [REGIONS.index(n) for n in ("skin", "eyelids", "ears", "neck", "lips")])
    albedo[skinlike] *= skin
    for ball in (1, 2):
        centre = mean[part == ball].mean(0)
        radius = np.linalg.norm(mean[part == ball] - centre, axis=1).max()
        albedo[(brow_distance(position, centre) < 0.0036) & skinlike] = (0.05, 0.03, 0.02)
        offset = position - centre
        front = (region == REGIONS.index("eyeballs")) & (np.linalg.norm(offset, axis=-1) < 1.3 * radius) & (offset[:, 2] < 0)
        across = np.linalg.norm(offset[:, :2], axis=-1) / radius
        albedo[front & (across < IRIS_RADIUS)] = (0.10, 0.06, 0.03)
        albedo[front & (across < 0.45 * IRIS_RADIUS)] = (0.005, 0.005, 0.005)
    shade = np.full(len(normal), 0.35)
    for x, y, z, strength in _LIGHTS:
        shade += strength * np.maximum(normal @ (np.array([x, y, z]) / np.linalg.norm([x, y, z])), 0)
    shade *= np.where(region == REGIONS.index("mouth_interior"), 0.5, 1.0)
    image = np.full((height, width, 3), encode_srgb(np.array(background)), np.uint8)
    image[hit] = encode_srgb(albedo * shade[:, None])
    return image, fragments
