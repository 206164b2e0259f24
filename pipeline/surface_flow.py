"""From optical flow to a surface: what frames show of a mesh, and by how many pixels it lies elsewhere than it is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import scipy.sparse as sp

from models.avatar.linear import Linear
from models.avatar.mesh_colours import MeshColours, gather
from models.avatar.render import draw_mesh
from models.avatar.shape import AvatarHead
from models.code import Camera, FaceCode
from models.portrait.shade import facing
from models.raster.cpu import PARALLEL, rasterise

TOLERANCE = 0.002  # metres behind the nearest surface at which a sample still counts as seen
_FLOW_SMOOTH = 4.0  # pixels
_FLOW_SIGMA, _AGREEING = 1.0, 0.1  # pixels; share of the frames whose flows err on their own
_SELDOM = 0.05  # share of the frames below which a colour is guessed
_SPREAD_TURNS = 60  # of the guess, from neighbour to neighbour
_FARTHEST = 8.0  # pixels: a longer flow is no misfit


@dataclass(frozen=True, eq=False)
class Seen:
    """What the frames show of the mesh's samples.

    Attributes:
        colour: N x S x 3 uint8; weight: N x S uint8, 255 where seen from the front, 0 where hidden.
    """

    colour: np.ndarray
    weight: np.ndarray


def look(
    images: Sequence[np.ndarray], codes: Sequence[FaceCode], camera: Camera, shape: AvatarHead, colours: MeshColours,
    shifts: Sequence[np.ndarray | None] | None = None,
) -> Seen:  # fmt: skip
    """Args:
    images: N of the camera's size, H x W x 3 uint8.
    shifts: for each frame, V x 3 metres or None.
    """
    triangles = shape.prior.triangles
    colour = np.zeros((len(images), len(colours), 3), np.uint8)
    weight = np.zeros((len(images), len(colours)), np.uint8)
    for k, (image, code) in enumerate(zip(images, codes)):
        posed, projected = shape.posed(code, camera, None if shifts is None else shifts[k])
        seen = rasterise(projected, triangles, camera.height, camera.width)
        with PARALLEL:
            gather(
                image, seen.depth, projected, facing(posed, triangles), triangles, colours.triangle, colours.barycentric,
                TOLERANCE, colour[k], weight[k],
            )  # fmt: skip
    return Seen(colour, weight)


def completed(layer: Linear, weight: np.ndarray, triangles: np.ndarray, samples: MeshColours) -> Linear:
    """What was hardly ever seen looks like what lies around it on the surface.

    Args:
        layer: colours of the samples; weight: N x S uint8, how well each frame shows them.
    """
    count = int(triangles.max()) + 1
    total = weight.sum(0, dtype=np.float32) / 255
    sure = np.clip(total / (_SELDOM * len(weight)), 0, 1)
    mean = layer.mean.reshape(len(samples), -1)
    corners = triangles[samples.triangle]
    smooth = smoothing_matrix(triangles, count)
    sums, weights = np.zeros((count, mean.shape[1])), np.zeros(count)
    for k in range(3):
        share = samples.barycentric[:, k] * sure**2
        np.add.at(weights, corners[:, k], share)
        np.add.at(sums, corners[:, k], share[:, None] * mean)
    known = np.clip(weights / 3, 0, 1)
    own = sums / np.maximum(weights, 1e-6)[:, None]
    # wider and wider: known vertices stay, the others take their neighbours' mean
    value, there = own * known[:, None], known.copy()
    for _ in range(_SPREAD_TURNS):
        value, there = smooth @ value, smooth @ there
        value, there = known[:, None] * own + (1 - known[:, None]) * value, known + (1 - known) * there
    at_vertex = value / np.maximum(there, 1e-6)[:, None]
    filled = np.einsum("sk,skc->sc", samples.barycentric, at_vertex[corners])
    out = sure[:, None] * mean + (1 - sure[:, None]) * filled
    return replace(layer, mean=out.ravel().astype(np.float32))


def smoothing_matrix(triangles: np.ndarray, vertices: int) -> sp.csr_matrix:
    """V x V: each vertex becomes the mean of itself and its neighbours."""
    i, j = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    joined = sp.coo_matrix((np.ones(len(i)), (i, j)), (vertices, vertices)).tocsr()
    joined = ((joined + joined.T + sp.eye(vertices)) > 0).astype(np.float32)
    return sp.diags(1 / np.asarray(joined.sum(1)).ravel()) @ joined


def pixels_of(projected: np.ndarray, size: tuple[int, int], border: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Column and row (V) of the pixel each vertex falls on, or the nearest, and whether it lies in the picture at all.

    Args:
        projected: V x 3 px.
        size: height and width.
        border: pixels at the picture's edge that don't count.
    """
    height, width = size
    x, y = np.floor(projected[:, 0]).astype(int), np.floor(projected[:, 1]).astype(int)
    there = (x >= border) & (x < width - border) & (y >= border) & (y < height - border)
    return np.clip(x, 0, width - 1), np.clip(y, 0, height - 1), there


def flow_search():
    """The optical flow that `flow_between` runs on (dense inverse search: Kroeger et al. 2016)."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)


def flow_between(search, shown, image, covered: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """H x W x 2 pixels from a picture that was drawn to the one that was filmed, smoothed within `inside`, and H x W: how much
    of it is known. None where hardly anything is covered.

    Args:
        covered, inside: H x W uint8, 0 or 1: what the surface covers, and where the flow counts.
    """
    x, y, w, h = cv2.boundingRect(covered)
    if w < 16 or h < 16:
        return None
    box = slice(max(y - 8, 0), y + h + 8), slice(max(x - 8, 0), x + w + 8)
    made, real = (cv2.cvtColor(np.ascontiguousarray(p[box]), cv2.COLOR_RGB2GRAY) for p in (shown, image))
    there = inside[box].astype(np.float32)
    found = np.zeros((*covered.shape, 2), np.float32)
    known = np.zeros(covered.shape, np.float32)
    known[box] = cv2.GaussianBlur(there, (0, 0), _FLOW_SMOOTH)
    smooth = cv2.GaussianBlur(search.calc(made, real, None) * there[..., None], (0, 0), _FLOW_SMOOTH)
    found[box] = np.clip(smooth / np.maximum(known[box], 1e-3)[..., None], -_FARTHEST, _FARTHEST)
    return found, known


def agreed(jacobians, flow: np.ndarray, sure: np.ndarray, smooth: sp.csr_matrix, sigma: float) -> np.ndarray:
    """V x 3 metres that explain the flows of all frames, as far as they agree."""
    vertices, own = flow.shape[1], _AGREEING / _FLOW_SIGMA**2
    normal = np.tile(np.eye(3) / sigma**2, (vertices, 1, 1))
    right = np.zeros((vertices, 3))
    for jacobian, d, w in zip(jacobians, flow, sure):
        normal += own * w[:, None, None] * np.einsum("vai,vaj->vij", jacobian, jacobian)
        right += own * w[:, None] * np.einsum("vai,va->vi", jacobian, d)
    lift = np.linalg.solve(normal, right[..., None])[..., 0]
    for _ in range(3):
        lift = smooth @ lift
    return lift.astype(np.float32)


def across(flow: np.ndarray, posed: np.ndarray, code, camera) -> np.ndarray:
    """V x 3 metres in the head frame: a flow in pixels as motion across the line of sight."""
    metre = posed[:, 2] / camera.focal
    return np.stack([flow[:, 0] * metre, flow[:, 1] * metre, 0 * metre], 1) @ code.rotation


def pixel_jacobian(posed: np.ndarray, rotation: np.ndarray, focal: float) -> np.ndarray:
    """V x 2 x 3: pixels by metres in the head frame."""
    scale = focal / posed[:, 2]
    x, y = posed[:, 0] / posed[:, 2], posed[:, 1] / posed[:, 2]
    return np.stack(
        [scale[:, None] * (rotation[0] - x[:, None] * rotation[2]), scale[:, None] * (rotation[1] - y[:, None] * rotation[2])], 1
    )


def vertex_flow(
    search, image: np.ndarray, posed: np.ndarray, projected: np.ndarray, triangles: np.ndarray, colours: MeshColours,
    skin: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """V x 2 pixels from where a coloured mesh shows each vertex to where the picture does, and V: how sure, 0 where hidden.

    Args:
        image: H x W x 3 uint8; posed: V x 3 camera axes; projected: the same in pixels.
        skin: S x 3 sRGB codes of the mesh's samples.
    """
    size = image.shape[:2]
    seen = rasterise(projected, triangles, *size)
    covered = (seen.triangle >= 0).astype(np.uint8)
    shown = draw_mesh(image, seen, triangles, colours, skin)
    found = flow_between(search, shown, image, covered, cv2.erode(covered, np.ones((5, 5), np.uint8)))
    if found is None:
        return np.zeros((len(posed), 2), np.float32), np.zeros(len(posed), np.float32)
    x, y, there = pixels_of(projected, size)
    cosine = facing(posed, triangles)
    there &= (projected[:, 2] < seen.depth[y, x] + 1.5 * TOLERANCE) & (found[1][y, x] > 0.3) & (cosine > 0.15)
    return found[0][y, x], (there * cosine).astype(np.float32)
