"""One person's head: the prior with their identity and detail built in, fast to pose."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from models.code import FaceCode, Person
from models.prior.face import EXPRESSIONS, LEFT_EYE, RIGHT_EYE, AnnyPrior

LID_LANDMARKS = {  # rings around each eyeball
    LEFT_EYE: (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398),
    RIGHT_EYE: (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173),
}
_UPPER_LIP, _LOWER_LIP = (0, 11, 12, 13), (14, 15, 16, 17)
LOOK = np.array([name.startswith("eyeLook") for name in EXPRESSIONS])  # what `with_look` sets
FULL_LOOK = np.radians(30.0)  # the eye's turn that ARKit calls 1.0
_LOOKS = [[EXPRESSIONS.index(f"eyeLook{way}{side}") for way in ("In", "Out", "Down", "Up")] for side in ("Left", "Right")]
_LANDMARK_PULL = 4.0  # weight of a landmark against the surface's own smoothness


@lru_cache(maxsize=4)
def _spread(vertices: int, triangles_bytes: bytes, landmarks_bytes: bytes, barycentric_bytes: bytes):
    """The factorised biharmonic problem that carries landmark offsets over the skin: min |Lx|^2 + w |Bx - d|^2."""
    triangles = np.frombuffer(triangles_bytes, np.int32).reshape(-1, 3)
    corners = np.frombuffer(landmarks_bytes, np.int32).reshape(-1, 3)
    weights = np.frombuffer(barycentric_bytes, np.float32).reshape(-1, 3)
    i = triangles[:, [0, 1, 2]].ravel()
    j = triangles[:, [1, 2, 0]].ravel()
    adjacency = sp.coo_matrix((np.ones(len(i)), (i, j)), (vertices, vertices)).tocsr()
    adjacency = ((adjacency + adjacency.T) > 0).astype(float)
    degree = np.maximum(np.asarray(adjacency.sum(1)).ravel(), 1)
    laplacian = sp.eye(vertices) - sp.diags(1 / degree) @ adjacency
    rows = np.repeat(np.arange(len(corners)), 3)
    at = sp.coo_matrix((weights.ravel(), (rows, corners.ravel())), (len(corners), vertices)).tocsr()
    system = laplacian.T @ laplacian + _LANDMARK_PULL * at.T @ at + 1e-6 * sp.eye(vertices)
    return splu(system.tocsc()), at


def spread_offsets(prior: AnnyPrior, offsets: np.ndarray) -> np.ndarray:
    """V x 3 smooth offsets of the whole head that agree with 478 x 3 landmark offsets on the skin.

    Eyeballs, teeth and tongue move as wholes with the lids and lips around them.
    """
    solver, at = _spread(
        len(prior.mean), prior.triangles.tobytes(),
        np.ascontiguousarray(prior.landmark_vertices[:468]).tobytes(),
        np.ascontiguousarray(prior.landmark_barycentric[:468]).tobytes(),
    )  # fmt: skip
    out = solver.solve(_LANDMARK_PULL * (at.T @ offsets[:468].astype(np.float64)))
    for ball, ring in LID_LANDMARKS.items():
        out[prior.part == ball] = offsets[list(ring)].mean(0)
    lips = offsets[list(_UPPER_LIP)].mean(0), offsets[list(_LOWER_LIP)].mean(0)
    for part, lip in ((3, lips[1]), (4, lips[0]), (5, lips[1])):
        out[prior.part == part] = lip
    return out.astype(np.float32)


class Head:
    """A person's head, ready to be posed: `head.posed(code)` gives V x 3 in camera axes."""

    def __init__(self, prior: AnnyPrior, person: Person, moved: np.ndarray | None = None):
        """Args:
        moved: V x 3 metres, head frame, by which each vertex differs from the person's.
        """
        self.prior, self.person = prior, person
        self.neutral = (
            prior.mean
            + np.tensordot(person.identity.astype(np.float32), prior.identity, 1)
            + spread_offsets(prior, person.detail)
            + (0 if moved is None else moved.astype(np.float32))
        )
        self._expression = np.ascontiguousarray(prior.expression.reshape(len(prior.expression), -1))
        self._balls = [np.flatnonzero(prior.part == ball) for ball in (LEFT_EYE, RIGHT_EYE)]
        self.eyes = np.stack([self.neutral[ball].mean(0) for ball in self._balls])

    def shaped(self, expression: np.ndarray, gaze: np.ndarray) -> np.ndarray:
        """V x 3 float32 in the head frame."""
        vertices = self.neutral + (expression.astype(np.float32) @ self._expression).reshape(-1, 3)
        for side, ball in enumerate(self._balls):
            rotation = rotation_of_gaze(gaze[side]).astype(np.float32)
            vertices[ball] = (vertices[ball] - self.eyes[side]) @ rotation.T + self.eyes[side]
        return vertices

    def posed(self, code: FaceCode) -> np.ndarray:
        """V x 3 float32 in camera axes."""
        shaped = self.shaped(code.expression, code.gaze)
        return shaped @ code.rotation.T.astype(np.float32) + code.translation.astype(np.float32)


def shapes(prior: AnnyPrior, identity: np.ndarray, expression: np.ndarray, gaze: np.ndarray | None = None) -> np.ndarray:
    """N x V x 3 float32 heads in the head frame, of N x 80 identities, N x 52 expressions, N x 2 x 2 gazes."""
    flat = identity.astype(np.float32) @ prior.identity.reshape(len(prior.identity), -1)
    flat += expression.astype(np.float32) @ prior.expression.reshape(len(prior.expression), -1)
    shape = prior.mean + flat.reshape(len(identity), -1, 3)
    if gaze is not None:
        for side, part in enumerate((LEFT_EYE, RIGHT_EYE)):
            ball = np.flatnonzero(prior.part == part)
            for n in range(len(shape)):
                centre = shape[n, ball].mean(0)
                shape[n, ball] = (shape[n, ball] - centre) @ rotation_of_gaze(gaze[n, side]).T.astype(np.float32) + centre
    return shape


def rotation_of_gaze(gaze: np.ndarray) -> np.ndarray:
    """3 x 3: turns the straight look (0, 0, -1) by yaw (towards +x) and pitch (towards +y), radians."""
    (cy, cp), (sy, sp_) = np.cos(gaze), np.sin(gaze)
    return np.array([[cy, -sy * sp_, -sy * cp], [0, cp, -sp_], [sy, cy * sp_, cy * cp]])


def angles_of_look(direction: np.ndarray) -> np.ndarray:
    """... x 3 looks to ... x (yaw, pitch), radians: the inverse of `rotation_of_gaze` applied to (0, 0, -1)."""
    x, y, z = direction[..., 0], direction[..., 1], direction[..., 2]
    return np.stack([np.arctan2(x, -z), np.arctan2(y, np.hypot(x, z))], -1)


def look_of_angles(angles: np.ndarray) -> np.ndarray:
    """... x (yaw, pitch) to ... x 3 unit looks."""
    yaw, pitch = angles[..., 0], angles[..., 1]
    return np.stack([np.sin(yaw) * np.cos(pitch), np.sin(pitch), -np.cos(yaw) * np.cos(pitch)], -1)


def look_in_camera(rotation: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """(left, right) x (yaw, pitch) of a head's gaze in camera axes."""
    return angles_of_look(look_of_angles(gaze) @ rotation.T)


def gaze_in_head(rotation: np.ndarray, look: np.ndarray) -> np.ndarray:
    """The inverse of `look_in_camera`."""
    return angles_of_look(look_of_angles(look) @ rotation)


def with_look(expression: np.ndarray, gaze: np.ndarray) -> np.ndarray:
    """The expression with its eight eyeLook values set from the gaze: they move the lids, the gaze turns the eyeballs.

    Args:
        expression: ... x 52.
        gaze: ... x (left, right) x (yaw, pitch), radians, head frame.
    """
    out = expression.copy()
    for side, inward in ((0, -1), (1, 1)):  # inward of the left eye is towards -x
        yaw, pitch = gaze[..., side, 0] / FULL_LOOK, gaze[..., side, 1] / FULL_LOOK
        out[..., _LOOKS[side]] = np.clip(np.stack([inward * yaw, -inward * yaw, pitch, -pitch], -1), 0.0, 1.0)
    return out


def rotation_of_angles(yaw, pitch, roll=0.0) -> np.ndarray:
    """... x 3 x 3 head rotations: yaw towards the person's left, pitch chin down, roll about the face's own axis; radians."""
    yaw, pitch, roll = np.broadcast_arrays(yaw, pitch, roll)
    zero, one = np.zeros(yaw.shape), np.ones(yaw.shape)
    matrix = lambda *rows: np.stack([np.stack(row, -1) for row in rows], -2)
    (cy, sy), (cp, sp_), (cr, sr) = ((np.cos(a), np.sin(a)) for a in (yaw, pitch, roll))
    turn = matrix((cy, zero, -sy), (zero, one, zero), (sy, zero, cy))
    nod = matrix((one, zero, zero), (zero, cp, -sp_), (zero, sp_, cp))
    return turn @ nod @ matrix((cr, -sr, zero), (sr, cr, zero), (zero, zero, one))
