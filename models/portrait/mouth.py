"""What a closed mouth hides, and mouths taken from other pictures of the same person."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.code import FaceCode
from models.prior.face import AnnyPrior

TEETH_WIDTH, TEETH_HEIGHT = 192, 48  # texels of one jaw's row
_UPPER, _LOWER = 4, 5  # values of the prior's `part`
_CROWN = 0.0095  # metres from the biting edge to the gum
# width of the teeth from the middle outwards, millimetres (upper and lower incisors, canine, premolars, molars)
_UPPER_TEETH = (8.5, 6.5, 7.6, 7.0, 6.8, 10.0, 9.5)
_LOWER_TEETH = (5.2, 5.8, 6.9, 7.0, 7.1, 11.0, 10.5)
_ENAMEL, _GUM = np.array([0.60, 0.56, 0.50]), np.array([0.36, 0.13, 0.12])
_OPENING = (13, 14)  # middle of the inner lips
_CORNERS = (78, 308)
_REACH = 0.014  # metres around the lips over which another picture's mouth fades out


def teeth_texels(prior: AnnyPrior, mean: np.ndarray, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertex numbers of one jaw's teeth and their N x 2 texel positions: along the arch, and from the top downwards."""
    teeth = np.flatnonzero(prior.part == part)
    points = mean[teeth]
    back = points[:, 2].max()
    angle = np.arctan2(points[:, 0], back - points[:, 2] + 0.012)
    across = 0.5 + angle / (2 * np.abs(angle).max())
    down = (points[:, 1] - points[:, 1].min()) / np.ptp(points[:, 1])
    return teeth, np.stack([1 + across * (TEETH_WIDTH - 2), 1 + down * (TEETH_HEIGHT - 2)], 1)


def teeth_texture(height_metres: float, part: int) -> np.ndarray:
    """TEETH_HEIGHT x TEETH_WIDTH x 3 linear albedo of a row of teeth in its gum; darker towards the cheeks."""
    widths = _UPPER_TEETH if part == _UPPER else _LOWER_TEETH
    edges = np.concatenate([[0], np.cumsum(widths)]) / sum(widths)
    x = np.abs((np.arange(TEETH_WIDTH) + 0.5) / TEETH_WIDTH * 2 - 1)
    tooth = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(widths) - 1)
    within = (x - edges[tooth]) / (edges[tooth + 1] - edges[tooth]) * 2 - 1  # -1..1 across one tooth
    bulge = 1 - np.abs(within) ** 6 * 0.5
    y = (np.arange(TEETH_HEIGHT) + 0.5) / TEETH_HEIGHT
    from_edge = ((1 - y) if part == _UPPER else y) * height_metres
    gum_line = _CROWN * (0.86 + 0.14 * np.sqrt(np.maximum(1 - within**2, 0)))
    gum = np.clip((from_edge[:, None] - gum_line[None]) / 0.0012 + 0.5, 0, 1)[..., None]
    tint = np.clip(from_edge / _CROWN, 0, 1)[:, None, None] * np.array([0.02, 0.05, 0.10])
    enamel = _ENAMEL * (1 - tint) * bulge[None, :, None]
    shade = (1 - 0.75 * np.clip(x, 0, 1) ** 1.3)[None, :, None]
    return ((1 - gum) * enamel + gum * _GUM) * shade


def openness(landmarks: np.ndarray) -> float:
    """How open the lips are, of the mouth's width: 478 x 2+ landmarks in any unit."""
    gap = np.linalg.norm(landmarks[_OPENING[0]] - landmarks[_OPENING[1]])
    return float(gap / max(np.linalg.norm(landmarks[_CORNERS[0]] - landmarks[_CORNERS[1]]), 1e-9))


def mouth_weight(prior: AnnyPrior, neutral: np.ndarray, lips: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """V: 1 on the lips and inside the mouth, fading to 0 on the skin around it.

    Args:
        neutral: V x 3 head-frame vertices.
        lips: V bool; inner: V bool, inside the mouth.
    """
    from scipy.spatial import cKDTree

    away = cKDTree(neutral[lips]).query(neutral)[0]
    ramp = np.clip(1 - away / _REACH, 0, 1)
    weight = ramp * ramp * (3 - 2 * ramp)
    weight[inner | lips] = 1
    return weight


@dataclass(frozen=True)
class MouthView:
    """The mouth of one picture of the person.

    Attributes:
        patch: h x w x 3 uint16 linear, the picture around the mouth.
        slots: V x 3 float32: position in the patch (pixels), and how far it is to be used there.
        code: fitted in that picture.
        skin: N x 3 linear colours where `Portrait` samples the skin around the mouth, for matching the light.
    """

    patch: np.ndarray
    slots: np.ndarray
    code: FaceCode
    skin: np.ndarray


def cut_mouth(
    plate: np.ndarray, projected: np.ndarray, trust: np.ndarray, weight: np.ndarray, code: FaceCode, skin: np.ndarray
) -> MouthView | None:
    """Cuts the mouth out of a picture; None where it lies outside it.

    Args:
        plate: H x W x 3 uint16 linear.
        projected: V x 2+ pixels; trust: V, what the picture really shows; weight: V from `mouth_weight`.
    """
    height, width = plate.shape[:2]
    used = (weight > 0) & (trust > 0)
    if not used.any():
        return None
    low = np.floor(np.maximum(projected[used, :2].min(0) - 3, 0)).astype(int)
    high = np.ceil(np.minimum(projected[used, :2].max(0) + 3, [width, height])).astype(int)
    if (high - low).min() < 8:
        return None
    patch = np.ascontiguousarray(plate[low[1] : high[1], low[0] : high[0]])
    slots = np.concatenate([projected[:, :2] - low, (weight * trust)[:, None]], 1).astype(np.float32)
    return MouthView(patch, slots, code, skin)


def fitted_patch(view: MouthView, room: tuple[int, int], gain: np.ndarray) -> tuple[np.ndarray, float]:
    """The patch (float64) scaled down to fit `room` (height, width) and its light multiplied by `gain` (3); and the scale."""
    height, width = view.patch.shape[:2]
    scale = min(1.0, room[0] / height, room[1] / width)
    patch = view.patch
    if scale < 1:
        size = max(1, int(width * scale)), max(1, int(height * scale))
        patch = cv2.resize(patch, size, interpolation=cv2.INTER_AREA)
    return np.minimum(patch * gain, 65535), scale
