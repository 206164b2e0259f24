"""Relighting on real clips: the laws of light, flicker, skin tones, and speed. Used by `tests.figures`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch

from capture.frame import Frame
from capture.matte import SelfieMatte, selfie_matte
from capture.media import Excerpt, StillPicture, open_media
from capture.motion import Motion
from models.colour import DECODE
from models.light.harmonics import LUMINANCE
from models.light.lights import Lamp, Light, ambient_light
from models.light.presets import PRESETS
from models.moved import Moved
from models.prior.face import AnnyPrior, load_prior
from models.relight.shading import applied, change
from pipeline.backdrop import KEEP, TRANSPARENT
from pipeline.errors import Refusal
from pipeline.looking import Shot, look_at
from pipeline.relight import Behind, Relighting, relit_frames, relit_picture

LIGHTS = ("studio", "window", "overcast", "noon", "sunset", "rim")
_FRAMES = 40  # of a clip
_ROUNDS = 10  # through a clip that is timed on a device
_ALL = np.uint8(255)
_STEADY = (
    "talking_head_male_turning_25fps_512", "selfie_male_glasses_expressions_30fps_512x480",
    "speech_male_older_25fps_512_audio", "speech_female_flag_25fps_590_audio", "speech_female_blue_30fps_700_audio",
)  # fmt: skip
# looked at when mattes were made steady
_LOOKED_AT = ("driver_female_frowns_gaze_30fps_512", "driver_female_winks_30fps_480", "speech_male_suit_vfr_700_audio")
# nothing was chosen by these
_OTHERS = (
    "driver_male_mouth_wide_30fps_480", "talking_head_male_suit_30fps_960", "outdoor_female_smiling_30fps_1280x720",
    "selfie_female_expressions_blackbar_30fps_512", "driver_male_smile_greenscreen_25fps_512",
)  # fmt: skip


def _lamp(x: float, y: float, z: float, level: float = 1.0) -> Light:
    direction = np.array([x, y, z]) / np.linalg.norm([x, y, z])
    return ambient_light(np.full(3, 0.05), (Lamp("directional", np.full(3, level), direction=direction),))


def made(image: np.ndarray, shot: Shot, light: Light, matte: np.ndarray, index: int = 0) -> np.ndarray:
    """One frame under a light, the person as a whole."""
    return relit_picture(image, shot, index, light, Behind(KEEP, image.shape[1], image.shape[0]), matte)


def decibels(one: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one[where].astype(float) - other[where]) ** 2) / 255**2 + 1e-12))


def as_known(shot: Shot, light: Light) -> Shot:
    """The same shot, as if it stood in a light that is known."""
    from copy import copy

    people = []
    for relit, performance in shot.people:
        other = copy(relit)
        other.source = light
        people.append((other, performance))
    return replace(shot, people=people, gains=None)


def greyed(light: Light) -> Light:
    """The same light without colour."""
    grey = lambda grid: np.repeat((grid @ LUMINANCE)[..., None], 3, -1).astype(np.float32)
    lamps = tuple(replace(one, colour=np.full(3, float(one.colour @ LUMINANCE))) for one in light.lamps)
    return Light(grey(light.soft), grey(light.glossy), grey(light.diffuse), lamps, turn=light.turn)


def laws(media: Path, row, head) -> None:
    """dB over people, a frame of each clip. `A to B to A`, B the six lights: known when going back, or estimated anew.

    Hue: where old and new light are both grey.
    """
    prior = load_prior()
    head("clip", "own light", "A to B to A", "B estimated", "lamps' sum", "twice the light", "360 degrees", "hue by a grey light")
    for path in sorted((media / "face").glob("*.mp4")):
        clip = Excerpt(open_media(path), 0, 20)
        shot, frame = look_at(clip, prior), next(iter(clip)).image
        with SelfieMatte() as mattes:
            matte = mattes(frame)
        where = matte > 0.9
        there, back, anew = [], [], []
        there.append(decibels(made(frame, shot, shot.source, matte), frame, where))
        for name in LIGHTS:
            light = PRESETS[name]()
            other = made(frame, shot, light, matte)
            back.append(decibels(made(other, as_known(shot, light), shot.source, matte), frame, where))
            try:
                seen = look_at(StillPicture(other, path.name), prior)
            except Refusal:  # too dark or too bright by now
                continue
            again = made(other, seen, shot.source, matte)
            anew.append(decibels(again, frame, where))
        few = "" if len(anew) == len(LIGHTS) else f" ({len(anew)} of {len(LIGHTS)})"
        told = f"{np.mean(anew):.2f}{few}" if anew else "none"
        row(path.stem[:28], there[0], float(np.mean(back)), told, *linear(frame, shot, matte))


def linear(frame: np.ndarray, shot: Shot, matte: np.ndarray) -> list[float]:
    """(dB between two lamps' sum and both; stops between exposures a stop apart; dB after a whole turn; degrees of hue moved)."""
    light = lambda picture: DECODE[picture] / 65535.0
    where = matte > 0.9
    left, right = _lamp(-1, -0.3, -1, 0.3), _lamp(1, -0.3, -1, 0.3)
    apart = np.clip(light(made(frame, shot, left, matte)) + light(made(frame, shot, right, matte)), 0, 1)
    both = light(made(frame, shot, left + right, matte))
    total = -10 * np.log10(np.mean((apart - both)[where] ** 2) + 1e-12)
    dim, bright = (light(made(frame, shot, left.exposed(stops), matte)) for stops in (0, 1))
    fair = where & (bright.max(-1) < 0.98) & (dim.min(-1) > 0.01)
    stops = float(np.median(np.log2(bright[fair] / dim[fair])))
    window = PRESETS["window"]()
    turned = decibels(made(frame, shot, window, matte), made(frame, shot, window.turned(2 * np.pi), matte), where)
    out = made(frame, as_known(shot, greyed(shot.source)), greyed(PRESETS["sunset"]()), matte)
    return [float(total), stops, turned, hue_moved(frame, out, where)]


def hue_moved(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> float:
    """Median degrees between hues of colourful pixels, CIE Lab."""
    lab = [cv2.cvtColor(one.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for one in (before, after)]
    chroma = [np.hypot(one[..., 1], one[..., 2]) for one in lab]
    where = where & (np.minimum(*chroma) > 8)
    hue = [np.arctan2(one[..., 2], one[..., 1]) for one in lab]
    off = np.degrees(np.abs((hue[1] - hue[0] + np.pi) % (2 * np.pi) - np.pi))
    return float(np.median(off[where]))


def flicker(media: Path, row, head) -> None:
    """What motion (DIS flow) does not explain from frame to frame, over people, relit over as filmed.

    Each light as bright as leaves the first frame's people as bright as they were. The last number is of a shading that stands
    still in the picture, the first frame's on all of them.
    """
    prior = load_prior()
    head("clip", *(f"{name}: by the input's motion, by its own, standing still" for name in LIGHTS))
    for names in (_STEADY, _LOOKED_AT, _OTHERS):
        _flickers([next(media.glob(f"*/{name}.mp4")) for name in names], prior, row)


def _flickers(paths: list[Path], prior: AnnyPrior, row) -> None:
    found = []
    for path in paths:
        clip = Excerpt(open_media(path), 0, _FRAMES)
        shot, values, first = look_at(clip, prior), [], next(iter(clip)).image
        with SelfieMatte(quick=True) as mattes:
            matte = mattes(first)
        relit, performance = shot.people[0]
        for name in LIGHTS:
            light = PRESETS[name]()
            level = lambda picture, where=matte > 0.5: float((DECODE[picture][where] @ LUMINANCE).mean())
            light = light.exposed(np.log2(level(first) / max(level(made(first, shot, light, matte)), 1e-6)))
            still = change(*relit.shader(performance.code(0), matte, [relit.source, light], *relit.size(first)))
            held = (np.dstack([applied(frame.image, still, np.ones_like(matte)), _ALL * (matte > 0.5)]) for frame in clip)
            moving = (frame.image for frame in relit_frames(clip, shot, light, Relighting(background=TRANSPARENT)))
            values.append((*flicker_of(clip, moving), flicker_of(clip, held)[0]))
        found.append(values)
        row(path.stem[:28], *(", ".join(f"{v:.2f}" for v in cell) for cell in values))
    row("mean", *(", ".join(f"{v:.2f}" for v in cell) for cell in np.mean(found, 0)))


def flicker_of(clip: Iterable[Frame], relit: Iterator[np.ndarray]) -> tuple[float, float]:
    """Each frame's residual after motion, sRGB codes, over that of the input: by the input's motion, and by its own."""
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = lambda picture: cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    before, own, ours, by_itself = None, [], [], []
    for frame, out in zip(clip, relit):
        now, people = (frame.image, np.ascontiguousarray(out[..., :3])), out[..., 3] > 200
        if before is not None and people.any():
            motions = [search.calc(grey(one), grey(past), None) for one, past in zip(now, before)]
            for store, which, motion in ((own, 0, motions[0]), (ours, 1, motions[0]), (by_itself, 1, motions[1])):
                y, x = np.mgrid[0 : motion.shape[0], 0 : motion.shape[1]].astype(np.float32)
                past = cv2.remap(before[which], x + motion[..., 0], y + motion[..., 1], cv2.INTER_LINEAR)
                store.append(float(np.abs(now[which].astype(np.float32) - past)[people].mean()))
        before = now
    return float(np.mean(ours) / np.mean(own)), float(np.mean(by_itself) / np.mean(own))


def tones(media: Path, row, head) -> None:
    """Lightness and hue (CIE Lab, skin's median) of faces as filmed and under white lights; order by Spearman's rank."""
    from scipy.stats import spearmanr

    prior, found, left_out = load_prior(), [], []
    head("picture", "as filmed: L", "hue", *(f"{name}: {what}" for name in ("even", "lamp") for what in ("L", "hue")))
    for path in _faces(media):
        clip = open_media(path)
        clip = clip if clip.is_photo else Excerpt(clip, 0, 5)
        try:
            shot = look_at(clip, prior, people=1)
        except Refusal:  # nobody is seen
            left_out.append(path.stem[:28])
            continue
        frame = next(iter(clip)).image
        cells = []
        everything = np.ones(frame.shape[:2], np.float32)
        for picture in (frame, *(made(frame, shot, light, everything) for light in (ambient_light(np.ones(3)), _lamp(0, 0, -1)))):
            cells += _skin(picture, shot, prior)
        found.append(cells)
        row(path.stem[:28], *cells)
    table = np.array(found)
    row(f"left out: {', '.join(left_out) or 'none'}", *[""] * 6)
    row("rank of L with as filmed", "", "", *(v for k in (2, 4) for v in (float(spearmanr(table[:, 0], table[:, k])[0]), "")))
    row("rank of L between both", "", "", float(spearmanr(table[:, 2], table[:, 4])[0]), "", "", "")
    row("hue between both, most", "", "", "", float(np.abs(table[:, 3] - table[:, 5]).max()), "", "")
    off = [np.abs((table[:, k] - table[:, 1] + 180) % 360 - 180) for k in (3, 5)]
    row("hue moved, median", "", "", *(v for one in off for v in ("", float(np.median(one)))))


def _faces(media: Path) -> list[Path]:
    kinds = ("*.mp4", "*.jpg", "*.png")
    return sorted(p for folder in ("face", "driver", "portrait") for kind in kinds for p in (media / folder).glob(kind))


def _skin(picture: np.ndarray, shot: Shot, prior: AnnyPrior) -> list[float]:
    from models.head import Head
    from models.prior.reflectance import load_reflectance

    relit, performance = shot.people[0]
    bare = np.flatnonzero(load_reflectance(prior).skin > 0)
    head = Head(prior, relit.person)
    posed = head.posed(performance.code(0))
    facing = (relit.shader.lit.normals(posed)[bare, 2]) < -0.5
    points = relit.person.camera.project(posed[bare[facing]])
    x, y = (np.clip(points[:, k].astype(int), 0, picture.shape[1 - k] - 1) for k in (0, 1))
    lab = cv2.cvtColor(picture[y, x][None].astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[0]
    level, a, b = np.median(lab, axis=0)
    return [float(level), float(np.degrees(np.arctan2(b, a)))]


def speed(media: Path, row, head) -> None:
    """Frames a second, 512 x 512, the whole way from tracking to pictures; beside tracking alone in the same run."""
    prior = load_prior()
    clip = Excerpt(open_media(media / "face/talking_head_male_turning_25fps_512.mp4"), 0, 240)
    for _ in islice(relit_frames(clip, look_at(Excerpt(clip, 0, 10), prior), PRESETS["noon"](), Relighting()), 8):
        pass  # compiles
    began = time.perf_counter()
    shot = look_at(clip, prior)
    looked = time.perf_counter() - began
    head("light", "fps, looking and relighting", "looking alone", "relighting alone")
    for name in ("window", "overcast", "noon", "rim"):
        began = time.perf_counter()
        count = sum(1 for _ in relit_frames(clip, shot, PRESETS[name](), Relighting()))
        took = time.perf_counter() - began
        row(name, count / (took + looked), count / looked, count / took)
    if torch.cuda.is_available():
        _speed_on("cuda", torch.cuda.get_device_name(), Excerpt(clip, 0, 60), prior, row, head)


def _speed_on(device: str, name: str, clip: Excerpt, prior: AnnyPrior, row, head) -> None:
    """Frames a second by a device, from a picture, its code and its matte in memory to the relit picture in memory."""
    relit, performance = look_at(clip, prior, device=device).people[0]
    images = [frame.image for frame in clip]
    matte, motion = selfie_matte(images[0]), Motion()
    moved = [Moved.after(1 / 25, motion(image)) for image in images]
    head(f"light, on {name}", "fps, relighting alone, a frame after the other")
    for light in LIGHTS:
        made = lambda k, light=PRESETS[light](): relit(images[k], performance.code(k), matte, light, matte, moved=moved[k])
        for k in range(1, 10):
            made(k)  # compiles
        began = time.perf_counter()
        for _ in range(_ROUNDS):
            for k in range(1, len(images)):
                made(k)
        row(light, _ROUNDS * (len(images) - 1) / (time.perf_counter() - began))
