"""What the Relight tab's controls do: Gradio's handlers, without a word about where they stand."""

from __future__ import annotations

import html
import json
import time

import gradio as gr

from capture.errors import MediaError
from models.avatar.avatar import is_avatar
from models.errors import ModelError
from pipeline.backdrop import KEEP
from pipeline.errors import Refusal
from pipeline.page.actions import Page
from pipeline.page.door import comment, require_consent, require_short, shown
from pipeline.page.lighting import LAMPS, MADE, MINE, OWN, Lighting, Seen, Wanted, export, relit_moment
from pipeline.page.visit import as_url
from pipeline.relight import Relighting

_MOST_LAMPS = 4  # as many as the page lets be put up
_REFUSED = (MediaError, ModelError, Refusal)


class RelightTab:
    """A visitor's light, and what it is put on."""

    def __init__(self, page: Page):
        self._page = page
        self._lighting: Lighting = page.lighting

    @staticmethod
    def wanted(name: str, file: str | None, turn: float, exposure: float, lamps: list[dict] | None) -> Wanted:
        """The light as the tab's controls say."""
        return Wanted(name, file, float(turn), float(exposure), json.dumps((lamps or [])[:_MOST_LAMPS]))

    @staticmethod
    def put_on(choice: str, made: Wanted) -> Wanted | None:
        """Under which light the Video and the Live tab show people, by what is chosen for them."""
        return {OWN: None, MADE: made}.get(choice, Wanted(choice))

    def look(self, chosen: str, file: str | None, agreed: bool, in_front: bool, progress=gr.Progress()):
        """Looks at what is to be relit, as soon as it can be seen: the visitor's file, or whoever is chosen above."""
        if not in_front:
            return gr.skip(), gr.skip()
        if file is not None:
            require_consent(agreed)
        try:
            require_short(file)
            seen = self._seen(chosen, file, progress)
        except _REFUSED as error:
            raise gr.Error(shown(error, file, chosen), duration=12, print_exception=False) from None
        moments = len(seen.moments)
        words = "Under which light? Choose one, turn it, or put lamps around the head."
        return gr.update(visible=moments > 1, maximum=max(moments - 1, 1), value=0), words

    def preview(self, chosen: str, file: str | None, moment: float, background: str, wall: float, light: Wanted, agreed: bool):
        """One moment as it was and under the light, for `COMPARE`."""
        name = file or chosen
        if file is not None and not agreed:  # `look` has said so
            return gr.skip(), gr.skip()
        how = Relighting(background=background, wall=_wall(background, wall))
        try:
            seen = self._seen(chosen, file)
            before, after = relit_moment(seen, self._lighting.light(light), int(moment), how)
        except _REFUSED as error:
            return gr.skip(), shown(error, name, light.file)
        return {"before": as_url(before), "after": as_url(after)}, _told(seen, light)

    def relight(
        self, chosen: str, file: str | None, background: str, wall: float, light: Wanted, agreed: bool, progress=gr.Progress()
    ):  # fmt: skip
        """The Relight button: all of it as a file."""
        if file is not None:
            require_consent(agreed)
        start = time.perf_counter()
        how = Relighting(
            background=background, wall=_wall(background, wall), mark=True, comment=comment(file or chosen, "Relit")
        )  # fmt: skip
        try:
            require_short(file)
            seen = self._seen(chosen, file, progress)
            path, count = export(seen, self._lighting.light(light), how, _listener(progress))
        except _REFUSED as error:
            raise gr.Error(shown(error, file, chosen, light.file), duration=12, print_exception=False) from None
        still, took = seen.media.is_photo, time.perf_counter() - start
        words = f"{'A picture' if still else f'{count} frames'}, {seen.media.width}×{seen.media.height}, made in {took:.1f} s."
        shown_file = gr.update(value=str(path), visible=True)
        return shown_file, gr.update(value=None if still else str(path), visible=not still), words, str(path)

    def _seen(self, chosen: str, file: str | None, progress: gr.Progress | None = None) -> Seen:
        name = file or chosen
        if is_avatar(name):
            return self._lighting.still(name, lambda: self._page.rest(name))
        return self._lighting.seen(name, _listener(progress))


def _wall(background: str, metres: float) -> float | None:
    """Metres to the wall that catches shadows; None where there is none."""
    return float(metres) if background == KEEP and metres > 0 else None


def _listener(progress: gr.Progress | None):
    def listen(stage: str, done: int, total: int | None) -> None:
        if progress is not None:
            progress((done, total) if total else None, desc=stage)

    return listen


def _told(seen: Seen, light: Wanted) -> str:
    many = f"{len(seen.shot.people)} people" if len(seen.shot.people) > 1 else "One person"
    own = " The light they were filmed in varies." if seen.shot.gains is not None else ""
    lamps = len(json.loads(light.lamps))
    under = [] if light.name == LAMPS else ["your own light" if light.name == MINE else light.name]
    under += [f"{lamps} lamp{'s' if lamps > 1 else ''}"] if lamps else []
    return html.escape(f"{many}, under {' and '.join(under)}.{own}", quote=False)
