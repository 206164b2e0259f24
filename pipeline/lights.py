"""A light by what it is called: an environment map, harmonics, lamps, a preset, or the light of another picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from capture.environment import read_environment
from models.light.harmonics import HarmonicLight
from models.light.lights import Lamp, Light, ambient_light, light_of_environment, light_of_harmonics
from models.light.presets import PRESETS
from models.prior.face import AnnyPrior
from pipeline.errors import Refusal
from pipeline.looking import look_at
from pipeline.source import open_source

FROM = "from:"
ENDINGS = (".hdr", ".exr", ".txt", ".json")
_HEAD = np.array([[0, -0.013, 0.047], [0.07, 0.125, 0.108]])  # metres from a head's centre: an ellipsoid within it, half axes
_MOST = 1e6  # of what a file may say: white is about 1
_KEYS = {"directional": {"direction"}, "point": {"position", "direction"}, "area": {"position", "direction", "size"}}
_HARMONICS = (
    "expected 9 rows of red, green and blue: radiance in the real orthonormal basis up to the second order, m = -l to l, in "
    "camera axes (+x right, +y down, +z forward)"
)


def open_light(choice: str | Light, prior: AnnyPrior) -> Light:
    """Args:
    choice: ENV.hdr, ENV.exr, SH.txt, LIGHTS.json, a preset's name, or from:PHOTO; or a light, which is that.

    Raises:
        MediaError, Refusal: one line that says what, got, expected, next step.
    """
    if isinstance(choice, Light):
        return choice
    if choice in PRESETS:
        return PRESETS[choice]()
    if choice.startswith(FROM):
        media = open_source(choice[len(FROM) :])
        if not media.is_photo:
            raise Refusal(f"{choice}: light is taken from one picture, got a video. Save one of its frames as a photo.")
        return look_at(media, prior).source
    path = Path(choice)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise Refusal(
            f"{choice}: unknown light, expected an environment map (.hdr, .exr), harmonics (.txt), lamps (.json), from:PHOTO, or "
            f"one of {', '.join(PRESETS)}. Choose one of these."
        )
    if ending in (".hdr", ".exr"):
        return light_of_environment(read_environment(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise Refusal(f"{choice}: no such file. Name a light that exists.") from None
    except (OSError, UnicodeDecodeError):
        raise Refusal(f"{choice}: can't be read as text. Name another light.") from None
    return harmonics_of_text(text, choice) if ending == ".txt" else lamps_of_json(text, choice)


def harmonics_of_text(text: str, name: str) -> Light:
    rows = [line.replace(",", " ").split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        numbers = np.array([float(cell) for row in rows for cell in row])
    except ValueError:
        raise Refusal(f"{name}: harmonics that are no numbers, {_HARMONICS}. Write them so.") from None
    if [len(row) for row in rows] != [3] * 9:
        grey = " (9 numbers are a grey light: repeat each for red, green and blue)" if len(numbers) == 9 else ""
        order = math.isqrt(len(numbers) // 3) - 1 if len(numbers) % 3 == 0 else -1
        got = f"order {order}, " if order >= 0 and 3 * (order + 1) ** 2 == len(numbers) else ""
        raise Refusal(f"{name}: {got}{len(numbers)} numbers in {len(rows)} rows, {_HARMONICS}{grey}. Write them so.")
    if not (np.abs(numbers) < _MOST).all():
        raise Refusal(f"{name}: harmonics that are not below {_MOST:g}, {_HARMONICS}. Write them so.")
    light = light_of_harmonics(HarmonicLight(numbers.reshape(9, 3)))
    if light.soft.max() <= 0:
        raise Refusal(f"{name}: no light from anywhere (first row {numbers[:3]}), {_HARMONICS}. Check signs and order.")
    return light


def lamps_of_json(text: str, name: str) -> Light:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = (
            f"line {error.lineno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else "a number too long, or brackets too deep"
        )
        raise Refusal(f"{name}: not JSON ({why}). Write lights as the README shows.") from None
    if not isinstance(told, dict) or not set(told) <= {"ambient", "lights"}:
        raise Refusal(f'{name}: expected {{"ambient": [r, g, b], "lights": [...]}}. Write lights as the README shows.')
    ambient = _three(told.get("ambient", [0, 0, 0]), f"{name}: ambient", least=0.0)
    lights = told.get("lights", [])
    if not isinstance(lights, list):
        raise Refusal(f"{name}: lights: got {json.dumps(lights)[:40]}, expected a list. Write lights as the README shows.")
    lamps = tuple(_lamp(one, f"{name}: light {number}") for number, one in enumerate(lights, 1))
    if ambient.max() <= 0 and not any(one.colour.max() > 0 for one in lamps):
        raise Refusal(f"{name}: no light at all, expected an ambient or a lamp above 0. Add one.")
    return ambient_light(ambient, lamps)


def _lamp(told: object, name: str) -> Lamp:
    kind = told.get("type") if isinstance(told, dict) else None
    if not isinstance(told, dict) or not isinstance(kind, str) or kind not in _KEYS:
        got = f"type {kind!r}" if isinstance(told, dict) else json.dumps(told)[:40]
        raise Refusal(f"{name}: {got} is unknown, expected a lamp of type {', '.join(_KEYS)}. Choose one of these.")
    known = {"type", "color", "intensity", *_KEYS[kind]}
    if odd := sorted(set(told) - known):
        raise Refusal(
            f"{name}: {', '.join(odd)} says nothing of a {kind} lamp, expected {', '.join(sorted(known))}. Leave it out."
        )
    intensity = _number(told.get("intensity", 1.0), f"{name}: intensity")
    colour = _three(told.get("color", [1, 1, 1]), f"{name}: color", least=0.0) * intensity
    if kind == "directional":
        return Lamp(kind, colour, direction=_direction(told.get("direction"), name))
    position = _three(told.get("position"), f"{name}: position")
    if np.linalg.norm((position - _HEAD[0]) / _HEAD[1]) < 1:
        raise Refusal(f"{name}: position {position.tolist()} is inside the head, expected metres from its centre. Move it out.")
    if "direction" in told and _direction(told["direction"], name) @ position <= 0:
        raise Refusal(f"{name}: direction is away from the lamp's position, expected towards it. Leave out the direction.")
    size = _number(told.get("size", 0.5), f"{name}: size") if kind == "area" else 0.0
    return Lamp(kind, colour, position=position, size=size)


def _direction(value: object, name: str) -> np.ndarray:
    direction = _three(value, f"{name}: direction")
    length = float(np.linalg.norm(direction))
    if length < 1e-9:
        raise Refusal(f"{name}: direction is 0, expected which way the light is; [0, 0, -1] is at the camera. Give one.")
    return direction / length


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
        raise Refusal(f"{name}: got {json.dumps(value)[:40]}, expected a number from 0. Give one.")
    return float(value)


def _three(value: object, name: str, least: float = -_MOST) -> np.ndarray:
    good = (
        isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )
    if not good or not all(least <= v < _MOST for v in value):
        raise Refusal(
            f"{name}: got {json.dumps(value)[:60]}, expected three numbers{' from 0' if least == 0 else ''}. Give them."
        )
    return np.array(value, float)
