"""From landmarks to codes: identity and focal length once per shot, pose, expression and gaze for each frame.

Damped Gauss-Newton with analytic Jacobians; expressions are kept inside [0, 1] by an active set. The energy is that of
Thies et al. 2016 (eq. 5) with the landmark term alone: sum_l w_l |project(R X_l + t) - y_l|^2 / sigma^2 + priors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from models.code import Camera, FaceCode, Person
from models.head import LID_LANDMARKS, LOOK, rotation_of_gaze, with_look
from models.prior.face import EXPRESSIONS, LEFT_EYE, RIGHT_EYE, AnnyPrior

SIGMA = 0.012  # tracker noise and misfit, in inter-ocular distances
EXPRESSION_SIGMA = 0.45
OUTER_EYE_CORNERS = (33, 263)
IRIS_RIGHT, IRIS_LEFT = 468, 473  # centres; MediaPipe names eyes by the person's own side
_IRIS_DEPTH = 0.95  # of the eyeball's radius: the iris' plane seen through the cornea
_INDEX = {name: k for k, name in enumerate(EXPRESSIONS)}
_TONGUE = _INDEX["tongueOut"]
_KNOWN = 1e4  # precision of the eyeLook values: the irises say them


@dataclass(frozen=True)
class LandmarkModel:
    """The prior seen at its 478 landmarks alone: what a fit needs, small enough for the first-level cache."""

    mean: np.ndarray  # 478 x 3
    identity: np.ndarray  # 80 x 478 x 3
    expression: np.ndarray  # 52 x 478 x 3
    weight: np.ndarray  # 478
    eye_centre: np.ndarray  # (left, right) x 3 on the mean head
    eye_centre_identity: np.ndarray  # 80 x 2 x 3
    iris: np.ndarray  # (left, right) distance from the eyeball's centre to the iris, metres

    @classmethod
    def of(cls, prior: AnnyPrior) -> LandmarkModel:
        expression = prior.at_landmarks(prior.expression).astype(np.float64)
        expression[_TONGUE] = 0  # no landmark sees the tongue
        balls = [prior.part == 1, prior.part == 2]
        weight = np.ones(478)
        weight[468:] = 0  # the irises tell of the gaze, not of the head
        return cls(
            mean=prior.at_landmarks(prior.mean).astype(np.float64),
            identity=prior.at_landmarks(prior.identity).astype(np.float64),
            expression=expression,
            weight=weight,
            eye_centre=np.stack([prior.mean[b].mean(0) for b in balls]).astype(np.float64),
            iris=np.array([_IRIS_DEPTH * np.ptp(prior.mean[b][:, 0]) / 2 for b in balls]),
            eye_centre_identity=np.stack([prior.identity[:, b].mean(1) for b in balls], 1).astype(np.float64),
        )

    def neutral(self, person: Person) -> np.ndarray:
        """478 x 3 landmarks of a person at rest in the prior's sense (all expressions 0)."""
        return self.mean + np.tensordot(person.identity, self.identity, 1) + person.detail

    def eyes(self, person: Person) -> np.ndarray:
        """(left, right) x 3 centres of the eyeballs in the head frame."""
        shift = np.stack([person.detail[list(LID_LANDMARKS[ball])].mean(0) for ball in (LEFT_EYE, RIGHT_EYE)])
        return self.eye_centre + np.tensordot(person.identity, self.eye_centre_identity, 1) + shift

    @cached_property
    def flat_expression(self) -> np.ndarray:
        return np.ascontiguousarray(self.expression.reshape(len(self.expression), -1))

    @cached_property
    def flat_both(self) -> np.ndarray:
        """Expressions, then identity."""
        return np.concatenate([self.flat_expression, self.identity.reshape(len(self.identity), -1)])


def inter_ocular(landmarks: np.ndarray) -> np.ndarray:
    """Distance of the outer eye corners in the picture, pixels: ... x 478 x 2+ -> ..."""
    a, b = (landmarks[..., k, :2] for k in OUTER_EYE_CORNERS)
    return np.linalg.norm(a - b, axis=-1)


def initial_pose(model_points: np.ndarray, landmarks: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation from MediaPipe's own rough depths: a similarity fit (Umeyama 1991), then perspective."""
    chosen = slice(0, 468)
    x, y = model_points[chosen], landmarks[chosen].astype(np.float64)
    mx, my = x.mean(0), y.mean(0)
    u, s, vt = np.linalg.svd((y - my).T @ (x - mx))
    sign = np.diag([1, 1, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ sign @ vt
    scale = (s * np.diag(sign)).sum() / ((x - mx) ** 2).sum()
    depth = camera.focal / scale
    centre = np.array([my[0] - camera.width / 2, my[1] - camera.height / 2, camera.focal]) * depth / camera.focal
    return rotation, centre - rotation @ mx


@njit(cache=True, nogil=True)
def rotation_of_vector(w):
    """Rotation matrix of a rotation vector (Rodrigues)."""
    angle = np.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    k = np.zeros((3, 3))
    k[0, 1], k[0, 2], k[1, 2] = -w[2], w[1], -w[0]
    k[1, 0], k[2, 0], k[2, 1] = w[2], -w[1], w[0]
    if angle < 1e-8:
        return np.eye(3) + k
    return np.eye(3) + np.sin(angle) / angle * k + (1 - np.cos(angle)) / (angle * angle) * (k @ k)


@njit(cache=True, nogil=True)
def jacobian(points, expression_basis, rotation, translation, focal, cx, cy):
    """Projected landmarks (L x 2) and their Jacobian (2L x (6 + K)): rotation (left, radians), translation, expressions."""
    count, kinds = points.shape[0], expression_basis.shape[0]
    projected = np.empty((count, 2))
    jac = np.empty((2 * count, 6 + kinds))
    for i in range(count):
        x = rotation[0, 0] * points[i, 0] + rotation[0, 1] * points[i, 1] + rotation[0, 2] * points[i, 2]
        y = rotation[1, 0] * points[i, 0] + rotation[1, 1] * points[i, 1] + rotation[1, 2] * points[i, 2]
        z = rotation[2, 0] * points[i, 0] + rotation[2, 1] * points[i, 1] + rotation[2, 2] * points[i, 2]
        px, py, pz = x + translation[0], y + translation[1], z + translation[2]
        iz = 1.0 / pz
        ux, uz = focal * iz, -focal * px * iz * iz
        vz = -focal * py * iz * iz
        projected[i, 0] = focal * px * iz + cx
        projected[i, 1] = focal * py * iz + cy
        # d(R X) = w x (R X)
        jac[2 * i, 0] = uz * y
        jac[2 * i, 1] = ux * z - uz * x
        jac[2 * i, 2] = -ux * y
        jac[2 * i, 3], jac[2 * i, 4], jac[2 * i, 5] = ux, 0.0, uz
        jac[2 * i + 1, 0] = -ux * z + vz * y
        jac[2 * i + 1, 1] = -vz * x
        jac[2 * i + 1, 2] = ux * x
        jac[2 * i + 1, 3], jac[2 * i + 1, 4], jac[2 * i + 1, 5] = 0.0, ux, vz
        # rows of d(u, v)/dX = d(u, v)/dp R
        u0 = ux * rotation[0, 0] + uz * rotation[2, 0]
        u1 = ux * rotation[0, 1] + uz * rotation[2, 1]
        u2 = ux * rotation[0, 2] + uz * rotation[2, 2]
        v0 = ux * rotation[1, 0] + vz * rotation[2, 0]
        v1 = ux * rotation[1, 1] + vz * rotation[2, 1]
        v2 = ux * rotation[1, 2] + vz * rotation[2, 2]
        for k in range(kinds):
            ex, ey, ez = expression_basis[k, 3 * i], expression_basis[k, 3 * i + 1], expression_basis[k, 3 * i + 2]
            jac[2 * i, 6 + k] = u0 * ex + u1 * ey + u2 * ez
            jac[2 * i + 1, 6 + k] = v0 * ex + v1 * ey + v2 * ez
    return projected, jac


@njit(cache=True, nogil=True)
def bounded_step(hessian, gradient, values):
    """The step that minimises the quadratic while values + step of the expressions stays in [0, 1].

    Block principal pivoting (Portugal, Judice & Vicente 1994): all that leave the bounds are held at them, all that are held
    and would rather come back are let go, until neither happens.
    """
    size = gradient.shape[0]
    step = np.zeros(size)
    fixed = np.zeros(size, np.bool_)
    for turn in range(12):
        free = np.nonzero(~fixed)[0]
        count = free.shape[0]
        a, b = np.empty((count, count)), np.empty(count)
        for i in range(count):
            b[i] = -gradient[free[i]]
            for j in range(size):
                if fixed[j]:
                    b[i] -= hessian[free[i], j] * step[j]
            for j in range(count):
                a[i, j] = hessian[free[i], free[j]]
        solved = np.linalg.solve(a, b)
        again = False
        for i in range(count):
            k = free[i]
            step[k] = solved[i]
        for k in range(6, size):
            if fixed[k]:
                slope = gradient[k]
                for j in range(size):
                    slope += hessian[k, j] * step[j]
                at_low = values[k - 6] + step[k] < 0.5
                if turn < 9 and ((at_low and slope < -1e-9) or (not at_low and slope > 1e-9)):
                    fixed[k] = False
                    again = True
            else:
                new = values[k - 6] + step[k]
                if new < 0.0 or new > 1.0:
                    step[k] = (0.0 if new < 0.0 else 1.0) - values[k - 6]
                    fixed[k] = True
                    again = True
        if not again:
            break
    for k in range(6, size):  # the turns may run out
        step[k] = min(max(step[k], -values[k - 6]), 1.0 - values[k - 6])
    return step


@njit(cache=True, nogil=True)
def _fit_frame(
    neutral, basis, weight, target, rotation, translation, expression, expected, precision, focal, cx, cy, sigma, steps
):
    count = neutral.shape[0]
    for _ in range(steps):
        points = neutral + (expression @ basis).reshape(count, 3)
        projected, jac = jacobian(points, basis, rotation, translation, focal, cx, cy)
        residual = np.empty(2 * count)
        for i in range(count):
            w = np.sqrt(weight[i]) / sigma
            for axis in range(2):
                row = 2 * i + axis
                residual[row] = (projected[i, axis] - target[i, axis]) * w
                jac[row] *= w
        hessian = jac.T @ jac
        gradient = jac.T @ residual
        for k in range(expression.shape[0]):
            hessian[6 + k, 6 + k] += precision[k]
            gradient[6 + k] += precision[k] * (expression[k] - expected[k])
        for k in range(6):
            hessian[k, k] *= 1.0 + 1e-6
        step = bounded_step(hessian, gradient, expression)
        rotation = rotation_of_vector(step[:3]) @ rotation
        translation = translation + step[3:6]
        translation[2] = max(translation[2], 0.05)
        expression = expression + step[6:]
        if np.abs(step[:6]).max() < 2e-4 and np.abs(step[6:]).max() < 0.02:  # below what the tracker can tell
            break
    return rotation, translation, expression


def look_direction(landmarks, eyes, rotation, translation, camera: Camera, iris: np.ndarray) -> np.ndarray:
    """Gaze of both eyes: where the ray through each iris centre meets the eyeball.

    Args:
        eyes: (left, right) x 3 centres in the head frame.
        iris: (left, right) distances of the iris from its eyeball's centre, metres.

    Returns: (left, right) x (yaw, pitch). Where the ray misses the ball (a bad fit), the nearest point of the ball counts.
    """
    gaze = np.zeros((2, 2))
    for side, index in enumerate((IRIS_LEFT, IRIS_RIGHT)):
        pixel = landmarks[index, :2].astype(np.float64)
        ray = np.array([pixel[0] - camera.width / 2, pixel[1] - camera.height / 2, camera.focal])
        ray /= np.linalg.norm(ray)
        centre = rotation @ eyes[side] + translation
        along = ray @ centre
        miss2 = centre @ centre - along * along
        inside = iris[side] ** 2 - miss2
        hit = ray * (along - np.sqrt(max(inside, 0.0)))
        direction = rotation.T @ (hit - centre)
        gaze[side] = np.arctan2(direction[0], -direction[2]), np.arctan2(direction[1], np.hypot(direction[0], direction[2]))
    return np.clip(gaze, -0.9, 0.9)


@dataclass
class FrameFitter:
    """Fits one person's frames one after another, each started from the one before."""

    model: LandmarkModel
    person: Person
    steps: int = 2
    steadiness: float = 0.25  # weight of the last frame's expression beside the prior

    def __post_init__(self) -> None:
        self._neutral = self.model.neutral(self.person)
        self._eyes = self.model.eyes(self.person)
        self._last: FaceCode | None = None

    def forget(self) -> None:
        """Call after a loss or a cut: the next frame starts afresh."""
        self._last = None

    def __call__(self, landmarks: np.ndarray, confidence: float = 1.0) -> FaceCode:
        """The code of a frame's 478 x 2+ landmarks (pixels)."""
        camera = self.person.camera
        if self._last is None:
            rotation, translation = initial_pose(self._neutral, landmarks, camera)
            expression, steps = self.person.neutral.copy(), self.steps + 8
        else:
            rotation, translation, expression, steps = (
                self._last.rotation, self._last.translation, self._last.expression.copy(), self.steps,
            )  # fmt: skip
        expected, precision = self._prior(expression)
        # before the pose is refined the irises already tell the lids where the eyes look
        gaze = look_direction(landmarks, self._eyes, rotation, translation, camera, self.model.iris)
        expected, precision = with_look(expected, gaze), np.where(LOOK, _KNOWN, precision)
        rotation, translation, expression = _fit_frame(
            self._neutral, self.model.flat_expression, self.model.weight, landmarks[:, :2].astype(np.float64),
            np.ascontiguousarray(rotation), translation, expression, expected, precision, camera.focal,
            camera.width / 2, camera.height / 2, SIGMA * max(float(inter_ocular(landmarks)), 1.0), steps,
        )  # fmt: skip
        gaze = look_direction(landmarks, self._eyes, rotation, translation, camera, self.model.iris)
        code = FaceCode(with_look(expression, gaze), rotation, translation, gaze, confidence)
        self._last = code
        return code

    def _prior(self, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rest = 1 / EXPRESSION_SIGMA**2
        if self._last is None:
            return self.person.neutral, np.full(52, rest)
        steady = rest * self.steadiness
        return (rest * self.person.neutral + steady * last) / (rest + steady), np.full(52, rest + steady)

    def landmarks(self, code: FaceCode, neutral: np.ndarray | None = None) -> np.ndarray:
        """478 x 2 landmarks of a code, projected from the fitted model (pixels); the irises turn with the gaze."""
        neutral = self._neutral if neutral is None else neutral
        points = neutral + (code.expression @ self.model.flat_expression).reshape(-1, 3)
        for side, first in ((0, IRIS_LEFT), (1, IRIS_RIGHT)):
            ring = slice(first, first + 5)
            straight = self._eyes[side] + np.array([0, 0, -self.model.iris[side]])
            points[ring] += straight - points[first]
            points[ring] = (points[ring] - self._eyes[side]) @ rotation_of_gaze(code.gaze[side]).T + self._eyes[side]
        return self.person.camera.project(points @ code.rotation.T + code.translation)[:, :2]
