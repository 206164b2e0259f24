"""The joint correction: where the surface really lies beside the fitted head, always and as the code changes.

What the avatar would show so far is compared with each frame by optical flow; the flow of every vertex becomes an offset in
the head frame. What all frames agree on is `lift` (three unknowns a vertex, from all directions it was seen from); what is left
follows the code by the same regression as the colours do (`shift`). Colours and shape are found in turns.
"""

from __future__ import annotations

import cv2
import numpy as np

from models.avatar.linear import CODE_HOLD, Linear, Smoother, regress
from models.avatar.mesh_colours import MeshColours
from models.avatar.render import AvatarRenderer, surface_opacity
from models.avatar.shape import AvatarHead
from models.portrait.shade import facing
from pipeline.avatar.footage import Footage
from pipeline.surface_flow import (
    across,
    agreed,
    completed,
    flow_between,
    flow_search,
    look,
    pixel_jacobian,
    pixels_of,
    smoothing_matrix,
    vertex_flow,
)

SHIFT_RANK = 12
_SKIN_RANK = 8
_LIFT_SIGMA = 0.006  # metres
SWELL_RANK, _SHELL_SIGMA, _SHELL_TOLERANCE, _SHELL_SMOOTH = 24, 0.01, 0.006, 4
_OUTLINE_WIDTH = 0.006  # metres from its outline within which a direction belongs to it


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
    seen = look(footage.images, footage.codes, camera, shape, colours, before)
    skin = completed(regress(seen.colour, seen.weight, smoother, _SKIN_RANK), seen.weight, prior.triangles, colours)
    flow, sure = _vertex_flows(footage, shape, colours, smoother, before, skin)
    jacobians = [pixel_jacobian(shape.posed(code, camera)[0], code.rotation, camera.focal) for code in footage.codes]
    smooth = smoothing_matrix(prior.triangles, len(prior.mean))
    lift = agreed(jacobians, flow, sure, smooth, _LIFT_SIGMA)
    left = np.zeros((len(footage), len(prior.mean), 3), np.float32)
    for k, (jacobian, code) in enumerate(zip(jacobians, footage.codes)):
        left[k] = across(flow[k] - np.einsum("vai,vi->va", jacobian, lift), shape.posed(code, camera)[0], code, camera)
        if before[k] is not None:
            left[k] += before[k]
    return lift, regress(left, np.round(255 * np.clip(sure, 0, 1)).astype(np.uint8), smoother, SHIFT_RANK, hold=CODE_HOLD)


def register_shell(footage: Footage, renderer: AvatarRenderer, smoother: Smoother) -> tuple[np.ndarray, Linear]:
    """The same for the halo's shell, along with what the whole avatar shows: D x 3 metres to add to it, and its new motion.

    Args:
        renderer: of the avatar so far.
        smoother: of the footage's frames, by pose.
    """
    avatar, camera = renderer.avatar, footage.person.camera
    shell = avatar.shell
    smooth = smoothing_matrix(shell.triangles, len(shell.vertices))
    search = flow_search()
    flow = np.zeros((len(footage), len(shell.vertices), 2), np.float32)
    sure = np.zeros((len(footage), len(shell.vertices)), np.float32)
    before, jacobians, places = [], [], []
    for k, (image, matte, code) in enumerate(zip(footage.images, footage.mattes, footage.codes)):
        layers = renderer.layers(code, camera)
        posed, projected = layers.around, layers.around_projected
        before.append(layers.swell)
        jacobians.append(pixel_jacobian(posed, code.rotation, camera.focal))
        places.append(posed)
        covered = (layers.behind.triangle >= 0).astype(np.uint8)
        person = cv2.dilate(((matte > 127) & (covered > 0)).astype(np.uint8), np.ones((5, 5), np.uint8))
        found = flow_between(search, layers.picture, image, covered, person)
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
    lift = agreed(jacobians, flow, sure, smooth, _SHELL_SIGMA)
    left = np.stack([
        across(d - np.einsum("vai,vi->va", jacobian, lift), posed, code, camera)
        for d, jacobian, posed, code in zip(flow, jacobians, places, footage.codes)
    ])  # fmt: skip
    total, weight = left * sure[..., None], sure
    for _ in range(_SHELL_SMOOTH):
        weight = weight @ smooth.T
        total = np.stack([smooth @ t for t in total])
    left = total / np.maximum(weight, 1e-4)[..., None] + np.stack(before)
    return lift, regress(left, np.round(255 * np.clip(2 * weight, 0, 1)).astype(np.uint8), smoother, SWELL_RANK)


def _vertex_flows(footage, shape, colours, smoother, shifts, skin) -> tuple[np.ndarray, np.ndarray]:
    """N x V x 2 pixels from where the avatar shows each vertex to where the frame does, and N x V: how sure that is."""
    prior, camera = shape.prior, footage.person.camera
    search = flow_search()
    flow = np.zeros((len(footage), len(prior.mean), 2), np.float32)
    sure = np.zeros((len(footage), len(prior.mean)), np.float32)
    for k, (image, code) in enumerate(zip(footage.images, footage.codes)):
        posed, projected = shape.posed(code, camera, shifts[k])
        colour = skin.blend(smoother.kernel[k]).reshape(-1, 3)
        flow[k], sure[k] = vertex_flow(search, image, posed, projected, prior.triangles, colours, colour)
    return flow, sure
