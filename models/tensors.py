"""Tensors and their metadata in one .safetensors file: written whole or not at all, read with one line on what is wrong."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.errors import ModelError


def save_aside(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Writes aside and renames: what was there before stays whole if anything goes wrong.

    Raises:
        ModelError: the place can't be written, or the disk is full.
    """
    path = Path(path)
    partial = None
    try:
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, metadata)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        said = getattr(error, "strerror", None) or error
        raise ModelError(
            f"{path}: can't be written ({said}); what was there before is unharmed. Make room and try again."
        ) from None
    finally:
        if partial:
            Path(partial).unlink(missing_ok=True)


def read_tensors(
    path: str | Path, framework: Literal["np", "pt"], wrong: str, advice: str, device: str = "cpu"
) -> tuple[dict[str, str], dict]:
    """Metadata and tensors of a file that is there.

    Args:
        wrong, advice: what to say of a file that can't be read, and what to do next.
        device: for `pt`.

    Raises:
        ModelError: truncated, or no such file format.
    """
    try:
        with safe_open(str(path), framework=framework, device=device) as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: {wrong} ({str(error).splitlines()[0]}). {advice}") from None
