"""Works ahead in threads of its own, so that what comes next is ready when it is asked for."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from numba import set_num_threads

Item = TypeVar("Item")
Made = TypeVar("Made")
_MOST = 3  # items ready at a time
_ABREAST = min(4, os.cpu_count() or 1)  # items worked on at a time: more would wait for whoever takes them
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


def abreast(items: Iterable[Item], work: Callable[[Item], Made]) -> Iterator[Made]:
    """`work` done on each, in the same order, on as many at a time as there are cores (four at most), each of them on one.

    What `items` or `work` raises is raised here.
    """
    pending: deque = deque()
    with ThreadPoolExecutor(_ABREAST, "abreast", initializer=lambda: set_num_threads(1)) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > _ABREAST:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
