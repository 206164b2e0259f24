"""What a clip is like before anything is learned from it: its cuts, and what makes a shot hard to learn from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from capture.media import Media
from models.prior.face import AnnyPrior
from pipeline.fitting import LandmarkModel
from pipeline.progress import Listener, counted, silent

if TYPE_CHECKING:
    from pipeline.avatar.footage import Footage

_THUMB = 64  # pixels
_JUMP, _SUDDEN, _AROUND = 18.0, 5.0, 5  # codes of a cut's change, times that of the frames around it, and how many of these
_SEEN, _LOOKS = 200, 60  # pixels of background that tell something; frames that are looked at
_LIGHT = 8.0  # codes of the background's brightness
_MOTION = 1.0 / 128  # of the picture's size, that the background moved in the middle of the frames
_AT_BORDER = 0.2  # share of the frames


def survey(media: Media, holdout: float, listen: Listener = silent) -> tuple[int, list[int]]:
    """How many frames may be learned from, and at which of these another shot begins.

    Args:
        holdout: share of the frames at the end whose cuts don't count.
    """
    changes, before = [], None
    for frame in counted(media, "read", media.frame_count_estimate, listen):
        thumb = cv2.resize(frame.image, (_THUMB, _THUMB), interpolation=cv2.INTER_AREA).astype(np.int16)
        changes.append(0.0 if before is None else float(np.abs(thumb - before).mean()))
        before = thumb
    kept = len(changes) - round(holdout * len(changes))
    change = np.array(changes[1:kept])
    cuts = []
    for k in np.flatnonzero(change > _JUMP):
        around = np.delete(change[max(k - _AROUND, 0) : k + _AROUND + 1], min(k, _AROUND))
        if not len(around) or change[k] > _SUDDEN * np.median(around):
            cuts.append(int(k) + 1)
    return kept, cuts


def by_length(frames: int, cuts: list[int]) -> list[tuple[int, int]]:
    """The shots, the longest first: first frame of each, and the one after its last."""
    return sorted(zip([0, *cuts], [*cuts, frames]), key=lambda shot: shot[0] - shot[1])


def complaints(footage: Footage, prior: AnnyPrior) -> list[str]:
    """What will look worse than it could, one line each: an avatar has one scene under one light."""
    chosen = footage.some(_LOOKS)
    small = (128, 128)
    grey = np.stack([cv2.resize(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), small, interpolation=cv2.INTER_AREA) for i in chosen.images])
    grey = grey.astype(np.float32)
    grown = [cv2.dilate(cv2.resize(m, small, interpolation=cv2.INTER_AREA), np.ones((9, 9), np.uint8)) for m in chosen.mattes]
    free = np.stack(grown) < 20
    out = []
    always = free.all(0)
    if always.sum() > _SEEN:
        spread = float(np.ptp(grey[:, always].mean(1)))
        if spread > _LIGHT:
            out.append(
                f"the background's brightness changes by {spread:.0f} of 255: an avatar keeps one light. Lock the exposure."
            )
    moved = []
    for picture, seen in zip(grey[1:], free[1:]):
        both = free[0] & seen
        if both.sum() > _SEEN:
            window = cv2.GaussianBlur(both.astype(np.float32), (0, 0), 3)
            centred = [(one - one[both].mean()) * window for one in (grey[0], picture)]
            (x, y), response = cv2.phaseCorrelate(*centred)
            moved.append(np.hypot(x, y) / 128 if response > 0.1 else 0.0)
    if moved and np.median(moved) > _MOTION:
        out.append("the camera moves: what lies behind the person will be blurred. Put the camera on something firm.")
    (height, width), cut_off = footage.size, 0
    points = LandmarkModel.of(prior).neutral(footage.person)[:468]
    for code in footage.codes:
        place = footage.person.camera.project((points @ code.rotation.T + code.translation).astype(np.float32))[:, :2]
        cut_off += bool((place < 0).any() or (place > [width, height]).any())
    if cut_off > _AT_BORDER * len(footage):
        out.append(f"the face reaches over the picture's border in {cut_off} of {len(footage)} frames. Sit in the middle.")
    return out
