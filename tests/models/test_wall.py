"""Shadows on a wall: where geometry says they fall, and how dark they are."""

from __future__ import annotations

import cv2
import numpy as np

from models.light.lights import Lamp, ambient_light
from models.relight.wall import kept_on_wall

SIZE, FOCAL, RADIUS = 240, 300.0, 24
HEAD = np.array([0.0, 0.0, 0.6])
BEHIND = 0.6  # metres: the wall is twice as far as the head


def disc() -> np.ndarray:
    """A round head in the middle."""
    return cv2.circle(np.zeros((SIZE, SIZE), np.float32), (SIZE // 2, SIZE // 2), RADIUS, 1.0, -1)


def sun(x: float, y: float, z: float, **how) -> Lamp:
    return Lamp("directional", np.full(3, 0.7), direction=np.array([x, y, z]) / np.linalg.norm([x, y, z]), **how)


def middle_of(dark: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(dark)
    return np.array([columns.mean(), rows.mean()]) - (SIZE - 1) / 2


def test_a_distant_lamp_throws_the_shadow_aside_at_half_the_size():
    lamp = sun(-0.4, -0.3, -1.0)
    kept = kept_on_wall(disc(), ambient_light(np.full(3, 0.2), (lamp,)), FOCAL, HEAD, BEHIND)
    # the way from the head on, away from the lamp, to the wall: metres, then pixels
    on_wall = BEHIND * np.array([0.4, 0.3])
    assert np.abs(middle_of(kept[..., 0] < 0.5) - FOCAL * on_wall / (HEAD[2] + BEHIND)).max() < 1.5
    size = 2 * np.sqrt((kept[..., 0] < 0.6).sum() / np.pi)
    assert abs(size - RADIUS) < 3  # half of the disc's diameter
    arriving = 0.7 * -lamp.direction[2]
    assert np.abs(kept.min((0, 1)) - 0.2 / (0.2 + arriving)).max() < 0.02
    assert kept[0, 0, 0] > 0.999


def test_a_lamp_near_by_throws_a_larger_shadow():
    place = np.array([-0.1, 0.0, -0.3])  # from the head
    light = ambient_light(np.full(3, 0.1), (Lamp("point", np.ones(3), position=place),))
    dark = kept_on_wall(disc(), light, FOCAL, HEAD, BEHIND)[..., 1] < 0.6
    lamp = HEAD + place
    reach = (HEAD[2] + BEHIND - lamp[2]) / (HEAD[2] - lamp[2])  # the disc seen from the lamp, carried on to the wall
    expected = (lamp + reach * (HEAD - lamp))[:2] * FOCAL / (HEAD[2] + BEHIND)
    assert np.abs(middle_of(dark) - expected).max() < 2.5
    assert abs(2 * np.sqrt(dark.sum() / np.pi) - 2 * RADIUS * reach / 2) < 6


def test_a_lamp_at_the_camera_hides_the_shadow_behind_the_person():
    light = ambient_light(np.full(3, 0.1), (Lamp("point", np.ones(3), position=-HEAD),))
    dark = kept_on_wall(disc(), light, FOCAL, HEAD, BEHIND)[..., 0] < 0.6
    assert not (dark & (cv2.dilate(disc(), np.ones((5, 5), np.uint8)) == 0)).any()
    assert dark.sum() > 0.8 * disc().sum()


def test_a_large_lamp_blurs_the_edge():
    softness = []
    for size in (0.01, 0.1):
        lamp = Lamp("area", np.ones(3), position=np.array([-0.5, 0.0, -0.8]), size=size)
        kept = kept_on_wall(disc(), ambient_light(np.full(3, 0.1), (lamp,)), FOCAL, HEAD, BEHIND)[..., 0]
        softness.append(((kept > kept.min() + 0.1) & (kept < 0.9)).sum())
    assert softness[1] > 2 * softness[0]


def test_whoever_is_cut_off_below_goes_on_there():
    matte = np.zeros((SIZE, SIZE), np.float32)
    matte[SIZE // 2 :, 90:150] = 1
    kept = kept_on_wall(matte, ambient_light(np.full(3, 0.1), (sun(0, 0.5, -1.0),)), FOCAL, HEAD, BEHIND)[..., 0]
    assert (kept[-1] < 0.5).any()  # a lamp from below throws the shadow up, out of what lies under the picture


def test_without_lamps_in_front_nothing_is_dark():
    ambient = np.full(3, 0.3)
    for lamps in ((), (sun(0.3, 0, 1.0),), (sun(0.3, 0, -1.0, shadows=False),)):
        kept = kept_on_wall(disc(), ambient_light(ambient, lamps), FOCAL, HEAD, BEHIND)
        assert kept.min() > 0.999


def test_a_colour_that_no_light_has_stays():
    red = Lamp("directional", np.array([0.7, 0, 0]), direction=np.array([-0.6, 0.0, -0.8]))
    kept = kept_on_wall(disc(), ambient_light(np.zeros(3), (red,)), FOCAL, HEAD, BEHIND)
    assert kept[..., 0].min() < 0.05
    assert (kept[..., 1:] == 1).all()
