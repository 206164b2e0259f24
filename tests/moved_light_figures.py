"""Pictures reenacted and relit in one pass: how steady they are, and light that goes along with a head. For `tests.figures`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from capture.frame import Frame
from capture.matte import SelfieMatte
from capture.media import Excerpt, open_media
from models.code import FaceCode
from models.colour import DECODE
from models.prior.face import AnnyPrior, load_prior
from models.raster.cpu import interpolate, rasterise
from pipeline.ensemble import Ensemble
from pipeline.flow import pictures, prepare
from pipeline.lit_puppet import LitPuppet, lights_known
from pipeline.puppet import PortraitPuppet
from pipeline.reenactment import Settings
from pipeline.relighting import Relit
from pipeline.source import as_same_person, prepare_picture
from pipeline.tracking import track
from tests.relight_figures import flicker_of

_LIGHTS = ("window", "noon", "rim")
_MOVERS = ("speech_male_older_25fps_512_audio", "driver_female_frowns_gaze_30fps_512")
_TURNERS = (
    "talking_head_male_turning_25fps_512", "driver_female_frowns_gaze_30fps_512", "speech_female_flag_25fps_590_audio",
    "speech_female_blue_30fps_700_audio", "talking_head_male_suit_30fps_960",
)  # fmt: skip
_FRAMES, _LONGER, _EVERY = 40, 200, 6
_ALL = np.uint8(255)
_TURNED = 10.0  # degrees from the photo's pose
_SEEN = 0.45  # cosine to the camera in the photo
_FINE = 6  # pixels over which brightness is compared


def steadiness(media: Path, row, head) -> None:
    """What motion (DIS flow) does not explain of reenacted pictures, lit over not lit, over people as matted in those not lit."""
    prior = load_prior()
    head("picture", "driver", *(f"{name}: by the unlit film's motion, by its own" for name in _LIGHTS))

    def film(source: str, driver: str, how: Settings) -> Iterator[np.ndarray]:
        return (frame.image for frame in islice(pictures(prepare(source, driver, how, prior), how), _FRAMES))

    for source in ("builtin", *map(str, sorted((media / "portrait").glob("photo_*")))):
        for path in (next(media.glob(f"*/{name}.mp4")) for name in _MOVERS):
            plain = list(film(source, str(path), Settings()))
            with SelfieMatte() as mattes:
                over = [_ALL * (mattes(picture) > 0.8) for picture in plain]
            cells = []
            for name in _LIGHTS:
                shown = (np.dstack(pair) for pair in zip(film(source, str(path), Settings(light=name)), over))
                cells.append(flicker_of([Frame(picture) for picture in plain], shown))
            row(Path(source).stem[:28], path.stem[:28], *(f"{a:.2f}, {b:.2f}" for a, b in cells))


def carried(media: Path, row, head) -> None:
    """A clip's first frame moved by the whole clip, lit as it was, against the frames as filmed: with and without its light kept.

    How far skin's brightness lies off, as a logarithm and without its median, over skin that the photo shows, in frames turned
    by 10 degrees or more.
    """
    prior = load_prior()
    head("clip", "frames", "degrees at most", "light as in the photo", "light that stays in the room")
    for name in _TURNERS:
        path = next(media.glob(f"*/{name}.mp4"))
        clip = Excerpt(open_media(path), 0, _LONGER)
        frames = [frame.image for frame in clip]
        performance = track(clip, prior).performances[0]
        photo = prepare_picture(frames[0], prior)
        photo = as_same_person(photo, performance.person, prior, Frame(frames[0])) or photo
        plain = PortraitPuppet(photo)
        (known,) = lights_known(Ensemble([plain]), prior)
        lit, off, turns = LitPuppet(plain, known, known.source), [], []
        for k in range(0, len(frames), _EVERY):
            code = performance.code(k)
            cosine = (np.trace(performance.rotation[0].T @ code.rotation) - 1) / 2
            turns.append(float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))))
            if turns[-1] < _TURNED:
                continue
            skin = _skin_shown(known, performance.code(0), code, frames[k].shape[:2], prior)
            made = (one(code, photo.person.camera, 0.0) for one in (plain, lit))
            off.append([_off(one, frames[k], skin) for one in made])
        row(name[:28], len(off), max(turns), *(f"{v:.3f}" for v in np.mean(off, 0)))


def _skin_shown(known: Relit, photo: FaceCode, code: FaceCode, size: tuple[int, int], prior: AnnyPrior) -> np.ndarray:
    """H x W bool: skin well within a head's outline that faces the camera in the photo."""
    lit = known.shader.lit
    before = lit.head.posed(photo)
    facing = -(lit.normals(before) * before).sum(1, keepdims=True) / np.linalg.norm(before, axis=1, keepdims=True)
    seen = rasterise(known.person.camera.project(lit.head.posed(code)).astype(np.float32), lit.triangles, *size)
    inside = cv2.erode((seen.triangle >= 0).astype(np.uint8), np.ones((15, 15))) > 0
    skin = prior.region[np.maximum(seen.triangle, 0)] == prior.regions.index("skin")
    return inside & skin & (interpolate(seen, lit.triangles, facing.astype(np.float32))[..., 0] > _SEEN)


def _off(made: np.ndarray, truth: np.ndarray, where: np.ndarray) -> float:
    smooth = lambda picture: cv2.GaussianBlur(DECODE[picture].astype(np.float32) / 65535, (0, 0), _FINE) + 0.01
    error = np.log(smooth(made) / smooth(truth)).mean(-1)[where]
    return float(np.abs(error - np.median(error)).mean())
