"""Where MediaPipe's 478 landmarks lie on the prior: found by running the tracker on renders of it.

The tracker's noise differs from head to head, view to view and expression to expression; the geometric median over all of
them is what stays. The tracker is handed in as a function, so that models need not import capture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models.prior.bake import REGIONS
from models.prior.synthetic import render_head

LANDMARKS = 478
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 95, 88, 178, 87, 14, 317, 402, 318, 324)
# inner lips without the corners, where the jaw moves both
_MIDDLE_LIPS = (80, 81, 82, 13, 312, 311, 310, 88, 178, 87, 14, 317, 402, 318)
_OUTSIDE = [REGIONS.index(n) for n in ("skin", "lips", "eyelids", "ears", "scalp", "neck")]
_DROP = 0.012  # metres that the lower lip falls with jawOpen and the upper one does not
_SIZE, _FOCAL, _DISTANCE = 640, 1300.0, 0.75
_EXPRESSIONS = (
    {},
    {"jawOpen": 0.35},
    {"jawOpen": 0.6, "mouthFunnel": 0.2},
    {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.6, "jawOpen": 0.15, "mouthUpperUpLeft": 0.3, "mouthUpperUpRight": 0.3},
    {"browInnerUp": 0.7, "eyeWideLeft": 0.5, "eyeWideRight": 0.5},
)  # fmt: skip
_VIEWS = ((0, 0), (0.3, 0), (-0.3, 0), (0, 0.22), (0, -0.2), (0.55, 0), (-0.55, 0))  # yaw, pitch


def _euler(yaw: float, pitch: float) -> np.ndarray:
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    return np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])


def _nearest_allowed(region: np.ndarray, x: float, y: float, allowed: list[int], reach: int) -> tuple[int, int] | None:
    """The pixel nearest to (x, y) whose region is allowed, within `reach` pixels."""
    column, row = int(x), int(y)
    if 0 <= row < region.shape[0] and 0 <= column < region.shape[1] and region[row, column] in allowed:
        return row, column
    y0, y1, x0, x1 = max(row - reach, 0), row + reach + 1, max(column - reach, 0), column + reach + 1
    rows, columns = np.nonzero(np.isin(region[y0:y1, x0:x1], allowed))
    if not len(rows):
        return None
    best = np.argmin((rows + y0 + 0.5 - y) ** 2 + (columns + x0 + 0.5 - x) ** 2)
    return rows[best] + y0, columns[best] + x0


def _geometric_median(points: np.ndarray, steps: int = 30) -> np.ndarray:
    """Weiszfeld's iteration."""
    centre = np.median(points, 0)
    for _ in range(steps):
        weight = 1 / np.maximum(np.linalg.norm(points - centre, axis=1), 1e-5)
        centre = (points * weight[:, None]).sum(0) / weight.sum()
    return centre


def closest_on_surface(point: np.ndarray, corners: np.ndarray) -> tuple[int, np.ndarray]:
    """Index and barycentrics of the point of triangles `corners` (T x 3 x 3) nearest to `point` (Ericson 2005, 5.1.5)."""
    near = np.argsort(((corners.mean(1) - point) ** 2).sum(1))[:60]
    best, answer = np.inf, (int(near[0]), np.array([1.0, 0, 0]))
    for t in near:
        a, b, c = corners[t]
        weights, *_ = np.linalg.lstsq(np.stack([b - a, c - a], 1), point - a, rcond=None)
        bary = np.array([1 - weights.sum(), *weights])
        if bary.min() < 0:  # outside: the best of the three edges
            options = []
            for i, j in ((0, 1), (1, 2), (2, 0)):
                p, q = corners[t][i], corners[t][j]
                along = np.clip((point - p) @ (q - p) / max((q - p) @ (q - p), 1e-12), 0, 1)
                edge = np.zeros(3)
                edge[i], edge[j] = 1 - along, along
                options.append(edge)
            bary = min(options, key=lambda w: np.linalg.norm(w @ corners[t] - point))
        distance = np.linalg.norm(bary @ corners[t] - point)
        if distance < best:
            best, answer = distance, (int(t), bary)
    return answer


def embed_landmarks(
    prior: dict[str, np.ndarray],
    names: tuple[str, ...],
    detect: Callable[[np.ndarray], np.ndarray | None],
    identities: int = 6,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (triangle 478, barycentric 478 x 3) of every landmark on the prior's mean head.

    Args:
        detect: an H x W x 3 uint8 sRGB picture to 478 x 2+ pixel positions, or None where it finds no face.
    """
    rng = np.random.default_rng(seed)
    triangles, mean = prior["triangles"], prior["mean"]
    # closed lips touch, so being near does not tell them apart; whether a surface drops with the jaw does
    drops = prior["expression"][names.index("jawOpen")][triangles].mean(1)[:, 1] > _DROP
    sides: list[list[bool]] = [[] for _ in range(LANDMARKS)]
    found: list[list[np.ndarray]] = [[] for _ in range(LANDMARKS)]
    for person in range(identities):
        shape = mean + (np.tensordot(rng.normal(0, 0.7, len(prior["identity"])), prior["identity"], 1) if person else 0)
        skin = np.clip(rng.uniform(0.45, 1.25) * rng.normal(1, 0.05, 3), 0.3, 1.4) if person else np.ones(3)
        for number, expression in enumerate(_EXPRESSIONS):
            vertices = shape + sum(w * prior["expression"][names.index(k)] for k, w in expression.items())
            for yaw, pitch in _VIEWS:
                camera = vertices @ _euler(yaw, pitch).T + np.array([0, 0.0, _DISTANCE])
                image, fragments = render_head(prior, camera, _FOCAL, _SIZE, _SIZE, skin=tuple(skin))
                landmarks = detect(image)
                if landmarks is None:
                    continue
                region = np.where(fragments.triangle >= 0, prior["region"][fragments.triangle], -1)
                for k in range(LANDMARKS):
                    if k in INNER_LIPS and number not in (1, 2):
                        continue  # a closed mouth hides where its inner rims are
                    allowed = [REGIONS.index("eyeballs")] if k >= 468 else _OUTSIDE
                    hit = _nearest_allowed(region, landmarks[k, 0], landmarks[k, 1], allowed, 4)
                    if hit is not None:
                        corners = mean[triangles[fragments.triangle[hit]]]
                        found[k].append(fragments.barycentric[hit] @ corners)
                        sides[k].append(bool(drops[fragments.triangle[hit]]))
    if min(map(len, found)) < 5:
        raise RuntimeError("the tracker found too few rendered heads to embed its landmarks; reinstall mediapipe==0.10.21")
    chosen_triangle, chosen_bary = np.zeros(LANDMARKS, np.int32), np.zeros((LANDMARKS, 3), np.float32)
    for k in range(LANDMARKS):
        allowed = [REGIONS.index("eyeballs")] if k >= 468 else _OUTSIDE
        usable = np.isin(prior["region"], allowed)
        if k in _MIDDLE_LIPS:
            usable &= drops == (np.mean(sides[k]) > 0.5)
        candidates = np.flatnonzero(usable)
        index, bary = closest_on_surface(_geometric_median(np.array(found[k])), mean[triangles[candidates]])
        chosen_triangle[k], chosen_bary[k] = candidates[index], bary
    return chosen_triangle, chosen_bary
