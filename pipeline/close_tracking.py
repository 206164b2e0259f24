"""Tracking of photos that a face fills to its edges."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from capture.media import Media, StillPicture
from models.code import Camera
from models.prior.face import AnnyPrior
from pipeline.errors import Refusal
from pipeline.tracking import Tracked, track

_RIM = 0.3  # of a picture's longer side: what is put around faces that fill it
_RIM_GREY = 40
_FILLED = 0.65  # of a photo's side that a face takes, above which it is looked for with a rim around


def track_closely(media: Media, prior: AnnyPrior, **how) -> Tracked:
    """`track`, with something around a photo that a face fills to its edges: there none is found without, or a shifted one."""
    try:
        tracked, none = track(media, prior, **how), None
    except Refusal as refusal:
        tracked, none = None, refusal
    if not media.is_photo or (tracked is not None and not _fills(tracked, media.width, media.height)):
        if none is not None:
            raise none
        return tracked
    image = next(iter(media)).image
    rim = round(_RIM * max(image.shape[:2]))
    wide = cv2.copyMakeBorder(image, *[rim] * 4, cv2.BORDER_CONSTANT, value=[_RIM_GREY] * 3)
    larger = max(1, round(640 / max(image.shape[:2])))  # small faces are found larger
    wide = cv2.resize(wide, None, fx=larger, fy=larger, interpolation=cv2.INTER_CUBIC) if larger > 1 else wide
    try:
        return _without_rim(track(StillPicture(wide, media.path), prior, **how), rim, larger, media.width, media.height)
    except Refusal:
        if none is not None:
            raise none from None
        return tracked


def _fills(tracked: Tracked, width: int, height: int) -> bool:
    points = tracked.keyframes[min(tracked.keyframes)][0][:468, :2]
    return bool((np.ptp(points, axis=0) > _FILLED * np.array([width, height])).any())


def _without_rim(tracked: Tracked, rim: int, larger: int, width: int, height: int) -> Tracked:
    """As if the picture inside of the rim had been tracked."""
    performances = {
        k: replace(p, person=replace(p.person, camera=Camera(p.person.camera.focal / larger, width, height)))
        for k, p in tracked.performances.items()
    }
    keyframes = {k: points / larger - np.array([rim, rim, 0]) for k, points in tracked.keyframes.items()}
    return replace(tracked, performances=performances, keyframes=keyframes)
