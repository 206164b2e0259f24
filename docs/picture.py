"""`python docs/picture.py`: makes the README's picture out of a synthetic head and the public-domain astronaut portrait."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipeline  # noqa: F401, I001  (sets the threads before numpy's libraries start them)

import cv2
import numpy as np

from capture.face_tracker import FaceTracker
from capture.frame import Frame
from capture.photo import write_photo
from models.prior.face import load_prior
from pipeline.builtin import builtin_portrait
from pipeline.puppet import PortraitPuppet
from pipeline.reenactment import Reenactment, Settings
from pipeline.live.driver import LiveDriver
from pipeline.source import prepare_picture
from tests.conftest import Synthetic, expression, turned

PERFORMANCE = (
    (expression(), turned()),
    (expression(jawOpen=0.45, browInnerUp=0.6, eyeWideLeft=0.5, eyeWideRight=0.5), turned(0.05, -0.05)),
    (expression(mouthSmileLeft=0.9, mouthSmileRight=0.9, cheekSquintLeft=0.6, cheekSquintRight=0.6), turned(-0.25, 0.05, -0.1)),
    (expression(eyeBlinkLeft=1, mouthPucker=0.6), turned(0.2, 0.05, 0.1)),
    (expression(jawOpen=0.25, mouthFunnel=0.6), turned(0.3, 0.15)),
)


def main() -> None:
    prior = load_prior()
    driver = Synthetic(prior, 2, focal=900.0)
    portrait = cv2.resize(builtin_portrait()[:250, 96:346], (640, 640), interpolation=cv2.INTER_CUBIC)
    targets = [PortraitPuppet(prepare_picture(portrait, prior))]
    side = 240
    rows: list[list[np.ndarray]] = [[] for _ in range(1 + len(targets))]
    live, loops = LiveDriver(prior, smoothing=0.0), [None] * len(targets)
    with FaceTracker(still=True) as tracker:
        for number, (values, rotation) in enumerate(PERFORMANCE):
            frame = Frame(driver.picture(driver.code(values, rotation)), number / 5)
            code = live(tracker(frame)[0], frame)
            rows[0].append(frame.image)
            for k, target in enumerate(targets):
                loops[k] = Reenactment(target, live.person, live.reference, Settings(), previous=loops[k])
                rows[k + 1].append(loops[k](replace(code, confidence=1.0), frame.time))
    cells = [np.concatenate([cv2.resize(c, (side, side), interpolation=cv2.INTER_AREA) for c in row], 1) for row in rows]
    write_photo(Path(__file__).with_name("picture.jpg"), np.concatenate(cells))


if __name__ == "__main__":
    main()
