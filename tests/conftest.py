"""Shared by all tests: the prior, synthetic people, and the real clips where they are."""

from __future__ import annotations

import contextlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

import pipeline  # noqa: F401  (sets the threads before numpy's libraries start them)

# isort: split
import numpy as np

from models.code import Camera, FaceCode, Person
from models.prior.face import EXPRESSIONS, AnnyPrior, load_prior
from models.prior.synthetic import render_head


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    import torch

    reasons = {
        "media": None if os.environ.get("UNDERSTUDY_MEDIA") else "UNDERSTUDY_MEDIA is not set: no real clips",
        "slow": None if config.getoption("--slow") else "takes more than half a minute: run with --slow",
        "cuda": None if torch.cuda.is_available() else "no NVIDIA GPU",
        "browser": _no_browser(),
    }
    for item in items:
        for name, reason in reasons.items():
            if reason and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_browser() -> str | None:
    import importlib.util
    import shutil

    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed"
    return None if shutil.which("chromium") else "chromium is not installed"


@pytest.fixture(scope="session")
def prior() -> AnnyPrior:
    return load_prior()


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """The built-in portrait's pixels."""
    from pipeline.builtin import builtin_portrait

    return builtin_portrait()


@pytest.fixture(scope="session")
def shot(portrait, prior):
    """The built-in portrait looked at, ready to be relit."""
    from capture.media import StillPicture
    from pipeline.looking import look_at

    return look_at(StillPicture(portrait, "builtin"), prior)


@pytest.fixture(scope="session")
def media() -> Path:
    return Path(os.environ["UNDERSTUDY_MEDIA"])


def by_shapes_alone(draw, arrays):
    """What `draw` makes of tensors that have a shape but no values: what would look at a value, and so wait for a GPU, fails."""
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True):
        return draw(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


@pytest.fixture
def captured(monkeypatch):
    """Takes a module's name and a function that draws through it; returns the drawing that a GPU would record, and its arrays.

    The module's rasteriser is told to see nothing from then on: what it does on a GPU is for its kernels' own tests.
    """
    import torch

    from models.raster.differentiable import Hits

    def capture(module: str, draw):
        taken = []

        class Recorder:
            def __init__(self, drawing, arrays, device):
                taken.extend((drawing, arrays))

            def picture(self, *arrays):
                return None

        def rasterise(points, triangles, height, width):
            size = len(points), height, width
            return Hits(torch.zeros(size, dtype=torch.int32), torch.zeros(*size, 3), torch.zeros(size))

        monkeypatch.setattr(f"{module}.Replay", Recorder)
        monkeypatch.setattr(f"{module}.rasterise", rasterise)
        monkeypatch.setattr(f"{module}.interpolate", lambda hits, _, values: torch.zeros(*hits.triangle.shape, values.shape[-1]))
        draw()
        return taken

    return capture


def expression(**values: float) -> np.ndarray:
    """52 values by name."""
    out = np.zeros(52)
    for name, value in values.items():
        out[EXPRESSIONS.index(name)] = value
    return out


def turned(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    from models.head import rotation_of_angles

    return rotation_of_angles(yaw, pitch, roll)


class Synthetic:
    """A head of known codes: its pictures and its true landmarks."""

    def __init__(self, prior: AnnyPrior, seed: int = 0, size: int = 512, focal: float = 640.0):
        self.prior = prior
        rng = np.random.default_rng(seed)
        self.person = Person(
            rng.normal(0, 0.7, 80), np.zeros((478, 3)), Camera(focal, size, size), np.zeros(52), np.zeros((2, 2))
        )
        self.skin = tuple(np.clip(rng.uniform(0.6, 1.2) * rng.normal(1, 0.05, 3), 0.3, 1.4))
        self._arrays = {name: getattr(prior, name) for name in ("mean", "triangles", "region", "part")}

    def code(self, values: np.ndarray | None = None, rotation: np.ndarray | None = None, gaze=(0.0, 0.0)) -> FaceCode:
        gaze = np.tile(np.array(gaze, float), (2, 1))
        from models.head import with_look

        values = with_look(np.zeros(52) if values is None else values, gaze)
        return FaceCode(values, np.eye(3) if rotation is None else rotation, np.array([0.0, 0.0, 0.6]), gaze)

    def picture(self, code: FaceCode) -> np.ndarray:
        from models.head import Head

        camera = self.person.camera
        posed = Head(self.prior, self.person).posed(code)
        return render_head(self._arrays, posed, camera.focal, camera.width, camera.height, skin=self.skin)[0]


@pytest.fixture
def synthetic(prior: AnnyPrior):
    return lambda **options: Synthetic(prior, **options)


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def command(*words: object) -> Done:
    """`python -m pipeline WORDS`, without the seconds that another process takes to start."""
    from pipeline.__main__ import main

    said, complained = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, said.getvalue(), complained.getvalue())


def write_clip(path: Path, pictures, times=None, rate: int = 30, **options) -> Path:
    """Writes pictures as a video at their times."""
    from capture.writer import VideoWriter

    times = np.arange(len(pictures)) / rate if times is None else times
    ends = [*times[1:], times[-1] + 1 / rate]
    with VideoWriter(path, pictures[0].shape[1], pictures[0].shape[0], **options) as writer:
        for picture, time, end in zip(pictures, times, ends):
            writer.write(picture, time, end - time)
    return path
