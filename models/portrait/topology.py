"""Which of the prior's triangles the portrait's face layer draws, and how opaque its vertices are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.prior.face import AnnyPrior

INNER = ("mouth_interior", "teeth", "tongue")
_ALWAYS = ("lips", "eyelids", "eyeballs", "mouth_interior", "teeth", "tongue", "eye_socket")
# what lies behind lips and lids is pushed back a little, so that a misfit of a millimetre does not poke through them
_PUSH = {"eyeballs": 0.0025, "eye_socket": 0.004, "mouth_interior": 0.002, "teeth": 0.002, "tongue": 0.003}
# linear albedo of what a closed mouth hides; the teeth have a texture of their own
_ALBEDO = {"mouth_interior": (0.11, 0.022, 0.02), "teeth": (0.58, 0.53, 0.44), "tongue": (0.36, 0.10, 0.095)}
_DARKENING = 0.014  # metres behind the front teeth over which light falls to 1/e in the mouth
_EXTENDABLE = ("skin", "ears", "scalp", "neck", "lips", "eyelids")


@dataclass(frozen=True)
class FaceLayer:
    """Constants of the face layer.

    Attributes:
        triangles: T' x 3 of the prior's triangles that can show.
        opacity: V, 1 on face, eyes and mouth, fading to 0 before the ears, the scalp and the neck.
        push: V metres added to the depth.
        inner: V bool, inside the mouth.
        own: V x 3 linear colour of the inner mouth under white light of strength 1.
        socket: V bool, the eye sockets' inside.
        lips: V bool.
        outer: V bool, the head's outer surface.
        scalp: V, 1 where hair grows, fading at its rim.
        head: T'' x 3, all triangles of the outer surface and of what `triangles` holds.
    """

    triangles: np.ndarray
    opacity: np.ndarray
    push: np.ndarray
    inner: np.ndarray
    own: np.ndarray
    socket: np.ndarray
    lips: np.ndarray
    outer: np.ndarray
    scalp: np.ndarray
    head: np.ndarray

    @classmethod
    def of(cls, prior: AnnyPrior) -> FaceLayer:
        def members(names) -> np.ndarray:
            numbers = [prior.regions.index(name) for name in names]
            mask = np.zeros(len(prior.mean), bool)
            mask[np.unique(prior.triangles[np.isin(prior.region, numbers)])] = True
            return mask

        opacity = prior.face_weight.copy()
        ramp = np.clip((opacity - 0.15) / 0.6, 0, 1)
        opacity = ramp * ramp * (3 - 2 * ramp)
        opacity[members(_ALWAYS)] = 1
        shown = (opacity[prior.triangles] > 0).any(1)
        push = np.zeros(len(prior.mean), np.float32)
        outer = members(("skin", "lips", "eyelids"))
        for name, metres in _PUSH.items():
            push[members((name,)) & ~outer] = metres
        inner = members(INNER) & ~members(("skin", "lips"))
        own = np.zeros((len(prior.mean), 3), np.float32)
        teeth_front = prior.mean[members(("teeth",))][:, 2].min()
        depth = 0.2 + 0.8 * np.exp(-np.maximum(prior.mean[:, 2] - teeth_front, 0) / _DARKENING)
        for name, albedo in _ALBEDO.items():
            who = members((name,))
            own[who] = np.array(albedo) * depth[who, None]
        own[members(("eye_socket",))] = (0.10, 0.05, 0.04)
        return cls(
            np.ascontiguousarray(prior.triangles[shown]), opacity, push, inner, own,
            members(("eye_socket",)) & ~members(("eyelids", "skin")), members(("lips",)), members(_EXTENDABLE) & ~inner,
            softened(members(("scalp",)) & ~members(("skin", "ears", "neck")), prior.triangles),
            prior.triangles,
        )  # fmt: skip


def softened(mask: np.ndarray, triangles: np.ndarray, rounds: int = 3) -> np.ndarray:
    """V float32: the mask, averaged over neighbours a few times."""
    value = mask.astype(np.float32)
    for _ in range(rounds):
        total, count = np.zeros_like(value), np.zeros_like(value)
        for k in range(3):
            for j in range(3):
                np.add.at(total, triangles[:, k], value[triangles[:, j]])
                np.add.at(count, triangles[:, k], 1)
        value = total / np.maximum(count, 1)
    return value
