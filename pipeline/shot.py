"""Fits what stays the same over a shot: focal length, identity, the landmarks' personal detail, the resting face.

A joint Gauss-Newton over keyframes: the shared unknowns are kept, each frame's own are eliminated (Schur complement,
Triggs et al. 2000, section 6).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from models.code import Camera, Person
from models.head import LOOK, with_look
from pipeline.fitting import (
    EXPRESSION_SIGMA,
    SIGMA,
    FrameFitter,
    LandmarkModel,
    bounded_step,
    initial_pose,
    inter_ocular,
    jacobian,
    look_direction,
    rotation_of_vector,
)

KEYFRAMES = 32
FOCAL_SPREAD = 0.25  # standard deviation of log focal length about a webcam's
TYPICAL_FOCAL = 1.25  # of the picture's longer side: 44 degrees across
DETAIL_SIGMA = 0.0015  # metres
NEUTRAL_SHARE = 0.35
_THREADS = 2


def shape_signature(landmarks: np.ndarray) -> np.ndarray:
    """A face's landmarks without place and size, for telling how different two frames are: 956 values."""
    shape = landmarks[:, :2] - landmarks[:468, :2].mean(0)
    return (shape / max(float(inter_ocular(landmarks)), 1.0)).ravel()


@dataclass(frozen=True)
class Expected:
    """What is expected of a person's identity before any landmark is seen: 80 means and standard deviations."""

    identity: np.ndarray
    spread: np.ndarray


def fit_person(
    model: LandmarkModel, landmarks: np.ndarray, width: int, height: int, expected: Expected | None = None, steps: int = 14
) -> Person:
    """The person of a shot from its keyframes' landmarks.

    Args:
        landmarks: N x 478 x 3 pixels with MediaPipe's depths, N >= 1.
        width, height: of the picture, pixels.
        expected: of their identity; None expects no more than the prior.
    """
    landmarks = landmarks.astype(np.float64)
    frames, points = landmarks.shape[:2]
    typical = TYPICAL_FOCAL * max(width, height)
    camera = Camera(typical, width, height)
    kinds = len(model.identity)
    expected = expected or Expected(np.zeros(kinds), np.ones(kinds))
    identity, detail = expected.identity.copy(), np.zeros((points, 3))
    sigma = SIGMA * np.maximum(inter_ocular(landmarks), 1.0)
    poses = [initial_pose(model.mean + np.tensordot(identity, model.identity, 1), frame, camera) for frame in landmarks]
    rotations, translations = [p[0] for p in poses], [p[1] for p in poses]
    expressions = np.zeros((frames, 52))
    rest = np.zeros(52)
    basis_i = model.identity.reshape(len(identity), -1)
    for step in range(steps):
        neutral = model.mean + (identity @ basis_i).reshape(points, 3)
        eyes = model.eye_centre + np.tensordot(identity, model.eye_centre_identity, 1)
        prior_i = np.concatenate([1 / expected.spread**2, [1 / FOCAL_SPREAD**2]])
        hessian = np.diag(prior_i)
        gradient = prior_i * np.concatenate([identity - expected.identity, [np.log(camera.focal / typical)]])
        eliminated = []
        shared = _Shared(neutral, eyes, camera, rest)
        each = zip(landmarks, rotations, translations, expressions, sigma)
        with ThreadPoolExecutor(_THREADS) as pool:  # the matrices' products let others run
            for h_ss, g_s, kept in pool.map(lambda own, now=shared: _without_own(model, now, *own), each):
                hessian += h_ss
                gradient += g_s
                eliminated.append(kept)
        move = np.linalg.solve(hessian, -gradient)
        move[-1] = np.clip(move[-1], -0.2, 0.2)
        identity = identity + move[:-1]
        ratio = np.exp(move[-1])
        camera = replace(camera, focal=camera.focal * ratio)
        for f, (h_oo, g_o, h_so) in enumerate(eliminated):
            own_step = bounded_step(h_oo, g_o + h_so.T @ move, expressions[f])
            rotations[f] = rotation_of_vector(own_step[:3]) @ rotations[f]
            translations[f] = translations[f] + own_step[3:6]
            translations[f][2] = max(translations[f][2], 0.05)
            expressions[f] = expressions[f] + own_step[6:]
        if step >= 3:
            rest = resting_expression(expressions)
        if step > 4 and np.abs(move).max() < 1e-3:
            break
    neutral = model.mean + (identity @ basis_i).reshape(points, 3)
    detail = _fit_detail(model, neutral, landmarks, expressions, rotations, translations, camera, sigma)
    return Person(identity, detail, camera, rest, np.zeros((2, 2)))


@dataclass(frozen=True)
class _Shared:
    """What all frames have in common, as estimated so far: landmarks and eyes' centres without expression, metres."""

    neutral: np.ndarray
    eyes: np.ndarray
    camera: Camera
    rest: np.ndarray


def _without_own(
    model: LandmarkModel, now: _Shared, landmarks: np.ndarray, rotation: np.ndarray, translation: np.ndarray,
    expression: np.ndarray, sigma: float,
) -> tuple[np.ndarray, np.ndarray, tuple]:  # fmt: skip
    """One frame's part of the shared unknowns' Hessian and gradient, its own eliminated; and what brings these back."""
    camera, points = now.camera, len(landmarks)
    width, height = camera.width, camera.height
    gaze = look_direction(landmarks, now.eyes, rotation, translation, camera, model.iris)
    calm = with_look(now.rest, gaze)
    precision = np.where(LOOK, 1e4, 1 / EXPRESSION_SIGMA**2)
    here = now.neutral + (expression @ model.flat_expression).reshape(points, 3)
    projected, jac = jacobian(here, model.flat_both, rotation, translation, camera.focal, width / 2, height / 2)
    weight = np.repeat(np.sqrt(model.weight) / sigma, 2)
    residual = (projected - landmarks[:, :2]).reshape(-1)
    focal_column = (projected - np.array([width / 2, height / 2])).reshape(-1, 1)  # d/d log focal
    whole = np.concatenate([jac, focal_column, residual[:, None]], 1)
    whole *= weight[:, None]
    gram = whole.T @ whole  # frame's own, common, residual
    h_oo, h_so, h_cc = gram[:58, :58], gram[58:-1, :58], gram[58:-1, 58:-1]
    h_oo[np.arange(6, 58), np.arange(6, 58)] += precision
    g_o, g_c = gram[:58, -1].copy(), gram[58:-1, -1]
    g_o[6:] += precision * (expression - calm)
    # expressions held at a bound do not move, so they take no part in the elimination
    held = np.concatenate([np.zeros(6, bool), ((expression <= 0) & (g_o[6:] > 0)) | ((expression >= 1) & (g_o[6:] < 0))])
    free = np.flatnonzero(~held)
    solved = np.linalg.solve(h_oo[np.ix_(free, free)], np.concatenate([h_so[:, free].T, g_o[free, None]], 1))
    h_ss = h_cc - h_so[:, free] @ solved[:, :-1]
    return h_ss, g_c - h_so[:, free] @ solved[:, -1], (np.ascontiguousarray(h_oo), g_o, h_so)


def resting_expression(expressions: np.ndarray) -> np.ndarray:
    """The resting face of a shot: in each channel what the calmer part of the frames shows.

    Speech and grimaces push a channel up from rest and never below it, so a low quantile finds it without anyone starting
    with a neutral face; blinks are too short to move it. With few frames it shrinks towards 0, the prior's own rest.
    """
    count = len(expressions)
    return np.quantile(expressions, NEUTRAL_SHARE, axis=0) * (1 - np.exp(-count / 12))


def _fit_detail(model, neutral, landmarks, expressions, rotations, translations, camera, sigma) -> np.ndarray:
    """Ridge regression of each landmark's own offset over the keyframes, in the head frame."""
    points = len(neutral)
    normal = np.zeros((points, 3, 3))
    right = np.zeros((points, 3))
    for f in range(len(landmarks)):
        here = neutral + (expressions[f] @ model.flat_expression).reshape(points, 3)
        basis = np.zeros((3, points, 3))
        for axis in range(3):
            basis[axis, :, axis] = 1
        projected, jac = jacobian(
            here, basis.reshape(3, -1), rotations[f], translations[f], camera.focal, camera.width / 2, camera.height / 2
        )
        d = jac[:, 6:].reshape(points, 2, 3) / sigma[f]
        residual = (landmarks[f, :, :2] - projected) / sigma[f]
        normal += np.einsum("pai,paj->pij", d, d)
        right += np.einsum("pai,pa->pi", d, residual)
    normal += np.eye(3) / DETAIL_SIGMA**2
    return np.linalg.solve(normal, right[..., None])[..., 0]


def frame_fitter(model: LandmarkModel, person: Person) -> FrameFitter:
    return FrameFitter(model, person)
