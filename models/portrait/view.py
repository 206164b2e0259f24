"""One picture of a person, prepared as a texture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from models.code import FaceCode
from models.matting import Matte, with_alpha
from models.portrait.shade import twice_as_fine
from models.portrait.surround import Surround


@dataclass(frozen=True, eq=False)
class Faceless:
    """One picture of a video in which the person's face was not seen, so that nothing of it can be moved.

    Attributes:
        image: H x W x 3 uint8 sRGB.
        alpha: H x W uint8, 255 on people.
        code: where their head is taken to be, from before and after.
    """

    image: np.ndarray
    alpha: np.ndarray
    code: FaceCode


@dataclass(frozen=True, eq=False)
class View:
    """One picture of the person with its fit, prepared as a texture.

    Attributes:
        matte: H x W uint8, 255 on the person.
        canvas: Hc x Wc x 3 float32 linear of 65535: the plate (the picture itself, H x W) at its top left, textures of eyes
            and teeth and room for other mouths below it.
        rooms: (x, y) of the two rooms in the canvas; room: their (height, width), 0 where there are none.
        attributes: V x 12, the constant part of what `shade` interpolates.
        surround: the sheet.
        code: fitted in this picture.
        shaped: V x 3, the head of `code` in the head frame with straight eyes.
        hair: V x 3 head-frame offsets of the scalp's vertices to the hair's surface.
        ring: N x 4 linear colours and trust of the skin around the mouth.
        image: H x W x 3 uint8 sRGB, the picture.
        alpha: H x W uint8, 255 on people, soft along their outlines.
    """

    matte: np.ndarray
    canvas: np.ndarray
    rooms: tuple[tuple[int, int], tuple[int, int]]
    room: tuple[int, int]
    attributes: np.ndarray
    surround: Surround
    code: FaceCode
    shaped: np.ndarray
    hair: np.ndarray
    ring: np.ndarray
    image: np.ndarray
    alpha: np.ndarray

    @cached_property
    def _sheets(self) -> dict[Matte, np.ndarray]:
        return {}

    def sheet(self, matte: Matte) -> np.ndarray:
        """The picture, with a matte its alpha as well, `twice_as_fine`."""
        if matte not in self._sheets:
            self._sheets[matte] = twice_as_fine(with_alpha(self.image, self.alpha, matte))
        return self._sheets[matte]


def as_bytes(alpha: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """H x W uint8 of an alpha in [0, 1]; None is everything."""
    return np.full((height, width), 255, np.uint8) if alpha is None else np.round(255 * alpha).astype(np.uint8)
