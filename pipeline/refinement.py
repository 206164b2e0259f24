"""Refinement: a few damped Gauss-Newton steps on pixels and landmarks, from where the encoder or the landmarks' fit left off.

The energy is that of Thies et al. 2016 (eq. 3): photometric + landmarks + priors. Pixels are compared at the face's visible
vertices (some 1,500), so that every Jacobian is analytic and small. Over several frames of a shot, identity, skin and light
are shared and each frame's pose and expression eliminated (Schur complement), as in `pipeline.shot`.

Convention: camera axes and pixels as in `capture.frame`; colours are compared as sRGB codes in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from models.code import Camera, FaceCode
from models.encoder.draw import normals_into
from models.head import spread_offsets, with_look
from models.light.harmonics import LAMBERT, HarmonicLight, basis
from models.prior.face import AnnyPrior
from models.prior.reflectance import Reflectance
from models.raster.cpu import rasterise
from pipeline.fitting import EXPRESSION_SIGMA, SIGMA, LandmarkModel, bounded_step, inter_ocular, jacobian, rotation_of_vector

_CROP = 160  # pixels across the face at which colours are compared
_COLOUR = 0.60  # standard deviation of a vertex' colour: neighbours err alike, so a vertex tells little
_OUTLIER = 0.15  # of an sRGB code: residuals of this size begin to pull less
_KEEP = 0.35  # standard deviation of an expression about where it started
_IDENTITY_KEEP, _ALBEDO_KEEP, _LIGHT_KEEP = 0.7, 0.4, 0.15  # light: of its ambient part
_TURN_KEEP, _MOVE_KEEP = 0.05, 0.02  # radians, share of the distance: of a pose that no landmarks hold
_LEAST_LIGHT = 0.02


@dataclass(frozen=True)
class SeenPoints:
    """Where the 68 points of the iBUG order were seen.

    Attributes:
        at: 68 x 2 pixels.
        doubt: 68 standard deviations, pixels.
    """

    at: np.ndarray
    doubt: np.ndarray


@dataclass(frozen=True)
class Seen:
    """A frame to explain.

    Attributes:
        image: H x W x 3 uint8 sRGB.
        code: where to start.
        landmarks: 478 x 2+ pixels of a tracker; None where there are none.
        points: what the encoder saw; None to do without. Beside landmarks they weigh as much as all of these together: either
            source errs by several times its own noise, each in its own way.
    """

    image: np.ndarray
    code: FaceCode
    landmarks: np.ndarray | None = None
    points: SeenPoints | None = None


@dataclass(frozen=True)
class Refined:
    """What a refinement found.

    Attributes:
        identity: 80; albedo: 32; light: in camera axes; codes: one for each frame.
        residual: rms of the visible vertices' sRGB codes (0..1) that is left, for each frame.
    """

    identity: np.ndarray
    albedo: np.ndarray
    light: HarmonicLight
    codes: tuple[FaceCode, ...]
    residual: np.ndarray


def _encoded(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """sRGB codes of linear values, and their derivative."""
    linear = np.clip(linear, 1e-4, 4.0)
    low = linear <= 0.0031308
    code = np.where(low, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return code, np.where(low, 12.92, 1.055 / 2.4 * linear ** (1 / 2.4 - 1))


class Refiner:
    """Holds what of the two priors the refinement needs."""

    def __init__(self, prior: AnnyPrior, reflectance: Reflectance):
        self.prior, self.reflectance = prior, reflectance
        self.model = LandmarkModel.of(prior)
        skin = np.isin(prior.region, [prior.regions.index(n) for n in ("skin", "lips", "eyelids")])
        inside = np.setdiff1d(prior.triangles[skin], prior.triangles[~skin])
        self._at = inside[(prior.face_weight[inside] > 0.4) & (prior.part[inside] == 0)]
        at = self._at
        self._mean = prior.mean[at].astype(np.float64)
        self._expression = np.ascontiguousarray(prior.expression[:, at].reshape(52, -1), np.float64)
        self._identity = np.ascontiguousarray(prior.identity[:, at].reshape(len(prior.identity), -1), np.float64)
        self._albedo_mean = reflectance.mean[at].astype(np.float64)
        self._albedo = reflectance.basis[:, at].astype(np.float64)
        self._open = reflectance.reached[at].astype(np.float64)
        model, points = self.model, prior.ibug68
        between = lambda flat: np.einsum("pl,klc->kpc", points, flat.reshape(len(flat), 478, 3)).reshape(len(flat), -1)
        self._points_mean = points @ model.mean
        self._points_bases = np.concatenate([between(model.flat_expression), between(model.identity)])

    def __call__(
        self, camera: Camera, seen: list[Seen], identity: np.ndarray, albedo: np.ndarray, light: HarmonicLight,
        detail: np.ndarray | None = None, steps: int = 6, shape: bool = True,
    ) -> Refined:  # fmt: skip
        """Args:
        seen: frames of one person under one light.
        identity, albedo, light: where to start.
        detail: 478 x 3 of the person's landmarks beside the identity basis, metres.
        shape: whether identity, pose and expression move as well; else skin and light alone.
        """
        views = [_View(self, camera, one, detail) for one in seen]
        identity, albedo, coefficients = identity.astype(float), albedo.astype(float), light.coefficients.astype(float)
        start = identity.copy(), albedo.copy(), coefficients.copy()
        count_i, count_a = len(identity), len(albedo)
        damping = 1e-3
        best, kept = np.inf, None
        for step in range(steps + 1):
            energy = sum(view.linearise(identity, albedo, coefficients, shape) for view in views)
            energy += self._prior_energy(identity, albedo, coefficients, start)
            if energy < best:
                best, damping = energy, damping * 0.3
                kept = identity, albedo, coefficients, [view.state() for view in views]
            else:  # a step that made it worse is taken back, and the next one is shorter
                damping = min(damping * 10, 1e3)
                identity, albedo, coefficients, states = kept
                for view, state in zip(views, states):
                    view.restore(state)
                [view.linearise(identity, albedo, coefficients, shape) for view in views]
            if step == steps:
                break
            bright = max(float(np.abs(coefficients[0]).mean()), 0.1)
            precision = np.concatenate([
                np.full(count_i, 1 + 1 / _IDENTITY_KEEP**2), np.full(count_a, 1 + 1 / _ALBEDO_KEEP**2),
                np.full(27, 1 / (_LIGHT_KEEP * bright) ** 2),
            ])  # fmt: skip
            hessian = np.diag(precision)
            gradient = np.concatenate([
                identity + (identity - start[0]) / _IDENTITY_KEEP**2, albedo + (albedo - start[1]) / _ALBEDO_KEEP**2,
                (coefficients - start[2]).ravel() / (_LIGHT_KEEP * bright) ** 2,
            ])  # fmt: skip
            for view in views:
                reduced, right = view.eliminated(damping) if shape else (view.h_ss, view.g_s)
                hessian += reduced
                gradient += right
            diagonal = np.arange(len(hessian))
            hessian[diagonal, diagonal] *= 1 + damping
            if not shape:
                hessian[:count_i, :] = hessian[:, :count_i] = 0
                hessian[diagonal[:count_i], diagonal[:count_i]] = 1
                gradient[:count_i] = 0
            move = np.linalg.solve(hessian, -gradient)
            if shape:
                for view in views:
                    view.follow(move, damping)
            identity = np.clip(identity + move[:count_i], -3.5, 3.5)
            albedo = np.clip(albedo + move[count_i : count_i + count_a], -3.5, 3.5)
            coefficients = coefficients + move[count_i + count_a :].reshape(9, 3)
        identity, albedo, coefficients, states = kept
        for view, state in zip(views, states):
            view.restore(state)
        return Refined(
            identity, albedo, HarmonicLight(coefficients), tuple(v.code for v in views), np.array([v.residual for v in views])
        )  # fmt: skip

    def _prior_energy(self, identity, albedo, light, start) -> float:
        bright = max(float(np.abs(light[0]).mean()), 0.1)
        return float(
            (identity**2).sum() + ((identity - start[0]) ** 2).sum() / _IDENTITY_KEEP**2 + (albedo**2).sum()
            + ((albedo - start[1]) ** 2).sum() / _ALBEDO_KEEP**2 + ((light - start[2]) ** 2).sum() / (_LIGHT_KEEP * bright) ** 2
        )  # fmt: skip


class _View:
    """One frame: its linearised residuals, split into what is the frame's own and what is shared."""

    def __init__(self, refiner: Refiner, camera: Camera, seen: Seen, detail: np.ndarray | None):
        self._r, self._camera, self.code, self._start = refiner, camera, seen.code, seen.code
        model = refiner.model
        self._detail = np.zeros((478, 3)) if detail is None else detail
        spread = np.zeros(refiner.prior.mean.shape) if detail is None else spread_offsets(refiner.prior, detail)
        self._neutral = refiner._mean + spread[refiner._at]
        self._base = refiner.prior.mean + spread
        self._landmarks = None if seen.landmarks is None else seen.landmarks[:, :2].astype(np.float64)
        if self._landmarks is None:
            shape = model.mean + np.tensordot(seen.code.expression, model.expression, 1)
            shown = camera.project(shape @ seen.code.rotation.T + seen.code.translation)[:, :2]
        else:
            shown = self._landmarks
        self._sigma = SIGMA * max(float(inter_ocular(shown)), 1.0)
        self._points, self._points_weight = None, None
        if seen.points is not None:
            self._points = seen.points.at
            weight = 1 / (np.square(seen.points.doubt) + self._sigma**2)
            if self._landmarks is not None:
                weight *= model.weight.sum() / self._sigma**2 / weight.sum()
            self._points_weight = weight
        low, high = shown[:468].min(0), shown[:468].max(0)
        middle, reach = (low + high) / 2, float(max((high - low).max(), 16.0)) * 0.7
        self._corner, self._scale = middle - reach, _CROP / (2 * reach)
        matrix = np.array([[self._scale, 0, -self._corner[0] * self._scale], [0, self._scale, -self._corner[1] * self._scale]])
        matrix[:, 2] += 0.5 * self._scale - 0.5  # OpenCV puts pixel centres at integers
        image = seen.image
        if self._scale < 0.5:
            image = cv2.GaussianBlur(image, (0, 0), 0.4 / self._scale)
        crop = cv2.warpAffine(image, matrix, (_CROP, _CROP), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        crop = cv2.GaussianBlur(crop.astype(np.float32) / 255, (0, 0), 1.0)
        self._crop = crop
        self._dx = cv2.Sobel(crop, cv2.CV_32F, 1, 0, ksize=3, scale=1 / 8)
        self._dy = cv2.Sobel(crop, cv2.CV_32F, 0, 1, ksize=3, scale=1 / 8)
        self._picture = image.shape[1], image.shape[0]
        self.residual = 0.0

    def state(self):
        return self.code, self.residual

    def restore(self, state) -> None:
        self.code, self.residual = state

    def _visible(self, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(normals of the whole head in camera axes, number among the compared vertices and share of those that are seen)."""
        r, code = self._r, self.code
        flat = identity @ r.prior.identity.reshape(len(identity), -1) + code.expression @ r.prior.expression.reshape(52, -1)
        head = (self._base + flat.reshape(-1, 3)) @ code.rotation.T + code.translation
        normals = np.empty(head.shape, np.float32)
        normals_into(head.astype(np.float32), r.prior.triangles, normals)
        shown = self._camera.project(head)
        shown[:, :2] = (shown[:, :2] - self._corner) * self._scale
        depth = rasterise(shown, r.prior.triangles, _CROP, _CROP).depth
        at = shown[r._at]
        column, row = at[:, 0].astype(int), at[:, 1].astype(int)
        inside = (at[:, 0] > 1) & (at[:, 1] > 1) & (at[:, 0] < _CROP - 2) & (at[:, 1] < _CROP - 2)
        width, height = self._picture
        full = at[:, :2] / self._scale + self._corner
        inside &= (full > 1).all(1) & (full[:, 0] < width - 1) & (full[:, 1] < height - 1)
        column, row = np.clip(column, 0, _CROP - 1), np.clip(row, 0, _CROP - 1)
        nearest = np.minimum(depth[row, column], depth[np.clip(row + 1, 0, _CROP - 1), np.clip(column + 1, 0, _CROP - 1)])
        view = head[r._at] / np.linalg.norm(head[r._at], axis=1, keepdims=True)
        facing = -(normals[r._at] * view).sum(1)
        seen = inside & (at[:, 2] < nearest + 0.006) & (facing > 0.15)
        return normals, np.flatnonzero(seen), np.clip(facing[seen] / 0.5, 0, 1)

    def _marks(self):
        """(where they were seen, the mean head's, bases, weights) of landmarks and of points."""
        r, model = self._r, self._r.model
        if self._landmarks is not None:
            bases = np.concatenate([model.flat_expression, model.identity.reshape(len(model.identity), -1)])
            yield self._landmarks, model.mean + self._detail, bases, model.weight / self._sigma**2
        if self._points is not None:
            mean = r._points_mean + r.prior.ibug68 @ self._detail
            yield self._points, mean, r._points_bases, self._points_weight

    def linearise(self, identity: np.ndarray, albedo: np.ndarray, light: np.ndarray, shape: bool) -> float:
        """Sets the normal equations about the present state; returns its energy."""
        r, code, camera = self._r, self.code, self._camera
        normals, seen, share = self._visible(identity)
        count_i, count_a = len(identity), len(albedo)
        xyz = (seen[:, None] * 3 + np.arange(3)).ravel()
        bases = np.concatenate([r._expression[:, xyz], r._identity[:, xyz]])
        point = self._neutral[seen] + (np.concatenate([code.expression, identity]) @ bases).reshape(-1, 3)
        half = camera.width / 2, camera.height / 2
        projected, jac = jacobian(point, bases, code.rotation, code.translation, camera.focal, *half)
        where = ((projected - self._corner) * self._scale).astype(np.float32) - np.float32(0.5)
        take = lambda field: cv2.remap(field, where[:, None, 0], where[:, None, 1], cv2.INTER_LINEAR)[:, 0].astype(np.float64)
        picture, dx, dy = take(self._crop), take(self._dx) * self._scale, take(self._dy) * self._scale
        normal = normals[r._at[seen]].astype(np.float64)
        values = basis(normal) * LAMBERT  # m x 9
        lit = values @ light
        held = lit > _LEAST_LIGHT
        lit = np.maximum(lit, _LEAST_LIGHT) * r._open[seen, None]
        skin = 1 / (1 + np.exp(-(r._albedo_mean[seen] + np.tensordot(albedo, r._albedo[:, seen], 1))))
        colour, slope = _encoded(skin * lit)
        residual = colour - picture
        square = (residual**2).sum(1)
        total = square / (1 + square / (3 * _OUTLIER**2))
        weight = share / (1 + square / (3 * _OUTLIER**2)) ** 2 / _COLOUR**2
        self.residual = float(np.sqrt((square * share).sum() / max(3 * share.sum(), 1)))
        energy = float((total * share).sum() / _COLOUR**2)
        m = len(seen)
        columns = 58 + count_i + count_a + 27
        full = np.zeros((m, 3, columns))
        if shape:
            j = jac.reshape(m, 2, -1)
            full[:, :, : 58 + count_i] = -(dx[:, :, None] * j[:, 0, None] + dy[:, :, None] * j[:, 1, None])
        to_skin = slope * lit * skin * (1 - skin)
        full[:, :, 58 + count_i : 58 + count_i + count_a] = to_skin[:, :, None] * r._albedo[:, seen].transpose(1, 2, 0)
        to_light = slope * skin * r._open[seen, None] * held
        for k in range(3):
            full[:, k, 58 + count_i + count_a + k :: 3] = to_light[:, k, None] * values
        root = np.sqrt(weight)[:, None]
        rows = (full * root[..., None]).reshape(-1, columns)
        errors = (residual * root).ravel()
        h, g = rows.T @ rows, rows.T @ errors
        if shape:
            for points, mean, bases, weight in self._marks():
                marks = mean + (np.concatenate([code.expression, identity]) @ bases).reshape(-1, 3)
                shown, jl = jacobian(marks, bases, code.rotation, code.translation, camera.focal, *half)
                scale = np.repeat(np.sqrt(weight), 2)
                apart = (shown - points).ravel() * scale
                jl = jl * scale[:, None]
                h[: 58 + count_i, : 58 + count_i] += jl.T @ jl
                g[: 58 + count_i] += jl.T @ apart
                energy += float(apart @ apart)
        away = code.expression - self._start.expression
        h[np.arange(6, 58), np.arange(6, 58)] += 1 / _KEEP**2 + 0.1 / EXPRESSION_SIGMA**2
        g[6:58] += away / _KEEP**2 + 0.1 * code.expression / EXPRESSION_SIGMA**2
        energy += float((away**2).sum() / _KEEP**2 + 0.1 * (code.expression**2).sum() / EXPRESSION_SIGMA**2)
        if self._landmarks is None:  # nothing else holds the pose where the pixels say little
            precision = np.repeat([1 / _TURN_KEEP**2, 1 / (_MOVE_KEEP * max(self._start.translation[2], 0.2)) ** 2], 3)
            turned = cv2.Rodrigues(code.rotation @ self._start.rotation.T)[0][:, 0]
            away = np.concatenate([turned, code.translation - self._start.translation])
            h[np.arange(6), np.arange(6)] += precision
            g[:6] += precision * away
            energy += float(precision @ away**2)
        self._h_oo, self._g_o, self._h_os = h[:58, :58], g[:58], h[:58, 58:]
        self.h_ss, self.g_s = h[58:, 58:], g[58:]
        return energy

    def _damped(self, damping: float) -> np.ndarray:
        own = self._h_oo.copy()
        own[np.arange(58), np.arange(58)] *= 1 + damping
        own[np.arange(6), np.arange(6)] += 1e-6
        return own

    def eliminated(self, damping: float) -> tuple[np.ndarray, np.ndarray]:
        """The shared unknowns' normal equations with this frame's own solved for; expressions held at a bound take no part."""
        value, slope = self.code.expression, self._g_o[6:]
        held = np.concatenate([np.zeros(6, bool), ((value <= 0) & (slope > 0)) | ((value >= 1) & (slope < 0))])
        free = np.flatnonzero(~held)
        own = self._damped(damping)[np.ix_(free, free)]
        solved = np.linalg.solve(own, np.concatenate([self._h_os[free], self._g_o[free, None]], 1))
        return self.h_ss - self._h_os[free].T @ solved[:, :-1], self.g_s - self._h_os[free].T @ solved[:, -1]

    def follow(self, move: np.ndarray, damping: float) -> None:
        """Takes this frame's own step, given the shared one."""
        code = self.code
        step = bounded_step(self._damped(damping), self._g_o + self._h_os @ move, code.expression)
        translation = code.translation + step[3:6]
        translation[2] = max(translation[2], 0.05)
        expression = with_look(np.clip(code.expression + step[6:], 0, 1), code.gaze)
        self.code = replace(
            code, rotation=rotation_of_vector(step[:3]) @ code.rotation, translation=translation, expression=expression
        )
