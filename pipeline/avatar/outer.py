"""What lies beyond the head's mesh: the halo of hair, ears and neck that goes with the head, and the scene behind."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from models.avatar.linear import POSE_HOLD, Linear, Smoother, regress
from models.avatar.mesh_colours import MeshColours, gather
from models.avatar.render import surface_opacity
from models.avatar.shape import AvatarHead, posed_shell
from models.avatar.shell import Shell, icosphere
from models.avatar.space import POSE, CodeSpace
from models.head import Head
from models.portrait.shade import facing
from models.raster.cpu import PARALLEL, interpolate, rasterise
from pipeline.avatar.footage import Footage
from pipeline.avatar.regions import below_chin, chin_of
from pipeline.avatar.registration import SWELL_RANK
from pipeline.avatar.scene import Scene, learn_scene
from pipeline.surface_flow import TOLERANCE, completed, pixels_of, smoothing_matrix

HALO_RANK, VEIL_RANK = 12, 8
_RIM = 0.1  # least cosine that a sample of the halo counts with: its outline is seen at no other angle
_CHIN, _LIP = 152, 0
_HAIR, _JAW, _MOST_OVER = 0.012, 0.004, 0.08  # metres over the bare head: hair and jaw where nothing is known, and the most
_STIFF = 30.0  # of the shell against what its outlines say
_OUTLINE_LOOKS, _OUTLINE_TURNS = 48, 5
_LEAN_RIDGE = 0.2
_OWN_PLACES, _OUTLINE_SIGMA = 30, 0.003  # so many places of an outline err on their own, by so much (metres)
_LEAN_SIGMA = np.array([0.05] * 3 + [0.004] * 3)  # radians, metres: how far off a pose may be at the back of the head
_MARGIN = 0.002  # metres from hair to shell, for strands and the matte's own softness
_FADE = (0.0, 0.05)  # metres under the chin between which the halo ends
POSE_RIDGE = 0.02  # of the kernel of poses: six numbers leave little to overfit
_RIM_WIDTH = 0.004  # metres from its outline within which a direction belongs to it
_MOST_SWELL = 0.02  # metres
_SWELL_SMOOTH = 6
_VEIL_RIDGE = 0.2
_OWN = (1.0, 3.0)  # pixels inside the matte's outline from which, and within which, a colour is the person's own
_DOUBT = 0.003  # share of the frames that counts for opacity where nothing is seen
_CHIN_FADE = 0.02  # metres above the chin from which neck and shoulders belong to the scene
_SPREAD = np.radians(7.0)


@dataclass(frozen=True, eq=False)
class Lean:
    """How the shell turns and shifts beside the face's pose, linearly with it.

    A pose that explains the face's landmarks may be off by degrees, which at the back of the head are many pixels.

    Attributes:
        space: whose poses count.
        motion: 7 x 6: a turn about the head frame's origin (radians) and a shift (metres), for 1 and the six numbers of a pose.
    """

    space: CodeSpace
    motion: np.ndarray

    @staticmethod
    def poses(space: CodeSpace, codes: list) -> np.ndarray:
        """N x 7."""
        return np.stack([np.concatenate([[1.0], space.place(code)[POSE]]) for code in codes])

    def moves(self, shell: Shell, codes: list) -> np.ndarray:
        """N x D x 3 metres."""
        motion = self.poses(self.space, codes) @ self.motion
        return np.stack([np.cross(m[:3], shell.vertices) + m[3:] for m in motion]).astype(np.float32)


def head_and_hair(footage: Footage, head: Head, space: CodeSpace) -> tuple[Shell, Lean]:
    """The shell around head and hair, and how it leans: where its outline was seen it lies on the mattes' outlines.

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
    poses = Lean.poses(space, some.codes)
    solve = np.linalg.solve(poses.T @ poses + _LEAN_RIDGE * len(poses) * np.diag([0.0] + [1.0] * 6), poses.T)
    lean = Lean(space, np.zeros((7, 6)))
    for _ in range(_OUTLINE_TURNS):
        shell = Shell.star(centre, radius, opacity)
        moves = lean.moves(shell, some.codes)
        away, weight, _ = _outline_distances(some, shell, outlined, moves)
        total = weight.sum(0)
        wanted = (weight * (radius - bare - away)).sum(0)
        # over the bare head; where nothing is known, the hair is as thick as around
        held = np.where(outlined > 0, 1e-3, 1.0) * len(some)
        over = splu((sp.diags(total + held) + _STIFF * rough).tocsc()).solve(wanted + held * np.where(outlined > 0, _HAIR, _JAW))
        radius = (bare + np.clip(over, 0, _MOST_OVER)).astype(np.float32)
        shell = Shell.star(centre, radius, opacity)
        found = zip(some.codes, *_outline_distances(some, shell, outlined, moves))
        steps = np.stack([_rigid_step(shell, code, away, weight, out) for code, away, weight, out in found])
        lean = replace(lean, motion=lean.motion + solve @ steps)
    return Shell.star(centre, radius + _MARGIN, opacity), lean


def _rigid_step(shell: Shell, code, away: np.ndarray, weight: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """6: the motion that brings the shell's outline to the matte's (metres, D), across it (`normal`, D x 2, camera axes)."""
    outwards = normal @ code.rotation[:2]  # head frame
    jacobian = np.concatenate([np.cross(shell.vertices, outwards), outwards], 1)
    own = weight / max(weight.sum(), 1e-6) * _OWN_PLACES / _OUTLINE_SIGMA**2
    normal_matrix = (jacobian * own[:, None]).T @ jacobian + np.diag(1 / _LEAN_SIGMA**2)
    return np.linalg.solve(normal_matrix, -(jacobian * own[:, None]).T @ away)


def _outlined(shell: Shell, head: Head) -> np.ndarray:
    """D: 1 where the head's outline is the matte's; below the mouth neck and shoulders stand behind it."""
    mouth = float(head.prior.at_landmarks(head.neutral)[_LIP, 1])
    return np.clip((mouth - 0.01 - shell.vertices[:, 1]) / 0.02, 0, 1)


def _outline_distances(
    footage: Footage, shell: Shell, outlined: np.ndarray, moves: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """N x D metres by which the shell's outline lies outside the matte's, N x D weights (1 on the outline, 0 off it), and
    N x D x 2 which way is out.

    Args:
        moves: N x D x 3 metres.
    """
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
        x, y, there = pixels_of(projected, footage.size, 2)
        covered = (rasterise(projected, shell.triangles, height, width).triangle >= 0).astype(np.uint8)
        rim = cv2.distanceTransform(covered, cv2.DIST_L2, 5)[y, x]
        grazing = np.clip(1 - rim / (_RIM_WIDTH * camera.focal / code.translation[2]), 0, 1)
        found[k] = np.clip(beyond[y, x] * projected[:, 2] / camera.focal, -_MOST_SWELL, _MOST_SWELL)
        weight[k] = grazing * there * outlined
        normals[k] = out[y, x]
    return found, weight, normals


def learn_swell(footage: Footage, head: Head, shell: Shell, smoother: Smoother, lean: Lean) -> Linear:
    """D x 3 values: how the shell leans and grows with the pose so that its outline stays `_MARGIN` outside the mattes'."""
    directions, triangles = icosphere()
    moves = lean.moves(shell, footage.codes)
    away, weight, _ = _outline_distances(footage, shell, _outlined(shell, head), moves)
    smooth = smoothing_matrix(triangles, len(directions))
    total = weight * (_MARGIN - away)
    for _ in range(_SWELL_SMOOTH):  # between directions of the outline the radius goes on smoothly
        total, weight = total @ smooth.T, weight @ smooth.T
    grown = np.clip(weight, 0, 0.1) / 0.1 * total / np.maximum(weight, 1e-4)
    values = grown[..., None] * directions + moves
    return regress(values, np.full(weight.shape, 255, np.uint8), smoother, SWELL_RANK)


def learn_outer(
    footage: Footage,
    shape: AvatarHead,
    smoother: Smoother,
    shifts: list[np.ndarray],
    shell: Shell,
    swell: Linear,
    samples: MeshColours,
    moves: bool = True,
) -> tuple[Scene, Linear, Linear]:
    """The scene, the halo's colours and its opacity.

    Args:
        smoother: of the footage's frames.
        shifts: V x 3 of every frame.
        samples: the halo's.
        moves: whether the scene moves with the pose.
    """
    camera, count = footage.person.camera, len(footage)
    height, width = footage.size
    share = shell.opacity
    chin = chin_of(shape.head)
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
        # a head is no scene, whether the shell covers it or not
        above = np.clip(-below_chin(code, camera, chin) / _CHIN_FADE, 0, 1).astype(np.float32)
        head = cv2.dilate(footage.mattes[k], np.ones((5, 5), np.uint8)) / np.float32(255) * above
        behind[k] = np.round(255 * (1 - np.maximum(np.maximum(halo, head), opacity)))
        told[k] = np.round(255 * (1 - opacity))
    scene = learn_scene(footage.images, footage.mattes, behind, smoother, moves)
    del behind
    colour, veil = np.zeros((count, len(samples), 3), np.uint8), np.zeros((count, len(samples), 1), np.uint8)
    of_colour, of_veil = np.zeros((2, count, len(samples)), np.uint8)
    seen, cosines = np.zeros((len(samples), 6), np.uint8), np.zeros(len(samples), np.uint8)
    for k, (image, matte, code) in enumerate(zip(footage.images, footage.mattes, footage.codes)):
        posed, projected = posed_shell(shell, code, camera, swells[k])
        around = rasterise(projected, shell.triangles, height, width)
        inside = cv2.distanceTransform((matte > 127).astype(np.uint8), cv2.DIST_L2, 5)
        whole = np.round(255 * np.clip((inside - _OWN[0]) / _OWN[1], 0, 1)).astype(np.uint8)
        with PARALLEL:
            gather(
                np.dstack([image, matte, told[k], whole]), around.depth, projected,
                np.maximum(facing(posed, shell.triangles), _RIM), shell.triangles, samples.triangle, samples.barycentric,
                TOLERANCE, seen, cosines,
            )  # fmt: skip
        colour[k], veil[k, :, 0] = seen[:, :3], seen[:, 3]
        bare = seen[:, 4] / np.float32(255)
        of_veil[k] = np.round(cosines * bare)
        # what is half background has no colour of its own
        of_colour[k] = np.round(cosines * bare * (seen[:, 5] / np.float32(255)))
    halo = completed(regress(colour, of_colour, smoother, HALO_RANK, hold=POSE_HOLD), of_colour, shell.triangles, samples)
    opacity = regress(veil, of_veil, Smoother.of(smoother.kernel, _VEIL_RIDGE, smoother.device), VEIL_RANK, hold=POSE_HOLD)
    # what was hardly ever seen is opaque: a head has no holes
    doubt = _DOUBT * count / (of_veil.sum(0, dtype=np.float32) / 255 + _DOUBT * count)
    opacity = replace(opacity, mean=(opacity.mean + doubt * (255 - opacity.mean)).astype(np.float32))
    return scene, halo, opacity
