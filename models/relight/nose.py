"""A nose's height, which a picture from the front hardly tells and every shadow on a face goes by.

The tip of the prior's mean nose stands 16 to 18 mm from where the nose meets the lip; that of 300 men's stood 21.0 mm
(doi.org/10.1007/s00266-018-1197-8). How much of that is made up for was chosen where relit photographs are best.
"""

from __future__ import annotations

import cv2
import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from models.prior.face import AnnyPrior

HIGHER = 0.15  # of its height that people's noses stand out more than the prior's
_AROUND = [168, 193, 417, 122, 351, 129, 358, 49, 279, 48, 278, 64, 294, 98, 327, 2]  # landmarks about it
_SIDES = [234, 454]  # of a face, before its ears
_RIM = 0.004  # metres around these over which a nose ends
_TIP, _FOOT = 0.7, 0.1  # of the height: above the one is its tip, below the other its foot


def nose(prior: AnnyPrior) -> np.ndarray:
    """V in [0, 1]: how surely a vertex is on the nose."""
    landmarks = prior.at_landmarks(prior.mean)
    around, places = landmarks[_AROUND, :2].astype(np.float32), prior.mean[:, :2]
    near = ((places > around.min(0) - _RIM) & (places < around.max(0) + _RIM)).all(1)
    in_front = prior.mean[:, 2] < landmarks[_SIDES, 2].mean()
    outline, share = cv2.convexHull(around), np.zeros(len(places))
    for k in np.flatnonzero(near & in_front & (prior.part == 0)):
        within = cv2.pointPolygonTest(outline, (float(places[k, 0]), float(places[k, 1])), True)
        share[k] = np.clip(within / _RIM + 1, 0, 1)
    return share


def nose_height(prior: AnnyPrior, shape: np.ndarray) -> np.ndarray:
    """V metres: how far a head's vertices (V x 3, head frame) stand out of the face as it would be without a nose; 0 beyond it.

    Without one, it is as smooth as what lies around lets it be (harmonic).
    """
    free = np.flatnonzero(nose(prior) > 0)
    i, j = prior.triangles[:, [0, 1, 2]].ravel(), prior.triangles[:, [1, 2, 0]].ravel()
    shape = shape.astype(np.float64)
    weight = 1 / np.maximum(np.linalg.norm(shape[i] - shape[j], axis=1), 1e-5)
    edges = sp.coo_matrix((weight, (i, j)), (len(shape), len(shape))).tocsr()
    edges = edges + edges.T
    laplacian = (sp.diags(np.asarray(edges.sum(1)).ravel()) - edges).tocsr()[free]
    rest = shape[:, 2].copy()
    rest[free] = 0
    rest[free] = splu(laplacian[:, free].tocsc()).solve(-(laplacian @ rest))
    return np.maximum(rest - shape[:, 2], 0)


def raised(prior: AnnyPrior, shape: np.ndarray) -> np.ndarray:
    """V x 3 float32 metres: what to add to a fitted head at rest, so that its nose stands out as people's do."""
    out = np.zeros((len(shape), 3), np.float32)
    out[:, 2] = -HIGHER * nose_height(prior, shape)
    return out


def from_foot_to_tip(prior: AnnyPrior) -> np.ndarray:
    """V weights: of vertices' moves along any axis, by how much the tip moves against the foot."""
    height = nose_height(prior, prior.mean)
    tip, foot = height > _TIP * height.max(), (nose(prior) > 0) & (height < _FOOT * height.max())
    return tip / tip.sum() - foot / foot.sum()
