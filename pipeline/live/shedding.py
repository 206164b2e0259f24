"""What is left out when a machine cannot keep up, in a stated order, and taken up again when it can.

1. preview size: pictures that are only watched (a window, the page) are handed on at half their size;
2. refinement: faces are fitted in one step a frame instead of two;
3. frame rate: every second frame is left out before anything is done with it.
"""

from __future__ import annotations

from time import monotonic

from pipeline.clock import StageClock
from pipeline.live.loop import LiveLoop

LEVELS = ("everything", "smaller preview", "less refinement", "half the frame rate")
_WINDOW = 2.0  # seconds between decisions
_FALLING_BEHIND = 0.6  # share of the wanted frames below which a window was bad
_BAD = 2  # bad windows in a row before more is left out: starting, and getting to know a face, cost one
_AT_EASE = 0.6  # share of a frame's time that the busiest stage takes, below which less is
_PATIENCE = 3  # easy windows in a row before something is taken up again


class Shedding:
    """Watches a loop, and sets how sparing it is."""

    def __init__(self, loop: LiveLoop):
        self._loop = loop
        self.changes = 0
        self.most = 0
        self._since: float | None = None
        self._before = (0, 0)
        self._easy = self._bad = 0

    @property
    def level(self) -> int:
        return self._loop.sparing

    def wants(self, number: int) -> bool:
        """Whether frame `number` is worked on at all."""
        return self.level < 3 or number % 2 == 1

    def heard(self, arrived: int, shown: int, clock: StageClock, now: float | None = None) -> None:
        """Call with every picture shown.

        Args:
            arrived, shown: frames and pictures so far.
            clock: seconds of the stages track, encode, draw and deliver.
            now: seconds, of a clock that never goes back.
        """
        now = monotonic() if now is None else now
        if self._since is None:
            self._since, self._before = now, (arrived, shown)
        span = now - self._since
        if span < _WINDOW:
            return
        came, went = arrived - self._before[0], shown - self._before[1]
        self._since, self._before = now, (arrived, shown)
        if came < 2:
            return
        wanted = came / 2 if self.level == 3 else came
        spent = {stage: float(clock.latest(stage, went or 1).mean()) for stage in ("track", "encode", "draw", "deliver")
                 if len(clock.latest(stage, 1))}  # fmt: skip
        busiest = max(spent.get("track", 0.0) + spent.get("encode", 0.0), spent.get("draw", 0.0), spent.get("deliver", 0.0))
        self._bad = self._bad + 1 if went < _FALLING_BEHIND * wanted else 0
        self._easy = self._easy + 1 if not self._bad and busiest < _AT_EASE * span / came else 0
        if self._bad >= _BAD:
            self._bad = 0
            self._go_to(min(self.level + 1, 3))
        elif self._easy >= _PATIENCE and self.level:
            self._easy = 0
            self._go_to(self.level - 1)

    def _go_to(self, level: int) -> None:
        self.changes += level != self._loop.sparing
        self._loop.sparing = level
        self.most = max(self.most, level)

    def words(self) -> str:
        return f"left out to keep up: {', '.join(LEVELS[1 : self.level + 1])}"

    def report(self) -> dict:
        return {"level": self.level, "most": self.most, "changes": self.changes}
