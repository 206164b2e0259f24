"""A head's surface corrected by how light falls on it in a picture (Horn 1970, shape from shading).

A fit to landmarks leaves between them what people have in common. Where skin is brighter or darker than the light makes the
fitted head's, some of it is skin and some is shape: vertices move along the camera's rays, so that landmarks stay where they were
seen, by as little and as smoothly as explains the brightness; together, in the prior's own ways to differ, or each a little by
itself. The light is taken as known; gloss is taken out; what is no skin weighs little (iteratively reweighted Gauss-Newton).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from models.code import FaceCode
from models.light.gloss import brdf_of_environment
from models.light.harmonics import LUMINANCE
from models.light.lights import Lamp, Light
from models.light.transport import NO_SHADOW, Transport, shadow_map, unshadowed_at
from models.portrait.shade import outward
from models.relight.nose import from_foot_to_tip, nose
from models.relight.shading import BIAS, MOST_GLOSS, SHADOW_SIDE, bounced
from models.relight.surface import LitHead, unit

_STEPS = 3
_BELIEVED = 20.0  # weight of a vertex' squared error in log brightness, against a squared slope between two vertices
_ODD = 0.24  # of log brightness: farther off, it is something else than shape
_NOSE_RISES = 0.001  # metres, standard deviation of a nose's height from what was expected
# brows, beards and lips are darker than skin; on a nose nothing is, so that what is dark there is steep
_NOSE_BELIEVED, _NOSE_ODD = 2.0, 0.5  # there: factor on what is believed, and what is odd
_KEPT = 0.02  # weight of a move by itself, in mean edges squared
_MODES = 0.3  # standard deviations by which the prior's identity may move
_HIDDEN = 0.5  # of a lamp, below which a vertex tells nothing


@dataclass(frozen=True)
class Glance:
    """Bare skin that one picture shows, C vertices of it.

    Attributes:
        code: of the picture.
        vertices: C numbers.
        colour: C x 3 linear, as seen.
        albedo: C x 3 linear, as expected.
    """

    code: FaceCode
    vertices: np.ndarray
    colour: np.ndarray
    albedo: np.ndarray


def shape_from_shading(lit: LitHead, transport: Transport, glances: list[Glance], light: Light, glossiness: float) -> np.ndarray:
    """V x 3 float32 metres, head frame: what to add to the head at rest.

    Args:
        transport: of the head as it is.
        glances: at least one.
        light: that they stand in, in camera axes.
    """
    head, prior = lit.head, lit.prior
    shapes = [head.shaped(one.code.expression, one.code.gaze).astype(np.float64) for one in glances]
    towards = sum(unit(shape + one.code.translation @ one.code.rotation) for shape, one in zip(shapes, glances))
    skin = prior.part == 0  # eyes, teeth and tongue stay
    away, free = np.where(skin[:, None], unit(towards), 0), np.flatnonzero(skin)
    modes = np.einsum("kvc,vc->vk", prior.identity, away) * _MODES
    stiff = _stiffness(lit, head.neutral, free)
    own, shared = np.zeros(len(free)), np.zeros(modes.shape[1])
    on_nose, rises = nose(prior), from_foot_to_tip(prior) / _NOSE_RISES
    seen = [_Seen(lit, transport, shape, one, light, glossiness, on_nose) for shape, one in zip(shapes, glances)]
    for _ in range(_STEPS):
        moved = modes @ shared
        moved[free] += own
        brightness, weights, slopes = (list(part) for part in zip(*(one.told(away, moved) for one in seen)))
        # a nose stays about as high as it was: from the front its sides alone would tell, where light between them and cheeks
        # is not reckoned with
        matrix = sp.vstack([*slopes, rises[None]]).tocsr()
        root = np.append(np.sqrt(_BELIEVED / len(glances) * np.concatenate(weights)), 1)
        error = root * np.append(np.concatenate(brightness), -rises @ moved)
        ours, theirs = sp.diags(root) @ matrix[:, free], root[:, None] * (matrix @ modes)
        solver = splu((ours.T @ ours + stiff).tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
        # both sorts of moves in one least squares, the many sparse ones eliminated first
        between = ours.T @ theirs
        alone, along = solver.solve(ours.T @ error - stiff @ own), solver.solve(between)
        reduced = theirs.T @ theirs + np.eye(len(shared)) - between.T @ along
        step = np.linalg.solve(reduced, theirs.T @ error - shared - between.T @ alone)
        shared, own = shared + step, own + alone - along @ step
    moved = modes @ shared
    moved[free] += own
    return (away * moved[:, None]).astype(np.float32)


def _stiffness(lit: LitHead, neutral: np.ndarray, free: np.ndarray) -> sp.csr_matrix:
    """F x F: squared slopes between neighbours, and a little of the moves themselves; what is not free stays."""
    cells = lit.triangles
    edges = np.unique(np.sort(np.concatenate([cells[:, [0, 1]], cells[:, [1, 2]], cells[:, [2, 0]]]), axis=1), axis=0)
    length = np.maximum(np.linalg.norm(neutral[edges[:, 0]] - neutral[edges[:, 1]], axis=1), 1e-5)
    rows = np.repeat(np.arange(len(edges)), 2)
    slope = sp.coo_matrix((np.stack([1 / length, -1 / length], 1).ravel(), (rows, edges.ravel())), (len(edges), len(neutral)))
    slope = slope.tocsc()[:, free]
    return (slope.T @ slope + _KEPT / length.mean() ** 2 * sp.eye(len(free))).tocsr()


class _Seen:
    """One glance, and how its brightness goes by the shape."""

    def __init__(
        self, lit: LitHead, transport: Transport, shape: np.ndarray, glance: Glance, light: Light, glossiness: float,
        on_nose: np.ndarray,
    ):  # fmt: skip
        self._head, self._transport, self._shape, self._glance = lit, transport, shape, glance
        rotation = glance.code.rotation
        posed = (shape @ rotation.T + glance.code.translation).astype(np.float32)
        self._normals = lit.normals(posed).astype(np.float64) @ rotation  # head frame
        self._view = -unit(posed.astype(np.float64)) @ rotation
        self._around = light.around(transport.directions @ rotation.T.astype(np.float32)) @ LUMINANCE
        self._reflected = lambda mirrored: light.reflected((mirrored @ rotation.T).astype(np.float32)) @ LUMINANCE
        chosen = glance.vertices
        self._gloss = (glossiness * lit.glossy)[chosen]
        self._odd, self._believed = _ODD * (_NOSE_ODD / _ODD) ** on_nose[chosen], _NOSE_BELIEVED ** on_nose[chosen]
        camera_normals = (self._normals @ rotation.T)[chosen].astype(np.float32)
        self._lamps, self._lit = [], np.ones(len(chosen), bool)
        for lamp in (sample for one in light.lamps for sample in one.samples()):
            towards, open_ = _lamp_at(lamp, lit, posed, chosen, camera_normals)
            self._lamps.append(towards @ rotation)
            self._lit &= open_ > _HIDDEN
        front = unit(camera_normals.mean(0))
        self._bounce = float(bounced(light, front) @ LUMINANCE)
        self._softened = sharp_normals(lit, shape)[1]

    def _shaded(self, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For C x 3 normals, head frame: what white skin sends back (C), how that goes by the normals (C x 3), openness (C)."""
        directions = self._transport.directions
        cosine = normals @ directions.T
        open_ = (cosine > 0) * self._transport.seen[self._glance.vertices] * (4 / len(directions) / 255)
        share = open_ * cosine
        out, by_normal = share @ self._around + self._bounce, (open_ * self._around) @ directions
        for lamp in self._lamps:
            cosine = (normals * lamp).sum(1)
            out += np.maximum(cosine, 0)
            by_normal += np.where((cosine > 0)[:, None], lamp, 0)
        return out, by_normal, share.sum(1)

    def told(self, away: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray, sp.csr_matrix]:
        """(C errors in log brightness, C weights, C x V what a move does), at a shape whose vertices have moved by V."""
        chosen = self._glance.vertices
        shape = self._shape + away * moved[:, None]
        (sharp, length), softened = sharp_normals(self._head, shape)
        normals = unit(self._normals[chosen] + (softened - self._softened)[chosen])
        shaded, by_normal, openness = self._shaded(normals)
        cosine = (normals * self._view[chosen]).sum(1)
        mirrored = 2 * cosine[:, None] * normals - self._view[chosen]
        gloss = self._gloss * openness * self._reflected(mirrored) * brdf_of_environment(cosine)
        seen = self._glance.colour @ LUMINANCE
        seen = np.maximum(seen - np.minimum(gloss, MOST_GLOSS * seen), 1e-4)
        error = np.log(seen / (self._glance.albedo @ LUMINANCE) / np.maximum(shaded, 1e-3))
        gain, weights = np.median(error), None
        for _ in range(3):
            weights = self._lit * self._believed / (1 + ((error - gain) / self._odd) ** 2)
            gain = (weights * error).sum() / max(weights.sum(), 1e-9)
        by_normal /= np.maximum(shaded, 1e-3)[:, None]
        by_normal -= (by_normal * normals).sum(1, keepdims=True) * normals
        return error - gain, weights, self._by_moves(by_normal, shape, away, sharp, length)

    def _by_moves(self, by_normal: np.ndarray, shape: np.ndarray, away: np.ndarray, sharp: np.ndarray, length: np.ndarray):
        """C x V: how log brightness changes with moves along `away`, from how it changes with normals (C x 3)."""
        chosen, cells, count = self._glance.vertices, self._head.triangles, len(shape)
        # through the mean of neighbours' normals ...
        average = self._head.average[chosen]
        rows = np.repeat(np.arange(len(chosen)), np.diff(average.indptr))
        through = average.data[:, None] * by_normal[rows]
        near = average.indices
        # ... each turned by its triangles' corners
        through = (through - (through * sharp[near]).sum(1, keepdims=True) * sharp[near]) / length[near][:, None]
        spread = sp.csr_matrix(
            (through.ravel(), (3 * near[:, None] + np.arange(3)).ravel(), 3 * average.indptr), (len(chosen), 3 * count)
        )
        corner = [shape[cells[:, k]] for k in range(3)]
        parts = []
        for k in range(3):
            turned = np.cross(away[cells[:, k]], corner[(k + 1) % 3] - corner[(k + 2) % 3])
            for other in range(3):
                row = 3 * cells[:, other][:, None] + np.arange(3)
                parts.append((turned.ravel(), row.ravel(), np.repeat(cells[:, k], 3)))
        value, row, column = (np.concatenate(part) for part in zip(*parts))
        return (spread @ sp.csr_matrix((value, (row, column)), (3 * count, count))).tocsr()


def _lamp_at(
    lamp: Lamp, lit: LitHead, posed: np.ndarray, chosen: np.ndarray, normals: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """C x 3 towards a lamp, as long as it is bright, and C in [0, 1], how much of it is seen (`normals` C x 3, camera axes)."""
    centre, places = posed[lit.prior.part == 0].mean(0).astype(np.float64), posed[chosen]
    shadow = shadow_map(lamp, posed, lit.throwing, centre, SHADOW_SIDE) if lamp.shadows else NO_SHADOW
    near = lamp.position is not None
    f = lambda value: np.ascontiguousarray(value, np.float32)
    open_ = unshadowed_at(
        shadow.depth, f(shadow.axes), f(shadow.centre), near, np.float32(shadow.reach), f(places), normals, np.float32(BIAS)
    )
    bright = float(lamp.colour @ LUMINANCE)
    if not near:
        return np.broadcast_to(lamp.direction * bright, places.shape), open_
    towards = lamp.position + centre - places
    far = np.linalg.norm(towards, axis=1, keepdims=True)
    return towards / np.maximum(far, 0.03) ** 3 * bright, open_


def sharp_normals(lit: LitHead, shape: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """((V x 3 unit normals, V twice the areas they stand for), V x 3 unit, averaged with their neighbours')."""
    whole = outward(shape.astype(np.float32), lit.triangles).astype(np.float64)
    length = np.linalg.norm(whole, axis=1) + 1e-12
    sharp = whole / length[:, None]
    return (sharp, length), unit(lit.average @ sharp)
