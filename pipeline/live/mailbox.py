"""One slot between two threads: the newest item wins, or, where all are to be kept, the giver waits."""

from __future__ import annotations

import threading
from time import monotonic
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Closed(Exception):
    """Nothing comes any more."""


class Mailbox(Generic[Item]):
    """A slot for one item."""

    def __init__(self, keeps: bool = False):
        """Args:
        keeps: `put` waits until the slot is free; else what still lies there is thrown away.
        """
        self._keeps, self._changed = keeps, threading.Condition()
        self._item: Item | None = None
        self._closed = False
        self.dropped = 0  # items that nobody took, but for those that stand for no frame

    def put(self, item: Item) -> None:
        """Raises Closed where nobody will take it."""
        with self._changed:
            while self._keeps and self._item is not None and not self._closed:
                self._changed.wait()
            if self._closed:
                raise Closed
            self.dropped += self._item is not None and not getattr(self._item, "missed", False)
            self._item = item
            self._changed.notify_all()

    def take(self, until: float | None = None) -> Item | None:
        """The item, as soon as there is one; None where none has come `until` then (time.monotonic).

        Raises:
            Closed: the slot is empty and stays so.
        """
        with self._changed:
            while self._item is None:
                if self._closed:
                    raise Closed
                left = None if until is None else until - monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            item, self._item = self._item, None
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """What lies there may still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
