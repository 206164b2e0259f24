"""`track --dense`: on top of the landmarks' fit, skin and light from the shot's pixels, and a shape that explains both."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from capture.media import Media
from models.light.harmonics import HarmonicLight
from models.prior.face import AnnyPrior
from models.prior.reflectance import Reflectance
from pipeline.encoding import FaceEncoder, crop_of_landmarks
from pipeline.performance import Performance
from pipeline.refinement import Refiner, Seen

FRAMES = 8  # of a shot that are explained pixel by pixel


def frames_to_explain(performance: Performance, count: int = FRAMES) -> np.ndarray:
    """Numbers of frames spread over the tracked part of a shot, the surest of each stretch."""
    seen = np.flatnonzero(performance.tracked)
    stretches = np.array_split(seen, min(count, len(seen)))
    return np.array([stretch[np.argmax(performance.confidence[stretch])] for stretch in stretches])


def explained(
    media: Media, performance: Performance, landmarks: dict[int, np.ndarray], prior: AnnyPrior, reflectance: Reflectance,
    encoder: FaceEncoder,
) -> tuple[Performance, np.ndarray]:  # fmt: skip
    """(the performance with skin and light, the identity that the pixels would rather have).

    Args:
        landmarks: 478 x 2+ pixels of the frames that `frames_to_explain` named.
    """
    camera = performance.person.camera
    wanted = set(landmarks)
    seen: list[Seen] = []
    looks = []
    for index, frame in enumerate(media):
        if index in wanted:
            seen.append(Seen(frame.image, performance.code(index), landmarks[index]))
            looks.append(encoder(frame.image, crop_of_landmarks(camera, landmarks[index])))
            if len(seen) == len(wanted):
                break
    albedo = np.mean([look.albedo for look in looks], 0)
    light = HarmonicLight(np.mean([look.light.coefficients for look in looks], 0))
    refined = Refiner(prior, reflectance)(camera, seen, performance.person.identity, albedo, light, performance.person.detail)
    person = replace(performance.person, albedo=refined.albedo)
    shared = np.tile(refined.light.coefficients, (len(performance), 1, 1))
    return replace(performance, person=person, light=shared), refined.identity
