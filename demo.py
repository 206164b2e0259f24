"""Starts the web page on 127.0.0.1:7860, nothing else."""

from dataclasses import dataclass

import tyro


@dataclass(frozen=True)
class Demo:
    """A page where one person's performance drives another person's picture."""

    port: int = 7860
    """Where the page listens on this machine."""


if __name__ == "__main__":
    options = tyro.cli(Demo)
    from pipeline.__main__ import quiet_natives

    quiet_natives()
    from pipeline.page import serve

    print(f"Understudy comes up on http://127.0.0.1:{options.port} (the first start takes a minute; Ctrl-C ends it)", flush=True)
    serve(port=options.port)
