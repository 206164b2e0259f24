"""Where a code lies among the codes an avatar was learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from models.code import FaceCode
from models.head import LOOK

SIZE = 62  # expression 52, gaze 4, rotation 3, translation 3
_FLOOR = np.concatenate([np.full(52, 0.05), np.full(4, 0.05), np.full(3, 0.05), np.full(3, 0.02)])  # least deviations
FACE, POSE = slice(0, 56), slice(56, 62)
REACH, POSE_REACH = 4.0, 2.0  # standard deviations at which examples still speak for each other
# how far a head goes outside what was seen as it is asked to, and how much farther at most: radians, metres
_FREE = np.concatenate([np.full(56, np.inf), np.full(3, 0.07), np.full(3, 0.002)])
_GIVING = np.concatenate([np.ones(56), np.full(3, 0.1), np.full(3, 0.006)])
_MARGIN = 0.25  # of a value's range: how far outside it an unknown code is let


def feature(code: FaceCode, reference: np.ndarray) -> np.ndarray:
    """62: a code as numbers, its rotation as a vector from the `reference` rotation."""
    turn = cv2.Rodrigues(np.ascontiguousarray(code.rotation @ reference.T))[0].ravel()
    return np.concatenate([code.expression, code.gaze.ravel(), turn, code.translation])


@dataclass(frozen=True, eq=False)
class CodeSpace:
    """The codes that were learned from, standardised.

    Attributes:
        reference: 3 x 3, the middle rotation.
        centre, scale: 62, of the features.
        low, high: 62, the range of the standardised features.
        examples: N x 62, standardised.
    """

    reference: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    low: np.ndarray
    high: np.ndarray
    examples: np.ndarray

    @classmethod
    def of(cls, codes: Sequence[FaceCode]) -> CodeSpace:
        u, _, vt = np.linalg.svd(np.mean([code.rotation for code in codes], 0))
        reference = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        features = np.stack([feature(code, reference) for code in codes])
        centre, scale = features.mean(0), np.maximum(features.std(0), _FLOOR)
        examples = (features - centre) / scale
        return cls(reference, centre, scale, examples.min(0), examples.max(0), examples)

    @cached_property
    def middle(self) -> FaceCode:
        """The code in the middle of those that were learned from."""
        expression, gaze, _, translation = np.split(self.centre, [52, 56, 59])
        return FaceCode(np.clip(expression, 0, 1), self.reference, translation, gaze.reshape(2, 2))

    @cached_property
    def margin(self) -> np.ndarray:
        """62: how far outside its range a standardised value is let."""
        return np.maximum(_MARGIN * (self.high - self.low), 0.25)

    def place(self, code: FaceCode) -> np.ndarray:
        """62: the standardised feature, drawn softly to the range that was learned from: beyond it nothing is known."""
        at = (feature(code, self.reference) - self.centre) / self.scale
        margin = self.margin
        over, under = np.maximum(at - self.high, 0), np.maximum(self.low - at, 0)
        return np.clip(at, self.low, self.high) + margin * (np.tanh(over / margin) - np.tanh(under / margin))

    def drawn_in(self, code: FaceCode) -> FaceCode:
        """The code with its expression drawn in as in `place`: a jaw that drops twice as far as was ever seen tears a mouth open
        that no one has colours for. Looks stay, they move surfaces rigidly.

        A head's pose stays as long as it is hardly outside what was seen, then follows less and less: a head that turns farther
        shows a side nobody has filmed, and one that moves farther leaves what was behind it bare.
        """
        asked = feature(code, self.reference)
        expression = self.centre[:52] + self.scale[:52] * self.place(code)[:52]
        low, high = (self.centre + self.scale * end for end in (self.low, self.high))
        pose = np.clip(asked, low - _FREE, high + _FREE)
        pose = (pose + _GIVING * np.tanh((asked - pose) / _GIVING))[POSE]
        within = np.array_equal(pose, asked[POSE])
        return replace(
            code, expression=np.where(LOOK, code.expression, np.clip(expression, 0, 1)),
            rotation=code.rotation if within else cv2.Rodrigues(pose[:3])[0] @ self.reference,
            translation=code.translation if within else pose[3:],
        )  # fmt: skip

    def nearness(self, at: np.ndarray) -> np.ndarray:
        """... x N: the kernel between places (... x 62) and the examples, for what follows the whole code.

        A constant, a linear kernel and Gaussian ones of expression and of pose: what is always so, what follows the code linearly
        everywhere, and what it does only near examples.
        """
        product = at @ self.examples.T
        return 1 + 0.5 * product / REACH**2 + self._gaussian(at, FACE, REACH) + self._gaussian(at, POSE, POSE_REACH)

    def pose_nearness(self, at: np.ndarray) -> np.ndarray:
        """... x N: the same by the head's pose alone, for hair and scene: what they have to do with a smile is chance."""
        product = at[..., POSE] @ self.examples[:, POSE].T
        return 1 + 0.5 * product / POSE_REACH**2 + self._gaussian(at, POSE, POSE_REACH)

    def _gaussian(self, at: np.ndarray, part: slice, reach: float) -> np.ndarray:
        a, b = at[..., part], self.examples[:, part]
        away = (a**2).sum(-1)[..., None] + (b**2).sum(1) - 2 * a @ b.T
        return np.exp(-0.5 * np.maximum(away, 0) / reach**2)
