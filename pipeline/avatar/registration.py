"""The joint correction: where the surface really lies beside the fitted head, always and as the code changes.

What the avatar would show so far is compared with each frame by optical flow; the flow of every vertex becomes an offset in
the head frame. What all frames agree on is `lift` (three unknowns a vertex, from all directions it was seen from); what is left
follows the code by the same regression as the colours do (`shift`). Colours and shape are found in turns.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import scipy.sparse as sp

from models.avatar.linear import Linear, Smoother, regress
from models.avatar.mesh_colours import MeshColours, gather
from models.avatar.render import AvatarRenderer, draw_mesh, surface_opacity
from models.avatar.shape import AvatarHead
from models.portrait.shade import facing
from models.raster.cpu import PARALLEL, rasterise
from pipeline.avatar.footage import Footage

TOLERANCE = 0.002  # metres behind the nearest surface at which a sample still counts as seen
SHIFT_RANK = 12
_SKIN_RANK = 8
_FLOW_SMOOTH = 4.0  # pixels
_FLOW_SIGMA, _AGREEING = 1.0, 0.1  # pixels; share of the frames whose flows err on their own
_LIFT_SIGMA = 0.006  # metres
_FARTHEST = 8.0  # pixels: a longer flow is no misfit
SWELL_RANK, _SHELL_SIGMA, _SHELL_TOLERANCE, _SHELL_SMOOTH = 24, 0.01, 0.006, 4
_OUTLINE_WIDTH = 0.006  # metres from its outline within which a direction belongs to it


@dataclass(frozen=True, eq=False)
class Seen:
    """What the frames show of the mesh's samples.

    Attributes:
        colour: N x S x 3 uint8; weight: N x S uint8, 255 where seen from the front, 0 where hidden.
    """

    colour: np.ndarray
    weight: np.ndarray


def look(footage: Footage, shape: AvatarHead, colours: MeshColours, shifts: list[np.ndarray | None]) -> Seen:
    """Args:
    shifts: for each frame, V x 3 metres or None.
    """
    triangles, camera = shape.prior.triangles, footage.person.camera
    colour = np.zeros((len(footage), len(colours), 3), np.uint8)
    weight = np.zeros((len(footage), len(colours)), np.uint8)
    for k, (image, code) in enumerate(zip(footage.images, footage.codes)):
        posed, projected = shape.posed(code, camera, shifts[k])
        seen = rasterise(projected, triangles, *footage.size)
        with PARALLEL:
            gather(
                image, seen.depth, projected, facing(posed, triangles), triangles, colours.triangle, colours.barycentric,
                TOLERANCE, colour[k], weight[k],
            )  # fmt: skip
    return Seen(colour, weight)


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


def register(
    footage: Footage, shape: AvatarHead, colours: MeshColours, smoother: Smoother, shift: Linear | None
) -> tuple[np.ndarray, Linear]:
    """One turn: V x 3 to add to the shape's lift, and the new shift.

    Args:
        smoother: of the footage's frames.
        shift: as found so far.
    """
    prior, camera = shape.prior, footage.person.camera
    before = [None if shift is None else shift.blend(near).reshape(-1, 3) for near in smoother.kernel]
    seen = look(footage, shape, colours, before)
    skin = regress(seen.colour, seen.weight, smoother, _SKIN_RANK)
    flow, sure = _vertex_flows(footage, shape, colours, smoother, before, skin)
    jacobians = [_jacobian(shape.posed(code, camera)[0], code.rotation, camera.focal) for code in footage.codes]
    smooth = smoothing_matrix(prior.triangles, len(prior.mean))
    lift = _agreed(jacobians, flow, sure, smooth, _LIFT_SIGMA)
    left = np.zeros((len(footage), len(prior.mean), 3), np.float32)
    for k, (jacobian, code) in enumerate(zip(jacobians, footage.codes)):
        left[k] = _across(flow[k] - np.einsum("vai,vi->va", jacobian, lift), shape.posed(code, camera)[0], code, camera)
        if before[k] is not None:
            left[k] += before[k]
    return lift, regress(left, np.round(255 * np.clip(sure, 0, 1)).astype(np.uint8), smoother, SHIFT_RANK)


def register_shell(footage: Footage, renderer: AvatarRenderer, smoother: Smoother) -> tuple[np.ndarray, Linear]:
    """The same for the halo's shell, along with what the whole avatar shows: D x 3 metres to add to it, and its new motion.

    Args:
        renderer: of the avatar so far.
        smoother: of the footage's frames, by pose.
    """
    avatar, camera = renderer.avatar, footage.person.camera
    shell = avatar.shell
    smooth = smoothing_matrix(shell.triangles, len(shell.vertices))
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((len(footage), len(shell.vertices), 2), np.float32)
    sure = np.zeros((len(footage), len(shell.vertices)), np.float32)
    before, jacobians, places = [], [], []
    for k, (image, matte, code) in enumerate(zip(footage.images, footage.mattes, footage.codes)):
        layers = renderer.layers(code, camera)
        posed, projected = layers.around, layers.around_projected
        before.append(layers.swell)
        jacobians.append(_jacobian(posed, code.rotation, camera.focal))
        places.append(posed)
        covered = (layers.behind.triangle >= 0).astype(np.uint8)
        person = cv2.dilate(((matte > 127) & (covered > 0)).astype(np.uint8), np.ones((5, 5), np.uint8))
        found = _flow(search, layers.picture, image, covered, person)
        if found is None:
            continue
        own = surface_opacity(layers.seen, layers.posed, renderer.prior.triangles, renderer.shape.opacity)
        x, y, there = pixels_of(projected, footage.size)
        front = projected[:, 2] < layers.behind.depth[y, x] + _SHELL_TOLERANCE
        rim = cv2.distanceTransform(covered, cv2.DIST_L2, 5)[y, x]
        outline = np.clip(1 - rim / (_OUTLINE_WIDTH * camera.focal / code.translation[2]), 0, 1)
        flow[k], known = found[0][y, x], found[1][y, x]
        weight = np.maximum(front * np.clip(facing(posed, shell.triangles), 0, 1), outline) * (1 - own[y, x]) * shell.opacity
        sure[k] = np.where(there & (known > 0.2), weight, 0)
    lift = _agreed(jacobians, flow, sure, smooth, _SHELL_SIGMA)
    left = np.stack([
        _across(d - np.einsum("vai,vi->va", jacobian, lift), posed, code, camera)
        for d, jacobian, posed, code in zip(flow, jacobians, places, footage.codes)
    ])  # fmt: skip
    total, weight = left * sure[..., None], sure
    for _ in range(_SHELL_SMOOTH):
        weight = weight @ smooth.T
        total = np.stack([smooth @ t for t in total])
    left = total / np.maximum(weight, 1e-4)[..., None] + np.stack(before)
    return lift, regress(left, np.round(255 * np.clip(2 * weight, 0, 1)).astype(np.uint8), smoother, SWELL_RANK)


def _agreed(jacobians, flow: np.ndarray, sure: np.ndarray, smooth: sp.csr_matrix, sigma: float) -> np.ndarray:
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


def _across(flow: np.ndarray, posed: np.ndarray, code, camera) -> np.ndarray:
    """V x 3 metres in the head frame: a flow in pixels as motion across the line of sight."""
    metre = posed[:, 2] / camera.focal
    return np.stack([flow[:, 0] * metre, flow[:, 1] * metre, 0 * metre], 1) @ code.rotation


def _vertex_flows(footage, shape, colours, smoother, shifts, skin) -> tuple[np.ndarray, np.ndarray]:
    """N x V x 2 pixels from where the avatar shows each vertex to where the frame does, and N x V: how sure that is."""
    prior, camera = shape.prior, footage.person.camera
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = np.zeros((len(footage), len(prior.mean), 2), np.float32)
    sure = np.zeros((len(footage), len(prior.mean)), np.float32)
    for k, (image, code) in enumerate(zip(footage.images, footage.codes)):
        posed, projected = shape.posed(code, camera, shifts[k])
        seen = rasterise(projected, prior.triangles, *footage.size)
        covered = (seen.triangle >= 0).astype(np.uint8)
        shown = draw_mesh(image, seen, prior.triangles, colours, skin.blend(smoother.kernel[k]).reshape(-1, 3))
        found = _flow(search, shown, image, covered, cv2.erode(covered, np.ones((5, 5), np.uint8)))
        if found is None:
            continue
        x, y, there = pixels_of(projected, footage.size)
        there &= projected[:, 2] < seen.depth[y, x] + 1.5 * TOLERANCE
        cosine = facing(posed, prior.triangles)
        there &= (found[1][y, x] > 0.3) & (cosine > 0.15)
        flow[k] = found[0][y, x]
        sure[k] = there * cosine
    return flow, sure


def _flow(search, shown, image, covered: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
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


def _jacobian(posed: np.ndarray, rotation: np.ndarray, focal: float) -> np.ndarray:
    """V x 2 x 3: pixels by metres in the head frame."""
    scale = focal / posed[:, 2]
    x, y = posed[:, 0] / posed[:, 2], posed[:, 1] / posed[:, 2]
    return np.stack(
        [scale[:, None] * (rotation[0] - x[:, None] * rotation[2]), scale[:, None] * (rotation[1] - y[:, None] * rotation[2])], 1
    )
