"""Light as it is handed around: soft light from all around, and lamps that cast shadows.

Convention (as in `models.light.harmonics`): linear RGB; directions are unit vectors in camera axes (+x right, +y down, +z
forward) and point *towards* the light. Radiance 1 from everywhere, or a lamp of colour 1 faced squarely (a point or area lamp
from one metre), makes a white Lambertian surface send back 1. Positions are metres from the head's centre, in camera axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cache

import cv2
import numpy as np
from numba import njit

from models.light.harmonics import LUMINANCE, HarmonicLight, basis, environment_directions, spread_directions

ROWS = 32  # of the soft light's latitude-longitude picture
LOBE = 0.16  # radians: how far soft light is spread, about the distance between two of a surface's directions
_FINE = 128  # rows an environment is looked at in
_GLOSS = 0.30  # radians: the spread of skin's reflection, GGX alpha of about 0.3
_SUN_SHARE = 0.08  # of all light, above which a small bright place is a lamp
_SUN_RADIUS = np.radians(5.0)
_MOST_SUNS = 3
_SUN_CONTRAST = 8.0  # times as bright as what surrounds it


@dataclass(frozen=True)
class Lamp:
    """One lamp.

    Attributes:
        kind: `directional`, `point` or `area`.
        colour: 3, linear RGB, intensity included.
        direction: 3, unit, towards a directional lamp.
        position: 3, metres, of the others.
        size: metres, the side of an area lamp's square, which faces the head.
        shadows: whether the head keeps it from itself.
    """

    kind: str
    colour: np.ndarray
    direction: np.ndarray | None = None
    position: np.ndarray | None = None
    size: float = 0.0
    shadows: bool = True

    def turned(self, rotation: np.ndarray) -> Lamp:
        """The lamp carried around the head by a 3 x 3 rotation."""
        move = lambda vector: None if vector is None else rotation @ vector
        return replace(self, direction=move(self.direction), position=move(self.position))

    def samples(self) -> list[Lamp]:
        """Lamps without size whose light together is this one's."""
        if self.kind != "area" or self.size <= 0:
            return [self]
        away = self.position / np.linalg.norm(self.position)
        across = np.cross(away, (0.0, 1, 0) if abs(away[1]) < 0.9 else (1.0, 0, 0))
        across /= np.linalg.norm(across)
        down, steps = np.cross(away, across), (np.arange(_AREA_SIDE) + 0.5) / _AREA_SIDE - 0.5
        places = [self.position + self.size * (u * across + v * down) for u in steps for v in steps]
        share = self.colour / len(places)
        return [Lamp("point", share, position=place) for place in places]


_AREA_SIDE = 4  # samples along an area lamp's side


@dataclass(frozen=True)
class Environment:
    """What is seen all around, for backgrounds.

    Attributes:
        radiance: H x W x 3 float32, latitude-longitude as `environment_directions`.
        turn: radians about the vertical by which it has been turned to the right.
        gain: 3, factors on red, green and blue.
    """

    radiance: np.ndarray
    turn: float = 0.0
    gain: np.ndarray = field(default_factory=lambda: np.ones(3))

    def seen(self, focal: float, width: int, height: int) -> np.ndarray:
        """H x W x 3 linear: through a pinhole camera that looks along +z; `focal` in pixels."""
        x, y = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
        away = np.stack([x, y, np.full_like(x, focal)], -1)
        return self.gain * sampled(self.radiance, away / np.linalg.norm(away, axis=-1, keepdims=True), self.turn)


def sampled(picture: np.ndarray, direction: np.ndarray, turn: float = 0.0) -> np.ndarray:
    """... x 3 float32 of a latitude-longitude picture at ... x 3 unit directions, bilinear, the picture turned by radians."""
    flat = np.ascontiguousarray(direction.reshape(-1, 3), np.float32)
    out = np.empty((len(flat), 3), np.float32)
    _sample(np.ascontiguousarray(picture, np.float32), flat, turn, out)
    return out.reshape(*direction.shape[:-1], 3)


@njit(cache=True, nogil=True)
def _sample(picture, direction, turn, out):
    height, width = picture.shape[:2]
    for n in range(len(direction)):
        x, y, z = direction[n, 0], direction[n, 1], direction[n, 2]
        column = (((np.arctan2(x, z) - turn) / (2 * np.pi) + 0.5) % 1.0) * width - 0.5
        row = min(max(np.arccos(min(max(-y, -1.0), 1.0)) / np.pi * height - 0.5, 0.0), height - 1.0)
        left, top = int(np.floor(column)), min(int(row), max(height - 2, 0))
        u, v = np.float32(column - left), np.float32(row - top)
        right, below = (left + 1) % width, min(top + 1, height - 1)
        left = left % width
        for c in range(3):
            upper = (1 - u) * picture[top, left, c] + u * picture[top, right, c]
            lower = (1 - u) * picture[below, left, c] + u * picture[below, right, c]
            out[n, c] = (1 - v) * upper + v * lower


LOBES = spread_directions(96)  # an estimated light is made of
LOBE_WIDTH = 0.22  # radians
_GRID = environment_directions(ROWS, 2 * ROWS)


def _solid(rows: int) -> np.ndarray:
    """rows: steradians of a pixel in each row of a latitude-longitude picture twice as wide."""
    edges = np.cos(np.arange(rows + 1) / rows * np.pi)
    return (edges[:-1] - edges[1:]) * np.pi / rows


def _spread(picture: np.ndarray, towards: np.ndarray, width: float) -> np.ndarray:
    """... x 3: a latitude-longitude picture (H x 2H x 3) averaged about ... x 3 directions under a von Mises-Fisher lobe."""
    rows = len(picture)
    there = environment_directions(rows, 2 * rows).reshape(-1, 3).astype(np.float32)
    solid = np.repeat(_solid(rows), 2 * rows).astype(np.float32)
    flat = towards.reshape(-1, 3).astype(np.float32)
    out = np.empty((len(flat), 3))
    for start in range(0, len(flat), 512):
        lobe = np.exp((flat[start : start + 512] @ there.T - 1) / np.float32(width * width)) * solid
        out[start : start + 512] = (lobe @ picture.reshape(-1, 3)) / lobe.sum(1, keepdims=True)
    return out.reshape(towards.shape)


@dataclass(frozen=True, eq=False)
class Light:
    """Everything that shines.

    Attributes:
        soft: ROWS x 2 ROWS x 3 float32 radiance in latitude-longitude, spread by `LOBE`: what comes from all around.
        glossy: the same, spread as skin reflects it.
        diffuse: the same in size, what a white surface that faces each direction sends back with nothing in the way.
        lamps: what casts shadows.
        environment: what is seen behind somebody; None for lamps and harmonics.
        turn: radians by which soft light has been turned to the right about the vertical; lamps are kept turned.
    """

    soft: np.ndarray
    glossy: np.ndarray
    diffuse: np.ndarray
    lamps: tuple[Lamp, ...] = ()
    environment: Environment | None = None
    turn: float = 0.0

    def turned(self, radians: float) -> Light:
        """The same light turned about the vertical, what was ahead (+z) to the right (+x)."""
        c, s = np.cos(radians), np.sin(radians)
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        behind = self.environment
        if behind is not None:
            behind = replace(behind, turn=behind.turn + radians)
        return replace(
            self, turn=self.turn + radians, lamps=tuple(one.turned(rotation) for one in self.lamps), environment=behind
        )

    def carried(self, rotation: np.ndarray) -> Light:
        """The same light carried around the head by a 3 x 3 rotation: what came from d now comes from R d."""
        back = _GRID @ rotation  # rows: R^T d
        grids = (sampled(one, back, self.turn) for one in (self.soft, self.glossy, self.diffuse))
        return Light(*grids, tuple(one.turned(rotation) for one in self.lamps))

    def exposed(self, stops: float) -> Light:
        """The same light 2^stops as bright."""
        return self.times(np.full(3, 2.0**stops))

    def times(self, gain: np.ndarray) -> Light:
        """The same light with each of red, green and blue (3) so many times as bright."""
        behind = self.environment
        if behind is not None:
            behind = replace(behind, gain=behind.gain * gain)
        lamps = tuple(replace(one, colour=one.colour * gain) for one in self.lamps)
        soft, glossy, diffuse = (one * gain.astype(np.float32) for one in (self.soft, self.glossy, self.diffuse))
        return Light(soft, glossy, diffuse, lamps, behind, self.turn)

    def __add__(self, other: Light) -> Light:
        """Both at once. What is seen behind is the first one's that has anything."""
        grids = [mine + theirs for mine, theirs in zip(self._turned_grids(), other._turned_grids())]
        return Light(*grids, self.lamps + other.lamps, self.environment or other.environment)

    def _turned_grids(self) -> list[np.ndarray]:
        grids = [self.soft, self.glossy, self.diffuse]
        return grids if self.turn == 0 else [sampled(one, _GRID, self.turn).astype(np.float32) for one in grids]

    def around(self, direction: np.ndarray) -> np.ndarray:
        """... x 3 soft radiance from ... x 3 unit directions."""
        return sampled(self.soft, direction, self.turn)

    def reflected(self, direction: np.ndarray) -> np.ndarray:
        """... x 3 soft radiance as skin reflects it from about ... x 3 unit directions."""
        return sampled(self.glossy, direction, self.turn)

    def shaded(self, normal: np.ndarray) -> np.ndarray:
        """... x 3: soft light that a white surface with ... x 3 unit normals sends back with nothing in the way."""
        return sampled(self.diffuse, normal, self.turn)

    def brightness(self) -> float:
        """Luminance of a white surface in the head's place that faces where most light comes from, nothing in the way."""
        facing = [*np.eye(3), *-np.eye(3)]
        lamps = []
        for one in self.lamps:
            length = 1.0 if one.position is None else max(float(np.linalg.norm(one.position)), 1e-3)
            away = one.direction if one.position is None else one.position / length
            lamps.append(away * float(one.colour @ LUMINANCE) / length**2)
            facing.append(away)
        facing = np.array(facing)
        level = self.shaded(facing) @ LUMINANCE
        for lamp in lamps:
            level = level + np.maximum(facing @ lamp, 0)
        return float(level.max())


@cache
def _facing_grid() -> np.ndarray:
    """D x D float32: what white surfaces send back, that face each direction of the grid, of radiance 1 from each."""
    flat = _GRID.reshape(-1, 3)
    solid = np.broadcast_to(_solid(ROWS)[:, None], _GRID.shape[:2]).reshape(-1) / np.pi
    return (np.maximum(flat @ flat.T, 0) * solid).astype(np.float32)


def _soft_light(radiance: np.ndarray, glossy: np.ndarray | None = None, **more) -> Light:
    """Args:
    radiance: ROWS x 2 ROWS x 3, spread already; glossy: None where it is smooth enough to be its own reflection.
    """
    diffuse = (_facing_grid() @ radiance.reshape(-1, 3)).reshape(radiance.shape)
    grids = (radiance, radiance if glossy is None else glossy, diffuse)
    return Light(*(np.asarray(grid, np.float32) for grid in grids), **more)


def ambient_light(colour: np.ndarray, lamps: tuple[Lamp, ...] = ()) -> Light:
    """The same radiance (3) from everywhere, and lamps."""
    return _soft_light(np.broadcast_to(np.asarray(colour, np.float32), (ROWS, 2 * ROWS, 3)), lamps=tuple(lamps))


def light_of_harmonics(light: HarmonicLight) -> Light:
    """Radiance of a second-order light, cut at 0 where it rings below."""
    return _soft_light(np.maximum(basis(_GRID) @ light.coefficients, 0))


def light_of_lobes(weights: np.ndarray) -> Light:
    """Light that comes in `LOBES` from their directions: K x 3 weights, each the radiance in the middle of its lobe."""
    lobes = np.exp((_GRID.reshape(-1, 3) @ LOBES.T - 1) / LOBE_WIDTH**2)
    spread = [(one @ weights).reshape(ROWS, 2 * ROWS, 3) for one in (lobes, reflected_lobes(_GRID.reshape(-1, 3)))]
    return _soft_light(*spread)


def reflected_lobes(direction: np.ndarray) -> np.ndarray:
    """C x K: each of `LOBES` as skin reflects it from about C x 3 unit directions, spread as in `light_of_lobes`."""
    return (LOBE_WIDTH / _GLOSS) ** 2 * np.exp((direction @ LOBES.T - 1) / _GLOSS**2)


def light_of_environment(radiance: np.ndarray) -> Light:
    """An environment's light, its suns as lamps.

    Args:
        radiance: H x 2H x 3 linear, latitude-longitude.
    """
    radiance = np.asarray(radiance, np.float32)
    small = cv2.resize(radiance, (2 * _FINE, _FINE), interpolation=cv2.INTER_AREA)
    rest, lamps = without_suns(small)
    rest = cv2.resize(rest, (_FINE, _FINE // 2), interpolation=cv2.INTER_AREA)
    return _soft_light(_spread(rest, _GRID, LOBE), _spread(rest, _GRID, _GLOSS), lamps=lamps, environment=Environment(radiance))


def without_suns(radiance: np.ndarray) -> tuple[np.ndarray, tuple[Lamp, ...]]:
    """(the environment without its few small bright places, these as lamps that send as much light)."""
    rest, lamps = radiance.copy(), []
    rows = len(radiance)
    there = environment_directions(rows, 2 * rows)
    solid = np.broadcast_to(_solid(rows)[:, None], rest.shape[:2])
    total = float((rest @ LUMINANCE * solid).sum())
    for _ in range(_MOST_SUNS):
        luminance = rest @ LUMINANCE
        peak = there[np.unravel_index(np.argmax(luminance), luminance.shape)]
        cosine = there @ peak
        ring = (cosine < np.cos(1.5 * _SUN_RADIUS)) & (cosine > np.cos(3 * _SUN_RADIUS))
        usual = np.median(rest[ring], axis=0)
        within = (cosine > np.cos(_SUN_RADIUS)) & (luminance > _SUN_CONTRAST * max(float(usual @ LUMINANCE), 1e-9))
        if not within.any():
            break
        more = np.maximum(rest[within] - usual, 0) * solid[within, None]
        flux = more.sum(0)
        if float(flux @ LUMINANCE) < _SUN_SHARE * total:
            break
        middle = (there[within] * (more @ LUMINANCE)[:, None]).sum(0)
        lamps.append(Lamp("directional", flux.astype(float) / np.pi, direction=middle / np.linalg.norm(middle)))
        rest[within] = np.minimum(rest[within], usual)
    return rest, tuple(lamps)
