"""A webcam as a stream of frames, stamped when they were taken as far as the driver tells, else when they arrive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import cv2

from capture.errors import MediaError
from capture.frame import Frame

_PLAUSIBLE = 1.0  # seconds that a frame may lie in the driver's buffers


class WebcamReader:
    """Camera number `index`. Raises MediaError where there is none."""

    is_photo = False
    is_endless = True
    has_audio = False
    duration = None
    frame_count_estimate = None

    def __init__(self, index: int, width: int = 1280, height: int = 720):
        self.path = f"webcam:{index}"
        self._camera = cv2.VideoCapture(index)
        if not self._camera.isOpened():
            raise MediaError(
                f"{self.path}: no camera answers (none there, in use elsewhere, or not permitted). Plug one in, close what "
                "uses it, or give the path of a video."
            )
        # uncompressed pictures of this size pass USB at five to ten a second
        self._camera.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*"MJPG"))
        self._camera.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._camera.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self.width = int(self._camera.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._camera.get(cv2.CAP_PROP_FRAME_HEIGHT))
        rate = self._camera.get(cv2.CAP_PROP_FPS)
        self.average_rate = Fraction(rate).limit_denominator(1001) if rate > 0 else None

    def __iter__(self) -> Iterator[Frame]:
        start = time.monotonic()
        while True:
            ok, image = self._camera.read()
            if not ok:
                return
            now = time.monotonic()
            stamp = self._camera.get(cv2.CAP_PROP_POS_MSEC) / 1000  # of Linux' driver, on the same clock
            taken = stamp if 0 <= now - stamp < _PLAUSIBLE else now
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), max(taken - start, 0.0))

    def close(self) -> None:
        self._camera.release()

    def __enter__(self) -> WebcamReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
