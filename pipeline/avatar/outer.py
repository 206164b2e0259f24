"""What lies beyond the head's mesh: the halo of hair, ears and neck that goes with the head, and the scene behind."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from models.avatar.linear import Linear, Smoother, regress
from models.avatar.mesh_colours import MeshColours, gather
from models.avatar.render import surface_opacity
from models.avatar.shape import AvatarHead, posed_shell
from models.avatar.shell import Shell, icosphere
from models.avatar.space import CodeSpace
from models.head import Head
from models.portrait.shade import facing
from models.raster.cpu import PARALLEL, interpolate, rasterise
from pipeline.avatar.footage import Footage
from pipeline.avatar.registration import SWELL_RANK, TOLERANCE, smoothing_matrix

HALO_RANK, VEIL_RANK, SCENE_RANK = 12, 8, 8
_RIM = 0.1  # least cosine that a sample of the halo counts with: its outline is seen at no other angle
_CHIN, _LIP = 152, 0
_HAIR, _JAW, _MOST_OVER = 0.012, 0.004, 0.08  # metres over the bare head: hair and jaw where nothing is known, and the most
_STIFF = 30.0  # of the shell against what its outlines say
_OUTLINE_LOOKS, _OUTLINE_TURNS = 48, 5
_MARGIN = 0.004  # metres from hair to shell, for strands and the matte's own softness
_FADE = (0.0, 0.05)  # metres under the chin between which the halo ends
POSE_RIDGE = 0.05  # of the kernel of poses: six numbers leave little to overfit
_RIM_WIDTH = 0.004  # metres from its outline within which a direction belongs to it
_MOST_SWELL = 0.02  # metres
_SWELL_SMOOTH = 6
_RARE = 0.02  # share of the frames below which a pixel of the scene counts as never seen
_SPREAD = np.radians(7.0)


def head_and_hair(footage: Footage, head: Head, space: CodeSpace) -> tuple[Shell, np.ndarray]:
    """The shell around head and hair: where its outline was seen it lies on the mattes' outlines, smooth in between.

    Only outlines count: what no frame shows from the side goes on as its surroundings do, which a visual hull would not.
    """
    prior = head.prior
    of_head = ~np.isin(np.arange(len(prior.mean)), prior.triangles[prior.region == prior.regions.index("neck")])
    vertices = head.neutral[of_head & (prior.part == 0)]
    centre = 0.5 * (vertices.min(0) + vertices.max(0))
    directions, triangles = icosphere()
    away = vertices - centre
    own = np.linalg.norm(away, axis=1)
    closeness = away / own[:, None] @ directions.T
    bare = np.where(closeness > np.cos(_SPREAD), own[:, None], 0).max(0)
    bare = np.where(bare > 0, bare, own[np.argmax(closeness, 0)])
    chin = float(prior.at_landmarks(head.neutral)[_CHIN, 1])
    below = np.clip((centre[1] + bare * directions[:, 1] - chin - _FADE[0]) / (_FADE[1] - _FADE[0]), 0, 1)
    opacity = (1 - below * below * (3 - 2 * below)).astype(np.float32)
    outlined = _outlined(Shell.star(centre, bare, opacity), head)
    radius = (bare + np.where(outlined > 0, _HAIR, _JAW)).astype(np.float32)
    smooth = smoothing_matrix(triangles, len(directions))
    rough = sp.identity(len(directions)) - smooth
    rough = (rough.T @ rough).tocsc()
    some = footage.some(_OUTLINE_LOOKS)
    poses = np.stack([space.place(code)[POSE] for code in some.codes])
    linear = np.concatenate([np.ones((len(poses), 1)), poses], 1)
    solve = np.linalg.solve(linear.T @ linear + _LEAN_RIDGE * len(poses) * np.diag([0.0] + [1.0] * 6), linear.T)
    lean = np.zeros((7, 6))
    for turn in range(_OUTLINE_TURNS):
        shell = Shell.star(centre, radius, opacity)
        moves = [rigid_motion(shell, linear[k] @ lean) for k in range(len(some))]
        away, weight, normal = _outline_distances(some, shell, outlined, moves)
        total = weight.sum(0)
        wanted = (weight * (radius - bare - away)).sum(0)
        # over the bare head; where nothing is known, the hair is as thick as around
        held = np.where(outlined > 0, 1e-3, 1.0) * len(some)
        over = splu((sp.diags(total + held) + _STIFF * rough).tocsc()).solve(wanted + held * np.where(outlined > 0, _HAIR, _JAW))
        radius = (bare + np.clip(over, 0, _MOST_OVER)).astype(np.float32)
        shell = Shell.star(centre, radius, opacity)
        away, weight, normal = _outline_distances(some, shell, outlined, moves)
        steps = np.stack([_rigid_step(shell, code, d, w, n) for code, d, w, n in zip(some.codes, away, weight, normal)])
        lean = lean + solve @ steps
        if VERBOSE: print('   turn',turn,'misfit mm',1000*(weight*np.abs(away)).sum()/weight.sum(), 'lean', np.abs(lean).max(0).round(4))
    return Shell.star(centre, radius + _MARGIN, opacity), lean


VERBOSE = False
POSE = slice(56, 62)
_LEAN_RIDGE = 0.02
_LEAN_SIGMA = np.array([0.05] * 3 + [0.004] * 3)  # radians, metres: how far off a pose may be at the back of the head


def rigid_motion(shell: Shell, motion: np.ndarray) -> np.ndarray:
    """D x 3 metres: a small turn about the head frame's origin and a shift (6)."""
    return (np.cross(motion[:3], shell.vertices) + motion[3:]).astype(np.float32)


def _rigid_step(shell: Shell, code, away: np.ndarray, weight: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """6: the motion that brings the shell's outline to the matte's (metres, D), across it (`normal`, D x 2, camera axes)."""
    outwards = normal @ code.rotation[:2]  # head frame
    jacobian = np.concatenate([np.cross(shell.vertices, outwards), outwards], 1)
    own = weight / max(weight.sum(), 1e-6) * 30 / 0.003**2  # some thirty places of an outline err on their own
    normal_matrix = (jacobian * own[:, None]).T @ jacobian + np.diag(1 / _LEAN_SIGMA**2)
    return np.linalg.solve(normal_matrix, -(jacobian * own[:, None]).T @ away)


def _outlined(shell: Shell, head: Head) -> np.ndarray:
    """D: 1 where the head's outline is the matte's; below the mouth neck and shoulders stand behind it."""
    mouth = float(head.prior.at_landmarks(head.neutral)[_LIP, 1])
    return np.clip((mouth - 0.01 - shell.vertices[:, 1]) / 0.02, 0, 1)


def _outline_distances(
    footage: Footage, shell: Shell, outlined: np.ndarray, moves: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N x D metres by which the shell's outline lies outside the matte's, N x D weights: 1 on the outline, 0 off it, and
    N x D x 2 which way is out."""
    camera, directions = footage.person.camera, icosphere()[0]
    height, width = footage.size
    found = np.zeros((len(footage), len(directions)))
    weight = np.zeros((len(footage), len(directions)))
    normals = np.zeros((len(footage), len(directions), 2))
    for k, (matte, code) in enumerate(zip(footage.mattes, footage.codes)):
        posed, projected = posed_shell(shell, code, camera, moves[k])
        inside = (matte > 127).astype(np.uint8)
        beyond = cv2.distanceTransform(1 - inside, cv2.DIST_L2, 5) - cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        soft = cv2.GaussianBlur(beyond, (0, 0), 2)
        out = np.stack([cv2.Sobel(soft, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(soft, cv2.CV_32F, 0, 1, scale=1 / 8)], -1)
        x, y = np.floor(projected[:, 0]).astype(int), np.floor(projected[:, 1]).astype(int)
        there = (x > 1) & (x < width - 2) & (y > 1) & (y < height - 2)
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
        covered = (rasterise(projected, shell.triangles, height, width).triangle >= 0).astype(np.uint8)
        rim = cv2.distanceTransform(covered, cv2.DIST_L2, 5)[y, x]
        grazing = np.clip(1 - rim / (_RIM_WIDTH * camera.focal / code.translation[2]), 0, 1)
        found[k] = np.clip(beyond[y, x] * projected[:, 2] / camera.focal, -_MOST_SWELL, _MOST_SWELL)
        weight[k] = grazing * there * outlined
        normals[k] = out[y, x]
    return found, weight, normals


def learn_swell(footage: Footage, head: Head, shell: Shell, smoother: Smoother, lean: np.ndarray, space: CodeSpace) -> Linear:
    """D x 3 values: how the shell grows and shrinks with the pose so that its outline stays `_MARGIN` outside the mattes'.

    Hair moves, and a pose that is a little wrong puts the outline in a wrong place.
    """
    directions, triangles = icosphere()
    poses = np.stack([space.place(code)[POSE] for code in footage.codes])
    linear = np.concatenate([np.ones((len(poses), 1)), poses], 1)
    moves = [rigid_motion(shell, one @ lean) for one in linear]
    away, weight, _ = _outline_distances(footage, shell, _outlined(shell, head), moves)
    smooth = smoothing_matrix(triangles, len(directions))
    total = weight * (_MARGIN - away)
    for _ in range(_SWELL_SMOOTH):  # between directions of the outline the radius goes on smoothly
        total, weight = total @ smooth.T, weight @ smooth.T
    values = SW * (np.clip(weight, 0, 0.1) / 0.1 * total / np.maximum(weight, 1e-4))[..., None] * directions + np.stack(moves)
    return regress(values, np.full(weight.shape, 255, np.uint8), smoother, SWELL_RANK)


SW = 1.0


def learn_outer(
    footage: Footage,
    shape: AvatarHead,
    smoother: Smoother,
    shifts: list[np.ndarray],
    shell: Shell,
    swell: Linear,
    samples: MeshColours,
) -> tuple[np.ndarray, Linear, Linear, Linear]:
    """The scene's mean (H x W x 3 uint8), how it changes (half size), the halo's colours and its opacity.

    Args:
        smoother: of the footage's frames.
        shifts: V x 3 of every frame.
        samples: the halo's.
    """
    camera, count = footage.person.camera, len(footage)
    height, width = footage.size
    share = shell.opacity
    swells = [swell.blend(near).reshape(-1, 3) for near in smoother.kernel]
    behind = np.empty((count, height, width), np.uint8)  # 255 where the frame shows the scene
    told = np.empty((count, height, width), np.uint8)  # 255 where it shows what is no mesh
    for k, code in enumerate(footage.codes):
        posed, projected = shape.posed(code, camera, shifts[k])
        triangles = shape.prior.triangles
        opacity = surface_opacity(rasterise(projected, triangles, height, width), posed, triangles, shape.opacity)
        posed, projected = posed_shell(shell, code, camera, swells[k])
        around = rasterise(projected, shell.triangles, height, width)
        halo = footage.mattes[k] / np.float32(255) * interpolate(around, shell.triangles, share[:, None])[..., 0]
        behind[k] = np.round(255 * (1 - np.maximum(halo, opacity)))
        told[k] = np.round(255 * (1 - opacity))
    mean = _scene_mean(footage.images, behind)
    low = (width // 2, height // 2)
    change = np.empty((count, low[1], low[0], 3), np.float16)
    weight = np.empty((count, low[1], low[0]), np.uint8)
    for k, image in enumerate(footage.images):
        change[k] = cv2.resize(image.astype(np.float32) - mean, low, interpolation=cv2.INTER_AREA)
        weight[k] = cv2.resize(behind[k], low, interpolation=cv2.INTER_AREA)
    scene_change = regress(change.reshape(count, -1, 3), weight.reshape(count, -1), smoother, SCENE_RANK)
    del change, weight
    colour, veil = np.zeros((count, len(samples), 3), np.uint8), np.zeros((count, len(samples), 1), np.uint8)
    of_colour, of_veil = np.zeros((2, count, len(samples)), np.uint8)
    seen, cosines = np.zeros((len(samples), 5), np.uint8), np.zeros(len(samples), np.uint8)
    for k, (image, matte, code) in enumerate(zip(footage.images, footage.mattes, footage.codes)):
        posed, projected = posed_shell(shell, code, camera, swells[k])
        around = rasterise(projected, shell.triangles, height, width)
        with PARALLEL:
            gather(
                np.dstack([image, matte, told[k]]), around.depth, projected, np.maximum(facing(posed, shell.triangles), _RIM),
                shell.triangles, samples.triangle, samples.barycentric, TOLERANCE, seen, cosines,
            )  # fmt: skip
        colour[k], veil[k, :, 0] = seen[:, :3], seen[:, 3]
        bare = seen[:, 4] / np.float32(255)
        of_veil[k] = np.round((cosines > 0) * 255 * bare)
        # what is half background has no colour of its own
        of_colour[k] = np.round(cosines * bare * np.clip((seen[:, 3].astype(np.float32) - 160) / 80, 0, 1))
    return (
        mean.astype(np.uint8), scene_change, regress(colour, of_colour, smoother, HALO_RANK),
        regress(veil, of_veil, smoother, VEIL_RANK),
    )  # fmt: skip


def _scene_mean(images: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """H x W x 3 float32: the weighted mean; where the scene was never seen, what lies around it."""
    total = np.zeros(images.shape[1:], np.float32)
    weight = np.zeros(images.shape[1:3], np.float32)
    for image, share in zip(images, behind):
        w = share.astype(np.float32) / 255
        total += w[..., None] * image
        weight += w
    mean = total / np.maximum(weight, 1e-3)[..., None]
    sure = np.clip(weight / max(_RARE * len(images), 1), 0, 1)
    return sure[..., None] * mean + (1 - sure)[..., None] * _spread(mean, sure)


def _spread(values: np.ndarray, sure: np.ndarray) -> np.ndarray:
    """The picture smoothed from what is sure into what isn't, wider and wider (pull-push: Gortler et al. 1996, 3.4)."""
    if min(sure.shape) <= 2 or (sure > 0.5).all():
        total = max(float(sure.sum()), 1e-6)
        middle = (values * sure[..., None]).sum((0, 1)) / total
        return np.where(sure[..., None] > 0.5, values, middle).astype(np.float32)
    height, width = sure.shape
    small = (max(width // 2, 1), max(height // 2, 1))
    weight = cv2.resize(sure, small, interpolation=cv2.INTER_AREA)
    low = cv2.resize(values * sure[..., None], small, interpolation=cv2.INTER_AREA) / np.maximum(weight, 1e-4)[..., None]
    wide = cv2.resize(_spread(low, np.clip(2 * weight, 0, 1)), (width, height), interpolation=cv2.INTER_LINEAR)
    return sure[..., None] * values + (1 - sure)[..., None] * wide
