"""The baked face prior: shape, names, symmetry, speed-free properties of its evaluation."""

import numpy as np
import pytest
import torch
from safetensors import safe_open

from models.code import FaceCode
from models.head import Head, angles_of_look, gaze_in_head, look_in_camera, look_of_angles, rotation_of_gaze, spread_offsets
from models.prior.bake import EYE_DISTANCE, _turns
from models.prior.face import EXPRESSIONS, IBUG_INNER, gaze_rotation, prior_path
from tests.conftest import Synthetic, expression, turned


def test_names_and_sizes(prior):
    assert len(EXPRESSIONS) == len(set(EXPRESSIONS)) == len(prior.expression) == 52
    assert prior.identity.shape == (80, *prior.mean.shape)
    assert len(prior.landmark_triangle) == 478 and len(IBUG_INNER) == len(set(IBUG_INNER)) == 51
    assert set(np.unique(prior.region)) == set(range(len(prior.regions)))


def test_the_basis_keeps_nearly_all_variance(prior):
    with safe_open(str(prior_path()), framework="np") as file:
        assert float(file.metadata()["identity_variance"]) > 0.99


def test_every_identity_has_the_same_eye_distance(prior):
    for seed in range(3):
        eyes = Head(prior, Synthetic(prior, seed).person).eyes
        assert np.linalg.norm(eyes[0] - eyes[1]) == pytest.approx(EYE_DISTANCE, abs=5e-4)


def test_turns_are_found_whatever_the_place(prior):
    rng = np.random.default_rng(0)
    given = np.stack([turned(*rng.uniform(-0.5, 0.5, 3)) for _ in range(5)])
    target = prior.mean[::7].astype(float)
    points = (target - rng.normal(size=(5, 1, 3))) @ given  # rows: R^T x
    assert np.abs(_turns(points, target, rng.uniform(0.1, 1, len(target))) - given).max() < 1e-9


def test_every_identity_faces_ahead(prior):
    """What a head's pose is must not hang on who it is: anny alone tilts faces with their shape."""
    face = (prior.face_weight > 0) & (prior.part == 0)
    identities = np.random.default_rng(0).normal(size=(200, len(prior.identity)))
    heads = prior.mean[face] + np.tensordot(identities, prior.identity[:, face], 1)
    turns = _turns(heads, prior.mean[face].astype(float), prior.face_weight[face])
    off = np.degrees(np.arccos(np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    assert np.sqrt((off**2).mean()) < 0.8


def test_left_and_right_expressions_mirror_each_other(prior):
    flip = np.array([-1.0, 1, 1])
    paired = np.linalg.norm(prior.mean[prior.mirror] - prior.mean * flip, axis=1) < 1e-3
    skin = paired & (prior.part == 0)
    for name in ("browDown", "eyeBlink", "mouthSmile", "noseSneer"):
        left = prior.expression[EXPRESSIONS.index(name + "Left")]
        right = prior.expression[EXPRESSIONS.index(name + "Right")]
        assert np.abs(left[prior.mirror][skin] * flip - right[skin]).max() < 1.5e-3, name


def test_expressions_move_what_their_names_say(prior):
    points = prior.at_landmarks(prior.mean)
    gap = lambda values: np.linalg.norm(
        (points + prior.at_landmarks(np.tensordot(values, prior.expression, 1)))[[13, 159, 386]]
        - (points + prior.at_landmarks(np.tensordot(values, prior.expression, 1)))[[14, 145, 374]], axis=1,
    )  # fmt: skip
    rest = gap(np.zeros(52))
    assert gap(expression(jawOpen=1))[0] > rest[0] + 0.015
    assert gap(expression(eyeBlinkLeft=1))[2] < 0.4 * rest[2]
    assert gap(expression(eyeBlinkLeft=1))[1] == pytest.approx(rest[1], abs=1e-3)


def test_torch_and_numpy_evaluations_agree(prior):
    head = Synthetic(prior, 4)
    values, gaze = expression(jawOpen=0.4, mouthSmileLeft=0.6), np.array([[0.2, -0.1], [0.15, -0.1]])
    ours = Head(prior, head.person).shaped(values, gaze)
    theirs = prior.vertices(
        torch.tensor(head.person.identity).float(), torch.tensor(values).float(), torch.tensor(gaze).float()
    ).numpy()
    assert np.abs(ours - theirs).max() < 1e-6


def test_evaluation_is_batched_and_differentiable(prior):
    identity = torch.zeros(3, 80, dtype=torch.float32, requires_grad=True)
    values = torch.zeros(3, 52, requires_grad=True)
    gaze = torch.zeros(3, 2, 2, requires_grad=True)
    vertices = prior.vertices(identity, values, gaze)
    assert vertices.shape == (3, *prior.mean.shape)
    vertices.square().sum().backward()
    assert all(t.grad is not None and torch.isfinite(t.grad).all() and t.grad.abs().sum() > 0 for t in (identity, values, gaze))


def test_landmarks_lie_on_the_skin_and_the_irises_on_the_eyes(prior):
    regions = np.array(prior.regions)[prior.region[prior.landmark_triangle]]
    assert set(regions[468:]) == {"eyeballs"}
    assert set(regions[:468]) <= {"skin", "lips", "eyelids", "ears", "scalp", "neck"}
    assert np.allclose(prior.landmark_barycentric.sum(1), 1, atol=1e-5)


def test_gaze_conventions():
    straight = np.array([0.0, 0, -1])
    for gaze in ((0.3, 0.0), (0.0, 0.2), (-0.4, 0.1)):
        look = rotation_of_gaze(np.array(gaze)) @ straight
        assert np.allclose(gaze_rotation(torch.tensor(gaze, dtype=torch.float64)).numpy() @ straight, look)
        assert np.allclose(angles_of_look(look), gaze) and np.allclose(look_of_angles(np.array(gaze)), look)
    assert (rotation_of_gaze(np.array([0.3, 0])) @ straight)[0] > 0  # yaw > 0 looks to +x
    assert (rotation_of_gaze(np.array([0, 0.3])) @ straight)[1] > 0  # pitch > 0 looks down
    rotation, gaze = turned(0.4, 0.2, 0.1), np.array([[0.2, -0.1], [0.1, 0.05]])
    assert np.allclose(gaze_in_head(rotation, look_in_camera(rotation, gaze)), gaze)


def test_eyeballs_turn_about_their_centres(prior):
    head = Head(prior, Synthetic(prior, 1).person)
    ball = prior.part == 1
    straight = head.shaped(np.zeros(52), np.zeros((2, 2)))[ball]
    aside = head.shaped(np.zeros(52), np.array([[0.4, 0.1], [0, 0]]))[ball]
    centre = straight.mean(0)
    assert np.allclose(np.linalg.norm(straight - centre, axis=1), np.linalg.norm(aside - centre, axis=1), atol=1e-6)
    assert np.abs(aside - straight).max() > 2e-3


def test_spread_offsets_pass_near_the_landmarks_and_are_smooth(prior):
    rng = np.random.default_rng(0)
    points = prior.at_landmarks(prior.mean)
    wanted = 0.002 * np.stack([np.sin(30 * points[:, 1]), np.cos(25 * points[:, 0]), 0 * points[:, 0]], 1)
    field = spread_offsets(prior, wanted + rng.normal(0, 1e-5, wanted.shape))
    reached = prior.at_landmarks(field)[:468]
    assert np.abs(reached - wanted[:468]).mean() < 2.5e-4
    edges = prior.triangles[:, :2]
    skin = (prior.part[edges] == 0).all(1)
    assert np.abs(field[edges[skin, 0]] - field[edges[skin, 1]]).max() < 2e-3


def test_posed_vertices_are_rigid_in_pose(prior):
    head = Head(prior, Synthetic(prior, 2).person)
    code = FaceCode(np.zeros(52), turned(0.3, 0.1, -0.2), np.array([0.02, -0.01, 0.7]))
    posed = head.posed(code)
    assert np.allclose((posed - code.translation) @ code.rotation, head.shaped(np.zeros(52), np.zeros((2, 2))), atol=1e-5)


def test_the_68_points_lie_as_ibugs_do(prior):
    """Rows are means; the jaw runs in even steps from the right temple over the chin to the left one."""
    assert np.allclose(prior.ibug68.sum(1), 1) and (prior.ibug68 >= 0).all()
    points = prior.ibug68 @ prior.at_landmarks(prior.mean)
    jaw = points[:17]
    assert (np.diff(jaw[:, 0]) > 0).all() and np.argmax(jaw[:, 1]) == 8
    steps = np.linalg.norm(np.diff(jaw, axis=0), axis=1)
    assert np.abs(steps / steps.mean() - 1).max() < 0.25
    assert np.abs(points[:17] * [-1, 1, 1] - points[16::-1]).max() < 0.004  # left and right alike
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]  # eye corners, the person's right first
