"""What is seen behind whoever is moved: their own background, that blurred, another picture, or nothing."""

from __future__ import annotations

import cv2
import numpy as np

from capture.media import open_media
from models.matting import ALONE, Matte, background
from pipeline.ensemble import Ensemble
from pipeline.errors import Refusal
from pipeline.puppet import rest_picture

KEEP, BLUR, TRANSPARENT = "keep", "blur", "transparent"
_BLUR = 1 / 40  # of the picture's longer side


class Backdrop:
    """Lays people over what is to be seen behind them; `rest` is how it looks when nobody moves."""

    def __init__(self, choice: str, ensemble: Ensemble):
        """Args:
        choice: `keep`, `blur`, `transparent`, or the path of a picture, which covers all of it.

        Raises:
            MediaError, Refusal: where there is no such picture.
        """
        self.choice = choice
        self.matte: Matte = None if choice == KEEP else ALONE
        self._behind: np.ndarray | None = None
        #: each person's own picture at rest, as `__call__` takes them merged
        self.rests = [rest_picture(puppet, self.matte) for puppet in ensemble.puppets]
        merged = ensemble.merged(self.rests)
        if choice == BLUR:
            whole = ensemble.merged([rest_picture(puppet) for puppet in ensemble.puppets])
            bare = background(whole, np.ascontiguousarray(merged[..., 3]))
            spread = _BLUR * max(bare.shape[:2])
            self._behind = cv2.GaussianBlur(bare, (0, 0), spread, borderType=cv2.BORDER_REPLICATE)
        elif choice not in (KEEP, TRANSPARENT):
            self._behind = covering(open_picture(choice), merged.shape[1], merged.shape[0])
        self.rest = self(merged)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """H x W x 3 uint8 sRGB, x 4 where it is transparent.

        Args:
            picture: H x W x 3 uint8 sRGB where the background is kept, else x 4.
        """
        if self._behind is None:
            return picture
        share = picture[..., 3].astype(np.float32)
        share *= np.float32(1 / 255)
        # as sRGB codes: so were the mattes found, and so every camera's edges look
        return cv2.blendLinear(np.ascontiguousarray(picture[..., :3]), self._behind, share, 1 - share)


def open_picture(path: str) -> np.ndarray:
    """H x W x 3 uint8 sRGB. Raises MediaError or Refusal where it is none."""
    media = open_media(path)
    if not media.is_photo:
        raise Refusal(f"{path}: a background has to be a picture. Use a photo.")
    return next(iter(media)).image


def covering(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """A picture scaled so that it covers another size, its middle in the middle."""
    scale = max(width / image.shape[1], height / image.shape[0])
    size = max(width, round(image.shape[1] * scale)), max(height, round(image.shape[0] * scale))
    large = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width])


def check_background(choice: str) -> None:
    """Refuses, before any work, a background that can't be had."""
    if choice not in (KEEP, BLUR, TRANSPARENT):
        open_picture(choice)
