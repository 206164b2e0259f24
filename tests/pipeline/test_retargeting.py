"""From one person's motion to another's; and what is shown when the driver is lost."""

from dataclasses import replace

import numpy as np
import pytest

from models.code import Camera, FaceCode, Person
from models.head import look_in_camera, with_look
from models.prior.face import EXPRESSIONS
from pipeline.reenactment import Reenactment, Settings
from pipeline.retargeting import (
    EASE,
    FADE,
    HOLD,
    Ease,
    Gains,
    LossGuard,
    Retargeter,
    blend_codes,
    carry_expression,
    rotation_power,
)
from tests.conftest import expression, turned


def person(focal: float = 640.0, size: int = 512, neutral=None, look=(0.0, 0.0)) -> Person:
    return Person(
        np.zeros(80), np.zeros((478, 3)), Camera(focal, size, size), np.zeros(52) if neutral is None else neutral,
        np.tile(np.array(look), (2, 1)),
    )  # fmt: skip


def code(values=None, pose=(0, 0, 0), place=(0, 0, 0.6), gaze=(0.0, 0.0)) -> FaceCode:
    gaze = np.tile(np.array(gaze), (2, 1))
    values = np.zeros(52) if values is None else values
    return FaceCode(with_look(values, gaze), turned(*pose), np.array(place, float), gaze)


def test_expressions_map_end_to_end():
    low, high = np.array([0.2]), np.array([0.5])
    assert carry_expression(np.array([0.0]), low, high) == 0
    assert carry_expression(np.array([0.2]), low, high) == pytest.approx(0.5)
    assert carry_expression(np.array([1.0]), low, high) == pytest.approx(1)


def test_the_drivers_rest_gives_the_sources_rest_and_pose():
    reference = code(pose=(0.1, 0.2, 0), place=(0.05, 0, 0.8))
    driver = person(neutral=expression(mouthFrownLeft=0.3), look=look_in_camera(reference.rotation, reference.gaze)[0])
    rest = expression(mouthSmileLeft=0.2)
    mine = code(rest, pose=(-0.3, 0, 0), gaze=(0.1, 0))
    source = person(look=look_in_camera(mine.rotation, mine.gaze)[0])
    carry = Retargeter(source, driver, rest, reference)
    out = carry(replace(reference, expression=expression(mouthFrownLeft=0.3)), mine)
    assert np.allclose(out.rotation, mine.rotation) and np.allclose(out.translation, mine.translation)
    assert np.allclose(out.gaze, mine.gaze, atol=1e-6)
    names = [i for i, n in enumerate(EXPRESSIONS) if not n.startswith("eyeLook")]
    assert np.allclose(out.expression[names], rest[names])


def test_pose_modes():
    reference, driver_now = code(), code(pose=(0.2, 0, 0), place=(0.02, 0, 0.55))
    mine = code(pose=(0.1, 0, 0), place=(0, 0.05, 0.7))
    for pose, rotation, translation in (
        ("relative", turned(0.2) @ turned(0.1), (0.02, 0.05, 0.65)),
        ("absolute", turned(0.2), (0.02, 0, 0.55)),
        ("off", turned(0.1), (0, 0.05, 0.7)),
    ):
        out = Retargeter(person(), person(), np.zeros(52), reference, pose)(driver_now, mine)
        assert np.allclose(out.rotation, rotation) and np.allclose(out.translation, translation), pose


def test_eye_contact_survives_a_turned_head():
    """The driver keeps looking into the camera while turning; so does the source, whose head is turned otherwise."""
    reference = code()
    mine = code(pose=(0.3, 0, 0), gaze=(-0.3, 0))  # looks along the camera's axis, too
    source = person(look=look_in_camera(mine.rotation, mine.gaze)[0])
    assert np.allclose(source.neutral_look, 0, atol=0.02)
    now = code(pose=(0.25, 0, 0), gaze=(-0.25, 0))
    for pose in ("relative", "off"):
        out = Retargeter(source, person(), np.zeros(52), reference, pose)(now, mine)
        assert np.abs(look_in_camera(out.rotation, out.gaze)).max() < 0.03, pose


def test_gains_scale_deviations_from_rest():
    rest = expression(jawOpen=0.1)
    carry = Retargeter(person(), person(), rest, code(), gains=Gains(mouth=0.0, brows=2.0))
    out = carry(code(expression(jawOpen=0.6, browInnerUp=0.3)), code())
    assert out.expression[EXPRESSIONS.index("jawOpen")] == pytest.approx(0.1)
    assert out.expression[EXPRESSIONS.index("browInnerUp")] == pytest.approx(0.6)
    assert np.allclose(rotation_power(turned(0.4), 0.5), turned(0.2), atol=1e-9)


def test_size_and_distance_never_become_expression():
    """The same face nearer to the camera gives the same expression."""
    carry = Retargeter(person(), person(), np.zeros(52), code())
    near, far = (carry(code(expression(jawOpen=0.3), place=(0, 0, z)), code()) for z in (0.4, 0.9))
    assert np.array_equal(near.expression, far.expression)


def test_a_lost_face_is_held_then_fades_to_rest_then_eases_back():
    guard, rest = LossGuard(), code()
    here = code(expression(jawOpen=0.8), pose=(0.4, 0, 0))
    jaw = EXPRESSIONS.index("jawOpen")
    assert guard(here, rest, 0.0).expression[jaw] == pytest.approx(0.8)
    times = np.arange(0.1, HOLD + FADE + 0.5, 1 / 30)
    shown = np.array([guard(None, rest, t).expression[jaw] for t in times])
    assert np.allclose(shown[times < 0.1 + HOLD], 0.8)
    assert (np.diff(shown) <= 1e-9).all() and shown[-1] == pytest.approx(0)
    back = [guard(here, rest, times[-1] + k / 30).expression[jaw] for k in range(1, 20)]
    assert back[0] < 0.3 and back[-1] == pytest.approx(0.8)
    assert np.abs(np.diff([*shown, *back])).max() < 0.2  # no jump at any moment


def test_before_anyone_is_seen_the_source_rests():
    guard, rest = LossGuard(), code(expression(mouthSmileLeft=0.2))
    assert np.array_equal(guard(None, rest, 0.0).expression, rest.expression)


def test_blends_of_codes_stay_valid():
    a, b = code(pose=(1.0, 0, 0)), code(expression(jawOpen=1), pose=(-1.0, 0.3, 0))
    mid = blend_codes(a, b, 0.5)
    assert np.allclose(mid.rotation @ mid.rotation.T, np.eye(3), atol=1e-9)
    assert mid.expression[EXPRESSIONS.index("jawOpen")] == pytest.approx(0.5)


def test_another_reading_of_the_driver_is_taken_up_without_a_jump():
    before = FaceCode(expression(jawOpen=0.2), turned(0.3, 0.1), np.array([0.02, 0.0, 0.6]), np.full((2, 2), 0.1))
    after = FaceCode(expression(jawOpen=0.5), turned(0.1), np.array([0.0, 0.01, 0.62]), np.zeros((2, 2)))
    ease = Ease.between(before, after, 1.0)
    at_once = ease(after, 1.0)
    assert at_once.expression == pytest.approx(before.expression) and at_once.rotation == pytest.approx(before.rotation)
    assert at_once.translation == pytest.approx(before.translation) and at_once.gaze == pytest.approx(before.gaze)
    moved = FaceCode(expression(jawOpen=0.8), turned(0.1, 0.3), after.translation, after.gaze)
    assert ease(moved, 1.0).expression.max() == pytest.approx(0.5)  # motion goes on meanwhile
    steps = [ease(after, 1.0 + t * EASE).expression.max() for t in np.linspace(0, 0.999, 20)]
    assert np.all(np.diff(steps) > 0) and steps[-1] == pytest.approx(0.5, abs=0.01)
    assert ease(after, 1.0 + EASE) is None and ease(after, 0.5) is None


def test_a_better_fit_of_the_driver_does_not_make_the_picture_jump():
    """Reenactments that follow each other show codes that do; one that comes later, or of another puppet, starts by itself."""
    shown = []

    class Puppet:
        person, rest, base, is_video = person(), np.zeros(52), code(), False

        def __call__(self, code, camera, time, plate=None, matte=None):
            shown.append(code)

    puppet = Puppet()
    first = Reenactment(puppet, person(), code(place=(0, 0, 0.6)), Settings())
    driver = code(expression(jawOpen=0.4), pose=(0.2, 0, 0), place=(0.05, 0, 0.6))
    for k in range(3):
        first(driver, k / 30)
    better = person(neutral=expression(jawOpen=0.2))
    second = Reenactment(puppet, better, code(place=(0.03, 0, 0.6)), Settings(), previous=first)
    for k in range(3, 40):
        second(driver, k / 30)
    moves = [float(np.linalg.norm(b.translation - a.translation)) for a, b in zip(shown, shown[1:])]
    assert moves[2] < 1e-9 and max(moves) < 0.005 and shown[-1].translation[0] == pytest.approx(0.02)
    alone = Reenactment(puppet, better, code(place=(0.03, 0, 0.6)), Settings())
    alone(driver, 39 / 30)
    assert shown[-1].expression == pytest.approx(shown[-2].expression) and shown[-1].translation == pytest.approx(
        shown[-2].translation
    )
    late = Reenactment(puppet, better, code(place=(0.05, 0, 0.6)), Settings(), previous=second)
    late(driver, 9.0)
    assert shown[-1].translation[0] == pytest.approx(0.0)
