"""Camera to screen, in a real browser: a fake camera whose frames carry their number, read back from the screen.

The page under measure is the project's own, but for one thing: the number that a camera frame carries is painted onto the picture
that was made of it, since nothing else of the camera's may reach the screen. Beside it runs a page with an identity handler.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pipeline  # noqa: F401  (sets the threads before numpy's libraries start them)

# isort: split
import av

# isort: split
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
BITS, CELL = 12, 20  # a strip at the upper left: a white cell, a black one, the number, its complement's parity
_CELLS = BITS + 3
_NUMBERS = 1 << BITS
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
]  # fmt: skip


def paint(image: np.ndarray, number: int) -> np.ndarray:
    """A copy with a number in its upper left corner."""
    out = image.copy()
    bits = [(number >> k) & 1 for k in range(BITS)]
    for k, bit in enumerate([1, 0, *bits, 1 - sum(bits) % 2]):
        out[:CELL, k * CELL : (k + 1) * CELL] = 255 * bit
    return out


def read(image: np.ndarray) -> int | None:
    """The number painted into a picture; None where there is none."""
    cells = [image[CELL // 4 : 3 * CELL // 4, k * CELL + CELL // 4 : k * CELL + 3 * CELL // 4].mean() for k in range(_CELLS)]
    if cells[0] < 170 or cells[1] > 85:
        return None
    bits = [int(cell > 128) for cell in cells[2:]]
    return sum(b << k for k, b in enumerate(bits[:-1])) if bits[-1] == 1 - sum(bits[:-1]) % 2 else None


def fake_camera(clip: str, path: Path, width: int = 640, height: int = 480, rate: int = 30, count: int = 600) -> None:
    """A clip as numbered frames that Chromium takes for a camera's, forwards and backwards so that it has no jump."""
    from capture.media import open_media
    from capture.sinks import fitted

    pictures = [fitted(frame.image, width, height) for _, frame in zip(range(count // 2), open_media(clip))]
    pictures = (pictures + pictures[::-1]) * (count // (2 * len(pictures)) + 1)
    with av.open(str(path), "w", format="mjpeg") as file:
        stream = file.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p"
        stream.codec_context.options = {"q:v": "3"}
        for number, picture in enumerate(pictures[:count]):
            frame = av.VideoFrame.from_ndarray(paint(picture, number % _NUMBERS), format="rgb24").reformat(format="yuvj420p")
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


# in the page: when the camera gave each number, and when the screen showed it
_WATCH = """
([camera, output, cell, bits]) => {
  const sheet = () => { const c = document.createElement('canvas'); c.width = cell * (bits + 3); c.height = cell;
                        return c.getContext('2d', {willReadFrequently: true}); };
  const read = (pen, picture, wide, scale) => {
    pen.drawImage(picture, 0, 0, wide * scale, cell * scale, 0, 0, wide, cell);
    const data = pen.getImageData(0, 0, wide, cell).data;
    const at = k => data[4 * ((cell >> 1) * wide + k * cell + (cell >> 1))];
    if (at(0) < 170 || at(1) > 85) return null;
    let number = 0, ones = 0;
    for (let k = 0; k < bits; k++) if (at(k + 2) > 128) { number += 1 << k; ones++; }
    return (at(bits + 2) > 128) === (ones % 2 === 0) ? number : null;
  };
  const wide = cell * (bits + 3), taken = new Map(), pens = [sheet(), sheet()];
  const log = window.watched = {ages: [], after: [], shown: [], camera: 0};
  const video = document.querySelector(camera + ' video');
  const follow = (now, about) => {
    const number = read(pens[0], video, wide, 1);
    if (number !== null) { taken.set(number, [about.captureTime ?? now, performance.now()]); log.camera++; }
    video.requestVideoFrameCallback(follow);
  };
  video.requestVideoFrameCallback(follow);
  let last = null, largest = 1;
  const look = () => {
    const picture = document.querySelector(output + ' img');
    if (picture && picture.complete && picture.naturalWidth && picture.src !== last) {
      last = picture.src;
      largest = Math.max(largest, picture.naturalWidth);  // a preview may be made smaller to keep up
      const number = read(pens[1], picture, wide, picture.naturalWidth / largest);
      const now = performance.now();
      if (number !== null && taken.has(number)) {
        const [captured, previewed] = taken.get(number);
        log.ages.push(now - captured); log.after.push(now - previewed);
      }
      log.shown.push(now);
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}
"""

# opens the camera of Gradio's own element, waits for its picture and begins to stream
_START_GRADIO = """
async () => {
  const root = document.querySelector('#live-camera');
  const access = root.querySelector('[title="grant webcam access"] button');
  if (access) access.click();
  for (let i = 0; i < 300; i++) {
    const begin = root.querySelector('.button-wrap [title="start recording"]');
    const video = root.querySelector('video');
    if (root.querySelector('.button-wrap [title="stop recording"]')) return;
    if (begin && video && video.readyState >= 2 && video.videoWidth > 0) { begin.closest('button').click(); return; }
    await new Promise(done => setTimeout(done, 50));
  }
}
"""


def serve_ours(port: int, slow: float = 0.0) -> None:
    """The project's page, with numbers carried over; `slow` seconds are added to every drawing."""
    from pipeline.live.loop import LiveLoop
    from pipeline.page import layout, visit

    numbers: dict[float, int | None] = {}  # by the frame's time
    follow, draw = LiveLoop.follow, LiveLoop.draw

    def numbered(self, frame, at=None):
        if frame is not None:
            numbers[frame.time] = read(frame.image)
            for old in sorted(list(numbers))[:-100]:  # frames that were dropped
                numbers.pop(old, None)
        return follow(self, frame, at)

    def with_number(self, followed):
        time.sleep(slow)
        picture = visit.limited(draw(self, followed))
        number = numbers.pop(followed.time, None)
        return picture if number is None else paint(picture, number)

    LiveLoop.follow, LiveLoop.draw = numbered, with_number
    layout.serve(port=port)


def serve_plain(port: int) -> None:
    """The project's page, as it is."""
    from pipeline.page import layout

    layout.serve(port=port)


def serve_identity(port: int) -> None:
    """A page that shows what the camera sees, through the same elements."""
    import gradio as gr

    from pipeline.page.browser import CAMERA

    with gr.Blocks() as blocks:
        with gr.Tabs(), gr.Tab("Live"):
            camera = gr.Image(sources=["webcam"], streaming=True, elem_id="live-camera",
                              webcam_options=gr.WebcamOptions(mirror=False, constraints=CAMERA), height=380)  # fmt: skip
            gr.Markdown("", elem_id="live-latency")
            go = gr.Button("Start", elem_id="live-start")
            output = gr.Image(elem_id="live-output", format="jpeg", interactive=False, height=440)
        camera.stream(lambda image: image, camera, output, stream_every=1 / 30, concurrency_limit=2, show_progress="hidden",
                      time_limit=None)  # fmt: skip
        go.click(None, js=_START_GRADIO)
    blocks.queue().launch(server_port=port, quiet=True, ssr_mode=False)


@contextmanager
def serving(kind: str, *extra: str):
    """A page in a process of its own; gives its address and the process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "tests.live_browser", "--serve", kind, "--port", str(port), *extra]
    server = subprocess.Popen(words, cwd=ROOT)
    try:
        for _ in range(480):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read()
                break
            except OSError:
                if server.poll() is not None:
                    raise RuntimeError("the page ended") from None
                time.sleep(0.25)
        yield f"http://127.0.0.1:{port}/", server
    finally:
        server.terminate()
        server.wait(20)


def _seconds_by_process() -> dict[str, float]:
    """CPU seconds so far of browser parts and servers, by what they are."""
    spent: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().replace(b" ", b"\0").split(b"\0")
            times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        kind = next((w[7:].decode() for w in words if w.startswith(b"--type=")), None)
        sort = next((w.rsplit(b".", 1)[-1].decode() for w in words if w.startswith(b"--utility-sub-type=")), None)
        if b"chromium" in words[0]:
            name = f"browser: {sort or kind or 'main'}"
        elif b"tests.live_browser" in words and b"--serve" in words:
            name = "server"
        else:
            continue
        spent[name] = spent.get(name, 0.0) + (int(times[11]) + int(times[12])) / os.sysconf("SC_CLK_TCK")
    return spent


def watch(address: str, camera: Path, seconds: float, prepare: Callable[[object], None] = lambda page: None) -> dict:
    """Ages (ms) and rate of what a browser shows of a page's live output, after a quarter of the time to settle."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=[*FLAGS, f"--use-file-for-fake-video-capture={camera}"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.goto(address)
        prepare(page)
        page.get_by_role("tab", name="Live").click()
        page.click("#live-start")
        page.wait_for_function("document.querySelector('#live-camera video')?.videoWidth > 0", timeout=60_000)
        page.wait_for_selector("#live-output img", timeout=60_000)
        page.evaluate(_WATCH, ["#live-camera", "#live-output", CELL, BITS])
        time.sleep(seconds / 4)
        page.evaluate("() => { watched.ages.length = watched.after.length = watched.shown.length = watched.camera = 0; }")
        started, before = time.monotonic(), _seconds_by_process()
        time.sleep(seconds)
        after = _seconds_by_process()
        told = page.evaluate("() => watched")
        span = time.monotonic() - started
        words = page.inner_text("#live-latency") if page.query_selector("#live-latency") else ""
        browser.close()
    ages = np.array(told["ages"])
    return {
        "camera_fps": told["camera"] / span, "shown_fps": len(told["shown"]) / span, "read": len(ages),
        "p50_ms": float(np.percentile(ages, 50)) if len(ages) else None,
        "p90_ms": float(np.percentile(ages, 90)) if len(ages) else None,
        "p95_ms": float(np.percentile(ages, 95)) if len(ages) else None,
        "after_own_preview_p50_ms": float(np.median(told["after"])) if len(ages) else None, "words": words,
        "cores": {name: round((after[name] - before.get(name, 0.0)) / span, 2) for name in sorted(after)},
    }  # fmt: skip


def of_process(pid: int, temporary: Path) -> dict[str, float]:
    """What a server holds: MB resident, threads, open files, and MB in its temporary folder."""
    folder = Path(f"/proc/{pid}")
    return {
        "resident_mb": int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6,
        "threads": len(list((folder / "task").iterdir())), "files": len(list((folder / "fd").iterdir())),
        "temporary_mb": sum(f.stat().st_size for f in temporary.rglob("*") if f.is_file()) / 1e6,
    }  # fmt: skip


def soak(camera: Path, seconds: float, again: float = 20.0) -> list[dict]:
    """Two visitors at full speed, one of whom leaves and comes anew every `again` seconds; the server every ten seconds.

    The last two rows: a while after both have left.
    """
    from playwright.sync_api import sync_playwright

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["GRADIO_TEMP_DIR"] = temporary
        with serving("plain") as (address, server), sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=[*FLAGS, f"--use-file-for-fake-video-capture={camera}"]
            )

            def visit():
                page = browser.new_context(viewport={"width": 800, "height": 900}).new_page()
                page.goto(address)
                page.get_by_role("tab", name="Live").click()
                page.click("#live-start")
                return page

            def note(what: str) -> None:
                rows.append({"at": round(time.monotonic() - started, 1), "what": what} | of_process(server.pid, Path(temporary)))
                print(json.dumps(rows[-1]), flush=True)

            started = time.monotonic()
            note("nobody")
            steady, other = visit(), visit()
            came, noted = time.monotonic(), time.monotonic()
            while time.monotonic() - started < seconds:
                time.sleep(1)
                if time.monotonic() - came > again:
                    came = time.monotonic()
                    other.context.close()
                    other = visit()
                if time.monotonic() - noted > 10:
                    noted = time.monotonic()
                    note(steady.inner_text("#live-latency"))
            browser.close()
            for _ in range(2):
                time.sleep(30)
                note("nobody")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", choices=("ours", "plain", "identity"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slow", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clip", default="driver/driver_male_mouth_wide_30fps_480.mp4")
    parser.add_argument("--soak", type=float, help="seconds of `soak` instead")
    parser.add_argument("--only", choices=("ours", "identity"))
    options = parser.parse_args()
    if options.serve == "ours":
        serve_ours(options.port, options.slow)
    elif options.serve == "plain":
        serve_plain(options.port)
    elif options.serve == "identity":
        serve_identity(options.port)
    else:
        camera = Path(f"/tmp/understudy-camera-{os.getpid()}.mjpeg")
        try:
            fake_camera(str(Path(os.environ["UNDERSTUDY_MEDIA"]) / options.clip), camera)
            if options.soak:
                soak(camera, options.soak)
                return
            for kind in ("identity", "ours", "identity", "ours"):
                if options.only in (None, kind):
                    with serving(kind, "--slow", str(options.slow)) as (address, _):
                        print(kind, json.dumps(watch(address, camera, options.seconds)), flush=True)
        finally:
            camera.unlink(missing_ok=True)


if __name__ == "__main__":
    cv2.setNumThreads(1)
    main()
