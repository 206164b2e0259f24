"""What learning goes on from after a stop: the tracked codes and where everything lies, beside the avatar, without a pixel."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from capture.media import Media
from models.avatar.avatar import PERSON
from models.avatar.linear import Linear
from models.avatar.shell import Shell
from models.avatar.space import SIZE, CodeSpace
from models.code import Camera, FaceCode, Person
from models.prior.face import VERSION as PRIOR_VERSION
from models.prior.face import AnnyPrior
from models.tensors import read_tensors, save_aside
from pipeline.avatar.footage import Footage, avatar_size, pictures_of
from pipeline.errors import Refusal
from pipeline.progress import Listener, silent

SUFFIX = ".unfinished"
_FORMAT = "understudy-learning-2"
_CODE = {"expression": (52,), "rotation": (3, 3), "translation": (3,), "gaze": (2, 2)}


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a person's surfaces lie, as found so far.

    Attributes:
        turns: of the joint correction that are done.
        lift: V x 3 metres; shell: the halo's surface.
        swell: the shell's motion, and the space with its examples; shift: the same of the mesh, None before the first turn.
    """

    turns: int
    lift: np.ndarray
    shell: Shell
    swell: tuple[Linear, CodeSpace]
    shift: tuple[Linear, CodeSpace] | None


@dataclass(frozen=True, eq=False)
class Unfinished:
    """A learning that was stopped.

    Attributes:
        clips: name and bytes of each; settings: that must stay as they were; ends, warnings: as `read_clips` tells them.
        seconds: spent so far; curve: of the stages so far.
    """

    clips: list
    settings: dict
    ends: list[int]
    warnings: list[str]
    seconds: float
    curve: list[dict]
    geometry: Geometry
    footage: Footage

    def save(self, path: Path) -> None:
        """Writes the file whole or not at all.

        Raises:
            ModelError: the place can't be written, or the disk is full.
        """
        geometry, footage = self.geometry, self.footage
        tensors = {"lift": geometry.lift, "numbers": footage.numbers, "clip": footage.clip}
        tensors |= {name: np.stack([getattr(code, name) for code in footage.codes]) for name in _CODE}
        tensors |= {f"person.{name}": getattr(footage.person, name) for name in PERSON}
        tensors |= {f"shell.{field.name}": getattr(geometry.shell, field.name) for field in fields(Shell)}
        for name in ("swell", "shift"):
            if getattr(geometry, name) is not None:
                linear, space = getattr(geometry, name)
                tensors |= {f"{name}.{field.name}": getattr(linear, field.name) for field in fields(Linear)}
                tensors[f"{name}.examples"] = space.examples
        told = {
            "turns": geometry.turns, "camera": asdict(footage.person.camera), "clips": self.clips, "settings": self.settings,
            "ends": self.ends, "warnings": self.warnings, "seconds": self.seconds, "curve": self.curve,
        }  # fmt: skip
        metadata = {"format": _FORMAT, "prior": str(PRIOR_VERSION), "told": json.dumps(told)}
        save_aside(path, {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, metadata)


def marks(clips: Sequence[Media]) -> list:
    """What tells clips from others: name and bytes."""
    return [[Path(media.path).name, Path(media.path).stat().st_size] for media in clips]


def load_unfinished(
    path: Path, clips: Sequence[Media], settings: dict, prior: AnnyPrior, listen: Listener = silent
) -> Unfinished:
    """Reads what was kept, and the clips' frames once more.

    Raises:
        Refusal: there is nothing to go on from, or it was begun otherwise; one line.
        ModelError: damaged.
    """
    if not path.is_file():
        raise Refusal(
            f"{path}: no such file, expected a learning that was stopped. Leave out --resume to begin, or name its --output."
        )
    anew = "Leave out --resume to begin anew."
    metadata, tensors = read_tensors(path, "np", "not a learning that was stopped, or cut off", anew)
    if (metadata.get("format"), metadata.get("prior")) != (_FORMAT, str(PRIOR_VERSION)):
        raise Refusal(f"{path}: format {metadata.get('format', 'none')!r}, expected {_FORMAT!r} of this version. {anew}")
    try:
        told = json.loads(metadata["told"])
        count = len(tensors["numbers"])
        arrays = {name: _taken(tensors, name, (count, *shape)) for name, shape in _CODE.items()}
        person = Person(camera=Camera(**told["camera"]), **{name: _taken(tensors, f"person.{name}") for name in PERSON})
        codes = [FaceCode(**{name: arrays[name][k] for name in _CODE}) for k in range(count)]
        space, vertices = CodeSpace.of(codes), len(prior.mean)
        shell = Shell(*(_taken(tensors, f"shell.{field.name}") for field in fields(Shell)))
        swell = _linear(tensors, "swell", space, shell.vertices.size)
        shift = _linear(tensors, "shift", space, 3 * vertices) if "shift.mean" in tensors else None
        geometry = Geometry(int(told["turns"]), _taken(tensors, "lift", (vertices, 3)), shell, swell, shift)
        numbers, clip = _taken(tensors, "numbers", (count,)), _taken(tensors, "clip", (count,))
        begun, fixed, rest = told["clips"], told["settings"], [told[n] for n in ("ends", "warnings", "seconds", "curve")]
    except (KeyError, TypeError, ValueError) as error:
        raise Refusal(f"{path}: altered or damaged ({error}). {anew}") from None
    if begun != marks(clips):
        words = " and ".join(f"{name} of {size} bytes" for name, size in begun)
        raise Refusal(f"{path}: begun from {words}, got other clips. Give those, or leave out --resume to begin anew.")
    for name, value in fixed.items():
        if settings.get(name) != value:
            raise Refusal(f"{path}: begun with {name} {value}, got {settings.get(name)}. Use the same, or leave out --resume.")
    size = avatar_size(clips[0])
    seen = [pictures_of(media, numbers[clip == k], size, listen) for k, media in enumerate(clips)]
    images, mattes = (np.concatenate(part) for part in zip(*seen))
    if len(images) != count:
        raise Refusal(f"{path}: {count} frames were learned from, the clips show {len(images)} of them. {anew}")
    footage = Footage(person, images, mattes, codes, numbers, clip)
    return Unfinished(begun, fixed, *rest, geometry, footage)


def _taken(tensors: dict, name: str, shape: tuple | None = None) -> np.ndarray:
    value = tensors[name]
    if shape is not None and value.shape != shape:
        raise ValueError(f"{name} is {value.shape}, expected {shape}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise ValueError(f"{name} holds values that are no numbers")
    return value


def _linear(tensors: dict, name: str, space: CodeSpace, size: int) -> tuple[Linear, CodeSpace]:
    rank, examples = len(tensors[f"{name}.scale"]), len(tensors[f"{name}.examples"])
    shapes = {"mean": (size,), "basis": (rank, size), "scale": (rank,), "mixing": (examples, rank), "within": (2, rank)}
    linear = Linear(**{part: _taken(tensors, f"{name}.{part}", shape) for part, shape in shapes.items()})
    return linear, replace(space, examples=_taken(tensors, f"{name}.examples", (examples, SIZE)))
