"""What the page shows before anybody brings anything: a portrait that is free to use, and a performance made of numbers."""

from __future__ import annotations

import numpy as np

from models.code import Camera, Person
from models.head import rotation_of_angles, with_look
from models.prior.face import EXPRESSIONS
from pipeline.performance import Performance

BUILTIN = "builtin"
_RATE, _SECONDS = 30, 12.0
_AT = {name: k for k, name in enumerate(EXPRESSIONS)}
# (start, rise, hold, fall; seconds; expressions): a small scene of looks, words, a smile and a surprise
_GESTURES = (
    (1.0, 0.4, 1.2, 0.6, {"mouthSmileLeft": 0.7, "mouthSmileRight": 0.7, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5,
                          "mouthDimpleLeft": 0.2, "mouthDimpleRight": 0.2}),
    (6.6, 0.25, 0.5, 0.5, {"browInnerUp": 0.8, "browOuterUpLeft": 0.8, "browOuterUpRight": 0.8, "eyeWideLeft": 0.6,
                           "eyeWideRight": 0.6, "jawOpen": 0.35}),
    (8.6, 0.3, 0.7, 0.5, {"browDownLeft": 0.8, "browDownRight": 0.8, "mouthPressLeft": 0.4, "mouthPressRight": 0.4,
                          "noseSneerLeft": 0.3, "noseSneerRight": 0.3}),
    (10.0, 0.3, 0.9, 0.6, {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.6, "jawOpen": 0.12, "mouthUpperUpLeft": 0.25,
                           "mouthUpperUpRight": 0.25}),
)  # fmt: skip
_BLINKS = (0.6, 3.1, 5.9, 8.3, 9.9, 11.6)
_SPEECH = (3.4, 6.3)


def _bump(time: np.ndarray, start: float, rise: float, hold: float, fall: float) -> np.ndarray:
    up = np.clip((time - start) / rise, 0, 1)
    down = np.clip((time - start - rise - hold) / fall, 0, 1)
    ease = lambda x: x * x * (3 - 2 * x)
    return ease(up) * (1 - ease(down))


def builtin_performance(seed: int = 0) -> Performance:
    """Twelve seconds at 30 frames a second of nobody in particular, the same every time."""
    rng = np.random.default_rng(seed)
    count = round(_RATE * _SECONDS)
    times = np.arange(count) / _RATE
    expression = np.zeros((count, 52))
    for start, rise, hold, fall, values in _GESTURES:
        shape = _bump(times, start, rise, hold, fall)
        for name, value in values.items():
            expression[:, _AT[name]] += value * shape
    for start in _BLINKS:
        shape = _bump(times, start, 0.07, 0.03, 0.12)
        for name in ("eyeBlinkLeft", "eyeBlinkRight"):
            expression[:, _AT[name]] += shape
    talking = _bump(times, _SPEECH[0], 0.2, _SPEECH[1] - _SPEECH[0] - 0.5, 0.3)
    phases = rng.uniform(0, 2 * np.pi, 4)
    syllables = np.maximum(0, np.sin(2 * np.pi * 3.7 * times + phases[0]) + 0.6 * np.sin(2 * np.pi * 2.3 * times + phases[1]))
    expression[:, _AT["jawOpen"]] += 0.26 * talking * syllables
    rounding = np.maximum(0, np.sin(2 * np.pi * 1.6 * times + phases[2]))
    expression[:, _AT["mouthFunnel"]] += 0.45 * talking * rounding
    expression[:, _AT["mouthPucker"]] += 0.3 * talking * rounding
    for side in ("Left", "Right"):
        expression[:, _AT[f"mouthLowerDown{side}"]] += 0.3 * talking * syllables
        expression[:, _AT[f"mouthStretch{side}"]] += 0.25 * talking * (1 - rounding) * syllables
    expression = np.clip(expression, 0, 1)

    wave = lambda *terms: sum(a * np.sin(2 * np.pi * times * f / _SECONDS + p) for a, f, p in terms)
    yaw = wave((0.14, 1, 0.0), (0.05, 3, 1.0), (0.02, 7, 2.0))
    pitch = wave((0.05, 2, 0.5), (0.03, 5, 0.0)) + 0.04 * talking * np.sin(2 * np.pi * 1.1 * times)
    roll = wave((0.05, 1, 1.5), (0.02, 4, 0.3))
    rotation = rotation_of_angles(yaw, pitch, roll)
    translation = np.stack([0.008 * np.sin(2 * np.pi * times / _SECONDS), 0.003 * np.sin(4 * np.pi * times / _SECONDS),
                            np.full(count, 0.6)], 1)  # fmt: skip
    glance = 0.22 * _bump(times, 2.6, 0.06, 0.5, 0.06) - 0.25 * _bump(times, 7.7, 0.06, 0.6, 0.06)
    gaze = np.zeros((count, 2, 2))
    gaze[..., 0] = (glance - 0.6 * yaw)[:, None]
    gaze[..., 1] = (-0.6 * pitch)[:, None]
    expression = with_look(expression, gaze)
    person = Person(np.zeros(80), np.zeros((478, 3)), Camera(640.0, 512, 512), np.zeros(52), np.zeros((2, 2)))
    ones = np.ones(count)
    return Performance(
        person, times, ones / _RATE, ones.astype(bool), expression, rotation, translation, gaze, ones, np.full(count, np.nan)
    )


def builtin_portrait() -> np.ndarray:
    """512 x 512 x 3 uint8 sRGB: the public-domain NASA portrait that scikit-image carries; no file of ours holds it."""
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[..., :3])
