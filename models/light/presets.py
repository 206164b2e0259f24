"""Lights by name, made of a few soft sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from models.light.harmonics import environment_directions
from models.light.lights import Lamp, Light, ambient_light, light_of_environment

_ROWS = 128


def _glow(azimuth: float, elevation: float, width: float, colour: tuple[float, float, float]) -> np.ndarray:
    """H x 2H x 3: a soft round source; degrees, azimuth to the picture's right from the camera's side, elevation up."""
    a, e = np.radians([azimuth, elevation])
    towards = np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e)])
    away = environment_directions(_ROWS, 2 * _ROWS) @ towards
    return np.exp((away - 1) / np.radians(width) ** 2)[..., None] * np.array(colour)


def _sky(top: tuple[float, float, float], horizon: tuple[float, float, float], ground: tuple[float, float, float]) -> np.ndarray:
    up = -environment_directions(_ROWS, 2 * _ROWS)[..., 1:2]
    share = np.clip(up, 0, 1) ** 0.5
    above = share * np.array(top) + (1 - share) * np.array(horizon)
    edge = 1 / (1 + np.exp(np.clip(-up / 0.02, -50, 50)))
    return edge * above + (1 - edge) * np.array(ground)


def _studio() -> Light:
    flat = np.full((_ROWS, 2 * _ROWS, 3), 0.18)
    return light_of_environment(
        flat + _glow(-45, 30, 22, (3.6, 3.5, 3.4)) + _glow(55, 15, 26, (1.1, 1.12, 1.2)) + _glow(160, 35, 15, (2, 2, 2))
    )


def _window() -> Light:
    return light_of_environment(np.full((_ROWS, 2 * _ROWS, 3), (0.10, 0.095, 0.09)) + _glow(-75, 10, 24, (4.6, 5.0, 5.6)))


def _overcast() -> Light:
    return light_of_environment(_sky((1.25, 1.3, 1.38), (0.95, 0.97, 1.0), (0.25, 0.24, 0.22)))


def _sunset() -> Light:
    sky = _sky((0.20, 0.26, 0.42), (0.85, 0.45, 0.28), (0.12, 0.09, 0.07))
    return light_of_environment(sky + _glow(70, 6, 12, (16.0, 7.0, 2.4)))


def _night() -> Light:
    dark = np.full((_ROWS, 2 * _ROWS, 3), (0.05, 0.06, 0.10))
    return light_of_environment(dark + _glow(-60, 20, 18, (0.3, 1.6, 3.2)) + _glow(65, 10, 18, (3.4, 0.5, 1.7)))


def _rim() -> Light:
    back = (Lamp("directional", np.array([1.6, 1.6, 1.7]), direction=np.array([0.78, -0.35, 0.52])),
            Lamp("directional", np.array([1.0, 1.0, 1.1]), direction=np.array([-0.83, -0.25, 0.50])))  # fmt: skip
    back = tuple(Lamp(one.kind, one.colour, one.direction / np.linalg.norm(one.direction)) for one in back)
    return ambient_light(np.array([0.22, 0.22, 0.24]), back)


def _noon() -> Light:
    sun = Lamp("directional", np.array([1.9, 1.85, 1.7]), direction=np.array([0.35, -0.82, -0.45]))
    sun = Lamp(sun.kind, sun.colour, sun.direction / np.linalg.norm(sun.direction))
    sky = _sky((0.28, 0.38, 0.55), (0.45, 0.5, 0.55), (0.25, 0.22, 0.18))
    return replace(light_of_environment(sky), lamps=(sun,))


PRESETS: dict[str, Callable[[], Light]] = {
    "studio": _studio, "window": _window, "overcast": _overcast, "noon": _noon, "sunset": _sunset, "night": _night, "rim": _rim,
}  # fmt: skip
