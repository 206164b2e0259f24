"""What is replayed on a GPU: that it is the drawing, and that nothing in it depends on what is drawn."""

from threading import Thread

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

from models.replay import Replay
from tests.conftest import by_shapes_alone


def test_a_replay_is_its_drawing():
    replay = Replay(lambda a, b: (a[:, None] * b).to(torch.uint8), [np.zeros(4), np.zeros(3)], torch.device("cpu"))
    pictures = [replay.picture(np.arange(4.0), np.full(3, float(k))) for k in range(3)]
    for k, picture in enumerate(pictures):  # each is its own: the next one leaves it alone
        assert np.array_equal(picture, np.arange(4)[:, None] * np.full(3, k))


def test_several_threads_may_ask_for_pictures():
    replay, drawn = Replay(lambda a: a + 1, [np.zeros(1000)], torch.device("cpu")), {}

    def ask(k: int) -> None:
        drawn[k] = [replay.picture(np.full(1000, float(k))) for _ in range(20)]

    workers = [Thread(target=ask, args=(k,)) for k in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all((picture == k + 1).all() for k, pictures in drawn.items() for picture in pictures) and len(drawn) == 4


def test_what_waits_is_found():
    with pytest.raises((DynamicOutputShapeException, DataDependentOutputException)):
        by_shapes_alone(lambda a: a[a > 0], [np.ones(3)])
    with pytest.raises((DynamicOutputShapeException, DataDependentOutputException)):
        by_shapes_alone(lambda a: a * float(a[0]), [np.ones(3)])
