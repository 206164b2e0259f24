"""The page in a real browser, with a fake camera that shows a synthetic head talking."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from capture.photo import read_photo, write_photo
from capture.video import VideoReader
from pipeline.performance import Performance
from tests.conftest import Synthetic, expression, turned, write_clip

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
]  # fmt: skip


@pytest.fixture(scope="module")
def performer(prior) -> list[np.ndarray]:
    """Two seconds of a head that opens its mouth wide, and closes it."""
    head = Synthetic(prior, 2, 320, 400.0)
    jaws = [0.7 if (i // 12) % 2 else 0.0 for i in range(48)]
    pictures = {j: head.picture(head.code(expression(jawOpen=j), turned(0.05))) for j in set(jaws)}
    return [pictures[j] for j in jaws]


@pytest.fixture(scope="module")
def camera(performer, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("camera") / "fake.mjpeg"
    with av.open(str(path), "w", format="mjpeg") as file:
        stream = file.add_stream("mjpeg", rate=24)
        stream.width = stream.height = 320
        stream.pix_fmt = "yuvj420p"
        for picture in np.repeat(performer, 3, axis=0):  # 1.5 s a state, so that a busy machine shows each for some pictures
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuvj420p")
            for packet in stream.encode(frame):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return path


@pytest.fixture(scope="module")
def address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, "demo.py", "--port", str(port)], cwd=ROOT)
    url = f"http://127.0.0.1:{port}/"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(url, timeout=5).read()
                break
            except OSError:
                assert server.poll() is None, "the page ended"
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def page(address, camera):
    from playwright.sync_api import sync_playwright

    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=[*FLAGS, f"--use-file-for-fake-video-capture={camera}"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda e: errors.append(str(e)))
        page.goto(address)
        page.wait_for_selector("#video-output video", timeout=60_000)
        yield page
        browser.close()
    assert not errors


def wait_until(check, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = check()
        if value:
            return value
        time.sleep(0.2)
    raise AssertionError("did not happen in time")


def test_the_built_in_portrait_is_already_performing(page):
    state = "() => { const v = document.querySelector('#video-output video'); return [v.paused, v.currentTime, v.videoWidth] }"
    wait_until(lambda: page.evaluate(state)[1] > 0.2)
    before = page.evaluate(state)
    time.sleep(1)
    after = page.evaluate(state)
    assert not after[0] and after[1] != before[1] and after[2] == 512


def test_it_fits_a_narrow_screen(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("Live", "Relight", "Avatar", "Video"):
        page.get_by_role("tab", name=tab).click()
        time.sleep(0.5)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_driving_video_gives_a_result(page, performer, tmp_path):
    clip = write_clip(tmp_path / "driver.mp4", performer[:24], rate=24)
    first = page.evaluate("document.querySelector('#video-output video').currentSrc")
    page.set_input_files("#video-driver input[type=file]", str(clip))
    page.wait_for_selector("#video-driver video", timeout=30_000)
    page.click("#video-start")
    wait_until(lambda: "24 frames" in page.inner_text("#video-status"), 120)
    wait_until(lambda: page.evaluate("document.querySelector('#video-output video')?.currentSrc") != first)


def test_an_own_portrait_joins_the_gallery_and_is_framed(page, performer, tmp_path):
    framed = "[...document.querySelectorAll('#source-gallery button.thumbnail-item')].map(b => b.classList.contains('selected'))"
    assert page.evaluate(framed) == [True]
    photo = tmp_path / "mine.png"
    write_photo(photo, performer[0])
    page.set_input_files("#source-upload input[type=file]", str(photo))
    wait_until(lambda: "tick that whoever your files show has agreed" in page.inner_text("body"), 30)
    assert page.evaluate(framed) == [True]
    page.check("#consent input")
    page.click("#source-upload button[aria-label='Clear']")
    page.set_input_files("#source-upload input[type=file]", str(photo))
    wait_until(lambda: page.evaluate(framed) == [False, True], 60)


def test_a_video_without_a_face_is_refused_in_words(page, tmp_path):
    clip = write_clip(tmp_path / "plain.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 8)
    page.set_input_files("#video-driver input[type=file]", str(clip))
    page.wait_for_selector("#video-driver video", timeout=30_000)
    page.click("#video-start")
    wait_until(lambda: "no face found in plain.mp4" in page.inner_text("body"), 60)


def test_a_clip_too_short_to_learn_from_is_refused_in_words(page, performer, tmp_path):
    clip = write_clip(tmp_path / "short.mp4", performer[:24], rate=24)
    page.get_by_role("tab", name="Avatar").click()
    page.set_input_files("#avatar-clip input[type=file]", str(clip))
    page.wait_for_selector("#avatar-clip video", timeout=30_000)
    page.check("#consent input")
    page.click("#avatar-learn")
    wait_until(lambda: "short.mp4: too few frames to learn from: 24" in page.inner_text("body"), 60)


_AFTER = "document.querySelector('#relight-view .after')"
# mean brightness of the left and the right half of a face in the relit picture
_HALVES = f"""async ([x, y]) => {{
  const image = {_AFTER};
  await image.decode();
  const pen = new OffscreenCanvas(64, 64).getContext('2d');
  pen.drawImage(image, 0, 0, 64, 64);
  const half = x => pen.getImageData(x, y, 6, 10).data.reduce((sum, v, k) => sum + (k % 4 < 3 ? v : 0), 0) / 180;
  return [half(x - 6), half(x)];
}}"""


_BUILTIN, _MIDDLE = (28, 10), (32, 26)  # of a picture's 64, where a face's middle and its top are


def relit(page, act, face=_BUILTIN) -> list[float]:
    """The relit face's halves once it has changed by what is done, and settled."""
    address = lambda: page.evaluate(f"{_AFTER}?.src ?? ''")
    before = address()
    act()
    wait_until(lambda: address() not in ("", before), 60)
    time.sleep(1.5)
    return page.evaluate(_HALVES, face)


def test_lamps_dragged_around_the_sphere_light_the_side_they_are_on(page, tmp_path):
    studio = relit(page, lambda: page.get_by_role("tab", name="Relight").click())
    page.click("#relight-sphere .add")
    lamp = page.locator("#relight-sphere .lamps circle")

    def drag(x: float, y: float) -> None:
        at, sphere = lamp.bounding_box(), page.locator("#relight-sphere svg").bounding_box()
        page.mouse.move(at["x"] + at["width"] / 2, at["y"] + at["height"] / 2)
        page.mouse.down()
        page.mouse.move(sphere["x"] + x * sphere["width"], sphere["y"] + y * sphere["height"], steps=4)
        page.mouse.up()

    relit(page, lambda: page.check("#relight-light input[value='lamps']"))
    away = lambda metres: page.locator("#relight-wall input[type=range]").fill(metres)
    relit(page, lambda: away("0.3"))  # the picture changes: a shadow falls
    page.check("#relight-background input[value='light']")
    wait_until(lambda: page.locator("#relight-wall").is_hidden(), 20)  # behind them is no wall
    page.check("#relight-background input[value='keep']")
    wait_until(lambda: page.locator("#relight-wall").is_visible(), 20)
    relit(page, lambda: away("0"))
    lamp.scroll_into_view_if_needed()
    right = relit(page, lambda: drag(0.72, 0.48))
    assert right[1] > 1.3 * right[0]
    assert "degrees to the right" in lamp.get_attribute("aria-valuetext")
    left = relit(page, lambda: drag(0.28, 0.48))
    assert left[0] > 1.3 * left[1]
    moved = relit(page, lambda: [lamp.press("ArrowRight") for _ in range(32)])
    assert moved[1] > 1.3 * moved[0]
    page.click("#relight-sphere .drop")
    wait_until(lambda: "no lamp is lit" in page.inner_text("#relight-status"), 20)
    again = relit(page, lambda: page.check("#relight-light input[value='studio']"))
    assert np.allclose(again, studio, atol=1)
    page.click("#relight-start")
    wait_until(lambda: page.locator("#relight-output a[download]").count() == 1, 60)
    link = page.locator("#relight-output a[download]")
    made = tmp_path / "relit.png"
    made.write_bytes(urllib.request.urlopen(link.get_attribute("href"), timeout=20).read())
    image = read_photo(made).image
    assert image.shape == (512, 512, 3) and np.ptp(image[-20:, -100:].astype(int)) > 60  # the mark


def test_an_own_film_is_relit_under_an_own_light_once_agreed(page, performer, tmp_path):
    clip, light = write_clip(tmp_path / "mine.mp4", performer[:24], rate=24), tmp_path / "mine.json"
    light.write_text('{"ambient": [0.1, 0.1, 0.1], "lights": [{"type": "directional", "direction": [1, 0, -1]}]}')
    relit(page, lambda: page.get_by_role("tab", name="Relight").click())
    page.set_input_files("#relight-input input[type=file]", str(clip))
    wait_until(lambda: "tick that whoever your files show has agreed" in page.inner_text("body"), 30)
    page.click("#relight-input button[aria-label='Clear']")
    page.check("#consent input")
    relit(page, lambda: page.set_input_files("#relight-input input[type=file]", str(clip)))
    wait_until(lambda: page.is_visible("#relight-moment"), 20)
    page.check("#relight-light input[value='file']")
    wait_until(lambda: "no light was given" in page.inner_text("#relight-status"), 20)
    lit = relit(page, lambda: page.set_input_files("#relight-file input[type=file]", str(light)), _MIDDLE)
    assert lit[1] > 1.2 * lit[0]
    page.click("#relight-start")
    wait_until(lambda: "24 frames" in page.inner_text("#relight-status"), 120)
    wait_until(lambda: page.is_visible("#relight-film video"), 20)


def test_whoever_is_moved_can_be_shown_under_a_light(page):
    page.get_by_role("tab", name="Live").click()
    source = lambda: page.get_attribute("#live-output img", "src")
    before = source()
    page.check("#light input[value='night']")
    wait_until(lambda: source() != before, 60)
    page.check("#light input[value='own']")
    wait_until(lambda: source() == before, 60)


# what camera and result show, in green, each 50 ms for some twenty seconds
_WATCH = """
async () => {
  const watched = place => {
    const picture = document.querySelector(place);
    const pen = new OffscreenCanvas(64, 64).getContext('2d', { willReadFrequently: true });
    return () => {
      pen.drawImage(picture, 0, 0, 64, 64); // nothing while a picture is being loaded: the one before stays
      return [...pen.getImageData(0, 0, 64, 64).data.filter((_, k) => k % 4 === 1)];
    };
  };
  const camera = watched('#live-camera video'), result = watched('#live-output img');
  const seen = [[], []];
  for (let k = 0; k < 400; k++) {
    seen[0].push(camera());
    seen[1].push(result());
    await new Promise(done => setTimeout(done, 50));
  }
  return seen;
}
"""


def following(driver: np.ndarray, driven: np.ndarray, late: int) -> float:
    """How well one's changes are foretold by the other's up to `late` samples before: a correlation, 0 where either stands still.

    What tells two states of the driver (N x P pixels) apart in the driven pictures is learned from the first half of them and
    looked for in the second; what lasts longer than three seconds (60 samples) is left out.
    """
    away = np.abs(driver - driver[0]).mean(1)
    state = away > (away.min() + away.max()) / 2
    driven = np.apply_along_axis(lambda c: c - np.convolve(np.pad(c, 30, "edge"), np.ones(61) / 61, "valid"), 0, driven)
    half, found = len(state) // 2, [0.0]
    for lag in range(late + 1):
        before, after = state[: len(state) - lag], driven[lag:]
        learned, known = before[:half], after[:half]
        if 0 < learned.sum() < half and 0 < before[half:].sum() < len(before[half:]):
            course = after[half:] @ (known[learned].mean(0) - known[~learned].mean(0))
            found += [np.corrcoef(course, before[half:])[0, 1]] if course.std() > 1e-9 else []
    return max(found)


def test_following_is_found_where_it_is():
    rng = np.random.default_rng(0)
    state = np.arange(400) // 30 % 2
    driver, part = state[:, None] * rng.normal(size=50), rng.normal(size=50)
    noise = rng.normal(size=(400, 50))
    assert following(driver, np.roll(state, 4)[:, None] * part + noise, 12) > 0.8
    assert following(driver, noise, 12) < 0.5 and following(driver, np.ones((400, 50)), 12) == 0


def test_live_starts_follows_the_mouth_and_frees_the_camera(page):
    page.get_by_role("tab", name="Live").click()
    page.click("#live-start")
    wait_until(lambda: "face seen" in page.inner_text("#live-latency"), 90)
    source, shown = lambda: page.get_attribute("#live-output img", "src"), set()
    wait_until(lambda: source().startswith("blob:"), 20)
    wait_until(lambda: shown.add(source()) or len(shown) > 6, 60)
    assert all(address.startswith("blob:") for address in shown)  # no frame becomes a file
    # nothing of the camera's changes but its mouth
    driver, driven = np.array(page.evaluate(_WATCH), float)
    assert following(driver, driven, 12) > 0.6
    wait_until(lambda: "camera to screen" in page.inner_text("#live-latency"), 20)
    page.evaluate("() => { window.kept = document.querySelector('#live-camera video').srcObject.getTracks() }")
    page.click("#live-stop")
    wait_until(lambda: page.evaluate("window.kept.every(track => track.readyState === 'ended')"), 10)
    wait_until(lambda: "camera is off" in page.inner_text("#live-latency"), 20)
    page.click("#live-start")  # and starts again
    wait_until(lambda: "face seen" in page.inner_text("#live-latency"), 90)


# no second program can hold the browser's fake camera, so that it is the browser that is told so
_BUSY = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('in use', 'NotReadableError') }"


@pytest.mark.parametrize(
    ("camera", "before", "said"),
    [
        ([], "", "No camera was found. Plug one in"),
        (["--use-fake-device-for-media-stream"], "", "The camera was not allowed. Allow it in the browser"),
        ([], _BUSY, "The camera is busy: another program uses it"),
    ],
)
def test_a_camera_that_gives_no_picture_is_said(address, camera, before, said):
    from playwright.sync_api import sync_playwright

    flags = [flag for flag in FLAGS if "fake" not in flag]  # nobody allows a camera
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=flags + camera)
        page = browser.new_page()
        if before:
            page.add_init_script(before)
        page.goto(address)
        page.get_by_role("tab", name="Live").click()
        page.click("#live-start")
        wait_until(lambda: said in page.inner_text("#live-latency"), 60)
        browser.close()


def test_what_is_changed_while_live_takes_effect(page):
    page.get_by_role("tab", name="Live").click()
    page.click("#live-start")
    wait_until(lambda: "face seen" in page.inner_text("#live-latency"), 90)
    page.evaluate("() => { window.pen = new OffscreenCanvas(64, 64).getContext('2d', { willReadFrequently: true }) }")
    # nothing is drawn while one is being loaded
    moved = "() => { pen.drawImage(document.querySelector('#live-output img'), 0, 0, 64, 64);"
    moved += " return [...pen.getImageData(0, 0, 64, 64).data] }"

    def restless() -> float:
        pictures = []
        for _ in range(12):
            pictures.append(page.evaluate(moved))
            time.sleep(0.1)
        return float(np.std(np.array(pictures, float), axis=0).mean())

    assert restless() > 0.05  # it talks
    page.get_by_text("Strengths").click()
    for gain in ("mouth", "head", "eyes", "brows", "gaze"):
        page.fill(f"#gain-{gain} input[type=number]", "0")
        page.press(f"#gain-{gain} input[type=number]", "Tab")
    page.check("#pose input[value='off']")
    wait_until(lambda: restless() < 0.02, 60)


def test_a_camera_that_goes_away_is_looked_for_again(page):
    page.get_by_role("tab", name="Live").click()
    page.click("#live-start")
    wait_until(lambda: "face seen" in page.inner_text("#live-latency"), 90)
    track = "document.querySelector('#live-camera video').srcObject.getVideoTracks()[0]"
    page.evaluate(f"() => {{ window.gone = {track}; gone.stop(); gone.dispatchEvent(new Event('ended')) }}")
    wait_until(lambda: page.evaluate(f"{track} !== window.gone && {track}.readyState === 'live'"), 20)
    wait_until(lambda: "face seen" in page.inner_text("#live-latency"), 60)


def test_a_socket_without_a_ticket_is_closed_and_none_is_deflated(page):
    asked = "new Promise(done => { const s = new WebSocket('/live/guessed'.replace(/^/, location.origin.replace('http', 'ws')));"
    assert page.evaluate(asked + " s.onclose = event => done([event.code, s.extensions]) })") == [4404, ""]


def test_what_is_shown_live_is_recorded_with_its_performance(page, tmp_path):
    page.get_by_role("tab", name="Live").click()
    page.click("#live-record")
    wait_until(lambda: "Press Start first" in page.inner_text("body"), 20)
    page.click("#live-start")
    wait_until(lambda: "face seen" in page.inner_text("#live-latency"), 90)
    page.click("#live-record")
    wait_until(lambda: "End the recording" in page.inner_text("#live-record"), 20)
    time.sleep(3)
    page.click("#live-record")
    wait_until(lambda: page.locator("#live-files a[download]").count() == 2, 30)
    files = {}
    for link in page.locator("#live-files a[download]").all():
        name = link.get_attribute("download")
        files[name] = tmp_path / name
        files[name].write_bytes(urllib.request.urlopen(link.get_attribute("href"), timeout=20).read())
    performance = Performance.load(files["live.safetensors"])
    pictures = list(VideoReader(files["live.mp4"]))
    assert 5 < len(pictures) and abs(pictures[-1].time - performance.times[-1]) < 1 and performance.tracked.any()
    with av.open(str(files["live.mp4"])) as file:
        assert "not a record of what happened" in file.metadata["comment"]
    edge = pictures[-1].image[-20:, -100:].astype(int)
    assert np.ptp(edge) > 60  # the mark
    page.click("#live-stop")
    wait_until(lambda: "camera is off" in page.inner_text("#live-latency"), 20)


def test_a_third_live_visitor_is_told_that_there_is_no_room(prior, monkeypatch):
    import gradio as gr

    from pipeline.page import actions

    page = actions.Page(prior)
    how = (1.0, "relative", "one", "keep", None, 1, 1, 1, 1, 1)
    begin = lambda number, before=None: page.begin(
        SimpleNamespace(session_hash=f"visitor {number}"), before, "builtin", *how
    )[0]  # fmt: skip
    visits = [begin(k) for k in range(actions.LIVE_VISITORS)]
    with pytest.raises(gr.Error, match="no room for more"):
        begin(7)
    page.left(SimpleNamespace(session_hash="visitor 0"))  # the page was closed without a word
    wait_until(lambda: page._live == actions.LIVE_VISITORS - 1, 20)
    visits.append(begin(8))
    visits[1] = begin(1, visits[1])  # Start pressed twice: in one's own place there is room
    for visit in visits[1:]:
        visit.close()
    wait_until(lambda: page._live == 0, 20)


def test_other_hosts_need_a_password():
    done = subprocess.run(
        [sys.executable, "demo.py", "--host", "0.0.0.0", "--port", "1"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "no password is set" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_source_without_a_face_is_refused_at_the_door(tmp_path):
    write_photo(tmp_path / "plain.png", np.full((120, 160, 3), 90, np.uint8))
    words = [sys.executable, "demo.py", "--source", str(tmp_path / "plain.png"), "--port", "1"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "no face" in done.stderr and len(done.stderr.strip().splitlines()) == 1
