"""How the live engine and the page keep up: rates, ages, overload, and what is left behind. Used by `tests.figures`."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from capture.frame import Frame
from capture.media import open_media
from capture.sinks import NullSink, fitted
from models.light.presets import PRESETS
from models.prior.face import load_prior
from pipeline.ensemble import open_ensemble
from pipeline.lit_puppet import lit
from pipeline.live.engine import Engine, Pace
from pipeline.live.loop import LiveLoop
from pipeline.puppet import open_puppet

CLIP = "driver/driver_male_mouth_wide_30fps_480.mp4"
AVATAR = Path("out/avatars/talking_head_male_suit_30fps_960.avatar")


def camera(clip: Path, rate: float, seconds: float) -> Iterator[Frame]:
    """A clip's frames, 640 x 480, forwards and backwards, over and over, at a camera's pace."""
    pictures = [fitted(frame.image, 640, 480) for frame in islice(open_media(clip), 150)]
    pictures += pictures[::-1]
    started = time.monotonic()
    for number in range(int(rate * seconds)):
        moment = number / rate
        time.sleep(max(0.0, started + moment - time.monotonic()))
        yield Frame(pictures[number % len(pictures)], moment, 1 / rate)


def resident() -> float:
    """MB of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def engine(media: Path, row, head) -> None:
    """Without a browser: frames at 60 a second, pictures of 512 x 512 into nothing; beside the bare face mesh."""
    from capture.face_tracker import FaceMesh

    prior = load_prior()
    picture = next(iter(open_media(media / CLIP))).image
    mesh = FaceMesh()
    times = []
    for _ in range(60):
        start = time.perf_counter()
        mesh(picture)
        times.append(time.perf_counter() - start)
    mesh.close()
    alone = float(np.median(times[10:]))
    head("source", "pictures a second", "age p50 ms", "age p95 ms", "track ms", "encode ms", "draw ms", "face mesh alone ms")
    for source, light in (("builtin", None), (str(AVATAR), None), ("builtin", "window"), ("builtin", "noon")):
        if source != "builtin" and not AVATAR.exists():
            row(source, "run `avatar` first", *[""] * 6)
            continue
        who = open_ensemble(source, prior)
        loop = LiveLoop(prior, who if light is None else lit(who, PRESETS[light](), prior))
        for frame in camera(media / CLIP, 60, 4):  # compiled, and the driver known
            loop(frame)
        loop.clock.seconds.clear()
        report = Engine(lambda: camera(media / CLIP, 60, 20), loop, NullSink(), Pace(real_time=False)).run()
        loop.close()
        stage = {name: row_["median_ms"] for name, row_ in report["stages"].items()}
        name = Path(source).stem if light is None else f"{Path(source).stem}, under `{light}`"
        row(name, report["fps"], report["age_ms"]["p50"], report["age_ms"]["p95"], stage["track"], stage["encode"],
            stage["draw"], 1e3 * alone)  # fmt: skip


def overload(media: Path, row, head) -> None:
    """A renderer slowed to 200 ms a picture, frames at 30 a second, for two minutes."""
    prior = load_prior()
    loop = LiveLoop(prior, open_puppet("builtin", prior))
    draw = loop.draw

    def slowed(followed):
        time.sleep(0.2)
        return draw(followed)

    loop.draw = slowed
    memory = []

    def watched():
        for number, frame in enumerate(camera(media / CLIP, 30, 120)):
            if number % 300 == 299:
                gc.collect()
                memory.append(resident())
            yield frame

    report = Engine(watched, loop, NullSink(), Pace(real_time=False)).run()
    loop.close()
    head("pictures a second", "age p50 ms", "age p95 ms", "dropped", "shed at most", "MB after 10 s", "MB at the end")
    row(report["fps"], report["age_ms"]["p50"], report["age_ms"]["p95"], sum(report["dropped"].values()),
        report["shedding"]["most"], memory[0], memory[-1])  # fmt: skip
