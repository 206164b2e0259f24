"""What colours a cut-out person has by themselves, and what lies behind them."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

#: What a picture of people is to hold beside its colours: nothing; their alpha, and their colours `alone` (not multiplied by
#: it); or their alpha `beside` the picture as it is.
Matte = Literal["alone", "beside"] | None
ALONE: Literal["alone"] = "alone"
BESIDE: Literal["beside"] = "beside"
_REACHES = (1 / 4, 1 / 8, 1 / 16, 1 / 50)  # of the picture's longer side: how far colours are looked for, round by round
_SPREADS = (1 / 64, 1 / 16, 1 / 4)  # of it: how far a background is carried into what it is hidden by


def with_alpha(image: np.ndarray, alpha: np.ndarray, matte: Matte) -> np.ndarray:
    """H x W x 3 uint8 sRGB, x 4 with a matte: a picture and its alpha (H x W uint8) as they are wanted."""
    if matte is None:
        return image
    return np.dstack([foreground(image, alpha) if matte == ALONE else image, alpha])


def foreground(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8 sRGB: the person's colours alone, also where they are half transparent.

    Source: Forte 2021, "Approximate Fast Foreground Colour Estimation" (blur fusion, equations 5 to 7), in more rounds:
    two leave much of the wall in a wide rim.

    Args:
        image: H x W x 3 uint8 sRGB; alpha: H x W uint8, 255 on the person.
    """
    share = (alpha.astype(np.float32) / 255)[..., None]
    picture = image.astype(np.float32)
    ahead, behind = picture, picture
    for reach in _REACHES:
        size = (2 * max(1, round(reach * max(image.shape[:2]) / 2)) + 1,) * 2
        blurred = cv2.blur(share, size)[..., None]
        ahead_mean = cv2.blur(ahead * share, size) / (blurred + 1e-5)
        behind_mean = cv2.blur(behind * (1 - share), size) / (1 - blurred + 1e-5)
        rest = picture - share * ahead_mean - (1 - share) * behind_mean
        ahead = np.clip(ahead_mean + share * rest, 0, 255)
        behind = behind_mean
    known = cv2.blur(share, size)[..., None] > 0.004  # farther off there is nobody whose colours could be told
    return np.round(np.where(known, ahead, picture)).astype(np.uint8)


def background(image: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """H x W x 3 uint8 sRGB: the picture without its person, smooth where they stood."""
    longer = max(image.shape[:2])
    margin = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, longer // 64) + 1,) * 2)
    known = (cv2.dilate(alpha, margin) < 13).astype(np.float32)
    out = np.full(image.shape, image.reshape(-1, 3).mean(0) if known.sum() < 1 else image[known > 0].mean(0), np.float32)
    for spread in reversed(_SPREADS):  # from afar first; whatever is known nearer by replaces it
        weight = cv2.GaussianBlur(known, (0, 0), spread * longer, borderType=cv2.BORDER_REPLICATE)[..., None]
        carried = cv2.GaussianBlur(image * known[..., None], (0, 0), spread * longer, borderType=cv2.BORDER_REPLICATE)
        sure = np.clip(weight * 20, 0, 1)
        out = sure * carried / np.maximum(weight, 1e-6) + (1 - sure) * out
    known = cv2.GaussianBlur(known, (0, 0), max(1.0, longer / 200))[..., None]
    return np.round(np.clip(known * image + (1 - known) * out, 0, 255)).astype(np.uint8)
