"""Eyeball textures from a picture: what the lids hide is completed from the iris' own rings."""

from __future__ import annotations

import cv2
import numpy as np

from models.raster import Fragments
from models.raster.cpu import interpolate, rasterise

SIZE = 128  # texels across an eyeball; an eye 60 px wide in the picture keeps its detail
_RINGS = 48
_DEFAULT = np.array([[0.02, 0.02, 0.02]] * 9 + [[0.10, 0.06, 0.035]] * 13 + [[0.45, 0.42, 0.40]] * 26)  # pupil, iris, sclera


def texel_positions(eye_vertices: np.ndarray) -> np.ndarray:
    """N x 2 texel positions of an unturned eyeball's vertices (head frame): orthographic from the front."""
    centre = eye_vertices.mean(0)
    radius = np.linalg.norm(eye_vertices - centre, axis=1).max() * 1.02
    return (((eye_vertices - centre)[:, :2] / radius) * 0.5 + 0.5) * SIZE


def eye_texture(
    picture: np.ndarray, fragments: Fragments, triangles: np.ndarray, eye: np.ndarray, texels: np.ndarray,
    projected: np.ndarray, depth: np.ndarray, brightness: float,
) -> np.ndarray:  # fmt: skip
    """SIZE x SIZE x 3 uint16 linear texture of one eyeball.

    Args:
        picture: H x W x 3 uint16 linear.
        fragments: of the whole head in the picture, over `triangles`.
        eye: vertex numbers of the eyeball; texels: their positions in the texture (N x 2).
        projected: V x 2 pixels of every vertex; depth: N, distance of the eyeball's vertices behind its front, metres.
        brightness: of the picture's skin against the prior's, for an eye that can't be seen at all.
    """
    local = np.full(len(projected), -1)
    local[eye] = np.arange(len(eye))
    own = (local[triangles] >= 0).all(1)
    front = np.concatenate([texels, 1.0 + depth[:, None]], 1)
    hit = rasterise(front, local[triangles[own]], SIZE, SIZE)
    where = interpolate(hit, local[triangles[own]], projected[eye])
    # the eye as the picture shows it, without the rim where lashes and the lid's edge mix in
    height, width = picture.shape[:2]
    ids = np.flatnonzero(own)
    seen = np.isin(fragments.triangle, ids).astype(np.uint8)
    seen = cv2.erode(seen, np.ones((3, 3), np.uint8))
    map_xy = (where - 0.5).astype(np.float32)
    colour = cv2.remap(picture, map_xy, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    inside = cv2.remap(seen.astype(np.float32), map_xy, None, cv2.INTER_LINEAR, borderValue=0)
    valid = (hit.triangle >= 0) & (inside > 0.95) & (where[..., 0] > 0) & (where[..., 0] < width) & (where[..., 1] < height)

    y, x = np.mgrid[:SIZE, :SIZE] + 0.5 - SIZE / 2
    ring = np.minimum((np.hypot(x, y) / (SIZE / 2) * _RINGS).astype(int), _RINGS - 1)
    profile = _DEFAULT * 65535 * brightness
    known = np.zeros(_RINGS, bool)
    for k in range(_RINGS):
        texel = colour[valid & (ring == k)]
        if len(texel) >= 4:
            profile[k], known[k] = np.median(texel, 0), True
    if known.sum() >= 4:
        last = np.flatnonzero(known)[-1]
        profile[last + 1 :] = profile[last]  # the white goes on as it ends
        first = np.flatnonzero(known)[0]
        profile[:first] = profile[first]
    rings = np.hypot(x, y) / (SIZE / 2) * _RINGS - 0.5
    fill = np.stack([np.interp(rings, np.arange(_RINGS), profile[:, c]) for c in range(3)], -1)
    # eroded by more than the blur reaches, so that the picture's part ends softly
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (13, 13))
    weight = cv2.GaussianBlur(cv2.erode(valid.astype(np.float32), kernel), (0, 0), 2.5)[..., None]
    return np.clip(colour * weight + fill * (1 - weight), 0, 65535).astype(np.uint16)
