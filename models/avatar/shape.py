"""An avatar's head in a pose, and the shell of its halo."""

from __future__ import annotations

import numpy as np

from models.avatar.shell import Shell
from models.code import Camera, FaceCode, Person
from models.head import Head
from models.portrait.topology import FaceLayer
from models.prior.face import AnnyPrior


class AvatarHead:
    """Poses a person's head with what was learned of its surface."""

    def __init__(self, prior: AnnyPrior, person: Person, lift: np.ndarray):
        self.prior, self.person = prior, person
        self.head = Head(prior, person)
        self.lift = lift.astype(np.float32)
        layer = FaceLayer.of(prior)
        self.push, self.opacity = layer.push, layer.opacity  # the face alone: hair, ears and neck are the shell's

    def posed(self, code: FaceCode, camera: Camera, shift: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """V x 3 float32 in camera axes, and the same projected (x px, y px, depth with what lies behind lips pushed back).

        Args:
            shift: V x 3, further metres in the head frame.
        """
        shaped = self.head.shaped(code.expression, code.gaze) + self.lift
        if shift is not None:
            shaped += shift
        posed = (shaped @ code.rotation.T.astype(np.float32) + code.translation.astype(np.float32)).astype(np.float32)
        projected = camera.project(posed)
        projected[:, 2] += self.push
        return posed, projected


def posed_shell(shell: Shell, code: FaceCode, camera: Camera, change: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """D x 3 float32 in camera axes, and projected.

    Args:
        change: D x 3 metres in the head frame, added to its vertices.
    """
    vertices = shell.vertices if change is None else shell.vertices + change
    posed = (vertices @ code.rotation.T.astype(np.float32) + code.translation.astype(np.float32)).astype(np.float32)
    return posed, camera.project(posed)
