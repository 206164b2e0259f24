"""Where results may go: refused before any work is done."""

from __future__ import annotations

import os
from pathlib import Path

from capture.writer import VideoWriter
from pipeline.errors import Refusal


def check_output(output: str | Path, alpha: bool = False) -> None:
    """Refuses a video that can't be written."""
    VideoWriter(output, 16, 16, alpha=alpha).discard()


def check_not_input(output: str | Path, *inputs: str) -> None:
    """Refuses to write over what is read."""
    output = Path(output)
    for one in inputs:
        if output.exists() and Path(one).exists() and output.samefile(one):
            raise Refusal(f"{output}: the same file as the input {one}, which would be lost. Name another output.")


def check_folder(output: str | Path) -> None:
    """Refuses a folder that neither is there nor can be made; makes none."""
    there = Path(output)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise Refusal(f"{output}: {there} is a file, expected a folder to put results in. Name another.")
    if not os.access(there, os.W_OK):
        raise Refusal(f"{output}: nothing can be written in {there}. Name a folder that you may write to.")
