"""Working ahead changes nothing but the time it takes."""

from __future__ import annotations

import threading
import time

import pytest

from pipeline.ahead import abreast, ahead


def test_items_come_in_order_and_all():
    assert list(ahead(range(50), most=2)) == list(range(50))
    assert list(ahead([])) == []


def test_what_is_raised_while_making_is_raised_after_what_came_before():
    def broken():
        yield 1
        raise ValueError("broken")

    got = []
    with pytest.raises(ValueError, match="broken"):
        for item in ahead(broken()):
            got.append(item)
    assert got == [1]


def test_abreast_keeps_the_order_and_does_not_run_far():
    made = []

    def making():
        for k in range(60):
            made.append(k)
            yield k

    def work(k: int) -> int:
        time.sleep(0.002 * (k % 3))  # later ones may be ready before
        return k * k

    done = abreast(making(), work)
    assert next(done) == 0 and len(made) <= 6
    assert list(done) == [k * k for k in range(1, 60)] and list(abreast([], work)) == []


def test_what_is_raised_abreast_is_raised_in_its_turn():
    def work(k: int) -> int:
        if k == 5:
            raise ValueError("broken")
        return k

    got = []
    with pytest.raises(ValueError, match="broken"):
        for item in abreast(range(100), work):
            got.append(item)
    assert got == [0, 1, 2, 3, 4]


def test_it_works_ahead_but_not_far():
    made, two_more = [], threading.Event()

    def making():
        for k in range(100):
            made.append(k)
            if k == 2:
                two_more.set()
            yield k

    items = ahead(making(), most=2)
    assert next(items) == 0
    assert two_more.wait(5)  # without being asked
    items.close()
    assert len(made) <= 5


def test_leaving_early_ends_the_thread_and_closes_what_made_the_items():
    closed = []

    def making():
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    before = threading.active_count()
    for item in ahead(making()):
        if item == 3:
            break
    del item
    import gc

    gc.collect()
    assert closed == [True] and threading.active_count() == before
