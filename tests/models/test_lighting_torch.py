"""Relighting in torch: the same pictures as numba's."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from models.light.lights import Lamp, ambient_light
from models.light.presets import PRESETS
from models.moved import Moved
from models.relight.shading_torch import TorchShader
from pipeline.looking import Shot
from tests.conftest import by_shapes_alone
from tests.conftest import turned as head_turned

_NEAR = ambient_light(np.full(3, 0.1), (
    Lamp("point", np.array([0.4, 0.3, 0.2]), position=np.array([0.4, -0.3, -0.4])),
    Lamp("area", np.array([0.2, 0.3, 0.4]), position=np.array([-0.5, 0.1, -0.5]), size=0.3),
))  # fmt: skip


_RIM = 12  # sRGB codes where the head ends: OpenCV tells distances from there to a few per cent


def both(shot: Shot, portrait: np.ndarray, light, device: str, fine: bool = False, turned=None) -> tuple[np.ndarray, np.ndarray]:
    relit, performance = shot.people[0]
    relit = copy.copy(relit)
    relit._side = 288 if not fine else relit._side
    other = copy.copy(relit)
    other.device, other._on_device = "torch", TorchShader(relit.shader, device)
    matte = np.clip(1.5 - np.hypot(*(np.mgrid[0:512, 0:512] - 250)) / 200, 0, 1).astype(np.float32)
    return tuple(one(portrait, performance.code(0), matte, light, turned=turned) for one in (relit, other))


@pytest.mark.parametrize("name", ["noon", "near"])
def test_torch_makes_the_pictures_that_numba_makes(name, shot, portrait):
    light = _NEAR if name == "near" else PRESETS[name]().turned(0.4)
    numba, torch = both(shot, portrait, light, "cpu")
    off = np.abs(numba.astype(int) - torch)
    assert np.abs(numba.astype(int) - portrait).mean() > 3  # it does change
    assert off.mean() < 0.15 and np.percentile(off, 99.9) <= _RIM


def test_torch_knows_of_light_that_went_along_with_a_head(shot, portrait):
    turned = head_turned(0.4)
    numba, torch = both(shot, portrait, PRESETS["noon"](), "cpu", turned=turned)
    off = np.abs(numba.astype(int) - torch)
    assert off.mean() < 0.15 and np.percentile(off, 99.9) <= _RIM
    still = both(shot, portrait, PRESETS["noon"](), "cpu")[0]
    assert np.abs(numba.astype(int) - still).mean() > 10 * off.mean()


def test_nothing_waits_for_the_device(shot, portrait, captured):
    """What would be recorded as a CUDA graph looks at no value."""
    relit, performance = shot.people[0]
    matte = np.ones((512, 512), np.float32)
    lights = (relit.source, PRESETS["noon"]())
    shader = TorchShader(relit.shader, "cpu")
    moved = Moved(np.zeros((256, 256, 2), np.float32), 0.8)
    draw = lambda: shader(portrait, performance.code(0), matte, lights, matte, 288, 288, relit.person.camera, moved)
    taken = captured("models.relight.shading_torch", draw)
    assert by_shapes_alone(*taken).shape == portrait.shape


@pytest.mark.cuda
@pytest.mark.parametrize("name", ["window", "noon", "near"])
def test_cuda_makes_the_pictures_that_numba_makes(name, shot, portrait):
    light = _NEAR if name == "near" else PRESETS[name]()
    numba, cuda = both(shot, portrait, light, "cuda")
    off = np.abs(numba.astype(int) - cuda)
    assert off.mean() < 0.15 and np.percentile(off, 99.9) <= _RIM
