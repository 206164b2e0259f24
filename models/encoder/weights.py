"""The encoder's weights on disk: half precision, a version, and how they came to be."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from models.encoder.network import Encoder
from models.errors import ModelError
from models.prior.face import load_prior

VERSION = "3"
SHIPPED = Path(__file__).with_name("encoder.safetensors")


def save_weights(path: str | Path, encoder: Encoder, origin: dict) -> None:
    """Writes aside and renames: what was there before stays whole if anything goes wrong.

    Raises:
        ModelError: the place can't be written, or the disk is full.
    """
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous().cpu() for k, v in encoder.state_dict().items()}
    metadata = {
        "format": "understudy-encoder",
        "version": VERSION,
        "widths": json.dumps(encoder.widths),
        "origin": json.dumps(origin),
    }
    save_aside(path, tensors, metadata)


def save_aside(path: str | Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file that is there whole or not at all."""
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


def load_weights(path: str | Path | None = None) -> tuple[Encoder, dict]:
    """The encoder, ready to run, and its origin.

    Args:
        path: None takes the weights that ship with the project.

    Raises:
        ModelError: missing, truncated, not an encoder's, of another version.
    """
    path = Path(path or SHIPPED)
    if not path.is_file():
        raise ModelError(f"{path}: no encoder weights there. Restore the file, or train some: python -m pipeline train-encoder.")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not whole ({str(error).splitlines()[0]}). Copy it again, or train new weights.") from None
    if metadata.get("format") != "understudy-encoder":
        raise ModelError(f"{path}: not an encoder's weights. Name a file that train-encoder wrote.")
    if metadata.get("version") != VERSION:
        raise ModelError(f"{path}: encoder weights of version {metadata.get('version')}, expected {VERSION}. Train new ones.")
    encoder = Encoder(load_prior(), tuple(json.loads(metadata["widths"])))
    try:
        encoder.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except RuntimeError:
        raise ModelError(f"{path}: its tensors are not this encoder's. Train new weights with this version.") from None
    return encoder.eval(), json.loads(metadata.get("origin", "{}"))
