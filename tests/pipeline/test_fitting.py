"""The fitter against finite differences and against heads whose codes are known."""

import numpy as np
import pytest

from models.head import with_look
from pipeline.fitting import (
    LandmarkModel,
    bounded_step,
    initial_pose,
    inter_ocular,
    jacobian,
    look_direction,
    rotation_of_vector,
)
from pipeline.shot import Expected, fit_person, frame_fitter, resting_expression
from tests.conftest import expression, turned


@pytest.fixture(scope="module")
def model(prior):
    return LandmarkModel.of(prior)


def true_landmarks(model, head, code) -> np.ndarray:
    return frame_fitter(model, head.person).landmarks(code)


def angle(a, b) -> float:
    return float(np.degrees(np.arccos(np.clip((np.trace(a @ b.T) - 1) / 2, -1, 1))))


def test_the_jacobian_is_the_derivative(model):
    rng = np.random.default_rng(0)
    basis = np.ascontiguousarray(model.flat_expression[:6])
    values, rotation, translation = rng.uniform(0, 1, 6), turned(0.3, -0.2, 0.1), np.array([0.02, -0.03, 0.55])

    def projected(step):
        points = model.mean + ((values + step[6:]) @ basis).reshape(-1, 3)
        return jacobian(points, basis, rotation_of_vector(step[:3]) @ rotation, translation + step[3:6], 700.0, 256.0, 256.0)

    jac = projected(np.zeros(12))[1]
    for k in range(12):
        step = np.zeros(12)
        step[k] = 1e-6
        numeric = (projected(step)[0] - projected(-step)[0]).ravel() / 2e-6
        assert np.abs(numeric - jac[:, k]).max() < 1e-5 * max(np.abs(jac[:, k]).max(), 1), k


def test_bounded_steps_stay_inside_the_bounds_and_reach_the_best():
    from scipy.optimize import minimize

    rng = np.random.default_rng(1)
    for _ in range(5):
        root = rng.normal(0, 1, (16, 16))
        hessian, gradient = root @ root.T + 0.5 * np.eye(16), rng.normal(0, 3, 16)
        values = rng.uniform(0, 1, 10)
        total = np.zeros(16)
        for _ in range(12):  # as the fitter does, one after another
            step = bounded_step(hessian, gradient + hessian @ total, values + total[6:])
            total = total + step
            assert (values + total[6:] >= -1e-9).all() and (values + total[6:] <= 1 + 1e-9).all()

        def energy(s, hessian=hessian, gradient=gradient):
            return 0.5 * s @ hessian @ s + gradient @ s

        bounds = [(None, None)] * 6 + [(-v, 1 - v) for v in values]
        best = minimize(energy, np.zeros(16), bounds=bounds, method="L-BFGS-B").fun
        assert energy(total) <= best + 0.02 * abs(best)


def test_codes_come_back_from_their_own_landmarks(model, synthetic):
    head = synthetic(seed=1)
    fitter = frame_fitter(model, head.person)
    for values, pose, gaze in (
        (expression(jawOpen=0.5), (0.0, 0, 0), (0, 0)),
        (expression(mouthSmileLeft=0.7, mouthSmileRight=0.7, browInnerUp=0.5), (0.3, -0.1, 0.1), (0.1, 0)),
        (expression(eyeBlinkLeft=0.9, eyeBlinkRight=0.9, mouthPucker=0.6), (-0.4, 0.2, -0.1), (0, 0.1)),
    ):
        code = head.code(values, turned(*pose), gaze)
        truth = true_landmarks(model, head, code)
        fitter.forget()
        found = fitter(np.concatenate([truth, np.zeros((478, 1))], 1))
        for _ in range(6):
            found = fitter(np.concatenate([truth, np.zeros((478, 1))], 1))
        error = np.linalg.norm(fitter.landmarks(found) - truth, axis=1).mean() / inter_ocular(truth)
        assert error < 0.004
        assert angle(found.rotation, code.rotation) < 1.0
        for name in np.flatnonzero(values > 0.4):
            assert found.expression[name] > 0.4 * values[name]
        assert np.abs(found.gaze - code.gaze).max() < np.radians(3)


def test_one_shot_gives_focal_and_shape_that_explain_every_frame(model, synthetic):
    head = synthetic(seed=5, focal=900.0)
    rng = np.random.default_rng(2)
    codes = [
        head.code(
            expression(jawOpen=rng.uniform(0, 0.5), mouthSmileLeft=s, mouthSmileRight=s), turned(*rng.uniform(-0.4, 0.4, 3))
        )
        for s in rng.uniform(0, 0.6, 24)
    ]
    landmarks = np.stack([true_landmarks(model, head, c) for c in codes])
    depth = np.zeros((*landmarks.shape[:2], 1))
    person = fit_person(model, np.concatenate([landmarks, depth], -1), 512, 512)
    fitter = frame_fitter(model, person)
    errors, turns = [], []
    for code, truth in zip(codes, landmarks):
        fitter.forget()
        found = fitter(np.concatenate([truth, np.zeros((478, 1))], 1))
        errors.append(np.linalg.norm(fitter.landmarks(found) - truth, axis=1).mean() / inter_ocular(truth))
        turns.append(angle(found.rotation, code.rotation))
    assert np.mean(errors) < 0.006
    assert np.median(turns) < 3.0
    assert 0.6 < person.camera.focal / 900 < 1.6


def test_who_is_expected_is_found_where_landmarks_leave_it_open(model, synthetic):
    """One picture: what is expected holds as firmly as it is sure, and expecting the prior changes nothing."""
    head = synthetic(seed=5)
    noise = np.random.default_rng(0).normal(0, 1.5, (478, 2))
    seen = np.concatenate([true_landmarks(model, head, head.code()) + noise, np.zeros((478, 1))], 1)[None]
    true = head.person.identity
    off = lambda expected: np.abs(fit_person(model, seen, 512, 512, expected).identity - true).mean()
    firm, loose = (off(Expected(true, np.full(80, spread))) for spread in (0.05, 0.5))
    assert firm < 0.02 and firm < loose < off(None)
    plain = fit_person(model, seen, 512, 512, Expected(np.zeros(80), np.ones(80)))
    assert np.array_equal(plain.identity, fit_person(model, seen, 512, 512).identity)


def test_noise_in_the_landmarks_is_averaged_out(model, synthetic):
    head = synthetic(seed=2)
    code = head.code()
    truth = true_landmarks(model, head, code)
    rng = np.random.default_rng(0)
    turns = []
    for _ in range(10):
        fitter = frame_fitter(model, head.person)
        found = fitter(np.concatenate([truth + rng.normal(0, 1.0, truth.shape), np.zeros((478, 1))], 1))
        turns.append(angle(found.rotation, code.rotation))
    assert np.mean(turns) < 0.8


def test_the_initial_pose_is_near(model, synthetic):
    head = synthetic(seed=3)
    code = head.code(rotation=turned(0.3, 0.1, 0.2))
    posed = model.neutral(head.person) @ code.rotation.T + code.translation
    landmarks = head.person.camera.project(posed)
    landmarks[:, 2] = (posed[:, 2] - code.translation[2]) * head.person.camera.focal / code.translation[2]
    rotation, translation = initial_pose(model.neutral(head.person), landmarks, head.person.camera)
    assert angle(rotation, code.rotation) < 6
    assert np.linalg.norm(translation - code.translation) < 0.06


def test_looks_come_back_from_the_irises(model, synthetic):
    head = synthetic(seed=0)
    eyes = model.eyes(head.person)
    for yaw, pitch in ((0, 0), (0.3, 0.1), (-0.25, -0.2)):
        code = head.code(rotation=turned(0.2, 0.1), gaze=(yaw, pitch))
        points = frame_fitter(model, head.person).landmarks(code)
        gaze = look_direction(points, eyes, code.rotation, code.translation, head.person.camera, model.iris)
        assert np.abs(gaze - code.gaze).max() < np.radians(4)


def test_the_lids_follow_the_gaze():
    values = with_look(np.zeros(52), np.array([[0.2, 0.0], [0.2, 0.0]]))
    from models.prior.face import EXPRESSIONS

    named = dict(zip(EXPRESSIONS, values))
    assert named["eyeLookOutLeft"] > 0.3 and named["eyeLookInRight"] > 0.3  # both towards the person's left
    assert named["eyeLookInLeft"] == named["eyeLookOutRight"] == 0


def test_rest_is_found_though_nobody_started_neutral():
    rng = np.random.default_rng(0)
    frames = np.zeros((32, 52))
    frames[:, 3] = 0.2 + np.maximum(0, rng.normal(0, 0.4, 32))  # raised brows that are this person's rest, and more at times
    frames[5:8, 8] = 1.0  # a blink
    rest = resting_expression(frames)
    assert rest[3] == pytest.approx(0.2, abs=0.1) and rest[8] < 0.05
