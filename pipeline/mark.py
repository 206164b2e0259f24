"""The visible mark: whoever sees a reenacted picture can tell that it is one."""

from __future__ import annotations

import cv2
import numpy as np

from capture.sinks import Sink

WORDS = "Understudy"
_HEIGHT = 0.032  # of the picture's shorter side
_STRENGTH = 0.6


def marked(image: np.ndarray) -> np.ndarray:
    """A copy of an H x W x 3 uint8 picture with the mark at its lower right, light on a dark edge, readable on anything.

    Where a picture is transparent (x 4), the mark is not.
    """
    if image.shape[2] == 4:
        ground = image[..., :3] * (image[..., 3:] > 0)
        words = marked(ground)
        return np.dstack([words, np.where((words != ground).any(-1), np.uint8(255), image[..., 3])])
    out = image.copy()
    scale = max(_HEIGHT * min(image.shape[:2]), 8.0) / 22.0  # the font is 22 pixels high at scale 1
    thick = max(1, round(1.6 * scale))
    (width, height), below = cv2.getTextSize(WORDS, cv2.FONT_HERSHEY_SIMPLEX, scale, thick)
    margin = max(3, height // 2)
    left, top = image.shape[1] - width - 2 * margin, image.shape[0] - height - below - margin
    if left < 0 or top < 0:
        return out  # a picture so small has no room for words
    corner = out[top:, left:]
    drawn = corner.copy()
    place = (margin, height + margin // 2)
    cv2.putText(drawn, WORDS, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), thick + 2, cv2.LINE_AA)
    cv2.putText(drawn, WORDS, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), thick, cv2.LINE_AA)
    cv2.addWeighted(drawn, _STRENGTH, corner, 1 - _STRENGTH, 0, dst=corner)
    return out


class Marked:
    """A sink whose pictures carry the mark."""

    def __init__(self, sink: Sink):
        self._sink = sink
        self.watched = getattr(sink, "watched", False)

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        self._sink.write(marked(image), time, duration)

    def close(self) -> None:
        self._sink.close()

    def discard(self) -> None:
        self._sink.discard()
