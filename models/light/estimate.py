"""The light in a picture, from how it falls on a head whose shape and colours are about known.

One lamp whose direction is searched, then soft light around it as a sum of lobes, none negative, that explain the skin's
colours through the head's own transport, gloss and all: non-negative least squares, leaning on what is expected where the skin
does not tell, and robust against what is no skin.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import numpy as np
from numba import njit
from scipy.optimize import nnls

from models.light.gloss import brdf_of_environment, gloss_of_lamp
from models.light.harmonics import LUMINANCE, HarmonicLight, basis, spread_directions
from models.light.lights import LOBE_WIDTH, LOBES, Lamp, Light, ambient_light, light_of_lobes, reflected_lobes

_LEAN = 3.0  # weight of what is expected, against the mean of what is seen
_ROUNDS = 4
_SPREAD = 0.2  # of the mean brightness: farther off, a vertex counts less
_SEARCHED = spread_directions(800)
_ABOUT = 0.8  # cosine to a lamp found before, within which it is looked for anew
_MOST_BRIGHTER = 1.5  # that gloss can make a light seem
_ENOUGH = 1000  # places on the skin that tell a direction
_FLASH = 1.04  # a lamp at the camera is taken where it explains nearly as much as the best: so most single lamps stand


@dataclass(frozen=True)
class SkinSeen:
    """Skin that a picture shows, C vertices of it.

    Attributes:
        colour: C x 3 linear, its albedo taken out.
        normal: C x 3 unit, camera axes.
        openness: C, how much of the light from all around reaches it.
        lobes: C x K, what it sends back of each of `LOBES`, if it were white.
        view: C x 3 unit, towards the camera.
        shine: C x 3, how glossy it is, over its albedo: on dark skin gloss is much of what is seen.
    """

    colour: np.ndarray
    normal: np.ndarray
    openness: np.ndarray
    lobes: np.ndarray
    view: np.ndarray
    shine: np.ndarray

    @classmethod
    def joined(cls, parts: list[SkinSeen]) -> SkinSeen:
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))

    @cached_property
    def open_gloss(self) -> np.ndarray:
        """C: the share of soft light that gloss sends back."""
        return brdf_of_environment((self.normal * self.view).sum(1)) * self.openness

    @cached_property
    def lobes_gloss(self) -> np.ndarray:
        """C x K: gloss of each of `LOBES`, of skin as glossy as can be."""
        cosine = (self.normal * self.view).sum(1, keepdims=True)
        return reflected_lobes(2 * cosine * self.normal - self.view) * self.open_gloss[:, None]

    def of_lamp(self, direction: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(diffuse, gloss of skin as glossy as can be), C each, of a lamp of brightness 1 towards `direction` (3)."""
        diffuse, gloss = np.empty(len(self.normal)), np.empty(len(self.normal))
        _of_lamp(self.normal, self.view, direction, diffuse, gloss)
        return diffuse, gloss


def lobes_of_directions(directions: np.ndarray) -> np.ndarray:
    """D x K: radiance of lobe k in each of D x 3 unit directions."""
    return np.exp((directions @ LOBES.T - 1) / LOBE_WIDTH**2)


def expected_lobes(light: HarmonicLight) -> np.ndarray:
    """K x 3 weights whose lobes add up to about the harmonics' radiance."""
    each = lobes_of_directions(LOBES).sum(1).mean()
    return np.maximum(basis(LOBES) @ light.coefficients, 0) / each


@njit(cache=True, nogil=True)
def _of_lamp(normal, view, direction, diffuse, gloss):
    for v in range(len(normal)):
        cosine = normal[v, 0] * direction[0] + normal[v, 1] * direction[1] + normal[v, 2] * direction[2]
        diffuse[v] = max(cosine, 0.0)
        gloss[v] = 0.0
        if cosine > 0:
            gloss[v] = cosine * gloss_of_lamp(
                normal[v, 0], normal[v, 1], normal[v, 2], view[v, 0], view[v, 1], view[v, 2],
                direction[0], direction[1], direction[2], cosine,
            )  # fmt: skip


@njit(cache=True, nogil=True)
def _robustly(lamp, soft, seen, spread, weights):
    """(of a lamp, of soft light: how much, not negative, explains C values; how badly); fills C weights."""
    count, badness, much, little = len(seen), 0.0, 0.0, 0.0
    weights[:] = 1.0
    for _ in range(_ROUNDS):
        ll, ls, ss, lc, sc = 0.0, 0.0, 0.0, 0.0, 0.0
        for v in range(count):
            w = weights[v]
            ll += w * lamp[v] * lamp[v]
            ls += w * lamp[v] * soft[v]
            ss += w * soft[v] * soft[v]
            lc += w * lamp[v] * seen[v]
            sc += w * soft[v] * seen[v]
        across = ll * ss - ls * ls
        much, little = (ss * lc - ls * sc) / max(across, 1e-12), (ll * sc - ls * lc) / max(across, 1e-12)
        if across < 1e-9 * ll * ss or much < 0 or little < 0:  # one of them alone
            alone, other = lc / max(ll, 1e-12), sc / max(ss, 1e-12)
            much, little = (alone, 0.0) if lc * alone > sc * other else (0.0, other)
        badness = 0.0
        for v in range(count):
            off = (much * lamp[v] + little * soft[v] - seen[v]) / spread
            weights[v] = 1 / (1 + off * off)
            badness += np.log1p(off * off) / count
    return much, little, badness


@njit(cache=True, nogil=True)
def _search(normal, view, shine, soft, seen, spread, directions, badness):
    """Fills how badly a lamp towards each of D x 3 directions explains C values."""
    diffuse, gloss, weights = np.empty(len(seen)), np.empty(len(seen)), np.empty(len(seen))
    for d in range(len(directions)):
        _of_lamp(normal, view, directions[d], diffuse, gloss)
        badness[d] = _robustly(diffuse + gloss * shine, soft, seen, spread, weights)[2]


def estimated_light(skin: SkinSeen, expected: HarmonicLight, about: np.ndarray | None = None) -> Light:
    """The light that `skin` stands in; its lamp casts no shadows, since nobody knows how hard they are.

    Args:
        about: 3, towards where the lamp was found before; None looks everywhere.
    """
    luminance = skin.colour @ LUMINANCE
    level = float(np.median(luminance)) + 1e-9
    # the search looks at every few of the places, what it finds is fitted to all
    some = slice(None, None, max(1, len(luminance) // _ENOUGH))
    shine = skin.shine @ LUMINANCE
    soft = skin.openness + skin.open_gloss * shine
    searched = _SEARCHED if about is None else _SEARCHED[_SEARCHED @ about > _ABOUT]
    directions = np.concatenate([[[0.0, 0.0, -1.0]], searched])
    reached = directions[(skin.normal[some] @ directions.T > 0).mean(0) > 0.1]
    badness = np.empty(len(reached))
    every = (np.ascontiguousarray(one[some]) for one in (skin.normal, skin.view, shine, soft, luminance))
    _search(*every, _SPREAD * level, reached, badness)
    best = int(np.argmin(badness))
    if np.array_equal(reached[0], directions[0]) and badness[0] < _FLASH * badness[best]:
        best = 0
    direction = reached[best]
    diffuse, gloss = skin.of_lamp(direction)
    weights = np.empty(len(luminance))
    _, ambient, _ = _robustly(diffuse + gloss * shine, soft, luminance, _SPREAD * level, weights)
    told = expected_lobes(expected)
    # as much soft light as the search left, from where it is expected
    told = told * ambient * skin.openness.mean() / max(float((skin.lobes @ told @ LUMINANCE).mean()), 1e-9)
    out = np.empty((1 + len(LOBES), 3))
    for c in range(3):
        lamp_column, lobe_columns = diffuse + gloss * skin.shine[:, c], skin.lobes + skin.lobes_gloss * skin.shine[:, c, None]
        whole = np.concatenate([lamp_column[:, None], lobe_columns], 1)
        weighted = (whole * (weights / weights.sum())[:, None]).T
        gram = weighted @ whole
        lean = np.full(len(gram), _LEAN * np.trace(gram[1:, 1:]) / len(LOBES))
        lean[0] = 1e-6 * gram[0, 0]
        root = np.linalg.cholesky(gram + np.diag(lean + 1e-12))
        right = weighted @ skin.colour[:, c]
        right[1:] += lean[1:] * told[:, c]
        out[:, c] = nnls(root.T, np.linalg.solve(root, right))[0]
    # how bright skin is by itself is not told: the light is taken to be as bright as if all that is seen were scattered, since
    # a light believed too dim makes pictures too bright, and what is white stays white whatever comes after
    scattered = np.column_stack([diffuse, skin.lobes]) @ out @ LUMINANCE
    out *= min((weights @ luminance) / max(weights @ scattered, 1e-9), _MOST_BRIGHTER)
    lamp = Lamp("directional", out[0], direction=direction, shadows=False)
    return light_of_lobes(out[1:]) + ambient_light(np.zeros(3), (lamp,))
