"""The portrait renderer: what must stay stays, what must move moves, and the torch version draws the same."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from models.code import FaceCode
from models.head import Head, with_look
from models.matting import ALONE, BESIDE
from models.portrait.mouth import openness, teeth_texture
from models.portrait.render import Portrait, content_box
from models.portrait.shade_torch import TorchShader
from tests.conftest import Synthetic, by_shapes_alone, expression, turned


@pytest.fixture(scope="module")
def sitter(prior):
    """A synthetic person on a striped wall, with their portrait, view, code and true matte."""
    head = Synthetic(prior, 3)
    code = head.code(gaze=(0.05, 0.02))
    picture = head.picture(code)
    matte = (np.abs(picture.astype(int) - picture[0, 0]).sum(-1) > 0).astype(np.float32)
    wall = np.zeros_like(picture)
    wall[:, ::2], wall[:, 1::2] = (60, 90, 120), (70, 100, 130)
    picture = np.where(matte[..., None] > 0, picture, wall)
    portrait = Portrait(Head(prior, head.person))
    return head, code, picture, matte, portrait, portrait.view(picture, code, matte)


def psnr(a, b, mask=None):
    error = (a.astype(float) - b.astype(float)) ** 2
    return 10 * np.log10(255**2 / max((error[mask] if mask is not None else error).mean(), 1e-9))


def test_an_unmoved_face_is_the_picture(sitter):
    _, code, picture, matte, portrait, view = sitter
    out = portrait.render(view, code)
    assert np.array_equal(out[matte == 0], picture[matte == 0])
    assert psnr(out, picture, matte > 0) > 30


@pytest.mark.parametrize(
    ("values", "pose", "gaze"),
    [
        (expression(jawOpen=0.5), (0, 0, 0), (0.05, 0.02)),
        (expression(mouthSmileLeft=0.8, mouthSmileRight=0.8), (0, 0, 0), (0.05, 0.02)),
        (expression(eyeBlinkLeft=1, eyeBlinkRight=1), (0, 0, 0), (0.05, 0.02)),
        (expression(browInnerUp=0.8), (0.25, 0.1, 0.1), (0.05, 0.02)),
        (expression(), (0, 0, 0), (0.35, 0.0)),
    ],
)
def test_a_moved_face_comes_nearer_to_the_truth_than_the_still_one(sitter, values, pose, gaze):
    head, code, picture, _, portrait, view = sitter
    target = replace(head.code(values, turned(*pose), gaze))
    truth = head.picture(target)
    face = np.zeros(truth.shape[:2], np.uint8)
    points = head.person.camera.project(head.prior.at_landmarks(portrait.head.posed(target)))[:468, :2]
    cv2.fillConvexPoly(face, cv2.convexHull(points.astype(np.int32)), 1)
    out = portrait.render(view, target)
    changed = (face > 0) & (np.abs(truth.astype(int) - picture).max(-1) > 12)
    assert changed.sum() > 100
    assert psnr(out, truth, changed) > psnr(picture, truth, changed) + 2


def test_the_far_background_never_moves(sitter):
    head, _, picture, _, portrait, view = sitter
    out = portrait.render(view, head.code(expression(jawOpen=0.7), turned(0.3)))
    assert np.array_equal(out[:, :6], picture[:, :6]) and np.array_equal(out[:, -6:], picture[:, -6:])


def test_closed_lids_hide_the_eyes(sitter):
    head, code, picture, _, portrait, view = sitter
    closed = portrait.render(view, head.code(expression(eyeBlinkLeft=1, eyeBlinkRight=1), gaze=(0.05, 0.02)))
    iris = head.person.camera.project(head.prior.at_landmarks(portrait.head.posed(code)))[[468, 473], :2].astype(int)
    for x, y in iris:
        before, after = (p[y - 1 : y + 2, x - 1 : x + 2].mean() for p in (picture, closed))
        assert before < 60 and after > 2 * before  # a dark iris gives way to skin


def test_an_open_mouth_shows_dark_and_teeth(sitter):
    head, _, _, _, portrait, view = sitter
    values = expression(jawOpen=0.6, mouthUpperUpLeft=0.5, mouthUpperUpRight=0.5)
    target = head.code(values)
    out = portrait.render(view, target)
    posed = portrait.head.posed(target)
    points = head.person.camera.project(head.prior.at_landmarks(posed))
    assert openness(points[:, :2]) > 0.3
    inner = np.zeros(out.shape[:2], np.uint8)
    ring = [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]
    cv2.fillPoly(inner, [points[ring, :2].astype(np.int32)], 1)
    grey = out[inner > 0].mean(-1)
    assert np.percentile(grey, 10) < 90 and np.percentile(grey, 97) > 120


def test_the_hidden_side_of_a_turned_head_is_filled(sitter):
    head, code, picture, _, portrait, view = sitter
    target = head.code(rotation=turned(0.7))
    out, truth = portrait.render(view, target), head.picture(target)
    wall = np.abs(truth.astype(int) - truth[0, 0]).sum(-1) == 0
    stripes = np.abs(out.astype(int) - picture).max(-1) == 0
    shown = ~wall
    shown[330:] = False  # the neck's cut edge
    assert (stripes & shown).sum() < 0.08 * shown.sum()


@pytest.mark.parametrize("pose", [(0, 0, 0), (0.2, 0.1, 0.05), (0.6, 0, 0)])
def test_torch_draws_what_numba_draws(sitter, pose):
    head, _, picture, matte, portrait, view = sitter
    target = head.code(expression(jawOpen=0.4, mouthSmileLeft=0.5), turned(*pose), (0.1, 0))
    fast = portrait.render(view, target)
    other = Portrait(portrait.head, portrait.layer)
    other._shader = TorchShader("cpu")
    slow = other.render(view, target)
    difference = np.abs(fast.astype(int) - slow).max(-1)
    assert (difference > 2).mean() < 1e-3 and difference.mean() < 0.05


def test_torch_draws_lent_mouths_as_numba_does(sitter, prior):
    head, code, picture, matte, portrait, _ = sitter
    wide = head.code(expression(jawOpen=0.6))
    mouths = [portrait.mouth(head.picture(target), target) for target in (wide, head.code(expression(jawOpen=0.3)))]
    room = tuple(np.max([mouth.patch.shape[:2] for mouth in mouths], axis=0))
    view = portrait.view(picture, code, matte, room=room)
    other = Portrait(portrait.head, portrait.layer)
    other._shader = TorchShader("cpu")
    for lent in ([(mouths[0], 1.0)], [(mouths[0], 0.6), (mouths[1], 0.4)], []):
        fast, slow = portrait.render(view, wide, mouths=lent), other.render(view, wide, mouths=lent)
        apart = np.abs(fast.astype(int) - slow).max(-1)
        assert (apart > 2).mean() < 1e-3 and apart.mean() < 0.05


@pytest.mark.parametrize("matte", [None, ALONE, BESIDE])
def test_nothing_in_the_torch_drawing_waits_for_the_device(sitter, captured, matte):
    head, _, _, _, portrait, view = sitter
    other = Portrait(portrait.head, portrait.layer)
    other._shader = TorchShader("cpu")
    draw, arrays = captured("models.portrait.shade_torch", lambda: other.render(view, head.code(), matte=matte))
    drawn = by_shapes_alone(draw, arrays)
    assert drawn.shape == (*view.matte.shape, 4 if matte else 3)


@pytest.mark.cuda
def test_cuda_draws_what_numba_draws(sitter):
    head, _, _, _, portrait, view = sitter
    target = head.code(expression(jawOpen=0.4), turned(0.2))
    fast = portrait.render(view, target)
    slow = Portrait(portrait.head, portrait.layer, "cuda").render(view, target)
    assert (np.abs(fast.astype(int) - slow).max(-1) > 2).mean() < 2e-3


def test_a_lent_mouth_is_shown(sitter):
    head, code, picture, matte, portrait, _ = sitter
    wide = head.code(expression(jawOpen=0.6), gaze=(0.05, 0.02))
    marked = head.picture(wide)
    points = head.person.camera.project(head.prior.at_landmarks(portrait.head.posed(wide)))
    x, y = points[[13, 14], :2].mean(0).astype(int)
    marked[y - 3 : y + 4, x - 5 : x + 6] = (0, 255, 0)
    mouth = portrait.mouth(marked, wide)
    view = portrait.view(picture, code, matte, room=(mouth.patch.shape[0] + 2, mouth.patch.shape[1] + 2))
    shown = portrait.render(view, wide, mouths=[(mouth, 1.0)])[y - 2 : y + 3, x - 3 : x + 4].reshape(-1, 3).mean(0)
    hidden = portrait.render(view, wide)[y - 2 : y + 3, x - 3 : x + 4].reshape(-1, 3).mean(0)
    assert shown[1] > 150 and shown[0] < 100 and hidden[1] < 100


def test_plain_bars_are_found():
    image = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    assert content_box(image) == (0, 0, 60, 40)
    image[:, :7], image[-4:] = 0, 0
    assert content_box(image) == (7, 0, 60, 36)
    assert content_box(np.zeros((40, 60, 3), np.uint8)) == (0, 0, 60, 40)


def test_teeth_end_in_gums():
    texture = teeth_texture(0.02, 4)
    assert texture[-4, 96].min() > 0.3 > texture[2, 96, 1]


def test_rest_is_reached_from_any_code(sitter):
    """Nothing of an earlier call is left in the renderer."""
    head, code, _, _, portrait, view = sitter
    first = portrait.render(view, code)
    portrait.render(view, head.code(expression(jawOpen=1), turned(0.5)))
    assert np.array_equal(portrait.render(view, code), first)


def test_codes_at_the_bounds_give_finite_pictures(sitter):
    _, code, _, _, portrait, view = sitter
    extreme = FaceCode(with_look(np.ones(52), np.full((2, 2), 0.6)), turned(1.2, 0.5, 0.6), np.array([0.1, 0.1, 0.3]))
    assert portrait.render(view, extreme).shape == view.canvas[: view.matte.shape[0], : view.matte.shape[1]].shape


def test_cut_out_the_person_moves_with_their_alpha(sitter):
    head, code, picture, matte, portrait, view = sitter
    still = portrait.render(view, code, matte=ALONE)
    assert still.shape == (*picture.shape[:2], 4)
    inside, outside = cv2.erode(matte, np.ones((5, 5))) > 0, cv2.dilate(matte, np.ones((9, 9))) == 0
    assert (still[inside, 3] == 255).all() and (still[outside, 3] == 0).all()
    assert psnr(still[..., :3], picture, inside) > 30
    target = head.code(expression(jawOpen=0.4), turned(0.3))
    moved, truth = portrait.render(view, target, matte=ALONE), head.picture(target)
    person = np.abs(truth.astype(int) - truth[0, 0]).sum(-1) > 0
    person[330:] = False  # the neck's cut edge
    alpha = moved[..., 3] > 127
    alpha[330:] = False
    assert (alpha & person).sum() > 0.93 * (alpha | person).sum()


@pytest.mark.parametrize("pose", [(0, 0, 0), (0.5, 0.1, 0)])
def test_beside_the_picture_as_it_is_lies_the_alpha_of_who_is_cut_out(sitter, pose):
    head, _, _, _, portrait, view = sitter
    target = head.code(expression(jawOpen=0.4), turned(*pose), (0.1, 0))
    whole, cut, both = (portrait.render(view, target, matte=matte) for matte in (None, ALONE, BESIDE))
    assert np.array_equal(both[..., :3], whole) and np.array_equal(both[..., 3], cut[..., 3])
    assert not np.array_equal(cut[..., :3], whole)


@pytest.mark.parametrize("matte", [ALONE, BESIDE])
@pytest.mark.parametrize("pose", [(0, 0, 0), (0.5, 0.1, 0)])
def test_torch_cuts_out_what_numba_cuts_out(sitter, pose, matte):
    head, _, _, _, portrait, view = sitter
    target = head.code(expression(jawOpen=0.4), turned(*pose), (0.1, 0))
    other = Portrait(portrait.head, portrait.layer)
    other._shader = TorchShader("cpu")
    fast, slow = (one.render(view, target, matte=matte).astype(int) for one in (portrait, other))
    apart = np.abs(fast - slow)
    if matte == ALONE:
        apart[fast[..., 3] == 0] = 0
    assert (apart.max(-1) > 2).mean() < 1e-3
