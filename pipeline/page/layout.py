"""The web page: tabs Video, Live, Relight and Avatar over the same flow as the command line.

Elements with stable ids, for whoever drives the page from outside: source-gallery, source-upload, video-driver, video-start,
video-output, video-status, live-camera, live-start, live-stop, live-output, live-latency, live-neutral, live-mirror,
live-record, live-files, live-smoothing, avatar-clip, avatar-learn, avatar-preview, avatar-curve, avatar-status, avatar-file,
consent, pose, cast, background, background-picture, light, relight-input, relight-light, relight-file, relight-turn,
relight-exposure, relight-sphere, relight-background, relight-wall, relight-moment, relight-view, relight-status, relight-start,
relight-output, relight-film, gain-brows, gain-eyes, gain-mouth, gain-head, gain-gaze.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import gradio as gr

from models.avatar.avatar import SUFFIX
from models.prior.face import AnnyPrior, cache_folder, load_prior
from pipeline.backdrop import BLUR, KEEP, TRANSPARENT
from pipeline.builtin import BUILTIN
from pipeline.errors import Refusal
from pipeline.flow import reenact
from pipeline.lights import ENDINGS
from pipeline.page.actions import PICTURE, Page, plotted
from pipeline.page.browser import (
    CAMERA,
    CAMERA_VIEW,
    COMPARE,
    COMPARE_VIEW,
    CONNECT,
    CSS,
    HEAD,
    LAMPS_SCRIPT,
    LAMPS_VIEW,
    MIRROR,
    START,
    STOP,
)  # fmt: skip
from pipeline.page.channel import route
from pipeline.page.lighting import BACKGROUNDS, LAMPS, LIGHTS, MADE, MINE, OWN, Wanted
from pipeline.page.memory import keep_few_arenas
from pipeline.page.relight import RelightTab
from pipeline.reenactment import Settings

_SHOW_VERSION = 2  # of the built-in show's film in the cache: raise it when its look changes
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_UPLOAD = "200mb"
_PARTS = ("brows", "eyes", "mouth", "head", "gaze")  # in the order of `Gains`
_KEEP = (600, 3600)  # seconds between sweeps, seconds a visitor's files are kept


def built_in_show(prior: AnnyPrior) -> Path:
    """The film of the built-in portrait performing the built-in performance; made once, then kept in the user's cache."""
    path = cache_folder() / f"show-v{_SHOW_VERSION}.mp4"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        reenact(BUILTIN, BUILTIN, path, Settings(), prior=prior)
    return path


def build(page: Page, source: str | None = None) -> gr.Blocks:
    """The page, ready to launch together with the route where live browsers connect (`pipeline.page.channel`).

    Args:
        source: a photo, a video or an avatar that is in the gallery, and chosen, from the start.

    Raises:
        MediaError, ModelError, Refusal: where nobody can be seen in it.
    """
    known = [BUILTIN] if source in (None, BUILTIN) else [BUILTIN, source]
    for name in known:
        page.source(name)
    show = str(built_in_show(page.prior))
    gr.set_static_paths([show])
    with gr.Blocks(title="Understudy", delete_cache=_KEEP) as blocks:
        gr.Markdown("# Understudy\nOne person's performance drives another person's picture.")
        names = gr.State(known)
        chosen = gr.State(known[-1])
        gr.Markdown("**Who is moved:** choose a portrait, or add your own photo, video or avatar.")
        with gr.Row(equal_height=True):
            with gr.Column(scale=3, min_width=280):
                gallery = gr.Gallery(
                    page.items(known), label="Who is moved: choose a portrait", show_label=False,
                    elem_id="source-gallery", columns=6, fit_columns=False, height=170,
                    allow_preview=False, selected_index=len(known) - 1, object_fit="contain", interactive=False,
                    format="jpeg", buttons=[],
                )  # fmt: skip
            with gr.Column(scale=1, min_width=200):
                upload = gr.File(
                    label="Add a photo, video or avatar", file_types=["image", "video", SUFFIX], elem_id="source-upload",
                    height=190,
                )  # fmt: skip
                agreed = gr.Checkbox(label="Whoever my files show has agreed", elem_id="consent", container=False)
        with gr.Row():
            pose = gr.Radio(
                [("added to the portrait's", "relative"), ("the driver's own", "absolute"), ("the portrait's", "off")],
                value="relative", label="Head pose", elem_id="pose", min_width=280,
            )  # fmt: skip
            cast = gr.Radio(
                [("the largest face", "one"), ("everyone", "all"), ("each by a driver of their own", "each")],
                value="one", label="Who in the picture moves", elem_id="cast", min_width=280,
            )  # fmt: skip
            with gr.Column(min_width=280):
                behind = gr.Radio(
                    [("their own", KEEP), ("blurred", BLUR), ("a picture", PICTURE), ("none", TRANSPARENT)],
                    value=KEEP, label="Background", elem_id="background",
                )  # fmt: skip
                picture_behind = gr.Image(
                    label="The picture behind", type="filepath", sources=["upload"], elem_id="background-picture", height=160,
                    visible=False,
                )  # fmt: skip
        background = gr.State(KEEP)
        gr.on(
            [behind.change, picture_behind.change], page.background, [behind, picture_behind], [background, picture_behind],
            show_progress="hidden",
        )  # fmt: skip
        light_on = gr.Radio(
            [("their own", OWN), *LIGHTS, ("as in the Relight tab", MADE)], value=OWN, label="Light (in Video and Live)",
            elem_id="light",
        )  # fmt: skip
        made_light, light = gr.State(Wanted("studio")), gr.State(None)
        how = [pose, cast, background, light]
        with gr.Accordion("Strengths", open=False), gr.Row():
            gains = [
                gr.Slider(0, 2, 1, step=0.05, label=part.capitalize(), elem_id=f"gain-{part}", min_width=150) for part in _PARTS
            ]
            how += gains
        with gr.Tabs() as tabs:
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
                ticket = gr.Textbox(visible="hidden")
                visit = gr.State(None, time_to_live=_KEEP[1], delete_callback=lambda v: v.close() if v else None)
                with gr.Row():
                    with gr.Column(min_width=280):
                        gr.HTML(CAMERA_VIEW, elem_id="live-camera")
                        with gr.Row():
                            go = gr.Button("Start", variant="primary", elem_id="live-start", min_width=90)
                            halt = gr.Button("Stop", elem_id="live-stop", min_width=90)
                            neutral = gr.Button("This is my neutral face", elem_id="live-neutral", min_width=120)
                        with gr.Row():
                            mirror = gr.Checkbox(label="Mirror what I see", elem_id="live-mirror", container=False, min_width=90)
                            smoothing = gr.Slider(0, 3, 1, step=0.1, label="Smoothing", elem_id="live-smoothing", min_width=120)
                    with gr.Column(min_width=280):
                        picture = gr.HTML(page.view(known[-1]), elem_id="live-output")
                        gr.HTML(
                            '<span role="status">The camera is off. Press Start and allow the camera.</span>',
                            elem_id="live-latency",
                        )
                        record = gr.Button("Record", elem_id="live-record")
                        files = gr.File(
                            label="Recorded: the video, and the performance without a pixel", elem_id="live-files",
                            interactive=False, visible=False,
                        )  # fmt: skip
            with gr.Tab("Relight", id="relight"):
                _relight(RelightTab(page), tabs, chosen, agreed, made_light)
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
                        plot = gr.Plot(plotted([]), show_label=False, elem_id="avatar-curve", format="png")
                        lesson = gr.Markdown(
                            "The camera should stand still and the light not change. Learning takes a few minutes on two cores.",
                            elem_id="avatar-status",
                        )
        learn.click(
            page.learn, [clip, whom, names, mine, agreed], [preview, plot, lesson, file, names, gallery, chosen, mine],
            concurrency_limit=1, show_progress="hidden",
        )  # fmt: skip
        upload.upload(page.add_source, [upload, names, agreed], [names, gallery, chosen], concurrency_limit=1)
        gallery.select(_choose, [names], [chosen])
        made = gr.State(None)
        start.click(
            page.reenact, [chosen, driver, audio, person, *how], [output, status, made], concurrency_limit=1,
            show_progress_on=output,
        ).then(page.taken, [made], None)  # fmt: skip
        go.click(None, js=START)
        go.click(page.begin, [visit, chosen, smoothing, *how], [visit, ticket, record, files], show_progress="hidden").then(
            None, ticket, js=CONNECT
        )
        gr.on(
            [chosen.change, cast.change, light.change], page.choose, [visit, chosen, cast, light], picture,
            show_progress="hidden", concurrency_limit=1, trigger_mode="always_last",
        )  # fmt: skip
        gr.on(
            [light_on.change, made_light.change], RelightTab.put_on, [light_on, made_light], light, show_progress="hidden",
            trigger_mode="always_last",
        )  # fmt: skip
        gr.on(
            [control.change for control in (smoothing, *how)], page.adjust, [visit, smoothing, *how],
            show_progress="hidden", trigger_mode="always_last",
        )  # fmt: skip
        halt.click(None, js=STOP).then(page.stopped, visit, [visit, record, files], show_progress="hidden")
        record.click(page.record, [visit, chosen, mine], [record, files, mine], show_progress="hidden")
        mirror.change(None, mirror, js=MIRROR)
        neutral.click(page.neutral, visit, None, show_progress="hidden")
        blocks.unload(page.left)
    return blocks


def _relight(act: RelightTab, tabs: gr.Tabs, chosen: gr.State, agreed: gr.Checkbox, light: gr.State) -> None:
    """The Relight tab; `light` is the one that is made in it."""
    shown = gr.State(False)  # whether this tab is the one in front
    made = gr.State(None)
    with gr.Row():
        with gr.Column(min_width=280):
            file = gr.File(
                label="A video or photo (empty: who is chosen)", file_types=["image", "video"],
                elem_id="relight-input", height=110,
            )  # fmt: skip
            name = gr.Radio(
                [*LIGHTS, ("lamps alone", LAMPS), ("my own file", MINE)], value="studio", label="Light", elem_id="relight-light"
            )
            own = gr.File(
                label="A map (.hdr, .exr), harmonics (.txt), lamps (.json), or a photo whose light to take",
                file_types=[*ENDINGS, "image"], elem_id="relight-file", height=110, visible=False,
            )  # fmt: skip
            with gr.Row():
                turn = gr.Slider(-180, 180, 0, step=1, label="Turned to the right, degrees", elem_id="relight-turn", min_width=99)
                exposure = gr.Slider(-4, 4, 0, step=0.1, label="Exposure, stops", elem_id="relight-exposure", min_width=130)
            lamps = gr.HTML(
                [], html_template=LAMPS_VIEW, js_on_load=LAMPS_SCRIPT, apply_default_css=False, elem_id="relight-sphere"
            )
        with gr.Column(min_width=280):
            view = gr.HTML({}, html_template=COMPARE_VIEW, js_on_load=COMPARE, apply_default_css=False, elem_id="relight-view")
            status = gr.Markdown("", elem_id="relight-status")
            moment = gr.Slider(0, 1, 0, step=1, label="Moment of the video", elem_id="relight-moment", visible=False)
            behind = gr.Radio(BACKGROUNDS, value=KEEP, label="Behind them", elem_id="relight-background")
            wall = gr.Slider(
                0, 2, 0, step=0.05, label="Wall for shadows of lamps, metres behind (0: none)", elem_id="relight-wall"
            )
            go = gr.Button("Relight all of it", variant="primary", elem_id="relight-start")
            output = gr.File(label="Relit", interactive=False, elem_id="relight-output", height=90, visible=False)
            film = gr.Video(label="Relit", visible=False, interactive=False, elem_id="relight-film", height=380, loop=True)
    quiet = {"show_progress": "hidden", "trigger_mode": "always_last"}
    preview = (act.preview, [chosen, file, moment, behind, wall, light, agreed], [view, status])
    look = (act.look, [chosen, file, agreed, shown], [moment, status])
    slow = {"concurrency_limit": 1, "show_progress_on": [status]}
    tabs.select(_is_relight, None, shown, show_progress="hidden").then(*look, **slow).success(*preview, **quiet)
    gr.on([file.upload, file.clear, chosen.change, agreed.change], *look, **slow).success(*preview, **quiet)
    name.change(lambda choice: gr.update(visible=choice == MINE), name, own, show_progress="hidden")
    # lamps are put where they are to be
    name.change(lambda choice: gr.update(visible=choice != LAMPS), name, turn, show_progress="hidden")
    controls = [name, own, turn, exposure, lamps]
    gr.on([lamps.input, *(control.change for control in controls[:-1])], act.wanted, controls, light, **quiet)
    gr.on([light.change, moment.change, behind.change, wall.change], *preview, **quiet)
    behind.change(lambda choice: gr.update(visible=choice == KEEP), behind, wall, show_progress="hidden")
    go.click(
        act.relight,
        [chosen, file, behind, wall, light, agreed],
        [output, film, status, made],
        concurrency_limit=1,
        show_progress_on=[output],
    ).then(Page.taken, [made], None)


def _is_relight(event: gr.SelectData) -> bool:
    return event.value == "Relight"


def _film(label: str, name: str) -> gr.Video:
    """A video of the visitor's, from a file or their camera."""
    camera = gr.WebcamOptions(mirror=False, constraints=CAMERA)
    return gr.Video(label=label, sources=["upload", "webcam"], elem_id=name, webcam_options=camera, height=380)


def _removed(folders: list[str]) -> None:
    """Takes away a visitor's avatars when they have gone."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _choose(names: list[str], event: gr.SelectData) -> str:
    return names[event.index]


def serve(
    host: str = "127.0.0.1", port: int = 7860, source: str | None = None, password: str | None = None, **options: object
):  # fmt: skip
    """Builds and launches the page; returns what Gradio's `launch` returns.

    Args:
        password: that visitors (named `understudy`) give; needed wherever others than this machine can reach the page.

    Raises:
        MediaError, ModelError, Refusal: one line.
    """
    if host not in _LOOPBACK and not password:
        raise Refusal(
            f"--host {host}: others could reach the page, and no password is set. Set UNDERSTUDY_PASSWORD, or leave --host out."
        )
    keep_few_arenas()
    page = Page(load_prior())
    returns = options.pop("prevent_thread_lock", False)
    blocks = build(page, source).queue(default_concurrency_limit=2, max_size=16)
    launched = blocks.launch(
        server_name=host, server_port=port, share=False, quiet=True, show_error=True, max_file_size=_UPLOAD, run_history=False,
        css=CSS, head=HEAD, footer_links=[], ssr_mode=False, theme=gr.themes.Soft(), prevent_thread_lock=True,
        app_kwargs={"routes": [route(page.expected)]}, auth=("understudy", password) if password else None, **options,
    )  # fmt: skip
    # of a socket that is opened from now on: what JPEGs have left to squeeze isn't worth the milliseconds
    blocks.server.config.ws_per_message_deflate = False
    if not returns:
        blocks.block_thread()
    return launched
