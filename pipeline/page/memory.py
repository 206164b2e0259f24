"""Keeps a server that runs for hours small: what Linux' allocator would keep for itself."""

from __future__ import annotations

import ctypes
import gc
import logging

log = logging.getLogger("understudy")
_ARENA_MAX, _ARENAS = -8, 2  # of malloc.h's mallopt


def keep_few_arenas() -> None:
    """Every visit has threads of its own; by default each might fill, and keep, a part of memory of its own."""
    try:
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _ARENAS)
    except (AttributeError, OSError):
        log.debug("memory is parted otherwise here")


def give_back() -> None:
    """Returns what is over to the system: what holds each other is found, and what the allocator keeps is let go."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        log.debug("memory is given back by itself here")
