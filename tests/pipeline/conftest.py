"""What tests of the live loop, and of where its pictures go, share."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conftest import Synthetic, expression, turned

MARKER = np.array([255, 0, 255])


@pytest.fixture(scope="session")
def performer(prior) -> list[np.ndarray]:
    """A head that talks and turns, on a colour that is nowhere in the source."""
    head = Synthetic(prior, 2, 320, 400.0)
    pictures = []
    for i in range(24):
        picture = head.picture(head.code(expression(jawOpen=0.5 * (i % 7) / 7), turned(0.2 * np.sin(i / 5))))
        picture[np.abs(picture.astype(int) - picture[0, 0]).sum(-1) == 0] = MARKER
        pictures.append(picture)
    return pictures


def leaks(picture: np.ndarray) -> bool:
    return bool((np.abs(picture.astype(int) - MARKER).max(-1) < 40).any())
