"""Lights, how they get to a head, and what they make of a picture: known answers and the laws of light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from models.code import Camera, FaceCode, Person
from models.colour import DECODE, to_srgb8
from models.head import Head
from models.light.estimate import SkinSeen, estimated_light, lobes_of_directions
from models.light.harmonics import HarmonicLight, environment_directions, lamp, project_environment, spread_directions
from models.light.lights import (
    LOBE_WIDTH,
    LOBES,
    Lamp,
    Light,
    ambient_light,
    light_of_environment,
    light_of_harmonics,
    light_of_lobes,
    reflected_lobes,
    sampled,
)
from models.light.presets import PRESETS
from models.light.transport import Transport, shadow_map, unshadowed
from models.relight.shading import Shader, applied, change, skin_like
from models.relight.surface import LitHead, _rim, pulled_and_pushed
from tests.conftest import expression, turned

AHEAD = np.array([0.0, 0.0, -1.0])


def directional(direction, strength: float = 1.0, ambient: float = 0.0) -> Light:
    towards = np.array(direction, float) / np.linalg.norm(direction)
    return ambient_light(np.full(3, ambient), (Lamp("directional", np.full(3, strength), direction=towards),))


def test_an_environments_shading_is_that_of_its_harmonics_where_it_is_smooth():
    there = environment_directions(64, 128)
    picture = np.stack([1 + there[..., 0], 2 + there[..., 1], 1.5 + there[..., 2] * there[..., 0]], -1)
    normals = spread_directions(40)
    assert np.allclose(light_of_environment(picture).shaded(normals), project_environment(picture).shading(normals), atol=0.02)


def test_harmonics_become_the_same_light():
    light = HarmonicLight(lamp(np.array([0.3, -0.5, -0.8]) / np.sqrt(0.98), np.array([0.1, 0.2, 0.3])))
    light = HarmonicLight(light.coefficients + ambient_harmonics(0.5))  # nowhere below 0
    normals = spread_directions(40)
    assert np.allclose(light_of_harmonics(light).shaded(normals), light.shading(normals), atol=0.01)


def ambient_harmonics(level: float) -> np.ndarray:
    out = np.zeros((9, 3))
    out[0] = level * np.sqrt(4 * np.pi)
    return out


def test_a_sun_becomes_a_lamp_that_sends_as_much_light():
    picture = np.full((128, 256, 3), 0.1)
    there = environment_directions(128, 256)
    sun = np.array([-0.6, -0.5, -0.62449])
    picture[(there @ sun) > np.cos(np.radians(2))] = (900.0, 800.0, 600.0)
    light = light_of_environment(picture)
    assert len(light.lamps) == 1 and light.lamps[0].direction @ sun > np.cos(np.radians(0.5))
    edges = np.cos(np.arange(129) / 128 * np.pi)
    solid = (edges[:-1] - edges[1:]) * 2 * np.pi / 256
    for normal in (AHEAD, sun, np.array([-1.0, 0, 0])):
        truth = np.einsum("hw,hwc,h->c", np.maximum(there @ normal, 0), picture, solid) / np.pi
        found = light.shaded(normal[None])[0] + max(light.lamps[0].direction @ normal, 0) * light.lamps[0].colour
        assert np.allclose(found, truth, rtol=0.02)


def test_turning_carries_all_of_a_light_to_the_right_and_a_whole_turn_returns():
    picture = np.zeros((64, 128, 3)) + 0.05
    picture[25:30, 60:66] = 3.0  # ahead
    light = light_of_environment(picture) + directional([0, -0.3, 1])
    quarter = light.turned(np.pi / 2)
    assert quarter.shaded(np.array([[1.0, 0, 0]]))[0, 0] == pytest.approx(light.shaded(np.array([[0, 0, 1.0]]))[0, 0], rel=0.03)
    assert np.allclose(quarter.lamps[-1].direction, [0.9578, -0.2873, 0], atol=1e-3)
    behind = light_of_environment(picture).turned(np.pi / 2).environment
    assert behind.turn == pytest.approx(np.pi / 2)
    whole = quarter.turned(1.5 * np.pi)
    normals = spread_directions(50)
    assert np.allclose(whole.shaded(normals), light.shaded(normals), atol=1e-5)
    assert np.allclose(whole.lamps[-1].direction, light.lamps[-1].direction)


def test_exposure_doubles_and_sums_add():
    light, other = PRESETS["sunset"](), PRESETS["rim"]().turned(0.4)
    normals = spread_directions(30)
    assert np.allclose(light.exposed(1).shaded(normals), 2 * light.shaded(normals), rtol=1e-6)
    assert np.allclose((light + other).shaded(normals), light.shaded(normals) + other.shaded(normals), atol=1e-5)
    assert len((light + other).lamps) == len(light.lamps) + len(other.lamps)
    assert np.allclose(other.exposed(1).lamps[0].colour, 2 * other.lamps[0].colour)


def test_an_environment_is_seen_the_right_way_round():
    picture = np.zeros((64, 128, 3), np.float32)
    picture[:, 64:80] = 1  # ahead and to the right
    seen = light_of_environment(picture + 0.01).environment.seen(200.0, 160, 120)
    assert seen[60, 140, 0] > 0.5 > seen[60, 20, 0]


def test_a_picture_in_latitude_and_longitude_is_looked_up_across_its_seam():
    picture = environment_directions(64, 128)
    towards = spread_directions(200)
    towards = towards[np.abs(towards[:, 1]) < 0.95]
    assert np.abs(sampled(picture, towards) - towards).max() < 0.01


def test_an_area_lamp_far_away_is_a_point():
    one = Lamp("area", np.ones(3), position=np.array([3.0, 0, -4.0]), size=0.1)
    parts = one.samples()
    assert len(parts) > 4 and np.allclose(sum(p.colour for p in parts), 1)
    assert np.allclose(np.mean([p.position for p in parts], 0), one.position)


def ball(radius: float, centre, rings: int = 24) -> tuple[np.ndarray, np.ndarray]:
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False), indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], -1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(rings - 1), np.arange(2 * rings), indexing="ij")
    a, b = i * 2 * rings + j, i * 2 * rings + (j + 1) % (2 * rings)
    cells = np.concatenate([np.stack([a, b, a + 2 * rings], -1), np.stack([b, b + 2 * rings, a + 2 * rings], -1)]).reshape(-1, 3)
    return radius * points + np.array(centre), cells.astype(np.int32)


def test_a_ball_alone_is_all_open_and_one_beside_it_shades_it():
    points, cells = ball(0.1, (0, 0, 0))
    alone = Transport.of(points, cells)
    normals = points / 0.1
    sent, openness = alone.gathered(normals, np.ones((len(alone.directions), 3)))
    assert openness.min() > 0.93 and np.abs(sent - 1).mean() < 0.04
    near, more = ball(0.1, (0.21, 0, 0))
    both = Transport.of(np.concatenate([points, near]), np.concatenate([cells, more + len(points)]))
    _, shaded = both.gathered(np.concatenate([normals, normals]), np.ones((len(both.directions), 3)))
    right, left = np.argmax(points[:, 0]), np.argmin(points[:, 0])
    # a ball that touches nearly at the zenith hides (r / d)^2 of the cosine-weighted sky
    assert shaded[right] == pytest.approx(1 - (0.1 / 0.11) ** 2, abs=0.1) and shaded[left] > 0.95


@pytest.mark.parametrize("far", [True, False])
def test_the_shadow_of_a_ball_lies_behind_it(far):
    points, cells = ball(0.05, (0, 0, 1))
    lamp_ = (
        Lamp("directional", np.ones(3), direction=AHEAD) if far else Lamp("point", np.ones(3), position=np.array([0, 0, -0.8]))
    )
    seen = shadow_map(lamp_, points, cells, np.array([0.0, 0, 1]))
    f = np.float32
    at = lambda x, z: unshadowed(
        seen.depth, f(seen.axes), f(seen.centre), not far, f(seen.reach), f(x), f(0.0), f(z), f(0.003)
    )  # fmt: skip
    assert at(0.0, 1.2) == 0 and at(0.0, 0.9) == 1 and at(0.049 if far else 0.055, 1.2) < 0.5 and at(0.2, 1.2) == 1
    grown = 0.05 if far else 0.06  # a near lamp's shadow is wider than what throws it
    assert at(grown * 1.15, 1.2) > 0.5


@pytest.fixture(scope="module")
def shader(prior) -> Shader:
    person = Person(np.zeros(80), np.zeros((478, 3)), Camera(400.0, 256, 256), np.zeros(52), np.zeros((2, 2)))
    return Shader(LitHead(Head(prior, person)))


@pytest.fixture(scope="module")
def code() -> FaceCode:
    return FaceCode(np.zeros(52), np.eye(3), np.array([0.0, 0.0, 0.55]))


WHOLE = np.ones((256, 256), np.float32)


def picture_under(shader: Shader, code: FaceCode, light: Light, albedo=(0.5, 0.35, 0.28)) -> np.ndarray:
    """A head as the shader's own light leaves it, without gloss."""
    seen = shader(code, WHOLE, [light], 256, 256)[0]
    return to_srgb8(np.round(65535 * np.clip(seen.diffuse * np.array(albedo), 0, 1)).astype(np.uint16))


def relit(shader: Shader, code: FaceCode, image: np.ndarray, before: Light, after: Light) -> np.ndarray:
    return applied(image, change(*shader(code, WHOLE, [before, after], 256, 256)), WHOLE)


def linear(image: np.ndarray) -> np.ndarray:
    return DECODE[image] / 65535


def test_the_same_light_changes_nothing(shader, code):
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    for light in (PRESETS["sunset"](), directional([-1, -0.2, -0.5], ambient=0.05), PRESETS["rim"]()):
        away = np.abs(relit(shader, code, image, light, light).astype(int) - image)
        assert away.max() <= 1


def test_there_and_back_is_where_it_was(shader, code):
    image = picture_under(shader, code, PRESETS["overcast"]())
    there = relit(shader, code, image, PRESETS["overcast"](), directional([0.4, -0.4, -1], ambient=0.3))
    back = relit(shader, code, there, directional([0.4, -0.4, -1], ambient=0.3), PRESETS["overcast"]())
    assert -10 * np.log10(np.mean((back / 255.0 - image / 255.0) ** 2)) > 35


def test_two_lamps_are_the_sum_of_each(shader, code):
    shader.glossiness = 1.0
    image = picture_under(shader, code, ambient_light(np.full(3, 0.5)))
    before, one, two = ambient_light(np.full(3, 1.0)), directional([-1, 0, -1], 0.5), directional([0.5, -0.8, -1], 0.4)
    each = [linear(relit(shader, code, image, before, light)) for light in (one, two, one + two)]
    assert np.abs(each[0] + each[1] - each[2]).max() < 0.02  # codes round


def test_twice_the_exposure_is_twice_the_light(shader, code):
    image = picture_under(shader, code, ambient_light(np.full(3, 0.3)))
    before, after = ambient_light(np.full(3, 1.0)), PRESETS["window"]()
    once, twice = (linear(relit(shader, code, image, before, light)) for light in (after, after.exposed(1)))
    clear = (twice < 0.98) & (once > 0.02)
    assert np.abs(twice / np.maximum(2 * once, 1e-9) - 1)[clear].mean() < 0.02


def test_a_grey_light_changes_no_hue(shader, code):
    image = picture_under(shader, code, ambient_light(np.full(3, 0.8)))
    shader.glossiness = 0.0  # gloss is white whatever the skin
    out = linear(relit(shader, code, image, ambient_light(np.full(3, 1.0)), directional([-1, -0.3, -0.8], ambient=0.2)))
    shader.glossiness = 1.0
    was = linear(image)
    lit = (out.min(-1) > 0.02) & (was.min(-1) > 0.02)
    assert np.abs(out / out.sum(-1, keepdims=True) - was / was.sum(-1, keepdims=True))[lit].max() < 0.02


def test_a_nose_throws_its_shadow_on_the_cheek(shader, code):
    left = shader(code, WHOLE, [directional([-1, 0, -0.45])], 256, 256)[0].diffuse[..., 0]
    bare = replace(directional([-1, 0, -0.45]).lamps[0], shadows=False)
    free = shader(code, WHOLE, [ambient_light(np.zeros(3), (bare,))], 256, 256)[0].diffuse[..., 0]
    shade = (free > 0.2) & (left < 0.3 * free)
    assert 60 < shade.sum() < 4000
    assert np.nonzero(shade)[1].mean() > 128  # the lamp is at the picture's left


def chins(seen: np.ndarray, shader: Shader, code: FaceCode, scale: int) -> np.ndarray:
    """R x C of H x W: some columns across a chin, from 15 mm above where it ends to as much below."""
    chin = shader.lit.head.person.camera.project(shader.lit.prior.at_landmarks(shader.lit.head.posed(code))[152][None])[0]
    around = round(0.015 * scale * 400 / code.translation[2])
    row, column = round(scale * chin[1]), round(scale * chin[0])
    return seen[row - around : row + around, column - around : column + around]


def test_no_line_runs_where_a_chin_ends_before_a_neck(shader, code):
    whole = np.ones((512, 512), np.float32)
    for light in (PRESETS["overcast"](), PRESETS["studio"](), PRESETS["window"]()):
        rows = chins(shader(code, whole, [light], 512, 512)[0].diffuse.mean(-1), shader, code, 2)
        apart = 5
        beside = np.stack([rows[: -2 * apart], rows[2 * apart :]])
        line = rows[apart:-apart]
        assert (line / beside.min(0)).min() > 0.85 and (line / beside.max(0)).max() < 1.1


@pytest.mark.parametrize("lowered", [0.0, 0.3])
def test_a_chin_throws_its_shadow_on_the_neck(shader, code, lowered):
    """Also where it hides all of the neck that the head model has."""
    code = replace(code, rotation=turned(pitch=lowered))
    sun = directional([0.0, -1.0, -1.0])
    free = ambient_light(np.zeros(3), (replace(sun.lamps[0], shadows=False),))
    shaded, bare = (chins(one.diffuse[..., 0], shader, code, 1) for one in shader(code, WHOLE, [sun, free], 256, 256))
    assert (bare[-4:] > 0.2).all() and (shaded[-4:] < 0.1 * bare[-4:]).mean() > 0.9


def test_no_light_gets_through_where_ears_were(shader):
    lit = shader.lit
    assert len(lit.throwing) < len(lit.outside)
    assert set(map(tuple, _rim(lit.throwing))) == set(map(tuple, _rim(lit.outside)))  # of the lips and the neck's end


def test_a_lamp_close_to_a_face_throws_shadows(shader, code):
    """As near as a hand, which a sphere around the whole head would hold."""
    near = Lamp("point", np.full(3, 0.02), position=np.array([-0.13, 0.0, -0.1]))
    lit, free = shader(
        code, WHOLE, [ambient_light(np.zeros(3), (one,)) for one in (near, replace(near, shadows=False))], 256, 256
    )
    shade = (free.diffuse[..., 0] > 0.1 * free.diffuse[..., 0].max()) & (lit.diffuse[..., 0] < 0.3 * free.diffuse[..., 0])
    assert shade.sum() > 20 and np.nonzero(shade)[1].mean() > 128


def test_a_colour_that_the_old_light_lacks_does_not_come_out_of_nothing(shader, code):
    image = picture_under(shader, code, ambient_light(np.full(3, 0.8)))
    red, white = ambient_light(np.array([0.8, 0.0, 0.0])), ambient_light(np.full(3, 0.8))
    most = change(*shader(code, WHOLE, [red, white], 256, 256)).ratio.max()
    assert most < 50  # it was 1e8
    assert np.abs(relit(shader, code, image, red, red).astype(int) - image).max() <= 1


def test_hair_on_a_head_has_no_skins_gloss(shader, code):
    white = ambient_light(np.ones(3))
    seen = shader(code, WHOLE, [white], 256, 256)[0]
    image = picture_under(shader, code, white)
    chin = slice(150, 190)  # bearded
    image[chin] = image[chin] // 4
    like = skin_like(image, seen)
    head = seen.head > 0.98
    assert like[: chin.start - 4][head[: chin.start - 4]].min() > 0.5 and np.median(like[head]) > 0.95
    inside = np.zeros_like(head)
    inside[chin.start + 4 : chin.stop - 4] = True
    assert like[head & inside].max() < 0.1
    assert np.array_equal(skin_like(np.zeros((64, 64, 3), np.uint8), replace(seen, head=0 * seen.head)), np.ones((256, 256)))


def test_inside_of_an_open_mouth_there_is_light(shader, code):
    lit = shader.lit
    shut, open_ = (
        lit.head.posed(replace(code, expression=expression(jawOpen=gape)))[lit.inner] for gape in (0.0, 0.8)
    )  # fmt: skip
    assert np.linalg.norm(open_ - shut, axis=1).max() > 0.01
    code = replace(code, expression=expression(jawOpen=0.8))
    seen = shader(code, WHOLE, [ambient_light(np.ones(3))], 256, 256)[0].diffuse[..., 0]
    at = lit.head.person.camera.project(lit.prior.at_landmarks(lit.head.posed(code)))
    inside = at[[13, 14], :2].mean(0).astype(int)  # between the lips
    assert 0.3 < seen[inside[1], inside[0]] < 1.05


def test_a_lamp_is_found_from_what_it_lights():
    normals = spread_directions(900)
    normals = normals[normals[:, 2] < -0.3]
    transport = Transport(spread_directions(192), np.full((len(normals), 192), 255, np.uint8))
    matrix = transport.matrix(normals, np.arange(len(normals)))
    lobes = matrix @ lobes_of_directions(transport.directions)
    towards = np.array([-0.6, -0.4, -0.69282])
    colour = np.maximum(normals @ towards, 0)[:, None] * np.array([0.9, 0.8, 0.6]) + 0.15
    rng = np.random.default_rng(0)
    noisy = colour * rng.normal(1, 0.03, (len(colour), 1))
    noisy[::20] = 1.5  # what is no skin
    skin = SkinSeen(noisy, normals, matrix.sum(1), lobes, np.tile([0.0, 0, -1], (len(normals), 1)), np.zeros_like(noisy))
    light = estimated_light(skin, HarmonicLight(ambient_harmonics(0.5)))
    assert light.lamps[0].direction @ towards > np.cos(np.radians(6))
    made = light.shaded(normals) + np.maximum(normals @ light.lamps[0].direction, 0)[:, None] * light.lamps[0].colour
    assert np.abs(made - colour).mean() < 0.05


def test_a_lamp_is_found_on_dark_skin_of_which_much_is_gloss():
    normals = spread_directions(1600)
    normals = normals[normals[:, 2] < -0.3]
    transport = Transport(spread_directions(192), np.full((len(normals), 192), 255, np.uint8))
    matrix = transport.matrix(normals, np.arange(len(normals)))
    view = np.tile([0.0, 0, -1], (len(normals), 1))
    skin = SkinSeen(
        np.zeros((len(normals), 3)), normals, matrix.sum(1), matrix @ lobes_of_directions(transport.directions), view,
        np.tile(1 / np.array([0.09, 0.05, 0.03]), (len(normals), 1)),
    )  # fmt: skip
    towards = np.array([-0.6, -0.4, -0.69282])
    around = np.full(len(LOBES), 0.06)
    diffuse, gloss = skin.of_lamp(towards)
    soft, soft_gloss = skin.lobes @ around, skin.lobes_gloss @ around
    scattered = 0.5 * diffuse + soft
    colour = scattered[:, None] + (0.5 * gloss + soft_gloss)[:, None] * skin.shine
    assert (colour[:, 2] > 1.5 * scattered).mean() > 0.2
    told = estimated_light(replace(skin, colour=colour), HarmonicLight(ambient_harmonics(0.3)))
    lamp = told.lamps[0]
    assert lamp.direction @ towards > np.cos(np.radians(8))
    made = told.shaded(normals) + np.maximum(normals @ lamp.direction, 0)[:, None] * lamp.colour
    gain = (made.mean(1) @ scattered) / (scattered @ scattered)
    assert 1 < gain < 1.6  # as bright as if all that is seen were scattered, up to a limit
    assert np.abs(made / gain - scattered[:, None]).mean() < 0.08 * scattered.mean()
    blind = estimated_light(replace(skin, colour=colour, shine=0 * skin.shine), HarmonicLight(ambient_harmonics(0.3)))
    fooled = blind.shaded(normals) + np.maximum(normals @ blind.lamps[0].direction, 0)[:, None] * blind.lamps[0].colour
    off = (fooled.mean(1) @ scattered) / (scattered @ scattered)
    assert np.abs(fooled / off - scattered[:, None]).mean() > 2 * np.abs(made / gain - scattered[:, None]).mean()


def test_a_lobe_is_reflected_as_the_light_of_it():
    weights = np.zeros((len(LOBES), 3))
    weights[7] = 1
    away = spread_directions(300)
    fine = spread_directions(20000)
    more = np.exp((away @ fine.T - 1) / (0.3**2 - LOBE_WIDTH**2))  # how skin spreads it, beyond how wide it is
    spread = more @ np.exp((fine @ LOBES[7] - 1) / LOBE_WIDTH**2) / more.sum(1)
    assert np.abs(reflected_lobes(away)[:, 7] - spread).max() < 0.05 * spread.max()
    told = light_of_lobes(weights).reflected(away.astype(np.float32))[:, 0]
    assert np.abs(told - spread).max() < 0.07 * spread.max()


def test_a_lamps_gloss_is_what_the_shader_adds(shader, code):
    towards = np.array([0.3, -0.2, -0.93]) / np.linalg.norm([0.3, -0.2, -0.93])
    light = ambient_light(np.zeros(3), (Lamp("directional", np.ones(3), direction=towards, shadows=False),))
    made = shader(code, WHOLE, [light], 256, 256)[0].gloss[..., 0]
    posed = shader.lit.head.posed(code)
    normals = shader.lit.normals(posed).astype(float)
    view = -posed / np.linalg.norm(posed, axis=1, keepdims=True)
    cosine, half = normals @ towards, view + towards
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    nh, vh, nv = (normals * half).sum(1), (view * half).sum(1), (normals * view).sum(1)
    spread = 1 / 16 / (nh**2 * (1 / 16 - 1) + 1) ** 2  # GGX, alpha a quarter, times pi
    hidden = 1 / ((cosine * 0.875 + 0.125) * (nv * 0.875 + 0.125))
    known = spread * hidden * (0.028 + 0.972 * (1 - vh) ** 5) / 4 * cosine * shader.lit.glossy
    points = shader.lit.head.person.camera.project(posed)
    x, y = (points[:, :2] * 256 / shader.lit.head.person.camera.width).astype(int).T
    bare = [1, 4, 5, 195, 197, 50, 280, 205, 425, 151, 9, 108, 337]  # nose, cheeks, forehead: nothing is before them
    at = np.array([np.argmin(np.linalg.norm(posed - place, axis=1)) for place in shader.lit.prior.at_landmarks(posed)[bare]])
    ratio = made[y[at], x[at]] / known[at]
    assert np.median(ratio) == pytest.approx(1, abs=0.05) and np.abs(np.log(ratio)).max() < 0.4


def test_scattered_values_are_carried_everywhere():
    weights = np.zeros((40, 50, 1), np.float32)
    weights[5, 5] = weights[30, 45] = 1
    fields = weights * 0
    fields[5, 5], fields[30, 45] = 2.0, 4.0
    out = pulled_and_pushed(fields, weights)[..., 0]
    assert out[5, 5] == pytest.approx(2) and out[30, 45] == pytest.approx(4) and 2 <= out.min() <= out.max() <= 4
    assert out[8, 8] < 2.9 and out[28, 42] > 3.1


def test_light_carried_around_lights_what_is_carried_along_alike():
    light, away = PRESETS["window"]().turned(0.7) + directional((0.3, -0.5, -1)), spread_directions(200)
    rotation = Rotation.from_rotvec([0.2, 0.5, -0.3]).as_matrix()
    carried = light.carried(rotation)
    for kind in ("around", "reflected", "shaded"):
        before, after = getattr(light, kind)(away), getattr(carried, kind)(away @ rotation.T)
        assert np.abs(after - before).mean() < 0.02 * before.mean()
        assert np.abs(getattr(carried, kind)(away) - before).mean() > 0.05 * before.mean()
    assert np.allclose(carried.lamps[-1].direction, rotation @ light.lamps[-1].direction)
    same = light.carried(np.eye(3))
    assert np.allclose(same.around(away), light.around(away), atol=0.02 * light.around(away).max())
