"""Works ahead in a thread of its own, so that what comes next is ready when it is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_MOST = 3  # items ready at a time
_TICK = 0.1  # seconds between looks whether anybody still wants them


class _Over:
    """The end of the items, or why there are no more."""

    def __init__(self, error: BaseException | None = None):
        self.error = error


def ahead(items: Iterable[Item], most: int = _MOST) -> Iterator[Item]:
    """The same items in the same order, each made while the ones before are worked on; what making them raises is raised here.

    Closing the iterator ends the thread, which closes `items` if it is a generator.
    """
    ready: queue.Queue[Item | _Over] = queue.Queue(most)
    ended = threading.Event()

    def put(item: Item | _Over) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=_TICK)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        made = iter(items)
        try:
            for item in made:
                if not put(item):
                    break
            else:
                put(_Over())
        except BaseException as error:
            put(_Over(error))
        finally:
            if hasattr(made, "close"):
                made.close()

    thread = threading.Thread(target=work, name="ahead", daemon=True)
    thread.start()
    try:
        while True:
            item = ready.get()
            if isinstance(item, _Over):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        ended.set()
        thread.join()
