"""How long each stage takes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")
_KEPT = 20_000  # latest of each stage: ten minutes at 30 a second, however long it runs


class StageClock:
    """Collects seconds by stage; one thread to a stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, deque[float]] = {}

    def __call__(self, stage: str, work: Callable[[], Result]) -> Result:
        start = perf_counter()
        result = work()
        self.add(stage, perf_counter() - start)
        return result

    def add(self, stage: str, seconds: float) -> None:
        self.seconds.setdefault(stage, deque(maxlen=_KEPT)).append(seconds)

    def latest(self, stage: str, count: int) -> np.ndarray:
        """Seconds of its last `count` times, fewer where there were fewer."""
        kept = list(self.seconds.get(stage, ()))
        return np.array(kept[-count:])

    def rows(self) -> dict[str, dict[str, float]]:
        return {
            stage: {"median_ms": 1e3 * float(np.median(s)), "p95_ms": 1e3 * float(np.percentile(s, 95))}
            for stage, s in ((stage, list(kept)) for stage, kept in list(self.seconds.items())) if s
        }  # fmt: skip
