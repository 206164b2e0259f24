"""`relight`: a photo, a video or an avatar under another light, from file to file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from queue import Empty, SimpleQueue

import cv2
import numpy as np

from capture.frame import Frame
from capture.matte import SelfieMatte, sharpened
from capture.media import Media, StillPicture, open_media, probe
from capture.motion import Motion
from capture.photo import check_photo_output, write_photo
from capture.writer import VideoWriter
from models.avatar.avatar import is_avatar
from models.code import FaceCode
from models.colour import to_srgb8
from models.light.harmonics import LUMINANCE
from models.light.lights import Light
from models.light.presets import PRESETS
from models.matting import foreground
from models.moved import Moved
from models.prior.face import AnnyPrior
from models.relight.carried import Carried
from models.relight.shading import Change, applied
from models.relight.wall import kept_on_wall
from models.steady_mask import SteadyMask
from pipeline.ahead import abreast, ahead
from pipeline.backdrop import BLUR, KEEP, TRANSPARENT, covering, open_picture
from pipeline.builtin import BUILTIN
from pipeline.device import DeviceChoice, choose_device
from pipeline.errors import Refusal
from pipeline.lights import ENDINGS, open_light
from pipeline.looking import Shot, look_at
from pipeline.mark import marked
from pipeline.outputs import check_folder, check_not_input, check_output
from pipeline.progress import Listener, counted, silent
from pipeline.puppet import open_puppet, rest_picture
from pipeline.relighting import Relit, edges_left_out
from pipeline.source import open_source, territories

BEHIND_LIGHT = "light"
_PHOTOS = (".png", ".jpg", ".jpeg", ".webp")
_VIEW = 1.25  # of a picture's longer side: the focal length through which an environment is seen behind
STOPS = 20.0  # of exposure, either way
_TOO_DARK, _TOO_BRIGHT = 0.03, 12.0  # of white's brightness under a light: beyond these a hint is due


@dataclass(frozen=True)
class Relighting:
    """How a light is put on.

    Attributes:
        turn: degrees to the right about the vertical, at the start and at the end.
        exposure: stops.
        background: `keep`, `light`, `transparent`, or a picture's path.
        wall: metres behind the head to a wall that catches people's shadows; None has no wall.
        smoothing: of the tracking.
        mark: the visible mark on every picture; comment: what a file's metadata say.
        device: where pixels are made.
    """

    turn: tuple[float, float] = (0.0, 0.0)
    exposure: float = 0.0
    background: str = KEEP
    smoothing: float = 1.0
    mark: bool = False
    comment: str | None = None
    device: DeviceChoice = "auto"
    wall: float | None = None

    def light_at(self, light: Light, share: float) -> Light:
        """The light at a share (0 to 1) of the time."""
        degrees = self.turn[0] + share * (self.turn[1] - self.turn[0])
        turned = light.turned(np.radians(degrees)) if degrees else light
        return turned.exposed(self.exposure) if self.exposure else turned


class Behind:
    """What is seen behind people who are relit."""

    def __init__(self, choice: str, width: int, height: int, wall: float | None = None):
        """Args:
        choice: `keep`, `light`, `transparent`, or a picture's path.
        wall: metres behind the head to a wall on which people throw shadows.
        """
        self.choice, self._size, self._wall = choice, (width, height), wall
        self._light: tuple[Light, np.ndarray] | None = None  # the last one seen behind
        fixed = choice not in (KEEP, BEHIND_LIGHT, TRANSPARENT)
        self._picture = covering(open_picture(choice), width, height) if fixed else None

    def __call__(self, image: np.ndarray, matte: np.ndarray, light: Light, shadows: Change | None = None) -> np.ndarray:
        """H x W x 3 uint8 sRGB, x 4 where it is transparent.

        Args:
            image: H x W x 3 uint8 sRGB, the people's own colours; matte: H x W in [0, 1].
            shadows: theirs on what is behind.
        """
        if self.choice == TRANSPARENT:
            return np.dstack([image, np.round(255 * matte).astype(np.uint8)])
        behind = self._picture
        if behind is None:
            behind = self._seen(light)
        if shadows is not None:
            behind = applied(behind, shadows, np.ones_like(matte))
        share = np.ascontiguousarray(matte, np.float32)
        return cv2.blendLinear(np.ascontiguousarray(image), behind, share, 1 - share)

    def _seen(self, light: Light) -> np.ndarray:
        kept = self._light  # frames are made abreast
        if kept is None or kept[0] is not light:
            kept = self._light = light, seen_behind(light, *self._size)
        return kept[1]

    def shadows(self, matte: np.ndarray, light: Light, one: Relit, code: FaceCode) -> Change | None:
        """What people's shadows do to the wall behind them; None where there is no wall."""
        if self._wall is None or not light.lamps:
            return None
        focal = one.person.camera.focal * matte.shape[1] / one.person.camera.width
        kept = kept_on_wall(matte, light, focal, one.shader.lit.centre(one.shader.lit.head.posed(code)), self._wall)
        return Change(kept, np.zeros_like(kept), np.zeros_like(kept))


def seen_behind(light: Light, width: int, height: int) -> np.ndarray:
    """H x W x 3 uint8 sRGB: the light itself, through a camera like a webcam."""
    focal = _VIEW * max(width, height)
    if light.environment is not None:
        linear = light.environment.seen(focal, width, height)
    else:
        x, y = np.meshgrid((np.arange(64) + 0.5) / 64 * width - width / 2, (np.arange(64) + 0.5) / 64 * height - height / 2)
        away = np.stack([x, y, np.full_like(x, focal)], -1)
        soft = light.around(away / np.linalg.norm(away, axis=-1, keepdims=True))
        linear = cv2.resize(soft.astype(np.float32), (width, height))
    return to_srgb8(np.round(65535 * np.clip(linear, 0, 1)).astype(np.uint16))


def relit_frames(
    media: Media, shot: Shot, light: Light, how: Relighting, listen: Listener = silent
) -> Iterator[Frame]:  # fmt: skip
    """Every frame of a shot under a light."""
    shot = shot.apart()
    behind = Behind(how.background, media.width, media.height, how.wall)
    first = shot.people[0][1]
    length = max(float(first.times[-1]), 1e-9)
    at_rest = how.light_at(light, 0.0) if how.turn[0] == how.turn[1] else None  # one value for all, told apart by identity
    stays = at_rest is not None and shot.gains is None
    is_video, on_cpu = len(first) > 1, shot.device == "cpu"
    idle: SimpleQueue[SelfieMatte] = SimpleQueue()
    opened = ExitStack()
    motions, masks, carried = Motion(), SteadyMask(), [Carried() for _ in shot.people]

    carried_by = lambda one: one.moved if stays else None

    def watched() -> Iterator[_Moment]:
        before = 0.0
        for index, frame in enumerate(islice(iter(media), len(first))):
            now = at_rest or how.light_at(light, float(frame.time) / length if is_video else 0.0)
            moved = Moved.after(float(frame.time) - before, motions(frame.image)) if is_video else None
            yield _Moment(index, frame, now, moved)
            before = float(frame.time)

    def masked(one: _Moment) -> _Moment:
        try:
            mattes = idle.get_nowait()
        except Empty:  # one for each that works abreast
            mattes = opened.enter_context(SelfieMatte(quick=is_video))
        mask = mattes.mask(one.frame.image)
        idle.put(mattes)
        return replace(one, mask=mask)

    def mask_steadied(one: _Moment) -> _Moment:
        return replace(one, mask=masks(one.mask, one.moved))

    def shaded(one: _Moment) -> _Moment:
        one = replace(one, matte=sharpened(one.mask, one.frame.image, quick=is_video))
        return replace(one, changes=changes_of(one.frame.image, shot, one.index, one.light, one.matte) if on_cpu else None)

    def light_steadied(one: _Moment) -> _Moment:
        return replace(one, changes=[each(change, carried_by(one)) for each, change in zip(carried, one.changes)])

    def made(one: _Moment) -> Frame:
        image, moved = one.frame.image, carried_by(one)
        picture = relit_picture(image, shot, one.index, one.light, behind, one.matte, one.changes, moved)
        return Frame(picture, one.frame.time, one.frame.duration)

    with opened, ExitStack() as followed:
        follow = lambda generator: followed.enter_context(closing(generator))
        moments = map(mask_steadied, follow(abreast(follow(ahead(watched())), masked)))
        if is_video and on_cpu:
            relit = follow(abreast(map(light_steadied, follow(abreast(moments, shaded))), made))
        else:
            relit = (made(shaded(one)) for one in moments)
        yield from counted(relit, "relight", len(first), listen)


@dataclass(frozen=True)
class _Moment:
    """A frame on its way.

    Attributes:
        moved: since the one before, where that is known.
        mask: who is people, before it is sharpened to `matte`.
        changes: of each person.
    """

    index: int
    frame: Frame
    light: Light
    moved: Moved | None
    mask: np.ndarray | None = None
    matte: np.ndarray | None = None
    changes: list[Change] | None = None


def changes_of(image: np.ndarray, shot: Shot, index: int, light: Light, matte: np.ndarray) -> list[Change]:
    """How a frame is to change, person by person."""
    gain = None if shot.gains is None else shot.gains[index]
    return [one.change(image, performance.code(index), matte, light, gain) for one, performance in shot.people]


def relit_picture(
    image: np.ndarray, shot: Shot, index: int, light: Light, behind: Behind, matte: np.ndarray,
    changes: list[Change] | None = None, moved: Moved | None = None,
) -> np.ndarray:  # fmt: skip
    """One frame, H x W x 3 uint8 sRGB (x 4 where it is transparent); of any size, and `behind` of the same.

    Args:
        changes: of each person, where they are known already.
        moved: since the frame before, where they are not.
    """
    keeps = behind.choice == KEEP
    out = image if keeps else foreground(image, np.round(255 * matte).astype(np.uint8))
    inside = edges_left_out(matte)
    shares = [inside if keeps else np.ones_like(matte)]
    if len(shot.people) > 1:
        scale = image.shape[1] / shot.people[0][0].person.camera.width
        grounds = territories([one.landmarks_at(p.code(index)) * scale for one, p in shot.people], *image.shape[:2])
        shares = [ground[..., None] * inside if keeps else ground for ground in grounds]
    gain = None if shot.gains is None else shot.gains[index]
    if changes is None and shot.device == "cpu":
        changes = changes_of(image, shot, index, light, matte)
    for number, ((one, performance), share) in enumerate(zip(shot.people, shares)):
        if changes is None:
            out = one(out, performance.code(index), matte, light, share, gain, moved=moved)
        else:
            out = applied(out, changes[number], share)
    shadows = behind.shadows(matte, light, shot.people[0][0], shot.people[0][1].code(index))
    if not keeps:
        return behind(out, matte, light, shadows)
    return out if shadows is None else applied(out, shadows, 1 - inside[..., 1])


def relight(
    source: str, light: str, output: str | Path, how: Relighting = Relighting(), *, prior: AnnyPrior,
    source_light: str | None = None, listen: Listener = silent, lossless: bool = False,
) -> dict:  # fmt: skip
    """Relights `source` (a photo, a video, an avatar at rest or `builtin`) into `output`; returns a report.

    Args:
        light: see `pipeline.lights`; a folder of lights makes one result for each into the folder `output`.
        source_light: the light that the source stands in, where it is known.

    Raises:
        MediaError, ModelError, Refusal: one line. No output file is left behind, but those finished before of a folder of lights.
        KeyboardInterrupt: says so where some are.
    """
    if how.background == BLUR:
        raise Refusal("--background blur: relighting blurs nothing, expected keep, light, transparent or a picture. Choose one.")
    if how.background not in (KEEP, BEHIND_LIGHT, TRANSPARENT):
        open_picture(how.background)
    elif how.wall is not None and how.background != KEEP:
        raise Refusal(f"--wall {how.wall:g}: no wall behind people on --background {how.background}. Use keep, or a picture.")
    lights = _lights(light, prior)
    many = Path(light).is_dir() and light not in PRESETS
    media = _opened(source, prior, listen)
    outputs = _outputs(output, list(lights), media, many, how)
    for path in outputs.values():
        check_not_input(path, source)
    device = choose_device(how.device)
    if media.is_photo and how.turn[0] != how.turn[1]:
        raise Refusal(f"--rotate {how.turn[0]:g}:{how.turn[1]:g}: a photo has no time to turn in. Give one angle, or a video.")
    known = None if source_light is None else open_light(source_light, prior)
    shot = look_at(media, prior, known, smoothing=how.smoothing, listen=listen, device=device)
    if many:
        Path(output).mkdir(parents=True, exist_ok=True)
    results = []
    for name, path in outputs.items():
        try:
            count = write_relit(path, media, relit_frames(media, shot, lights[name], how, listen), how, lossless)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"stopped; {len(results)} of {len(outputs)} results were written" if results else ""
            ) from None
        results.append({"light": name, "output": str(path), "frames": count})
    return {
        "input": source, "width": media.width, "height": media.height, "people": len(shot.people), "results": results,
        "light_varies": shot.gains is not None, "source_light": _told(shot.source), "hints": _hints(lights, how),
    }  # fmt: skip


def _lights(choice: str, prior: AnnyPrior) -> dict[str, Light]:
    folder = Path(choice)
    if choice in PRESETS or not folder.is_dir():
        return {choice: open_light(choice, prior)}
    files = sorted(one for one in folder.iterdir() if one.suffix.lower() in ENDINGS and not one.name.startswith("."))
    if not files:
        raise Refusal(f"{choice}: no light in this folder, expected files that end in {', '.join(ENDINGS)}. Name another.")
    return {one.name: open_light(str(one), prior) for one in files}


def _opened(source: str, prior: AnnyPrior, listen: Listener) -> Media:
    if is_avatar(source):
        return StillPicture(rest_picture(open_puppet(source, prior, listen=listen)), source)
    if source != BUILTIN and probe(source) == "webcam":
        raise Refusal("a webcam has no end, so no file can be made from it. Give a video or a photo, or use `live --light`.")
    return open_source(source) if source == BUILTIN else open_media(source)


def _outputs(output: str | Path, names: list[str], media: Media, many: bool, how: Relighting) -> dict[str, Path]:
    """Where each light's result goes; refuses what can't be written before any work."""
    output = Path(output)
    alpha = how.background == TRANSPARENT
    if many:
        if output.suffix.lower() in (*_PHOTOS, ".mp4", ".mov", ".mkv", ".webm"):
            raise Refusal(f"{output}: a folder of lights makes many results, expected a folder to put them in. Name one.")
        ending = ".png" if media.is_photo else ".webm" if alpha else ".mp4"
        check_folder(output)
        paths = {name: output / f"{Path(name).stem}{ending}" for name in names}
        if len(set(paths.values())) < len(paths):
            paths = {name: output / f"{name}{ending}" for name in names}
        return paths
    if not media.is_photo:
        check_output(output, alpha)
    else:
        check_photo_output(output)
        if alpha and output.suffix.lower() in (".jpg", ".jpeg"):
            raise Refusal(f"{output}: a JPEG can't be transparent. Use .png or .webp, or another background.")
    return {names[0]: output}


def write_relit(path: Path, media: Media, frames: Iterator[Frame], how: Relighting, lossless: bool = False) -> int:
    """Writes what `relit_frames` of `media` gives, with its sound; how many there were."""
    finished = lambda frame: marked(frame.image) if how.mark else frame.image
    if media.is_photo:
        write_photo(path, finished(next(iter(frames))), how.comment)
        return 1
    count = 0
    sound = media if media.has_audio else None
    with VideoWriter(
        path, media.width, media.height, audio_from=sound.path if sound else None, audio_start=getattr(sound, "start", 0.0),
        rate=media.average_rate, lossless=lossless, alpha=how.background == TRANSPARENT, comment=how.comment,
    ) as writer:  # fmt: skip
        for frame in frames:
            writer.write(finished(frame), frame.time, frame.duration)
            count += 1
    return count


def _told(light: Light) -> dict:
    return {
        "soft": [float(v) for v in light.shaded(np.array([[0.0, 0.0, -1.0]]))[0]],
        "lamps": [
            {"direction": [round(float(v), 4) for v in one.direction], "color": [round(float(v), 4) for v in one.colour]}
            for one in light.lamps if one.direction is not None and float(one.colour @ LUMINANCE) > 0
        ],
    }  # fmt: skip


def _hints(lights: dict[str, Light], how: Relighting) -> list[str]:
    """What to do about lights that leave a face black or white, or a wall without shadows."""
    out = []
    for name, light in lights.items():
        shown = how.light_at(light, 0.0)
        level = shown.brightness()
        if not _TOO_DARK < level < _TOO_BRIGHT:
            stops = np.clip(how.exposure - np.log2(max(level, 1e-9) / 0.8), -STOPS, STOPS)
            out.append(f"{name} makes a white surface {level:.3g} as bright as white: try --exposure {stops:.0f}")
        if how.wall is not None and not shown.lamps:
            out.append(f"{name} has no lamps, so that nothing throws a shadow on the wall: try noon, rim or lamps of your own")
    return out
