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
_SIDE = 320  # pixels of the longer side in which they are
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
    scale = min(1.0, _SIDE / max(image.shape[:2]))
    small = lambda field: cv2.resize(field, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else field
    share, picture = small(alpha).astype(np.float32)[..., None] / 255, small(image).astype(np.float32)
    ahead, behind = picture, picture
    for reach in _REACHES:
        size = (2 * max(1, round(reach * max(picture.shape[:2]) / 2)) + 1,) * 2
        blurred = cv2.blur(share, size)[..., None]
        ahead_mean = cv2.blur(ahead * share, size) / (blurred + 1e-5)
        behind_mean = cv2.blur(behind * (1 - share), size) / (1 - blurred + 1e-5)
        ahead = np.clip(ahead_mean + share * (picture - share * ahead_mean - (1 - share) * behind_mean), 0, 255)
        behind = behind_mean
    # these are smooth; what they leave open is told pixel by pixel, and none of it where there is the person alone
    near = cv2.blur(share, size)
    full = lambda field: cv2.resize(field, image.shape[1::-1], interpolation=cv2.INTER_LINEAR) if scale < 1 else field
    near, ahead_mean, behind_mean = full(near), full(ahead_mean), full(behind_mean)
    out = image.copy()
    mixed = (alpha < 255) & (near > 0.004)  # farther off there is nobody whose colours could be told
    part = alpha[mixed].astype(np.float32)[:, None] / 255
    before, after = behind_mean[mixed], ahead_mean[mixed]
    out[mixed] = np.round(np.clip(after + part * (image[mixed] - part * after - (1 - part) * before), 0, 255))
    return out


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
