"""A light by what it is called: an environment map, harmonics, lamps, a preset, or the light of another picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from capture.environment import read_environment
from capture.media import open_media
from models.light.harmonics import HarmonicLight
from models.light.lights import Lamp, Light, ambient_light, light_of_environment, light_of_harmonics
from models.light.presets import PRESETS
from models.prior.face import AnnyPrior
from pipeline.errors import Refusal
from pipeline.looking import look_at

FROM = "from:"
ENDINGS = (".hdr", ".exr", ".txt", ".json")
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
        media = open_media(choice[len(FROM) :])
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
        text = path.read_text(encoding="utf-8")
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
    if len(numbers) != 27 or len(rows) not in (1, 9, 27):
        grey = " (9 numbers are a grey light: repeat each for red, green and blue)" if len(numbers) == 9 else ""
        order = math.isqrt(len(numbers) // 3) - 1 if len(numbers) % 3 == 0 else -1
        got = f"order {order}, " if order >= 0 and 3 * (order + 1) ** 2 == len(numbers) else ""
        raise Refusal(f"{name}: {got}{len(numbers)} numbers in {len(rows)} rows, {_HARMONICS}{grey}. Write them so.")
    if not np.isfinite(numbers).all():
        raise Refusal(f"{name}: harmonics that are not finite, {_HARMONICS}. Write them so.")
    light = light_of_harmonics(HarmonicLight(numbers.reshape(9, 3)))
    if light.soft.max() <= 0:
        raise Refusal(f"{name}: no light from anywhere (first row {numbers[:3]}), {_HARMONICS}. Check signs and order.")
    return light


def lamps_of_json(text: str, name: str) -> Light:
    try:
        told = json.loads(text)
    except json.JSONDecodeError as error:
        raise Refusal(f"{name}: not JSON (line {error.lineno}: {error.msg}). Write lights as the README shows.") from None
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
    known = {"type", "direction", "position", "color", "intensity", "size"}
    if not isinstance(told, dict) or not set(told) <= known:
        odd = sorted(set(told) - known) if isinstance(told, dict) else told
        raise Refusal(f"{name}: unknown {odd}, expected {', '.join(sorted(known))}. Write lights as the README shows.")
    kind = told.get("type")
    if kind not in ("directional", "point", "area"):
        raise Refusal(f"{name}: type {kind!r} is unknown, expected directional, point or area. Choose one of these.")
    intensity = _number(told.get("intensity", 1.0), f"{name}: intensity")
    colour = _three(told.get("color", [1, 1, 1]), f"{name}: color", least=0.0) * intensity
    if kind == "directional":
        direction = _three(told.get("direction"), f"{name}: direction")
        length = float(np.linalg.norm(direction))
        if length < 1e-9:
            raise Refusal(f"{name}: direction is 0, expected which way the light is; [0, 0, -1] is at the camera. Give one.")
        return Lamp(kind, colour, direction=direction / length)
    position = _three(told.get("position"), f"{name}: position")
    if np.linalg.norm(position) < 0.05:
        raise Refusal(f"{name}: position {position.tolist()} is inside the head, expected metres from its centre. Move it out.")
    size = _number(told.get("size", 0.5), f"{name}: size") if kind == "area" else 0.0
    return Lamp(kind, colour, position=position, size=size)


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
        raise Refusal(f"{name}: got {json.dumps(value)[:40]}, expected a number from 0. Give one.")
    return float(value)


def _three(value: object, name: str, least: float = -1e6) -> np.ndarray:
    good = (
        isinstance(value, list) and len(value) == 3 and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value)
    )
    if not good or not all(least <= v < 1e6 for v in value):
        raise Refusal(
            f"{name}: got {json.dumps(value)[:60]}, expected three numbers{' from 0' if least == 0 else ''}. Give them."
        )
    return np.array(value, float)
