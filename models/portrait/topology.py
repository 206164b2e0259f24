"""Which of the prior's triangles the portrait's face layer draws, and how opaque its vertices are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.prior.face import AnnyPrior

INNER = ("mouth_interior", "teeth", "tongue")
_ALWAYS = ("lips", "eyelids", "eyeballs", "mouth_interior", "teeth", "tongue", "eye_socket")
# what lies behind lips and lids is pushed back a little, so that a misfit of a millimetre does not poke through them
_PUSH = {"eyeballs": 0.0025, "eye_socket": 0.004, "mouth_interior": 0.002, "teeth": 0.002, "tongue": 0.003}
# linear albedo of what a closed mouth hides, of 1 for the skin's own 0.33 mean
_ALBEDO = {"mouth_interior": (0.22, 0.05, 0.045), "teeth": (0.74, 0.66, 0.54), "tongue": (0.46, 0.15, 0.14)}
_DARKENING = 0.016  # metres behind the lips over which light falls to 1/e in the mouth


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
    """

    triangles: np.ndarray
    opacity: np.ndarray
    push: np.ndarray
    inner: np.ndarray
    own: np.ndarray
    socket: np.ndarray

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
        lip_front = np.percentile(prior.mean[members(("lips",))][:, 2], 20)
        depth = np.exp(-np.maximum(prior.mean[:, 2] - lip_front, 0) / _DARKENING)
        for name, albedo in _ALBEDO.items():
            who = members((name,))
            own[who] = np.array(albedo) * depth[who, None]
        own[members(("eye_socket",))] = (0.10, 0.05, 0.04)
        return cls(
            np.ascontiguousarray(prior.triangles[shown]), opacity, push, inner, own,
            members(("eye_socket",)) & ~members(("eyelids", "skin")),
        )  # fmt: skip
