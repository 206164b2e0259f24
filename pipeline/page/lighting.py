"""A visitor's light, and what they relight: opened and looked at once, shown at a moment, written whole. No word about Gradio."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from capture.frame import Frame
from capture.matte import SelfieMatte
from capture.media import Media, StillPicture
from models.light.lights import Light, ambient_light
from models.light.presets import PRESETS
from models.prior.face import AnnyPrior
from pipeline.backdrop import KEEP, TRANSPARENT
from pipeline.device import choose_device
from pipeline.errors import Refusal
from pipeline.lights import ENDINGS, FROM, lamps_of_json, open_light
from pipeline.looking import Shot, look_at
from pipeline.page.visit import limited
from pipeline.progress import Listener, silent
from pipeline.relight import BEHIND_LIGHT, Behind, Relighting, relit_frames, relit_picture, write_relit
from pipeline.source import open_source

OWN, LAMPS, MINE, MADE = "own", "lamps", "file", "relight"  # of the lights: as they are, lamps alone, a file, the tab's
LIGHTS = [(name, name) for name in PRESETS]
BACKGROUNDS = [("their own", KEEP), ("the light", BEHIND_LIGHT), ("none", TRANSPARENT)]
_MOMENTS = 24  # of a video that can be looked at
_KEPT = 3  # things looked at
_KEPT_LIGHTS = 8
Key, Value = TypeVar("Key"), TypeVar("Value")


class Wanted(NamedTuple):
    """A light as a visitor has made it, plain values that can be compared and kept.

    Attributes:
        name: a preset's, `file` or `lamps`; file: the path of theirs.
        turn: degrees to the right; exposure: stops.
        lamps: JSON of what they have put around the head.
    """

    name: str
    file: str | None = None
    turn: float = 0.0
    exposure: float = 0.0
    lamps: str = "[]"


class Moment:
    """A frame's number, and its picture, no larger than a live one."""

    def __init__(self, index: int, image: np.ndarray, quick: bool):
        self.index, self.image, self._quick = index, image, quick

    @cached_property
    def matte(self) -> np.ndarray:
        """H x W in [0, 1], as it is found for a film's first frame."""
        with SelfieMatte(self._quick) as matte:
            return matte(self.image)


@dataclass(frozen=True)
class Seen:
    """What is to be relit, looked at once, and moments of it."""

    media: Media
    shot: Shot
    moments: list[Moment]


class _Glimpsed:
    """A media some of whose frames are kept as they pass for the first time."""

    def __init__(self, media: Media):
        self._media, self.kept = media, {}
        self._every = max(1, (media.frame_count_estimate or 1) // _MOMENTS)

    def __getattr__(self, name: str) -> object:
        return getattr(self._media, name)

    def __iter__(self) -> Iterator[Frame]:
        for index, frame in enumerate(self._media):
            if index % self._every == 0 and index not in self.kept and len(self.kept) < 2 * _MOMENTS:
                self.kept[index] = limited(frame.image)
            yield frame


class Lighting:
    """Lights that were opened and pictures that were looked at, the last few kept; for all visitors."""

    def __init__(self, prior: AnnyPrior):
        self._prior, self._lock = prior, threading.Lock()
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._opened: OrderedDict[tuple[str, str | None], Light] = OrderedDict()

    def light(self, wanted: Wanted) -> Light:
        """Raises MediaError or Refusal, in one line, where there is none."""
        lamps = json.loads(wanted.lamps)
        placed = [{"type": "directional", **one} for one in lamps if one["intensity"] * max(one["color"]) > 0]
        if wanted.name == LAMPS:
            if not placed:
                raise Refusal("no lamp is lit, expected one at least. Add a lamp.")
            base = ambient_light(np.zeros(3))
        else:
            opened = lambda: open_light(_choice(wanted), self._prior)
            base = self._kept(self._opened, (wanted.name, wanted.file), opened, _KEPT_LIGHTS)
            base = base.turned(np.radians(wanted.turn)) if wanted.turn else base
        if placed:
            base = base + lamps_of_json(json.dumps({"lights": placed}), "the lamps")
        return base.exposed(wanted.exposure) if wanted.exposure else base

    def seen(self, path: str, listen: Listener) -> Seen:
        """What a file (or the built-in portrait) shows, looked at once."""
        return self._kept(self._seen, path, lambda: self._look_at(open_source(path), listen), _KEPT)

    def still(self, path: str, picture: Callable[[], np.ndarray]) -> Seen:
        """The same of an avatar's picture at rest."""
        look = lambda: self._look_at(StillPicture(picture(), path), silent)
        return self._kept(self._seen, path, look, _KEPT)

    def _look_at(self, media: Media, listen: Listener) -> Seen:
        glimpsed = _Glimpsed(media)
        shot = look_at(glimpsed, self._prior, listen=listen, device=choose_device("auto"))
        known = len(shot.people[0][1])
        return Seen(media, shot, [Moment(k, one, not media.is_photo) for k, one in glimpsed.kept.items() if k < known])

    def _kept(self, store: OrderedDict[Key, Value], key: Key, make: Callable[[], Value], most: int) -> Value:
        with self._lock:
            if key in store:
                store.move_to_end(key)
                return store[key]
        value = make()
        with self._lock:
            store[key] = value
            while len(store) > most:
                store.popitem(last=False)
        return value


def _choice(wanted: Wanted) -> str:
    if wanted.name != MINE:
        return wanted.name
    if wanted.file is None:
        raise Refusal(
            f"no light was given, expected an environment map, harmonics or lamps ({', '.join(ENDINGS)}), or a photo whose light "
            "is taken. Upload one."
        )
    return wanted.file if Path(wanted.file).suffix.lower() in ENDINGS else FROM + wanted.file


def relit_moment(seen: Seen, light: Light, number: int, how: Relighting) -> tuple[np.ndarray, np.ndarray]:
    """(a picture as it was, the same relit), H x W x 3 or 4 uint8 sRGB.

    Args:
        number: of the moments.
        how: what is seen behind.
    """
    one = seen.moments[min(number, len(seen.moments) - 1)]
    behind = Behind(how.background, one.image.shape[1], one.image.shape[0], how.wall)
    return one.image, relit_picture(one.image, seen.shot, one.index, light, behind, one.matte)


def export(seen: Seen, light: Light, how: Relighting, listen: Listener) -> tuple[Path, int]:
    """(the file, in a folder of its own, how many pictures)."""
    folder = Path(tempfile.mkdtemp(prefix="understudy-"))
    ending = ".png" if seen.media.is_photo else ".webm" if how.background == TRANSPARENT else ".mp4"
    path = folder / f"relit{ending}"
    try:
        return path, write_relit(path, seen.media, relit_frames(seen.media, seen.shot, light, how, listen), how)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
