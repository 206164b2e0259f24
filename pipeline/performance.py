"""A performance: who, and what their face did when. Saved without a pixel in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from models.code import Camera, FaceCode, Person

_FORMAT = "understudy-performance-1"


@dataclass(frozen=True)
class Performance:
    """One person's codes over a shot.

    Attributes:
        person: what stays the same.
        times: N seconds, the file's own.
        durations: N seconds each frame is shown.
        tracked: N bool; where False the codes are held or bridged.
        expression: N x 52; rotation: N x 3 x 3; translation: N x 3; gaze: N x 2 x 2; confidence: N.
        error: N, mean distance of the fitted from the tracked 478 landmarks, of the inter-ocular distance; nan where lost,
            and where no landmarks were tracked.
        light: N x 9 x 3 harmonics in camera axes; None where only landmarks were looked at.
    """

    person: Person
    times: np.ndarray
    durations: np.ndarray
    tracked: np.ndarray
    expression: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    gaze: np.ndarray
    confidence: np.ndarray
    error: np.ndarray
    light: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.times)

    def code(self, index: int) -> FaceCode:
        return FaceCode(
            self.expression[index], self.rotation[index], self.translation[index], self.gaze[index],
            float(self.confidence[index]), None if self.light is None else self.light[index],
        )  # fmt: skip

    def save(self, path: str | Path) -> None:
        """Writes a .safetensors file, aside first and then renamed."""
        person = self.person
        tensors = {
            name: np.ascontiguousarray(getattr(self, name), np.uint8 if name == "tracked" else np.float64)
            for name in ("times", "durations", "tracked", "expression", "rotation", "translation", "gaze", "confidence", "error")
        }
        for name in ("identity", "detail", "neutral", "neutral_look"):
            tensors[f"person.{name}"] = np.ascontiguousarray(getattr(person, name), np.float64)
        if self.light is not None:
            tensors["light"] = np.ascontiguousarray(self.light, np.float64)
        if person.albedo is not None:
            tensors["person.albedo"] = np.ascontiguousarray(person.albedo, np.float64)
        camera = {"focal": person.camera.focal, "width": person.camera.width, "height": person.camera.height}
        path = Path(path)
        partial = path.with_name(f".{path.name}.partial")
        try:
            save_file(tensors, str(partial), metadata={"format": _FORMAT, "camera": json.dumps(camera)})
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Performance:
        """Reads what `save` wrote. Raises ValueError for any other file."""
        with safe_open(str(path), framework="np") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"{path}: not a performance (format {metadata.get('format')!r}, expected {_FORMAT!r})")
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        camera = Camera(**json.loads(metadata["camera"]))
        person = Person(
            tensors["person.identity"], tensors["person.detail"], camera, tensors["person.neutral"],
            tensors["person.neutral_look"], tensors.get("person.albedo"),
        )  # fmt: skip
        rest = {k: v for k, v in tensors.items() if not k.startswith("person.")}
        rest["tracked"] = rest["tracked"].astype(bool)
        return cls(person=person, **rest)
