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
from pipeline.source import Source, as_same_person, open_source, pick_person, prepare_source, view_feature
from pipeline.tracking import people_at_start, track

AudioChoice = Literal["driver", "source", "none"]
_SWITCH = 0.35  # a view is left only for one that is nearer by this much, so that textures don't flicker
_CROSSFADE = 0.16  # seconds from one view to the next


@dataclass(frozen=True)
class Settings:
    """How a performance is carried over."""

    pose: PoseMode = "relative"
    gains: Gains = field(default_factory=Gains)
    audio: AudioChoice = "driver"
    person: int = 0
    smoothing: float = 1.0
    device: DeviceChoice = "auto"


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
        self.retargeter = Retargeter(
            source.person, driver, source.rest, reference, settings.pose, settings.gains, same_person
        )
        self.camera: Camera = self.retargeter.camera()
        goes_on = previous is not None and previous.source is source
        self._guard = previous._guard if goes_on else LossGuard()
        self._view = previous._view if goes_on else 0
        self._fade: tuple[int, float] | None = None

    def __call__(self, driver: FaceCode | None, time: float, plate: View | None = None) -> np.ndarray:
        """The output picture (H x W x 3 uint8 sRGB, the source's size).

        Args:
            driver: the driver's code at `time`; None while their face is lost.
            plate: the source's frame that keeps its own motion (a video source with pose off).
        """
        base = plate or self.source.views[0]
        wanted = None if driver is None else self.retargeter(driver, base.code)
        code = self._guard(wanted, self.retargeter.rest(base.code), time)
        portrait = self.source.portrait
        if plate is not None:
            mouth = self.source.views[self._nearest(code, time)[0]] if self.source.is_video else None
            return portrait.render(plate, code, self.camera, mouth)
        number, previous, share = self._nearest(code, time)
        image = portrait.render(self.source.views[number], code, self.camera)
        if previous is None:
            return image
        old = portrait.render(self.source.views[previous], code, self.camera)
        return np.round(old + share * (image.astype(np.float32) - old)).astype(np.uint8)

    def _nearest(self, code: FaceCode, time: float) -> tuple[int, int | None, float]:
        """The view whose pose and mouth are nearest, the one it is being faded from, and how far the fade is."""
        views = self.source.views
        if len(views) == 1:
            return 0, None, 1.0
        wanted = view_feature(code)
        distance = np.array([np.linalg.norm(view_feature(v.code) - wanted) for v in views])
        best = int(np.argmin(distance))
        if best != self._view and self._fade is None and distance[best] < distance[self._view] * (1 - _SWITCH):
            self._fade, self._view = (self._view, time), best
        if self._fade is not None:
            share = (time - self._fade[1]) / _CROSSFADE
            if share < 1:
                return self._view, self._fade[0], max(share, 0.0)
            self._fade = None
        return self._view, None, 1.0


def reference_code(driver: Performance) -> FaceCode:
    """The driver's code that stands for the source's own pose: the one nearest to the middle of the shot's poses."""
    seen = np.flatnonzero(driver.tracked)
    middle = np.median(driver.translation[seen], 0), np.median(driver.rotation[seen], 0)
    away = np.linalg.norm(driver.translation[seen] - middle[0], axis=1) / 0.1 + np.abs(driver.rotation[seen] - middle[1]).sum((1, 2))
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
        raise Refusal(f"{driver}: a photo can't drive. Use a video, webcam:0 or `builtin` as the driver.")
    ready = prepare_source(source_media, prior, listen=listen)
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
    people = max(people_at_start(media), settings.person + 1)
    tracked = track(media, prior, people=people, smoothing=settings.smoothing, listen=listen)
    return pick_person(tracked.performances, settings.person, media.path)


def pictures(prepared: Prepared, settings: Settings, listen: Listener = silent) -> Iterator[Frame]:
    """The output, one frame for each of the driver's, at the driver's times."""
    performance, make = prepared.driver, prepared.reenactment
    plates = _plates(prepared) if settings.pose == "off" and prepared.source.is_video else None
    for index in counted(range(len(performance)), "render", len(performance), listen):
        code = performance.code(index) if performance.tracked[index] else None
        time = float(performance.times[index])
        plate = next(plates) if plates is not None else None
        yield Frame(make(code, time, plate), time, float(performance.durations[index]))


def _plates(prepared: Prepared) -> Iterator[View]:
    """The source video's frames as textures, one for each output frame, from the start again when they run out."""
    source, media = prepared.source, prepared.source_media
    while True:
        for index, frame in enumerate(media):
            if index < len(source.performance):
                yield source.portrait.view(frame.image, source.performance.code(index), None)


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
    choose_device(settings.device)
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
