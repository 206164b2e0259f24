"""The flow: capture, track, encode, retarget, render, composite, deliver. Live, batch and the page all come through here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from capture.frame import Frame
from capture.media import Media, open_media, probe
from capture.writer import VideoWriter
from models.code import Camera, FaceCode, Person
from models.portrait.render import View
from models.prior.face import AnnyPrior, load_prior
from pipeline.builtin import BUILTIN, builtin_performance
from pipeline.device import DeviceChoice, choose_device
from pipeline.errors import Refusal
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.retargeting import Gains, LossGuard, PoseMode, Retargeter
from pipeline.source import Source, as_same_person, head_feature, mouth_feature, open_source, pick_person, prepare_source
from pipeline.tracking import track

AudioChoice = Literal["driver", "source", "none"]
_HEAD_LEAD, _HEAD_SWITCH = 0.6, 0.2  # the whole picture changes with the view, so it is left late: at some 12 degrees
_MOUTH_LEAD, _MOUTH_SWITCH = 0.12, 0.1


@dataclass(frozen=True)
class Settings:
    """How a performance is carried over."""

    pose: PoseMode = "relative"
    gains: Gains = field(default_factory=Gains)
    audio: AudioChoice = "driver"
    person: int = 0
    smoothing: float = 1.0
    device: DeviceChoice = "auto"


class Chooser:
    """Keeps to one of several pictures until another is clearly nearer, then goes over to it smoothly.

    Args:
        lead: how much nearer, in the feature's unit, another must be.
        seconds: that going over takes.
    """

    def __init__(self, lead: float, seconds: float):
        self._lead, self._seconds = lead, seconds
        self._now: int | None = None
        self._before: int | None = None
        self._since = 0.0

    def __call__(self, distances: list[float], time: float) -> list[tuple[int, float]]:
        """[(number, share)] of one picture, or of two while going over; the shares sum to 1."""
        best = int(np.argmin(distances))
        if self._now is None:
            self._now = best
        if self._before is not None and time - self._since >= self._seconds:
            self._before = None
        if self._before is None and distances[best] < distances[self._now] - self._lead:
            self._before, self._now, self._since = self._now, best, time
        if self._before is None:
            return [(self._now, 1.0)]
        share = min(max((time - self._since) / self._seconds, 0.0), 1.0)
        return [(self._now, share), (self._before, 1.0 - share)]


class Reenactment:
    """One source driven by one driver: code in, picture out. Holds no frame of the driver, so none can leak."""

    def __init__(
        self, source: Source, driver: Person, reference: FaceCode, settings: Settings, same_person: bool = False,
        previous: Reenactment | None = None,
    ):  # fmt: skip
        """Args:
        driver: who performs.
        reference: the driver's code that stands for the source's own pose.
        same_person: source and driver are one person, fitted as one.
        previous: goes on where this one stands (other settings, a better fit of the driver), without starting at rest.
        """
        self.source = source
        self.retargeter = Retargeter(source.person, driver, source.rest, reference, settings.pose, settings.gains, same_person)
        self.camera: Camera = self.retargeter.camera()
        goes_on = previous is not None and previous.source is source
        self._guard = previous._guard if goes_on else LossGuard()
        self._heads = previous._heads if goes_on else Chooser(_HEAD_LEAD, _HEAD_SWITCH)
        self._mouths = previous._mouths if goes_on else Chooser(_MOUTH_LEAD, _MOUTH_SWITCH)

    def __call__(self, driver: FaceCode | None, time: float, plate: View | None = None) -> np.ndarray:
        """The output picture (H x W x 3 uint8 sRGB, the source's size).

        Args:
            driver: the driver's code at `time`; None while their face is lost.
            plate: the source's frame that keeps its own motion (a video source with pose off).
        """
        base = plate or self.source.views[0]
        wanted = None if driver is None else self.retargeter(driver, base.code)
        code = self._guard(wanted, self.retargeter.rest(base.code), time)
        if plate is not None:
            return self._render(plate, code, time)
        views = self.source.views
        near = [float(np.linalg.norm(head_feature(v.code) - head_feature(code))) for v in views]
        (number, share), *other = self._heads(near, time)
        image = self._render(views[number], code, time)
        for old, _ in other:
            before = self._render(views[old], code, time)
            image = np.round(before + share * (image.astype(np.float32) - before)).astype(np.uint8)
        return image

    def _render(self, view: View, code: FaceCode, time: float) -> np.ndarray:
        bank = self.source.mouths
        mouths = []
        if bank:
            wanted = mouth_feature(code)
            near = [float(np.linalg.norm(mouth_feature(m.code) - wanted)) for m in (view, *bank)]
            # number 0 is the view's own mouth, which needs no lending
            mouths = [(bank[k - 1], share) for k, share in self._mouths(near, time) if k > 0]
        return self.source.portrait.render(view, code, self.camera, mouths)


def reference_code(driver: Performance) -> FaceCode:
    """The driver's code that stands for the source's own pose: the one nearest to the middle of the shot's poses."""
    seen = np.flatnonzero(driver.tracked)
    middle = np.median(driver.translation[seen], 0), np.median(driver.rotation[seen], 0)
    away = np.linalg.norm(driver.translation[seen] - middle[0], axis=1) / 0.1 + np.abs(driver.rotation[seen] - middle[1]).sum(
        (1, 2)
    )
    return driver.code(int(seen[np.argmin(away)]))


@dataclass(frozen=True)
class Prepared:
    """Everything a batch needs before the first picture."""

    source: Source
    driver: Performance
    reenactment: Reenactment
    driver_media: Media | None  # None for the built-in performance
    source_media: Media
    same_person: bool


def prepare(source: str, driver: str, settings: Settings, prior: AnnyPrior, listen: Listener = silent) -> Prepared:
    """Opens, tracks and fits source and driver."""
    if "webcam" in (source != BUILTIN and probe(source), driver != BUILTIN and probe(driver)):
        raise Refusal("a webcam has no end, so no file can be made from it. Give videos or photos, or use the page's Live tab.")
    source_media = open_source(source)
    driver_media = None if driver == BUILTIN else open_media(driver)
    if driver_media is not None and driver_media.is_photo:
        raise Refusal(f"{driver}: a photo can't drive. Use a video or `builtin` as the driver.")
    ready = prepare_source(source_media, prior, listen=listen, device=choose_device(settings.device))
    performance = builtin_performance() if driver_media is None else driver_performance(driver_media, settings, prior, listen)
    same = None
    if settings.pose == "absolute" and not ready.is_video:
        same = as_same_person(ready, performance.person, prior, next(iter(source_media)))
    ready = same or ready
    return Prepared(
        ready, performance,
        Reenactment(ready, performance.person, reference_code(performance), settings, same is not None),
        driver_media, source_media, same is not None,
    )  # fmt: skip


def driver_performance(media: Media, settings: Settings, prior: AnnyPrior, listen: Listener = silent) -> Performance:
    """The chosen person's performance in a driving video."""
    tracked = track(media, prior, people=settings.person + 1, smoothing=settings.smoothing, listen=listen)
    return pick_person(tracked.performances, settings.person, media.path)


def pictures(prepared: Prepared, settings: Settings, listen: Listener = silent) -> Iterator[Frame]:
    """The output, one frame for each of the driver's, at the driver's times."""
    performance, make = prepared.driver, prepared.reenactment
    plates = _plates(prepared) if settings.pose == "off" and prepared.source.is_video else None
    for index in counted(range(len(performance)), "render", len(performance), listen):
        code = performance.code(index) if performance.tracked[index] else None
        time = float(performance.times[index])
        plate = next(plates) if plates is not None else None
        # a source frame without its face has nothing to move: it is shown as it is
        image = plate if isinstance(plate, np.ndarray) else make(code, time, plate)
        yield Frame(image, time, float(performance.durations[index]))


def _plates(prepared: Prepared) -> Iterator[View | np.ndarray]:
    """The source video's frames as textures, one for each output frame, from the start again when they run out.

    A frame in which the source's face was not seen comes as the bare picture.
    """
    source, media = prepared.source, prepared.source_media
    while True:
        for index, frame in enumerate(media):
            if index >= len(source.performance):
                break
            if not source.performance.tracked[index]:
                yield frame.image
            else:
                yield source.portrait.view(
                    frame.image, source.performance.code(index), room=source.views[0].room, still=True, eyes_from=source.views[0]
                )


def reenact(
    source: str, driver: str, output: str | Path, settings: Settings = Settings(), *, prior: AnnyPrior | None = None,
    listen: Listener = silent, lossless: bool = False,
) -> dict:  # fmt: skip
    """Drives `source` by `driver` into the video file `output`; returns a report.

    Raises:
        MediaError, Refusal: one line that says what, got, expected, next step. No output file is left behind.
    """
    prior = prior or load_prior()
    check_output(output)
    choose_device(settings.device)  # refused before any work
    prepared = prepare(source, driver, settings, prior, listen)
    camera = prepared.reenactment.camera
    sound = {"driver": prepared.driver_media, "source": prepared.source_media, "none": None}[settings.audio]
    sound = sound if sound is not None and sound.has_audio else None
    count = 0
    with VideoWriter(
        output, camera.width, camera.height, audio_from=sound.path if sound else None,
        audio_start=getattr(sound, "start", 0.0),
        rate=prepared.driver_media.average_rate if prepared.driver_media else None, lossless=lossless,
    ) as writer:  # fmt: skip
        for frame in pictures(prepared, settings, listen):
            writer.write(frame.image, frame.time, frame.duration)
            count += 1
    performance = prepared.driver
    return {
        "output": str(output), "frames": count, "width": camera.width, "height": camera.height,
        "duration": float(performance.times[-1] + performance.durations[-1]), "pose": settings.pose,
        "same_person": prepared.same_person, "lost_frames": int((~performance.tracked).sum()),
        "landmark_error_percent": float(100 * np.nanmean(performance.error)) if np.isfinite(performance.error).any() else None,
        "audio": settings.audio if sound else "none",
    }  # fmt: skip


def check_output(output: str | Path) -> None:
    """Refuses an output that can't be written before any work is done."""
    VideoWriter(output, 16, 16).discard()
