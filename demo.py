"""Starts the web page, nothing else."""

import os
import sys
from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Demo:
    """A page where one person's performance drives another person's picture."""

    host: str = "127.0.0.1"
    """Where the page listens; anything but this machine alone needs a password in UNDERSTUDY_PASSWORD (user: understudy)."""
    port: int = 7860
    """On which port."""
    source: str | None = None
    """Photo, video or avatar that is chosen from the start."""


if __name__ == "__main__":
    options = tyro.cli(Demo)
    from pipeline.__main__ import quiet_natives

    quiet_natives()
    from capture.errors import MediaError
    from models.errors import ModelError
    from pipeline.errors import Refusal
    from pipeline.page.layout import serve

    print(
        f"Understudy comes up on http://{options.host}:{options.port} (the first start takes a minute; Ctrl-C ends it)",
        flush=True,
    )
    try:
        serve(options.host, options.port, options.source, os.environ.get("UNDERSTUDY_PASSWORD"))
    except (MediaError, ModelError, Refusal, OSError) as error:
        sys.exit(" ".join(str(error).split()))
