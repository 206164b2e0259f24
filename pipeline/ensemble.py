"""Several people of one picture, each moved by themselves, shown as one picture again."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from models.avatar.avatar import is_avatar
from models.prior.face import AnnyPrior
from pipeline.errors import Refusal
from pipeline.progress import Listener, silent
from pipeline.puppet import PortraitPuppet, Puppet, open_puppet
from pipeline.source import Source, open_source, prepare_everyone


class Ensemble:
    """Who is moved: one person, or several of one picture."""

    def __init__(self, puppets: Sequence[Puppet], territories: Sequence[np.ndarray] = ()):
        """Args:
        territories: of each, H x W float32 in [0, 1] whose sum is 1: where what they do is shown. None are needed for one.
        """
        self.puppets = tuple(puppets)
        # laid over each other one after the other, each takes its share of what it and those before it have
        sums = np.maximum(np.cumsum(territories, 0), 1e-6) if len(territories) else ()
        self._shares = [np.ascontiguousarray(own / so_far) for own, so_far in zip(territories, sums)][1:]

    def replaced(self, puppets: Sequence[Puppet]) -> Ensemble:
        """Others in the same places."""
        out = Ensemble(puppets)
        out._shares = self._shares
        return out

    def merged(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """One picture from one of each puppet's (H x W x C uint8)."""
        out = pictures[0]
        for picture, share in zip(pictures[1:], self._shares):
            out = cv2.blendLinear(out, picture, 1 - share, share)
        return out


def open_ensemble(
    source: str, prior: AnnyPrior, everyone: bool = False, device: str = "cpu", listen: Listener = silent
) -> Ensemble:  # fmt: skip
    """Whoever a photo, a video, an avatar or `builtin` shows, ready to be moved: the largest face, or everyone.

    Raises:
        MediaError, ModelError, Refusal: where nobody can be.
    """
    if not everyone or is_avatar(source):
        return Ensemble([open_puppet(source, prior, device, listen)])
    media = open_source(source)
    if getattr(media, "is_endless", False):
        raise Refusal(f"{source}: a webcam can't be the picture that is moved. Give a photo, a video or an avatar.")
    return ensemble_of(prepare_everyone(media, prior, listen, device))


def ensemble_of(sources: list[Source]) -> Ensemble:
    """The people of one picture; the same sources may serve several."""
    return Ensemble([PortraitPuppet(one) for one in sources], [one.territory for one in sources] if len(sources) > 1 else ())
