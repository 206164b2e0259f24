"""Times of each stage, of the whole loop, and beside them the bare tracker, all in one run on one machine.

The loop is the live one: causal, frame by frame, capture to composite, at 512 x 512 unless a clip says otherwise.
"""

from __future__ import annotations

import os
import platform
from time import perf_counter

import cv2
import numpy as np

from capture.face_tracker import FaceMesh
from capture.frame import Frame
from capture.media import open_media
from models.prior.face import AnnyPrior
from models.prior.synthetic import render_head
from pipeline.builtin import BUILTIN, builtin_performance
from pipeline.device import DeviceChoice, choose_device
from pipeline.errors import Refusal
from pipeline.live.loop import LiveLoop
from pipeline.puppet import open_puppet
from pipeline.reenactment import Settings

SIZE = 512
_WARM = 20  # frames before the clock starts: compiled code, caches, the driver's calibration


def synthetic_driver(prior: AnnyPrior, frames: int) -> list[Frame]:
    """A synthetic head playing the built-in performance, 512 x 512, over and over."""
    performance = builtin_performance()
    arrays = {name: getattr(prior, name) for name in ("mean", "triangles", "region", "part")}
    kept = min(frames, len(performance))
    pictures = []
    for index in range(kept):
        code = performance.code(index)
        vertices = prior.mean + np.tensordot(code.expression.astype(np.float32), prior.expression, 1)
        camera = vertices @ code.rotation.T + code.translation
        pictures.append(render_head(arrays, camera, performance.person.camera.focal, SIZE, SIZE)[0])
    return [Frame(pictures[i % kept], i / 30) for i in range(frames)]


def bench(
    prior: AnnyPrior, device: DeviceChoice = "auto", clip: str | None = None, source: str | None = None, frames: int = 240
) -> dict:
    """Runs the loop and the bare tracker on the same frames; returns the report."""
    device = choose_device(device)
    settings = Settings(device=device)
    if clip is None:
        driver = synthetic_driver(prior, frames + _WARM)
    else:
        driver = [frame for _, frame in zip(range(frames + _WARM), open_media(clip))]
    if len(driver) < 2 * _WARM:
        raise Refusal(f"{clip}: {len(driver)} frames, expected at least {2 * _WARM}. Give a longer clip.")
    ready = open_puppet(source or BUILTIN, prior, device)
    width, height = ready.person.camera.width, ready.person.camera.height

    mesh = FaceMesh()
    bare = []
    for frame in driver:
        start = perf_counter()
        mesh(frame.image)
        bare.append(perf_counter() - start)
    mesh.close()
    bare_seconds = float(np.sum(bare[_WARM:]))

    live = LiveLoop(prior, ready, settings, background=False)
    loop = []
    for number, frame in enumerate(driver):
        if number == _WARM:
            live.clock.seconds.clear()
        start = perf_counter()
        image = live(frame)
        loop.append(perf_counter() - start)
    live.close()
    for _ in range(30):
        live.clock("encode as JPEG (page)", lambda: cv2.imencode(".jpg", image))
    loop_seconds = float(np.sum(loop[_WARM:]))
    timed = len(driver) - _WARM
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPU cores, device {device}",
        "driver": clip or "synthetic head, built-in performance, 512x512", "source": source or "built-in portrait",
        "output": f"{width}x{height}", "frames": timed, "stages": live.clock.rows(),
        "loop_fps": timed / loop_seconds, "loop_median_ms": 1e3 * float(np.median(loop[_WARM:])),
        "tracker_fps": timed / bare_seconds, "loop_to_tracker_ratio": loop_seconds / bare_seconds,
    }  # fmt: skip


def table(report: dict) -> str:
    """The report as lines for a terminal."""
    lines = [f"{report['machine']}; driver: {report['driver']}; source: {report['source']}; output {report['output']}"]
    lines += [f"{stage:>24}  {row['median_ms']:7.2f} ms  (p95 {row['p95_ms']:.2f})" for stage, row in report["stages"].items()]
    lines.append(f"{'whole loop':>24}  {report['loop_median_ms']:7.2f} ms  = {report['loop_fps']:.1f} frames a second")
    lines.append(f"{'bare tracker':>24}  {1e3 / report['tracker_fps']:7.2f} ms  = {report['tracker_fps']:.1f} frames a second")
    lines.append(f"{'loop / bare tracker':>24}  {report['loop_to_tracker_ratio']:7.2f} times")
    return "\n".join(lines)
