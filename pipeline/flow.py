"""The flow: capture, track, encode, retarget, render, composite, deliver. Live, batch and the page all come through here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from capture.frame import Frame
from capture.media import Media, open_media, probe
from capture.writer import VideoWriter
from models.avatar.avatar import is_avatar
from models.code import Camera, FaceCode, Person, at_height
from models.portrait.view import Faceless, View, as_bytes
from models.prior.face import AnnyPrior, load_prior
from pipeline.alignment import align
from pipeline.backdrop import KEEP, TRANSPARENT, Backdrop, check_background
from pipeline.builtin import BUILTIN, builtin_performance
from pipeline.device import choose_device
from pipeline.ensemble import Ensemble, open_ensemble
from pipeline.errors import Refusal
from pipeline.film_matte import FilmMatte
from pipeline.lights import open_light
from pipeline.lit_puppet import lit
from pipeline.live.stream import reenact_causally
from pipeline.mark import marked
from pipeline.outputs import check_not_input, check_output
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.puppet import PortraitPuppet
from pipeline.reenactment import Reenactment, Settings
from pipeline.source import SAME_PERSON, Source, as_same_person, open_source, pick_person
from pipeline.tracking import track

_NO_WORSE = 1.25  # times its own fit's error at which a shot is still taken for a known person's


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
    """Everything a batch needs before the first picture.

    Attributes:
        drivers: whose performance moves each person of the ensemble; None where nobody's does.
        reenactments: of each; None where nobody moves them.
        driver_media: None for the built-in performance.
        source: of the first of them; None for an avatar.
        same_person: the source and its driver are one person.
    """

    drivers: tuple[Performance | None, ...]
    reenactments: tuple[Reenactment | None, ...]
    ensemble: Ensemble
    driver_media: Media | None
    source: Source | None
    source_media: Media | None
    same_person: bool

    @property
    def driver(self) -> Performance:
        """The first who is there."""
        return next(one for one in self.drivers if one is not None)

    @property
    def camera(self) -> Camera:
        """The camera the result is seen through."""
        return next(one for one in self.reenactments if one is not None).camera


def prepare(source: str, driver: str, settings: Settings, prior: AnnyPrior, listen: Listener = silent) -> Prepared:
    """Opens, tracks and fits source and driver."""
    light = None if settings.light is None else open_light(settings.light, prior)
    learned = is_avatar(source)
    if "webcam" in (source != BUILTIN and not learned and probe(source), driver != BUILTIN and probe(driver)):
        raise Refusal("a webcam has no end, so no file can be made from it. Give videos or photos, or use the page's Live tab.")
    driver_media = None if driver == BUILTIN else open_media(driver)
    if driver_media is not None and driver_media.is_photo:
        raise Refusal(f"{driver}: a photo can't drive. Use a video or `builtin` as the driver.")
    who = open_ensemble(source, prior, settings.cast != "one", choose_device(settings.device), listen)
    known = who.puppets[0].person if learned and settings.pose == "absolute" else None
    performances, same = _drivers(driver_media, settings, len(who.puppets), prior, known, listen)
    ready, source_media = None, None
    if learned:
        if driver_media is not None:
            performances = [align(driver_media, performances[0], prior, settings.smoothing, listen)]
    else:
        ready, source_media = who.puppets[0].source, open_source(source)
        if settings.pose == "absolute" and not ready.is_video and len(who.puppets) == 1:
            refitted = as_same_person(ready, performances[0].person, prior, next(iter(source_media)))
            if refitted is not None:
                ready, same, who = refitted, True, Ensemble([PortraitPuppet(refitted)])
    if light is not None:
        who = lit(who, light, prior, device=choose_device(settings.device))
    reenactments = tuple(
        None if one is None else Reenactment(puppet, one.person, reference_code(one), settings, same)
        for puppet, one in zip(who.puppets, performances)
    )
    return Prepared(tuple(performances), reenactments, who, driver_media, ready, source_media, same)


def _drivers(
    media: Media | None, settings: Settings, count: int, prior: AnnyPrior, known: Person | None, listen: Listener
) -> tuple[list[Performance | None], bool]:  # fmt: skip
    """Whose performance moves each of `count` people, the first told as the `known` person where they prove to be that one.

    And whether they do.
    """
    if media is None:
        others = None if settings.cast == "each" else builtin_performance()
        return [builtin_performance(), *[others] * (count - 1)], False
    people = count if settings.cast == "each" else settings.person + 1
    tracked = track(media, prior, people=people, smoothing=settings.smoothing, listen=listen)
    if settings.cast == "each":
        return [pick_person(tracked.performances, 0, media.path), *map(tracked.performances.get, range(1, count))], False
    own = pick_person(tracked.performances, settings.person, media.path)
    if known is None:
        return [own] * count, False
    person = replace(known, camera=at_height(known.camera, media.height, media.width))
    told = tracked.performance_of(settings.person, person, prior, settings.smoothing)
    same = bool(np.nanmean(told.error) <= max(SAME_PERSON, _NO_WORSE * np.nanmean(own.error)))
    return [told if same else own], same


def pictures(prepared: Prepared, settings: Settings, listen: Listener = silent) -> Iterator[Frame]:
    """The output, one frame for each of the driver's, at the driver's times."""
    timing = prepared.driver
    alone = len(prepared.drivers) == 1
    keeps_motion = alone and settings.pose == "off" and prepared.source is not None and prepared.source.is_video
    matte = settings.background != KEEP or settings.light is not None
    plates = _plates(prepared, matte) if keeps_motion else None
    backdrop = Backdrop(settings.background, prepared.ensemble)
    for index in counted(range(len(timing)), "render", len(timing), listen):
        time = float(timing.times[index])
        plate = next(plates) if plates is not None else None
        shown = []
        for performance, make, rest in zip(prepared.drivers, prepared.reenactments, backdrop.rests):
            if make is None:
                shown.append(rest)
            else:
                shown.append(make(performance.code(index) if performance.tracked[index] else None, time, plate, backdrop.matte))
        yield Frame(backdrop(prepared.ensemble.merged(shown)), time, float(timing.durations[index]))


def _plates(prepared: Prepared, matte: bool) -> Iterator[View | Faceless]:
    """The source video's frames as textures, one for each output frame, from the start again when they run out."""
    source, media = prepared.source, prepared.source_media
    while True:
        with ExitStack() as opened:
            alphas = opened.enter_context(FilmMatte()) if matte else None
            for index, frame in enumerate(media):
                if index >= len(source.performance):
                    break
                alpha, code = None if alphas is None else alphas(frame), source.performance.code(index)
                if not source.performance.tracked[index]:
                    yield Faceless(frame.image, as_bytes(alpha, *frame.image.shape[:2]), code)
                else:
                    yield source.portrait.view(
                        frame.image, code, room=source.views[0].room, still=True,
                        eyes_from=source.views[0], alpha=alpha,
                    )  # fmt: skip


def reenact(
    source: str, driver: str, output: str | Path, settings: Settings = Settings(), *, prior: AnnyPrior | None = None,
    listen: Listener = silent, lossless: bool = False, causal: bool = False,
) -> dict:  # fmt: skip
    """Drives `source` (a photo, a video, an avatar or `builtin`) by `driver` into the video file `output`; returns a report.

    Args:
        causal: no frame knows what comes after it, as live.

    Raises:
        MediaError, Refusal: one line that says what, got, expected, next step. No output file is left behind.
    """
    prior = prior or load_prior()
    check_output(output, alpha=settings.background == TRANSPARENT)
    check_not_input(output, source, driver)
    check_background(settings.background)
    choose_device(settings.device)  # refused before any work
    if causal:
        return reenact_causally(source, driver, output, settings, prior, listen, lossless)
    prepared = prepare(source, driver, settings, prior, listen)
    camera = prepared.camera
    sound = {"driver": prepared.driver_media, "source": prepared.source_media, "none": None}[settings.audio]
    sound = sound if sound is not None and sound.has_audio else None
    count = 0
    with VideoWriter(
        output, camera.width, camera.height, audio_from=sound.path if sound else None,
        audio_start=getattr(sound, "start", 0.0),
        rate=prepared.driver_media.average_rate if prepared.driver_media else None, lossless=lossless, comment=settings.comment,
        alpha=settings.background == TRANSPARENT,
    ) as writer:  # fmt: skip
        for frame in pictures(prepared, settings, listen):
            writer.write(marked(frame.image) if settings.mark else frame.image, frame.time, frame.duration)
            count += 1
    performance = prepared.driver
    return {
        "output": str(output), "frames": count, "width": camera.width, "height": camera.height,
        "duration": float(performance.times[-1] + performance.durations[-1]), "pose": settings.pose,
        "same_person": prepared.same_person, "lost_frames": int((~performance.tracked).sum()),
        "landmark_error_percent": float(100 * np.nanmean(performance.error)) if np.isfinite(performance.error).any() else None,
        "audio": settings.audio if sound else "none",
    }  # fmt: skip
