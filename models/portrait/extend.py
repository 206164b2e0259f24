"""The sides of a head that a picture doesn't show: colours carried on over the surface, hair given its thickness."""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import factorized

from models.prior.synthetic import vertex_normals

_MOST_HAIR = 0.05  # metres
_SHADED = 0.75  # the back of a head gets less light than its front
_PULL = 4.0  # weight of a seen colour against its neighbours'


def extend_colours(
    triangles: np.ndarray, plate: np.ndarray, projected: np.ndarray, trust: np.ndarray, scalp: np.ndarray,
    hair: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """V x 3 linear colours (0..65535): what the picture shows where it is trusted, smooth in between and beyond.

    The minimum of sum_edges |c_i - c_j|^2 + w sum_i trust_i |c_i - seen_i|^2: a screened Poisson problem on the mesh. Where
    hair grows (`scalp`, V weights) and nothing is seen, its colour (`hair`, 3) pulls as well.
    """
    height, width = plate.shape[:2]
    count = len(projected)
    x = np.clip(projected[:, 0].astype(int), 0, width - 1)
    y = np.clip(projected[:, 1].astype(int), 0, height - 1)
    seen = cv2.blur(plate, (5, 5))[y, x].astype(np.float64)
    i, j = triangles[:, [0, 1, 2]].ravel(), triangles[:, [1, 2, 0]].ravel()
    edges = sp.coo_matrix((np.ones(len(i)), (i, j)), (count, count)).tocsr()
    edges = ((edges + edges.T) > 0).astype(float)
    degree = np.asarray(edges.sum(1)).ravel()
    pull = _PULL * np.where(trust > 0.05, trust, 0)
    if hair is not None:
        of_hair = _PULL * scalp * (pull == 0)
        seen = np.where((of_hair > 0)[:, None], hair, seen)
        pull = pull + of_hair
    solve = factorized((sp.diags(degree + pull + 1e-6) - edges).tocsc())
    return np.stack([solve(pull * seen[:, c]) for c in range(3)], 1)


def hair_colour(plate: np.ndarray, matte: np.ndarray, head: np.ndarray, top: float) -> np.ndarray | None:
    """3 linear: the middle colour of what stands over the bare head's outline; None where nothing does.

    Args:
        matte: H x W, the person; head: H x W bool, the bare head's pixels; top: pixel row of the eyes.
    """
    rows, columns = np.nonzero(head)
    over = (matte > 0.9) & ~cv2.dilate(head.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    over[int(max(top, 0)) :] = False
    over[:, : columns.min()] = over[:, columns.max() :] = False
    return _SHADED * np.median(plate[over], 0) if over.sum() >= 30 else None


def hair_offsets(
    neutral: np.ndarray, triangles: np.ndarray, scalp: np.ndarray, matte: np.ndarray, head: np.ndarray, rows: np.ndarray,
    metres: float,
) -> np.ndarray:  # fmt: skip
    """V x 3 head-frame offsets that lift the scalp to the hair's surface, as thick as it stands over the head's outline.

    Args:
        neutral: V x 3 head-frame vertices; scalp: V weights.
        matte: H x W, the person; head: H x W bool, the bare head's pixels; rows: V, pixel rows of the vertices.
        metres: a pixel's size at the head.
    """
    person = (matte > 0.5).astype(np.uint8)
    depth = cv2.distanceTransform(person, cv2.DIST_L2, 3)
    inner = cv2.erode(head.astype(np.uint8), np.ones((3, 3), np.uint8))
    outline = head & (inner == 0)
    y, x = np.nonzero(outline)
    upper = y < np.median(rows)
    touching = (x > 1) & (x < head.shape[1] - 2) & (y > 1)
    thick = depth[y, x][upper & touching]
    if len(thick) < 10:
        return np.zeros_like(neutral)
    lift = min(0.8 * float(np.median(thick)) * metres, _MOST_HAIR)
    return vertex_normals(neutral, triangles) * (lift * scalp)[:, None]
