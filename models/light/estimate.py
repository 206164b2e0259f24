"""The light in a picture, from how it falls on a head whose shape and colours are about known.

One lamp whose direction is searched, then soft light around it as a sum of lobes, none negative, that explain the skin's
colours through the head's own transport: non-negative least squares, leaning on what is expected where the skin does not
tell, and robust against what is no skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from models.light.harmonics import LUMINANCE, HarmonicLight, basis, spread_directions
from models.light.lights import LOBE_WIDTH, LOBES, Lamp, Light, ambient_light, light_of_lobes

_LEAN = 3.0  # weight of what is expected, against the mean of what is seen
_ROUNDS = 4
_SPREAD = 0.2  # of the mean brightness: farther off, a vertex counts less
_SEARCHED = spread_directions(800)
_ABOUT = 0.8  # cosine to a lamp found before, within which it is looked for anew
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
    """

    colour: np.ndarray
    normal: np.ndarray
    openness: np.ndarray
    lobes: np.ndarray

    @classmethod
    def joined(cls, parts: list[SkinSeen]) -> SkinSeen:
        names = ("colour", "normal", "openness", "lobes")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def lobes_of_directions(directions: np.ndarray) -> np.ndarray:
    """D x K: radiance of lobe k in each of D x 3 unit directions."""
    return np.exp((directions @ LOBES.T - 1) / LOBE_WIDTH**2)


def expected_lobes(light: HarmonicLight) -> np.ndarray:
    """K x 3 weights whose lobes add up to about the harmonics' radiance."""
    each = lobes_of_directions(LOBES).sum(1).mean()
    return np.maximum(basis(LOBES) @ light.coefficients, 0) / each


def _robustly(columns: np.ndarray, seen: np.ndarray, level: float) -> tuple[np.ndarray, float, np.ndarray]:
    """(non-negative weights of N columns, how badly they explain C values, C weights)."""
    weights = np.ones(len(seen))
    for _ in range(_ROUNDS):
        root = np.sqrt(weights)
        found = nnls(columns * root[:, None], seen * root)[0]
        off = (columns @ found - seen) / (_SPREAD * level)
        weights = 1 / (1 + off * off)
    return found, float(np.log1p(off * off).mean()), weights


def estimated_light(skin: SkinSeen, expected: HarmonicLight, about: np.ndarray | None = None) -> Light:
    """The light that `skin` stands in; its lamp casts no shadows, since nobody knows how hard they are.

    Args:
        about: 3, towards where the lamp was found before; None looks everywhere.
    """
    luminance = skin.colour @ LUMINANCE
    level = float(np.median(luminance)) + 1e-9
    # the search looks at every few of the places, what it finds is fitted to all
    some = slice(None, None, max(1, len(luminance) // _ENOUGH))
    columns = lambda d, where=slice(None): np.stack([np.maximum(skin.normal[where] @ d, 0), skin.openness[where]], 1)
    searched = _SEARCHED if about is None else _SEARCHED[_SEARCHED @ about > _ABOUT]
    directions = np.concatenate([[[0.0, 0.0, -1.0]], searched])
    reached = [d for d in directions if (skin.normal[some] @ d > 0).mean() > 0.1]
    badness = np.array([_robustly(columns(d, some), luminance[some], level)[1] for d in reached])
    best = int(np.argmin(badness))
    if np.array_equal(reached[0], directions[0]) and badness[0] < _FLASH * badness[best]:
        best = 0
    direction = reached[best]
    (_, ambient), _, weights = _robustly(columns(direction), luminance, level)
    told = expected_lobes(expected)
    # as much soft light as the search left, from where it is expected
    told = told * ambient * skin.openness.mean() / max(float((skin.lobes @ told @ LUMINANCE).mean()), 1e-9)
    columns = np.concatenate([np.maximum(skin.normal @ direction, 0)[:, None], skin.lobes], 1)
    gram = (columns * weights[:, None]).T @ columns / weights.sum()
    lean = np.full(len(gram), _LEAN * np.trace(gram[1:, 1:]) / (len(gram) - 1))
    lean[0] = 1e-6 * gram[0, 0]
    root = np.linalg.cholesky(gram + np.diag(lean + 1e-12))
    out = np.empty((len(gram), 3))
    for c in range(3):
        right = (columns * weights[:, None]).T @ skin.colour[:, c] / weights.sum()
        right[1:] += lean[1:] * told[:, c]
        out[:, c] = nnls(root.T, np.linalg.solve(root, right))[0]
    lamp = Lamp("directional", out[0], direction=direction, shadows=False)
    return light_of_lobes(out[1:]) + ambient_light(np.zeros(3), (lamp,))
