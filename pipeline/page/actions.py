"""What the page's buttons do: Gradio's handlers, without a word about where they stand."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path

import cv2
import gradio as gr
import numpy as np
from matplotlib.figure import Figure

from capture.errors import MediaError
from models.avatar.avatar import SUFFIX, Avatar, is_avatar, load_avatar
from models.errors import ModelError
from models.prior.face import AnnyPrior
from pipeline.avatar.learning import LearningSettings, Stage
from pipeline.avatar.watching import watched
from pipeline.backdrop import KEEP, TRANSPARENT, check_background
from pipeline.builtin import BUILTIN
from pipeline.device import choose_device
from pipeline.ensemble import Ensemble, ensemble_of
from pipeline.errors import Refusal
from pipeline.flow import reenact
from pipeline.lit_puppet import lights_known, lit
from pipeline.live.loop import LiveLoop
from pipeline.page.browser import output_view
from pipeline.page.door import comment, require_consent, require_short, shown
from pipeline.page.lighting import Lighting, Wanted
from pipeline.page.visit import LiveVisit, as_url, limited
from pipeline.puppet import AvatarPuppet, rest_picture
from pipeline.reenactment import CastChoice, Settings
from pipeline.relighting import Relit
from pipeline.retargeting import Gains
from pipeline.source import Source, open_source, prepare_everyone, prepare_source

PICTURE = "picture"  # of the backgrounds, the one that is a file
_KEPT = 4  # sources
LIVE_VISITORS = 2  # at once; two cores carry no more


class Page:
    """What the page's handlers share: the prior, and the sources already prepared."""

    def __init__(self, prior: AnnyPrior):
        self.prior, self._device = prior, choose_device("auto")
        self.lighting = Lighting(prior)
        self._sources: dict[tuple[str, bool], list[Source] | Avatar] = {}
        self._known: dict[tuple[str, bool], list[Relit]] = {}  # the light that sources are shown in
        self._room, self._live = threading.Lock(), 0  # visitors in the Live tab
        self._visits: dict[str | None, LiveVisit] = {}  # by Gradio's session
        self._expected: dict[str, LiveVisit] = {}  # by the ticket with which a browser is to connect

    def ensemble(self, name: str, cast: CastChoice = "one", light: Wanted | None = None) -> Ensemble:
        """Whom a source shows, ready to be moved by one visitor; under a light, where one is wanted."""
        source, key = self.source(name, cast != "one"), (name, cast != "one")
        if isinstance(source, Avatar):
            who = Ensemble([AvatarPuppet(source, self.prior, self._device)])
        else:
            who = ensemble_of(source)
        if light is None:
            return who
        shining = self.lighting.light(light)
        if key not in self._known:
            while len(self._known) >= _KEPT:
                self._known.pop(next(iter(self._known)))
            self._known[key] = lights_known(who, self.prior, self._device)
        return lit(who, shining, self.prior, self._known[key])

    def source(self, name: str, everyone: bool = False) -> list[Source] | Avatar:
        """A prepared source, of its largest face or of everyone in it; the last few are kept."""
        key = (name, everyone)
        if key not in self._sources:
            while len(self._sources) >= _KEPT:
                self._sources.pop(next(iter(self._sources)))
            if is_avatar(name):
                prepared = load_avatar(name, self.prior)
            elif everyone:
                prepared = prepare_everyone(open_source(name), self.prior, device=self._device)
            else:
                prepared = [prepare_source(open_source(name), self.prior, device=self._device)]
            self._sources[key] = prepared
        return self._sources[key]

    @staticmethod
    def background(choice: str, picture: str | None) -> tuple:
        """What is behind whoever is moved, as `Settings` names it, and whether a picture is asked for."""
        asks = gr.update(visible=choice == PICTURE)
        if choice != PICTURE:
            return choice, asks
        if picture is None:
            return KEEP, asks
        try:
            check_background(picture)
        except (MediaError, Refusal) as error:
            gr.Warning(f"{shown(error, picture)} Their own background stays.", duration=12)
            return KEEP, asks
        return picture, asks

    def view(self, name: str, light: Wanted | None = None) -> str:
        """The Live tab's picture while nobody is live: a source at rest."""
        return output_view(as_url(limited(self.rest(name, light))))

    def rest(self, name: str, light: Wanted | None = None) -> np.ndarray:
        """H x W x 3 uint8 sRGB: a source at rest."""
        return rest_picture(self.ensemble(name, light=light).puppets[0])

    def items(self, names: list[str]) -> list[tuple]:
        """(picture, caption) of every source in the gallery."""
        items = []
        for name in names:
            learned = is_avatar(name)
            image = rest_picture(self.ensemble(name).puppets[0]) if learned else next(iter(open_source(name))).image
            scale = 256 / max(image.shape[:2])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            items.append((small, "built-in portrait" if name == BUILTIN else Path(name).name))
        return items

    def gallery(self, names: list[str]):
        """The gallery with the newest source, which is the chosen one, framed."""
        return gr.update(value=self.items(names), selected_index=len(names) - 1)

    def add_source(self, file: str | None, names: list[str], agreed: bool):
        """A visitor's own portrait joins the gallery and is chosen."""
        if file is None:
            return gr.skip(), gr.skip(), gr.skip()
        require_consent(agreed)
        try:
            require_short(file)
            self.source(file)
        except (MediaError, ModelError, Refusal) as error:
            raise gr.Error(shown(error, file), duration=12, print_exception=False) from None
        names = [*names, file]
        return names, self.gallery(names), file

    def reenact(
        self, name: str, driver: str | None, audio: str, person: float, pose: str, cast: CastChoice,
        background: str, light: Wanted | None, *gains: float, progress=gr.Progress(),
    ):  # fmt: skip
        """The Video tab's button."""
        name_of_it = "reenacted.webm" if background == TRANSPARENT else "reenacted.mp4"
        output = Path(tempfile.mkdtemp(prefix="understudy-")) / name_of_it

        def listen(stage: str, done: int, total: int | None) -> None:
            progress((done, total) if total else None, desc=stage)

        start = time.perf_counter()
        try:
            require_short(driver)
            shining = None if light is None else self.lighting.light(light)
            settings = Settings(
                pose, Gains(*gains), audio, int(person), cast, background=background, light=shining, mark=True,
                comment=comment(name),
            )  # fmt: skip
            report = reenact(name, driver or BUILTIN, output, settings, prior=self.prior, listen=listen)
        except (MediaError, ModelError, Refusal) as error:
            shutil.rmtree(output.parent, ignore_errors=True)
            raise gr.Error(shown(error, name, driver), duration=12, print_exception=False) from None
        took = time.perf_counter() - start
        words = (
            f"{report['frames']} frames, {report['duration']:.1f} s, {report['width']}×{report['height']}, made in {took:.1f} s."
        )
        if report["lost_frames"]:
            words += f" The driver's face was lost in {report['lost_frames']} frames: the portrait held, then went to rest."
        return str(output), words, str(output)

    def learn(self, clip: str | None, person: float, names: list[str], made: list[str], agreed: bool):
        """The Avatar tab's button: shows what is learned as it is learned; the avatar joins the gallery and is chosen."""
        if clip is None:
            raise gr.Error("Give a video of one person, half a minute or more, before a camera that stands still.", duration=12)
        require_consent(agreed)
        folder = Path(tempfile.mkdtemp(prefix="understudy-"))
        output = folder / f"{Path(clip).stem}{SUFFIX}"
        curve: list[Stage] = []
        try:
            require_short(clip)
            with closing(watched(clip, output, self.prior, LearningSettings(person=int(person)))) as news:
                for one in news:
                    if isinstance(one, Stage):
                        curve.append(one)
                        words = f"{one.seconds:.0f} s: {one.psnr:.1f} dB over the head, {one.frames} frames learned from."
                        yield np.hstack([one.filmed, one.drawn]), plotted(curve), words, *(gr.skip(),) * 5
                    else:
                        yield gr.skip(), gr.skip(), f"{one[0].upper()}{one[1:]}", *(gr.skip(),) * 5
        except BaseException as error:
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, (MediaError, ModelError, Refusal)):
                raise gr.Error(shown(error, clip), duration=12, print_exception=False) from None
            raise
        words = f"Learned in {curve[-1].seconds:.0f} s, {curve[-1].psnr:.1f} dB over the head on frames learned from. "
        words += "It is chosen above: drive it in the Video or the Live tab."
        names = [*names, str(output)]
        yield gr.skip(), gr.skip(), words, str(output), names, self.gallery(names), str(output), [*made, str(folder)]

    @staticmethod
    def taken(made: str | None) -> None:
        """Removes a result of which Gradio has taken its own copy, which it deletes in time."""
        if made:
            shutil.rmtree(Path(made).parent, ignore_errors=True)

    def begin(
        self, request: gr.Request, visit: LiveVisit | None, name: str, smoothing: float, pose: str, cast: CastChoice,
        background: str, light: Wanted | None, *gains: float,
    ) -> tuple:  # fmt: skip
        """The Start button: a loop of the visitor's own, if there is room, and the ticket with which their browser connects.

        And what was being recorded of a visit before, where a connection was lost.
        """
        files = gr.skip()
        if visit is not None:
            recorded = visit.recorded()
            files = gr.update(value=recorded, visible=True) if recorded else files
            visit.close(wait=5)  # its place is the one to take
        try:
            with self._room:
                if self._live >= LIVE_VISITORS:
                    raise Refusal(
                        f"{LIVE_VISITORS} visitors are live, and there is no room for more. Try again when one has left."
                    )
                self._live += 1
            try:
                who = self.ensemble(name, cast, light)
                loop = LiveLoop(self.prior, who, _settings(smoothing, pose, cast, background, *gains))
            except BaseException:
                self._gone()
                raise
        except (MediaError, ModelError, Refusal) as error:
            raise gr.Error(shown(error, name), duration=12, print_exception=False) from None
        ticket = secrets.token_urlsafe()
        visit = LiveVisit(loop, lambda: self._gone(ticket))
        with self._room:
            self._visits[request.session_hash] = self._expected[ticket] = visit
        return visit, ticket, "Record", files

    def expected(self, ticket: str) -> LiveVisit | None:
        """The visit that a ticket was given for; once."""
        with self._room:
            return self._expected.pop(ticket, None)

    def left(self, request: gr.Request) -> None:
        """The visitor has closed the page."""
        with self._room:
            visit = self._visits.pop(request.session_hash, None)
        if visit is not None:
            visit.recorded()  # its folder goes with the session
            visit.close()

    def _gone(self, ticket: str | None = None) -> None:
        with self._room:
            self._live -= 1
            self._expected.pop(ticket, None)

    @staticmethod
    def adjust(
        visit: LiveVisit | None,
        smoothing: float,
        pose: str,
        cast: CastChoice,
        background: str,
        light: Wanted | None,
        *gains: float,
    ) -> None:
        """Whatever the visitor changes while they are live."""
        if visit is not None and (loop := visit.loop) is not None:
            loop.settings = _settings(smoothing, pose, cast, background, *gains)  # its light goes with whom it shows

    def choose(self, visit: LiveVisit | None, name: str, cast: CastChoice, light: Wanted | None):
        """Another source, others in it, or another light, live too; the Live tab's picture while nobody is."""
        try:
            if visit is None or (loop := visit.loop) is None:
                return self.view(name, light)
            loop.choose(self.ensemble(name, cast, light))
        except (MediaError, ModelError, Refusal) as error:
            gr.Warning(f"{shown(error, name)} The one before stays.", duration=12)
        return gr.skip()

    def record(self, visit: LiveVisit | None, name: str, made: list[str]):
        """The Record button: begins, and at the next press gives the video and the performance."""
        if visit is None or visit.loop is None:
            raise gr.Error("There is nothing to record yet. Press Start first.", duration=8, print_exception=False)
        if visit.records:
            return "Record", gr.update(value=visit.recorded(), visible=True), made
        folder = tempfile.mkdtemp(prefix="understudy-")
        visit.record(Path(folder), comment(name))
        return "End the recording", gr.skip(), [*made, folder]

    @staticmethod
    def stopped(visit: LiveVisit | None):
        """Frees the visitor's live loop; gives what was being recorded."""
        files = gr.skip()
        if visit is not None:
            recorded = visit.recorded()
            files = gr.update(value=recorded, visible=True) if recorded else files
            visit.close()
        return None, "Record", files

    @staticmethod
    def neutral(visit: LiveVisit | None) -> None:
        """Meets the driver afresh: the next frame stands for the portrait's own pose."""
        if visit is not None and visit.loop is not None:
            visit.loop.calibrate()


def plotted(curve: list[Stage]) -> Figure:
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


def _settings(smoothing: float, pose: str, cast: CastChoice, background: str, *gains: float) -> Settings:
    return Settings(pose, Gains(*gains), "none", cast=cast, smoothing=smoothing, background=background)
