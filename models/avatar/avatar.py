"""An avatar: one person's head, and three layers of pictures that follow their code; one .safetensors file.

Layers, front to back: the head's mesh with samples on its triangles (`mesh_colours`); the halo, a shell around the head and its
hair with colour and opacity on its own triangles; the scene, the rest of the picture.

Convention: colours are sRGB codes 0..255, not linear light: they are regressed and judged as they are seen.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from models.avatar.lighting import RESPONSES
from models.avatar.linear import Linear
from models.avatar.mesh_colours import MOST_SEGMENTS, MeshColours
from models.avatar.shell import Shell, icosphere
from models.avatar.space import SIZE, CodeSpace
from models.code import Camera, Person
from models.errors import ModelError
from models.prior.face import VERSION as PRIOR_VERSION
from models.prior.face import AnnyPrior
from models.tensors import read_tensors, save_aside

FORMAT = "understudy-avatar-4"
LARGEST = 20_000_000  # bytes of a file
SUFFIX = ".avatar"
_MOTION_CELL = 8  # pixels


@dataclass(frozen=True, eq=False)
class Avatar:
    """What was learned of a person.

    `shift` and `skin` follow the whole code, the other layers the head's pose alone.

    Attributes:
        person: their identity and camera; the camera's size is that of the pictures.
        lift: V x 3 metres, head frame: where their surface lies beside the fitted head's (hair, ears).
        space: the codes it was learned from.
        segments: T, samples on the head's mesh.
        shift: V x 3 values: how the surface moves with the code beside what the prior says.
        skin: S x 3 values, sRGB codes of the samples as they are lit in the middle pose.
        light: 8 x 3, how their brightness follows the surface's normal (`lighting`).
        shell: the halo's surface; swell: D x 3 values, metres by which it moves with the pose; shell_segments: T, samples on it.
        halo: S' x 3 values of the shell's samples, sRGB codes.
        veil: S' values: their opacity (255 is 1).
        scene: H x W x 3 values, sRGB codes.
        scene_motion: h x w x 2 values (`motion_shape`), pixels from a place in a picture to the same in the scene: torsos move.
        scene_change: H/2 x W/2 x 3 values added to what is found there.
        origin: how it was learned.
    """

    person: Person
    lift: np.ndarray
    space: CodeSpace
    segments: np.ndarray
    shift: Linear
    skin: Linear
    light: np.ndarray
    shell: Shell
    swell: Linear
    shell_segments: np.ndarray
    halo: Linear
    veil: Linear
    scene: np.ndarray
    scene_motion: Linear
    scene_change: Linear
    origin: dict

    @property
    def width(self) -> int:
        return self.person.camera.width

    @property
    def height(self) -> int:
        return self.person.camera.height

    def colours(self, prior: AnnyPrior) -> MeshColours:
        """The skin's samples."""
        return MeshColours.of(prior.triangles, self.segments)

    @cached_property
    def shell_colours(self) -> MeshColours:
        """The halo's samples."""
        return MeshColours.of(self.shell.triangles, self.shell_segments)

    def save(self, path: str | Path) -> None:
        """Writes the file, aside first and then renamed.

        Raises:
            ModelError: it would be larger than 20 MB, the place can't be written, or the disk is full.
        """
        person, camera = self.person, self.person.camera
        tensors = {"segments": self.segments.astype(np.uint8), "lift": self.lift.astype(np.float16), "scene": self.scene}
        tensors["light"] = self.light.astype(np.float32)
        tensors |= {f"shell.{field.name}": getattr(self.shell, field.name).astype(np.float32) for field in fields(Shell)}
        tensors["shell.segments"] = self.shell_segments.astype(np.uint8)
        for name in PERSON:
            tensors[f"person.{name}"] = getattr(person, name).astype(np.float32)
        for field in fields(CodeSpace):
            tensors[f"space.{field.name}"] = getattr(self.space, field.name).astype(np.float32)
        for name in LAYERS:
            layer: Linear = getattr(self, name)
            tensors[f"{name}.mean"] = _coded(layer.mean, name)
            tensors[f"{name}.basis"], tensors[f"{name}.scale"] = layer.basis, layer.scale
            tensors[f"{name}.mixing"], tensors[f"{name}.within"] = layer.mixing, layer.within
        size = sum(t.nbytes for t in tensors.values())
        if size > LARGEST - 100_000:
            raise ModelError(f"{path}: {size / 1e6:.1f} MB of tensors, expected at most {LARGEST / 1e6:.0f} MB. Use fewer bases.")
        metadata = {
            "format": FORMAT, "prior": str(PRIOR_VERSION), "camera": json.dumps(vars(camera)), "origin": json.dumps(self.origin),
        }  # fmt: skip
        save_aside(path, {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}, metadata)


PERSON = ("identity", "detail", "neutral", "neutral_look")
LAYERS = ("shift", "swell", "skin", "halo", "veil", "scene_motion", "scene_change")
_IN_CODES = ("skin", "halo", "veil")


def _coded(mean: np.ndarray, name: str) -> np.ndarray:
    return np.clip(np.round(mean), 0, 255).astype(np.uint8) if name in _IN_CODES else mean.astype(np.float16)


def motion_shape(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of the grid on which the scene moves, stretched over the picture."""
    return max(2, height // _MOTION_CELL), max(2, width // _MOTION_CELL)


def is_avatar(path: str | Path) -> bool:
    """Whether a path names an avatar, by its ending."""
    return Path(path).suffix == SUFFIX


def load_avatar(path: str | Path, prior: AnnyPrior) -> Avatar:
    """Reads what `Avatar.save` wrote, and trusts nothing in it.

    Raises:
        ModelError: missing, truncated, altered, or of another version; one line.
    """
    path = Path(path)
    again = "Learn it anew with `python -m pipeline avatar`."
    if not path.is_file():
        raise ModelError(
            f"{path}: no such file, expected an avatar. Check the name, or make one with `python -m pipeline avatar`."
        )
    if path.stat().st_size > LARGEST:
        raise ModelError(f"{path}: {path.stat().st_size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:.0f} MB. {again}")
    metadata, tensors = read_tensors(path, "np", "not an avatar, or cut off", f"Copy it again. {again}")
    kind = metadata.get("format", "none")
    if kind != FORMAT:
        raise ModelError(f"{path}: format {kind!r}, expected {FORMAT!r}. Update Understudy if the file is newer. {again}")
    if metadata.get("prior") != str(PRIOR_VERSION):
        raise ModelError(f"{path}: made with version {metadata.get('prior')} of the prior, expected {PRIOR_VERSION}. {again}")
    try:
        return _assembled(metadata, tensors, prior)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: altered or damaged ({error}). Copy it again. {again}") from None


def _assembled(metadata: dict, tensors: dict[str, np.ndarray], prior: AnnyPrior) -> Avatar:
    def take(name: str, shape: tuple, kind: type) -> np.ndarray:
        """A tensor of the expected shape (None: any length) and kind."""
        value = tensors[name]
        fits = value.ndim == len(shape) and all(n is None or n == m for n, m in zip(shape, value.shape))
        if not fits or value.dtype != kind:
            raise ValueError(f"{name} is {value.dtype} {value.shape}, expected {np.dtype(kind)} {shape}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"{name} holds values that are no numbers")
        return value

    camera = Camera(**json.loads(metadata["camera"]))
    if not (16 <= camera.width <= 4096 and 16 <= camera.height <= 4096 and 1 < camera.focal < 1e6):
        raise ValueError(f"camera {camera}")
    vertices, examples = len(prior.mean), len(tensors["space.examples"])
    shapes = {"identity": (len(prior.identity),), "detail": (478, 3), "neutral": (52,), "neutral_look": (2, 2)}
    person = Person(camera=camera, **{n: take(f"person.{n}", shapes[n], np.float32).astype(np.float64) for n in PERSON})
    wide = {"reference": (3, 3), "examples": (examples, SIZE)}
    space = CodeSpace(
        **{f.name: take(f"space.{f.name}", wide.get(f.name, (SIZE,)), np.float32).astype(np.float64) for f in fields(CodeSpace)}
    )
    directions, faces = icosphere()
    sizes = {"vertices": (len(directions), 3), "opacity": (len(directions),)}
    shell = Shell(**{name: take(f"shell.{name}", shape, np.float32) for name, shape in sizes.items()})
    if space.scale.min() <= 0:
        raise ValueError("a scale is not positive")
    segments, shell_segments = (
        take(name, (count,), np.uint8).astype(np.int32)
        for name, count in (("segments", len(prior.triangles)), ("shell.segments", len(faces)))
    )
    if min(segments.min(), shell_segments.min()) < 1 or max(segments.max(), shell_segments.max()) > MOST_SEGMENTS:
        raise ValueError("segments out of range")
    colours, around = MeshColours.of(prior.triangles, segments), MeshColours.of(faces, shell_segments)
    sizes = {
        "shift": 3 * vertices, "swell": 3 * len(directions), "skin": 3 * len(colours), "halo": 3 * len(around),
        "veil": len(around), "scene_motion": 2 * math.prod(motion_shape(camera.height, camera.width)),
        "scene_change": 3 * (camera.height // 2) * (camera.width // 2),
    }  # fmt: skip

    def linear(name: str) -> Linear:
        rank = len(tensors[f"{name}.scale"])
        kind = np.uint8 if name in _IN_CODES else np.float16
        return Linear(
            take(f"{name}.mean", (sizes[name],), kind).astype(np.float32), take(f"{name}.basis", (rank, sizes[name]), np.int8),
            take(f"{name}.scale", (rank,), np.float32), take(f"{name}.mixing", (examples, rank), np.float32),
            take(f"{name}.within", (2, rank), np.float32),
        )  # fmt: skip

    return Avatar(
        person, take("lift", (vertices, 3), np.float16).astype(np.float32), space, segments, linear("shift"), linear("skin"),
        take("light", (RESPONSES, 3), np.float32), shell, linear("swell"), shell_segments, linear("halo"), linear("veil"),
        take("scene", (camera.height, camera.width, 3), np.uint8), linear("scene_motion"), linear("scene_change"),
        json.loads(metadata["origin"]),
    )  # fmt: skip
