"""How bright a turning surface is under light that stays: by its normal, the same rule for all of it.

What the light does to each sample could be regressed from the code like anything else, and is, for its own part; but turned
beyond the poses that were learned from, only a rule that all samples share still holds. Distant light on a surface without gloss
is a second-order function of the normal (Ramamoorthi & Hanrahan 2001, 3); here of its logarithm, in sRGB codes as everything
of an avatar, so that one product takes it in and out.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from models.avatar.shape import AvatarHead
from models.avatar.space import CodeSpace
from models.light.harmonics import COUNT, basis
from models.portrait.shade import outward

MOST = 0.7  # of the logarithm: where a normal was never seen, harmonics may ring
RESPONSES = COUNT - 1  # of the harmonics; what is always so is the surface's own


def responses(normals):
    """... x 8 harmonics of ... x 3 normals of any length, camera axes; numpy arrays or tensors."""
    length = (normals**2).sum(-1)[..., None] ** 0.5 + 1e-20
    return basis(normals / length)[..., 1:]


class Lighting:
    """Light on one person's mesh, against how it falls in the middle of what was learned."""

    def __init__(self, shape: AvatarHead, space: CodeSpace, light: np.ndarray):
        """Args:
        light: 8 x 3, of the logarithm of sRGB codes.
        """
        self.light = light.astype(np.float32)
        self._triangles = shape.prior.triangles
        posed, _ = shape.posed(space.middle, shape.person.camera)
        self.middle = responses(outward(posed, self._triangles)) @ self.light  # V x 3

    def gain(self, posed: np.ndarray) -> np.ndarray:
        """V x 3 float32: how many times as bright as in the middle pose.

        Args:
            posed: V x 3, camera axes.
        """
        bright = responses(outward(posed, self._triangles)) @ self.light - self.middle
        return np.exp(np.clip(bright, -MOST, MOST)).astype(np.float32)


@njit(parallel=True, cache=True, nogil=True)
def take_out(colour, gain, triangles, owner, barycentric, unit, out):
    """Writes samples' colours (S x 3 uint8) without the gain (V x 3) of the light on them, in `unit`s, as uint16."""
    for s in prange(len(owner)):
        a, b, c = triangles[owner[s], 0], triangles[owner[s], 1], triangles[owner[s], 2]
        wa, wb, wc = barycentric[s, 0], barycentric[s, 1], barycentric[s, 2]
        for k in range(3):
            there = wa * gain[a, k] + wb * gain[b, k] + wc * gain[c, k]
            out[s, k] = np.uint16(np.float32(colour[s, k]) / (there * unit) + np.float32(0.5))
