"""A performance kept as it happens: codes without a pixel."""

from __future__ import annotations

import numpy as np

from models.code import FaceCode, Person
from pipeline.live.loop import Followed
from pipeline.performance import Performance

_MOST = 30 * 60 * 60 * 2  # frames: two hours at 30 a second, some 200 MB; later ones are not kept


class PerformanceRecorder:
    """Keeps what the first driver does; true once there is anything to save."""

    def __init__(self) -> None:
        self._frames: list[tuple[float, FaceCode | None]] = []
        self._person: Person | None = None

    def heard(self, followed: Followed) -> None:
        driver = followed.drivers[0]
        self._person = driver.person or self._person
        if len(self._frames) < _MOST:
            self._frames.append((followed.time, driver.code))

    def __bool__(self) -> bool:
        return self._person is not None and any(code is not None for _, code in self._frames)

    def performance(self) -> Performance:
        """Of the person as known in the end; lost frames hold the code before them (or the first one)."""
        times = np.array([time for time, _ in self._frames])
        codes = [code for _, code in self._frames]
        tracked = np.array([code is not None for code in codes])
        last = next(code for code in codes if code is not None)
        held = [last := code or last for code in codes]
        step = float(np.median(np.diff(times))) if len(times) > 1 else 1 / 30
        stacked = {name: np.stack([getattr(code, name) for code in held])
                   for name in ("expression", "rotation", "translation", "gaze")}  # fmt: skip
        return Performance(
            self._person, times - times[0], np.append(np.diff(times), step), tracked, **stacked,
            confidence=np.array([code.confidence for code in held]), error=np.full(len(times), np.nan),
        )  # fmt: skip
