"""The encoder's weights on disk: half precision, a version, and how they came to be."""

from __future__ import annotations

import json
from pathlib import Path

from models.encoder.network import Encoder
from models.errors import ModelError
from models.prior.face import load_prior
from models.tensors import read_tensors, save_aside

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
    metadata, tensors = read_tensors(path, "pt", "not whole", "Copy it again, or train new weights.")
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
