"""What is asked of a visitor's files at the door, and what is said of them."""

from __future__ import annotations

import html
import time
from pathlib import Path

import gradio as gr

from capture.media import open_media
from models.avatar.avatar import is_avatar
from pipeline.builtin import BUILTIN
from pipeline.errors import Refusal

_LONGEST = 600.0  # seconds of a visitor's video
_AGREED = "{} with Understudy; not a record of what happened."


def require_consent(agreed: bool) -> None:
    if not agreed:
        words = (
            "Nobody's face is moved unasked: tick that whoever your files show has agreed (or is you, or nobody), and try again."
        )
        raise gr.Error(words, duration=12, print_exception=False)


def require_short(file: str | None) -> None:
    """Refuses a visitor's video that would keep the machine busy for long."""
    if file and not is_avatar(file):
        seconds = open_media(file).duration or 0.0
        if seconds > _LONGEST:
            raise Refusal(
                f"{file}: {seconds:.0f} s long, expected at most {_LONGEST:.0f} s here. Cut it, or use the command line."
            )


def comment(name: str, what: str = "Reenacted") -> str:
    """What a file made here says of itself."""
    said = _AGREED.format(what)
    if name == BUILTIN:
        return said
    return f"{said} Stated on {time.strftime('%Y-%m-%d')} by who made it: whoever is shown has agreed."


def shown(error: Exception, *paths: str | None) -> str:
    """The error's line with a visitor's temporary paths shortened to their file names."""
    text = str(error)
    for path in paths:
        if path and path != BUILTIN:
            text = text.replace(path, Path(path).name)
    return html.escape(text, quote=False)  # the page shows it as HTML, and a file's name may be anything
