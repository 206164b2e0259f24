"""The face prior as the rest of the project sees it: a protocol, and anny's head behind it.

V(alpha, beta) = mean + sum_i alpha_i identity_i + sum_k beta_k expression_k, then each eyeball turns about its own centre.
The linear form is Blanz & Vetter 1999, with the expressions as a second set (Thies et al. 2016, eq. 1).

Convention: head frame and units as in `models.prior.bake`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor

from models.prior.bake import PARTS, REGIONS

VERSION = 6  # part of the cache's file name: raise it whenever the bake changes
EXPRESSIONS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight",
    "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight",
    "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight", "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight",
    "tongueOut",
)  # fmt: skip
# iBUG's points 18 to 68 as numbers of MediaPipe's mesh: brows, nose, eyes, outer and inner lips
IBUG_INNER = (
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300, 168, 197, 5, 4, 75, 97, 2, 326, 305, 33, 160, 158, 133, 153, 144, 362, 385,
    387, 263, 373, 380, 61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
# the face's outline in MediaPipe's mesh, from beside each eye to the chin: iBUG's jaw lies on it in even steps
OUTLINE_RIGHT = (127, 234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152)
OUTLINE_LEFT = (356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152)
LEFT_EYE, RIGHT_EYE = 1, 2  # values of `part`


class Prior(Protocol):
    """A parametric head. FLAME and SMPL-X can stand behind the same names."""

    mean: np.ndarray  # V x 3
    identity: np.ndarray  # N x V x 3, scaled so that coefficients are standard normal
    expression: np.ndarray  # K x V x 3
    names: tuple[str, ...]  # the K expressions' names
    triangles: np.ndarray  # T x 3
    region: np.ndarray  # T, index into `regions`
    regions: tuple[str, ...]
    landmark_triangle: np.ndarray  # L
    landmark_barycentric: np.ndarray  # L x 3

    def vertices(self, identity: Tensor, expression: Tensor, gaze: Tensor | None = None) -> Tensor: ...


def gaze_rotation(gaze: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of a look (yaw to the person's left, pitch downwards; radians).

    The unit look of a straight eye is (0, 0, -1); yaw > 0 moves it to +x, pitch > 0 to +y.
    """
    yaw, pitch = gaze[..., 0], gaze[..., 1]
    cy, sy, cp, sp = yaw.cos(), yaw.sin(), pitch.cos(), pitch.sin()
    zero = torch.zeros_like(yaw)
    rows = [
        torch.stack([cy, -sy * sp, -sy * cp], -1),
        torch.stack([zero, cp, -sp], -1),
        torch.stack([sy, cy * sp, cy * cp], -1),
    ]
    return torch.stack(rows, -2)


class OnDevice:
    """Arrays that are tensors as well: what the priors share."""

    _tensors: dict

    def tensor(self, name: str, device: str | torch.device = "cpu") -> Tensor:
        """One of the arrays as a tensor on a device, made once."""
        key = (name, str(device))
        if key not in self._tensors:
            self._tensors[key] = torch.from_numpy(np.ascontiguousarray(getattr(self, name))).to(device)
        return self._tensors[key]


@dataclass(frozen=True)
class AnnyPrior(OnDevice):
    """anny's head: 4,706 vertices with eyeballs, teeth and tongue, 80 identity components, the 52 ARKit expressions."""

    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    triangles: np.ndarray
    uv: np.ndarray  # T x 3 x 2, v up
    region: np.ndarray
    part: np.ndarray  # V: 0 body, 1 left eyeball, 2 right eyeball, 3 tongue, 4 upper teeth, 5 lower teeth
    face_weight: np.ndarray  # V: 1 on the face, fading to 0 towards ears, scalp and neck
    mirror: np.ndarray  # V: number of the vertex on the other side
    landmark_triangle: np.ndarray
    landmark_barycentric: np.ndarray
    names: tuple[str, ...] = EXPRESSIONS
    regions: tuple[str, ...] = REGIONS
    parts: tuple[str, ...] = PARTS
    _tensors: dict = field(default_factory=dict, repr=False, compare=False)

    def vertices(
        self,
        identity: Float[Tensor, "*b n"],
        expression: Float[Tensor, "*b 52"],
        gaze: Float[Tensor, "*b 2 2"] | None = None,
    ) -> Float[Tensor, "*b v 3"]:
        """Head-frame vertices, differentiable.

        Args:
            identity: up to 80 standard-normal coefficients.
            expression: 52 values, 0 rest, 1 full.
            gaze: (left, right) x (yaw, pitch) in radians as in `gaze_rotation`; None looks straight ahead.
        """
        device = identity.device
        basis_i = self.tensor("identity", device)[: identity.shape[-1]].flatten(1)
        basis_e = self.tensor("expression", device).flatten(1)
        flat = self.tensor("mean", device).flatten() + identity @ basis_i + expression @ basis_e
        vertices = flat.unflatten(-1, (-1, 3))
        if gaze is None:
            return vertices
        part = self.tensor("part", device)
        pieces = vertices
        for side, ball in enumerate((LEFT_EYE, RIGHT_EYE)):
            index = (part == ball).nonzero()[:, 0]
            eye = vertices[..., index, :]
            centre = eye.mean(-2, keepdim=True)
            turned = (eye - centre) @ gaze_rotation(gaze[..., side, :]).transpose(-1, -2) + centre
            pieces = pieces.index_copy(-2, index, turned)
        return pieces

    @cached_property
    def landmark_vertices(self) -> np.ndarray:
        """478 x 3 vertex numbers around each landmark, for `landmark_barycentric`."""
        return self.triangles[self.landmark_triangle]

    @cached_property
    def ibug68(self) -> np.ndarray:
        """68 x 478: landmarks to the 68 points of the iBUG order (Sagonas et al. 2016): jaw, then `IBUG_INNER`.

        The jaw's 17 are spaced evenly along the outline of the mean head, each between two landmarks.
        """
        weights = np.zeros((68, 478))
        points = self.at_landmarks(self.mean)
        for side, chain in enumerate((OUTLINE_RIGHT, OUTLINE_LEFT)):
            steps = np.linalg.norm(np.diff(points[list(chain)], axis=0), axis=1)
            along = np.concatenate([[0], np.cumsum(steps)])
            for k, at in enumerate(np.linspace(0, along[-1], 9)):
                first = min(int(np.searchsorted(along, at, side="right")) - 1, len(chain) - 2)
                share = np.clip((at - along[first]) / steps[first], 0, 1)
                row = k if side == 0 else 16 - k
                weights[row] = 0
                weights[row, chain[first]], weights[row, chain[first + 1]] = 1 - share, share
        weights[np.arange(17, 68), IBUG_INNER] = 1
        return weights

    def at_landmarks(self, field_: np.ndarray) -> np.ndarray:
        """A per-vertex field (... V x C) at the landmarks (... 478 x C)."""
        return np.einsum("lk,...lkc->...lc", self.landmark_barycentric, field_[..., self.landmark_vertices, :])


def cache_folder() -> Path:
    """Where baked tensors live: $UNDERSTUDY_CACHE, else the user's cache."""
    root = os.environ.get("UNDERSTUDY_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "understudy"


def prior_path() -> Path:
    return cache_folder() / f"anny-head-v{VERSION}.safetensors"


def load_prior(path: Path | None = None) -> AnnyPrior:
    """The baked prior; bakes it first, in a process of its own, where the cache has none (about a minute, once)."""
    path = path or prior_path()
    if not path.exists():
        bake_to(path)
    arrays = {}
    with safe_open(str(path), framework="np") as file:
        for name in file.keys():
            arrays[name] = file.get_tensor(name)
    return AnnyPrior(**arrays)


def bake_to(path: Path) -> None:
    """Bakes in a child process, so that anny and warp never enter this one, and renames the result into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        root = Path(__file__).resolve().parents[2]
        command = [sys.executable, "-m", "pipeline.bake", partial]
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(root)})
        if done.returncode:
            raise RuntimeError(f"baking the face prior failed: {done.stderr.strip().splitlines()[-1:]}; run `make install` again")
        os.replace(partial, path)
    finally:
        Path(partial).unlink(missing_ok=True)
