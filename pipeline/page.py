"""The web page: a Video tab, a Live tab and an Avatar tab over the same flow as the command line.

Elements with stable ids, for whoever drives the page from outside: source-gallery, source-upload, video-driver, video-start,
video-output, video-status, live-camera, live-start, live-stop, live-output, live-latency, live-neutral, avatar-clip,
avatar-learn, avatar-preview, avatar-curve, avatar-status, avatar-file.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr
from gradio.data_classes import ImageData
from matplotlib.figure import Figure

from capture.errors import MediaError
from models.avatar.avatar import SUFFIX, Avatar, is_avatar, load_avatar
from models.errors import ModelError
from models.prior.face import AnnyPrior, cache_folder, load_prior
from pipeline.avatar.learning import LearningSettings, Stage
from pipeline.avatar.watching import watched
from pipeline.builtin import BUILTIN
from pipeline.errors import Refusal
from pipeline.flow import reenact
from pipeline.live import LiveLoop, rest_picture
from pipeline.live_visit import LiveVisit, encoded, limited
from pipeline.puppet import AvatarPuppet, PortraitPuppet, Puppet
from pipeline.reenactment import Settings
from pipeline.retargeting import Gains
from pipeline.source import Source, open_source, prepare_source

log = logging.getLogger("understudy")
_SHOW_VERSION = 2  # of the built-in show's film in the cache: raise it when its look changes
_UPLOAD = "500mb"
_KEEP = (600, 3600)  # seconds between sweeps, seconds a visitor's files are kept
_LIVE_VISITORS = 2  # at once; two cores carry no more
_CAMERA = {"video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 30}}}
_CSS = """
.gradio-container {max-width: 1180px !important; min-width: 0 !important; margin: auto}
#source-gallery {min-height: 130px; min-width: 0}
#source-gallery .grid-container {grid-template-columns: repeat(auto-fill, 110px) !important; grid-auto-flow: row; min-width: 0}
#live-latency {min-height: 1.5em}
@media (max-width: 640px) { .gradio-container {padding: 6px !important} }
"""
# the page's own buttons work Gradio's camera controls: start opens the camera, waits for its picture and begins to stream
_START = """
async () => {
  const root = document.querySelector('#live-camera');
  const wait = ms => new Promise(done => setTimeout(done, ms));
  if (!navigator.mediaDevices) {
    document.querySelector('#live-latency').innerText =
      'This browser gives no camera here: open the page as http://localhost or over https, or use the Video tab.';
    return;
  }
  document.querySelectorAll('#video-output video').forEach(film => film.pause());  // unseen, it would still be decoded
  const canvas = HTMLCanvasElement.prototype;
  if (!canvas.thriftily) {  // Gradio asks for a JPEG of the default quality, which is twice as large and as long in the making
    canvas.thriftily = canvas.toDataURL;
    canvas.toDataURL = function (kind, quality) { return this.thriftily(kind, quality ?? 0.8); };
  }
  const access = root.querySelector('[title="grant webcam access"] button');
  if (access) access.click();
  for (let i = 0; i < 300; i++) {
    const begin = root.querySelector('.button-wrap [title="start recording"]');
    const video = root.querySelector('video');
    if (root.querySelector('.button-wrap [title="stop recording"]')) return;
    if (begin && video && video.readyState >= 2 && video.videoWidth > 0) { begin.closest('button').click(); return; }
    await wait(50);
  }
}
"""
_STOP = """
() => {
  const root = document.querySelector('#live-camera');
  const end = root.querySelector('.button-wrap [title="stop recording"]');
  if (end) end.closest('button').click();
  const video = root.querySelector('video');
  if (video && video.srcObject) video.srcObject.getTracks().forEach(track => track.stop());
}
"""


def built_in_show(prior: AnnyPrior) -> Path:
    """The film of the built-in portrait performing the built-in performance; made once, then kept in the user's cache."""
    path = cache_folder() / f"show-v{_SHOW_VERSION}.mp4"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        reenact(BUILTIN, BUILTIN, path, Settings(), prior=prior)
    return path


class Page:
    """What the page's handlers share: the prior, and the sources already prepared."""

    def __init__(self, prior: AnnyPrior):
        self.prior = prior
        self._sources: dict[str, Source | Avatar] = {}
        self._room, self._live = threading.Lock(), 0  # visitors in the Live tab

    def puppet(self, name: str) -> Puppet:
        """A source, ready to be moved by one driver."""
        source = self.source(name)
        return PortraitPuppet(source) if isinstance(source, Source) else AvatarPuppet(source, self.prior)

    def source(self, name: str) -> Source | Avatar:
        """A prepared source; the last few are kept."""
        if name not in self._sources:
            while len(self._sources) >= 4:
                self._sources.pop(next(iter(self._sources)))
            learned = is_avatar(name)
            self._sources[name] = load_avatar(name, self.prior) if learned else prepare_source(open_source(name), self.prior)
        return self._sources[name]

    def items(self, names: list[str]) -> list[tuple]:
        """(picture, caption) of every source in the gallery."""
        items = []
        for name in names:
            image = rest_picture(self.puppet(name)) if is_avatar(name) else next(iter(open_source(name))).image
            scale = 256 / max(image.shape[:2])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            items.append((small, "built-in portrait" if name == BUILTIN else Path(name).name))
        return items

    def gallery(self, names: list[str]):
        """The gallery with the newest source, which is the chosen one, framed."""
        return gr.update(value=self.items(names), selected_index=len(names) - 1)

    def add_source(self, file: str | None, names: list[str]):
        """A visitor's own portrait joins the gallery and is chosen."""
        if file is None:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            self.source(file)
        except (MediaError, ModelError, Refusal) as error:
            raise gr.Error(_shown(error, file), duration=12, print_exception=False) from None
        names = [*names, file]
        return names, self.gallery(names), file

    def reenact(self, name: str, driver: str | None, pose: str, gain: float, audio: str, person: float, progress=gr.Progress()):
        """The Video tab's button."""
        output = Path(tempfile.mkdtemp(prefix="understudy-")) / "reenacted.mp4"

        def listen(stage: str, done: int, total: int | None) -> None:
            progress((done, total) if total else None, desc=stage)

        settings = Settings(pose, Gains(brows=gain, eyes=gain, mouth=gain), audio, int(person))
        start = time.perf_counter()
        try:
            report = reenact(name, driver or BUILTIN, output, settings, prior=self.prior, listen=listen)
        except (MediaError, ModelError, Refusal) as error:
            shutil.rmtree(output.parent, ignore_errors=True)
            raise gr.Error(_shown(error, name, driver), duration=12, print_exception=False) from None
        took = time.perf_counter() - start
        words = (
            f"{report['frames']} frames, {report['duration']:.1f} s, {report['width']}×{report['height']}, made in {took:.1f} s."
        )
        if report["lost_frames"]:
            words += f" The driver's face was lost in {report['lost_frames']} frames: the portrait held, then went to rest."
        return str(output), words, str(output)

    def learn(self, clip: str | None, person: float, names: list[str], made: list[str]):
        """The Avatar tab's button: shows what is learned as it is learned; the avatar joins the gallery and is chosen."""
        if clip is None:
            raise gr.Error("Give a video of one person, half a minute or more, before a camera that stands still.", duration=12)
        folder = Path(tempfile.mkdtemp(prefix="understudy-"))
        output = folder / f"{Path(clip).stem}{SUFFIX}"
        curve: list[Stage] = []
        try:
            with closing(watched(clip, output, self.prior, LearningSettings(person=int(person)))) as news:
                for one in news:
                    if isinstance(one, Stage):
                        curve.append(one)
                        words = f"{one.seconds:.0f} s: {one.psnr:.1f} dB over the head, {one.frames} frames learned from."
                        yield np.hstack([one.filmed, one.drawn]), _plotted(curve), words, *(gr.skip(),) * 5
                    else:
                        yield gr.skip(), gr.skip(), f"{one[0].upper()}{one[1:]}", *(gr.skip(),) * 5
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, (MediaError, ModelError, Refusal)):
                raise gr.Error(_shown(error, clip), duration=12, print_exception=False) from None
            raise
        words = f"Learned in {curve[-1].seconds:.0f} s, {curve[-1].psnr:.1f} dB over the head on frames learned from. "
        words += "It is chosen above: drive it in the Video or the Live tab."
        names = [*names, str(output)]
        yield gr.skip(), gr.skip(), words, str(output), names, self.gallery(names), str(output), [*made, str(folder)]

    @staticmethod
    def shown(made: str | None) -> None:
        """Removes a result of which Gradio has taken its own copy, which it deletes in time."""
        if made:
            shutil.rmtree(Path(made).parent, ignore_errors=True)

    def begin(self, visit: LiveVisit | None, name: str, pose: str, gain: float):
        """The Start button: a loop of the visitor's own, if there is room."""
        if visit is not None:
            visit.close()
        try:
            with self._room:
                if self._live >= _LIVE_VISITORS:
                    raise Refusal(
                        f"{_LIVE_VISITORS} visitors are live, as many as this machine carries. Try again when one has left."
                    )
                self._live += 1
            try:
                loop = LiveLoop(self.prior, self.puppet(name), _settings(pose, gain))
            except BaseException:
                self._gone()
                raise
        except (MediaError, ModelError, Refusal) as error:
            raise gr.Error(_shown(error, name), duration=12, print_exception=False) from None
        return LiveVisit(loop, name, self._gone)

    def _gone(self) -> None:
        with self._room:
            self._live -= 1

    def arrive(self, image: np.ndarray | None, visit: LiveVisit | None, name: str, pose: str, gain: float) -> None:
        """A camera picture, with what the visitor has chosen by then."""
        if image is None or visit is None:
            return
        visit.loop.settings = _settings(pose, gain)
        if visit.source != name:
            visit.source = name  # asked for once
            try:
                visit.loop.choose(self.puppet(name))
            except (MediaError, ModelError, Refusal) as error:
                gr.Warning(f"{_shown(error, name)} The one before stays.", duration=12)
        visit.arrive(image)

    @staticmethod
    def show(visit: LiveVisit | None):
        """Pictures as they are made, never the camera's own; ends with the visit."""
        if visit is not None:
            for picture, words in visit.pictures():
                yield picture, gr.skip() if words is None else words

    @staticmethod
    def stopped(visit: LiveVisit | None):
        """Frees the visitor's live loop, and lets the camera's controls start afresh."""
        if visit is not None:
            visit.close()
        return gr.update(visible=True, value=None), None, "The camera is off. Press start and allow the camera."

    @staticmethod
    def neutral(visit: LiveVisit | None) -> None:
        """Meets the driver afresh: the next frame stands for the portrait's own pose."""
        if visit is not None:
            visit.loop.calibrate()


def _plotted(curve: list[Stage]) -> Figure:
    figure = Figure(figsize=(5, 2.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([stage.seconds for stage in curve], [stage.psnr for stage in curve], "o-", color="#6366f1")
    if not curve:
        axes.set_axis_off()
        figure.text(0.5, 0.5, "How well it is learned is drawn here.", ha="center", color="#6b7280")
        return figure
    axes.set(xlabel="seconds", ylabel="dB over the head", xlim=(0, None))
    axes.grid(alpha=0.3)
    return figure


def _settings(pose: str, gain: float) -> Settings:
    return Settings(pose, Gains(brows=gain, eyes=gain, mouth=gain), "none")


def _shown(error: Exception, *paths: str | None) -> str:
    """The error's line with a visitor's temporary paths shortened to their file names."""
    text = str(error)
    for path in paths:
        if path and path != BUILTIN:
            text = text.replace(path, Path(path).name)
    return text


def build(prior: AnnyPrior | None = None) -> gr.Blocks:
    """The page, ready to launch."""
    prior = prior or load_prior()
    page = Page(prior)
    page.source(BUILTIN)
    show = str(built_in_show(prior))
    gr.set_static_paths([show])
    with gr.Blocks(title="Understudy", delete_cache=_KEEP) as blocks:
        gr.Markdown("# Understudy\nOne person's performance drives another person's picture.")
        names = gr.State([BUILTIN])
        chosen = gr.State(BUILTIN)
        gr.Markdown("**Who is moved:** choose a portrait, or add your own photo, video or avatar.")
        with gr.Row(equal_height=True):
            with gr.Column(scale=3, min_width=280):
                gallery = gr.Gallery(
                    page.items([BUILTIN]), label="Who is moved: choose a portrait", show_label=False,
                    elem_id="source-gallery", columns=6, fit_columns=False, height=170,
                    allow_preview=False, selected_index=0, object_fit="contain", interactive=False,
                    format="jpeg", buttons=[],
                )  # fmt: skip
            with gr.Column(scale=1, min_width=200):
                upload = gr.File(
                    label="Add a photo, video or avatar", file_types=["image", "video", SUFFIX], elem_id="source-upload",
                    height=170,
                )  # fmt: skip
        with gr.Row():
            pose = gr.Radio(
                [("added to the portrait's", "relative"), ("the driver's own", "absolute"), ("the portrait's", "off")],
                value="relative", label="Head pose", elem_id="pose",
            )  # fmt: skip
            gain = gr.Slider(0, 2, 1, step=0.05, label="Expression strength", elem_id="expression-gain")
        with gr.Tabs():
            with gr.Tab("Video", id="video"):
                with gr.Row():
                    with gr.Column(min_width=280):
                        driver = _film("Who performs: a driving video (empty: the built-in performance)", "video-driver")
                        with gr.Row():
                            audio = gr.Radio(["driver", "source", "none"], value="driver", label="Sound", elem_id="audio")
                            person = gr.Number(0, label="Driver's face number", precision=0, minimum=0, maximum=19, min_width=90)
                        start = gr.Button("Reenact", variant="primary", elem_id="video-start")
                    with gr.Column(min_width=280):
                        output = gr.Video(
                            show, label="Result", elem_id="video-output", autoplay=True, loop=True, interactive=False, height=440,
                        )  # fmt: skip
                        status = gr.Markdown(
                            "The built-in portrait, performing the built-in performance.", elem_id="video-status"
                        )
            with gr.Tab("Live", id="live"):
                visit = gr.State(None, time_to_live=_KEEP[1], delete_callback=lambda v: v.close() if v else None)
                with gr.Row():
                    with gr.Column(min_width=280):
                        camera = gr.Image(
                            sources=["webcam"], streaming=True, label="You (stays on this machine)", elem_id="live-camera",
                            webcam_options=gr.WebcamOptions(mirror=False, constraints=_CAMERA), height=380,
                        )  # fmt: skip
                        with gr.Row():
                            go = gr.Button("Start", variant="primary", elem_id="live-start", min_width=90)
                            halt = gr.Button("Stop", elem_id="live-stop", min_width=90)
                            neutral = gr.Button("This is my neutral face", elem_id="live-neutral")
                    with gr.Column(min_width=280):
                        picture = _live_image(encoded(limited(rest_picture(page.puppet(BUILTIN)))))
                        latency = gr.Markdown("The camera is off. Press start and allow the camera.", elem_id="live-latency")
            with gr.Tab("Avatar", id="avatar"):
                mine = gr.State([], time_to_live=_KEEP[1], delete_callback=_removed)
                with gr.Row():
                    with gr.Column(min_width=280):
                        clip = _film("Who is learned: one person, half a minute or more", "avatar-clip")
                        with gr.Row():
                            whom = gr.Number(0, label="Their face number", precision=0, minimum=0, maximum=19, min_width=90)
                            learn = gr.Button("Learn", variant="primary", elem_id="avatar-learn")
                        file = gr.File(label="The avatar", interactive=False, elem_id="avatar-file", height=90)
                    with gr.Column(min_width=280):
                        preview = gr.Image(
                            label="Filmed, and what the avatar shows", elem_id="avatar-preview", format="jpeg",
                            interactive=False, height=300, buttons=["fullscreen"],
                        )  # fmt: skip
                        plot = gr.Plot(_plotted([]), show_label=False, elem_id="avatar-curve", format="png")
                        lesson = gr.Markdown(
                            "The camera should stand still and the light not change. Learning takes a few minutes on two cores.",
                            elem_id="avatar-status",
                        )
        learn.click(
            page.learn, [clip, whom, names, mine], [preview, plot, lesson, file, names, gallery, chosen, mine],
            concurrency_limit=1, show_progress="hidden",
        )  # fmt: skip
        upload.upload(page.add_source, [upload, names], [names, gallery, chosen], concurrency_limit=1)
        gallery.select(_choose, [names], [chosen])
        made = gr.State(None)
        start.click(
            page.reenact, [chosen, driver, pose, gain, audio, person], [output, status, made], concurrency_limit=1,
            show_progress_on=output,
        ).then(page.shown, [made], None)  # fmt: skip
        camera.stream(
            page.arrive, [camera, visit, chosen, pose, gain], None, stream_every=1 / 30,
            concurrency_limit=_LIVE_VISITORS, show_progress="hidden", time_limit=None, api_visibility="private",
        )  # fmt: skip
        go.click(None, js=_START)
        go.click(page.begin, [visit, chosen, pose, gain], visit, show_progress="hidden").success(
            page.show, visit, [picture, latency], concurrency_limit=_LIVE_VISITORS + 1, show_progress="hidden",
        )  # fmt: skip
        # hidden and shown again, Gradio's camera starts afresh; its own stop keeps the device open
        halt.click(None, js=_STOP).then(lambda: gr.update(visible=False), None, camera, show_progress="hidden").then(
            page.stopped, visit, [camera, visit, latency], show_progress="hidden"
        )
        neutral.click(page.neutral, visit, None, show_progress="hidden")
    return blocks


def _live_image(first: str) -> gr.Image:
    """An output picture that takes data URLs: no frame becomes a file, and none is fetched apart."""
    picture = gr.Image(label="Result", elem_id="live-output", interactive=False, height=440, buttons=["fullscreen"])
    picture.postprocess = lambda value: None if value is None else ImageData(url=value)
    picture.value = picture.postprocess(first).model_dump()
    return picture


def _film(label: str, name: str) -> gr.Video:
    """A video of the visitor's, from a file or their camera."""
    camera = gr.WebcamOptions(mirror=False, constraints=_CAMERA)
    return gr.Video(label=label, sources=["upload", "webcam"], elem_id=name, webcam_options=camera, height=380)


def _removed(folders: list[str]) -> None:
    """Takes away a visitor's avatars when they have gone."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _choose(names: list[str], event: gr.SelectData) -> str:
    return names[event.index]


def serve(host: str = "127.0.0.1", port: int = 7860, **options: object):
    """Builds and launches the page; returns what Gradio's `launch` returns."""
    blocks = build()
    return blocks.queue(default_concurrency_limit=2, max_size=16).launch(
        server_name=host, server_port=port, share=False, quiet=True, show_error=True, max_file_size=_UPLOAD, run_history=False,
        css=_CSS, footer_links=[], ssr_mode=False, theme=gr.themes.Soft(), **options,
    )  # fmt: skip
