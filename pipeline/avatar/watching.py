"""An avatar's learning as something to watch: it runs in a thread of its own and tells how far it has come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from threading import Event, Thread

from models.prior.face import AnnyPrior
from pipeline.avatar.learning import LearningSettings, Stage, learn_avatar


def watched(clip: str, output: Path, prior: AnnyPrior, settings: LearningSettings) -> Iterator[str | Stage]:
    """Progress in words, of which the older may be left out, and every stage. Closed before its end, it stops the learning.

    Raises:
        as `learn_avatar`.
    """
    news: Queue = Queue()
    left = Event()

    def listen(stage: str, done: int, total: int | None) -> None:
        if left.is_set():
            raise KeyboardInterrupt  # nobody watches any more
        news.put(f"{stage}: {done} of {total}" if total else f"{stage}: {done}")

    def work() -> None:
        try:
            learn_avatar([clip], output, prior, settings, listen, lambda line: None, news.put)
            news.put(None)
        except BaseException as error:
            news.put(error)

    Thread(target=work, daemon=True).start()
    try:
        while (one := _newest(news)) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        left.set()


def _newest(news: Queue):
    """The next that matters: of progress only the last word."""
    one = news.get()
    while isinstance(one, str) and not news.empty():
        one = news.get()
    return one
