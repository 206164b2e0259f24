"""What a long job says while it works: a fraction and the time left, to whoever listens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Listener = Callable[[str, int, int | None], None]  # stage, done so far, total where known


def silent(stage: str, done: int, total: int | None) -> None:
    """Listens to nothing."""


def counted(items: Iterable[Item], stage: str, total: int | None, listen: Listener) -> Iterator[Item]:
    """Passes items through, telling the listener after each."""
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        listen(stage, done, total)
    listen(stage, done, done)


class TerminalProgress:
    """Bars on the terminal with the time left (rich); use as a context manager, and as the listener itself."""

    def __enter__(self) -> TerminalProgress:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            console=Console(stderr=True),
        )  # fmt: skip
        self._bars.__enter__()
        self._tasks: dict[str, int] = {}
        return self

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)

    def say(self, line: str) -> None:
        """A line that takes the place of the one before."""
        if not hasattr(self, "_line"):
            self._bars.stop()
            self._line = self._bars.console.status(line, spinner="simpleDots")
            self._line.start()
        self._line.update(line)

    def __exit__(self, *error: object) -> None:
        if hasattr(self, "_line"):
            self._line.stop()
        self._bars.__exit__(*error)
