"""Frame by frame without looking ahead: a clip into a file, or a camera or a clip live into any sink, through the same loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from av.error import FFmpegError

from capture.errors import MediaError
from capture.frame import Frame
from capture.media import Media, open_media
from capture.sinks import Copied, Fitted, Sink, check_sink, is_file, open_sink
from capture.writer import VideoWriter
from models.avatar.avatar import is_avatar
from models.prior.face import AnnyPrior
from pipeline.backdrop import TRANSPARENT, check_background
from pipeline.builtin import BUILTIN
from pipeline.device import choose_device
from pipeline.ensemble import open_ensemble
from pipeline.errors import Refusal
from pipeline.lights import open_light
from pipeline.lit_puppet import lit
from pipeline.live.engine import Engine, Pace
from pipeline.live.loop import LiveLoop
from pipeline.live.recorder import PerformanceRecorder
from pipeline.mark import Marked, marked
from pipeline.progress import Listener, counted, silent
from pipeline.reenactment import Settings
from pipeline.report import check_writable


@dataclass(frozen=True)
class Delivery:
    """How live pictures go out.

    Attributes:
        width, height: what the sink gets; the source's own where None.
        max_age: seconds after which a frame is dropped.
        record: a video to write beside the sink.
        performance: a file (.safetensors) for the first driver's codes, without a pixel.
    """

    width: int | None = None
    height: int | None = None
    max_age: float = 0.1
    record: str | None = None
    performance: str | None = None


def open_driver(driver: str) -> Media:
    """What performs before a camera. Raises MediaError or Refusal where nothing there moves."""
    if driver == BUILTIN:
        raise Refusal("builtin: a performance without pictures, so that nothing can be tracked. Use webcam:0 or a video.")
    media = open_media(driver)
    if media.is_photo:
        raise Refusal(f"{driver}: a photo can't drive. Use webcam:0 or a video as the driver.")
    return media


def reenact_causally(
    source: str, driver: str, output: str, settings: Settings, prior: AnnyPrior, listen: Listener = silent, lossless: bool = False
) -> dict:
    """`pipeline.flow.reenact` without looking ahead: what the live engine makes of a clip, without its threads."""
    with open_driver(driver) as media:
        if _is_camera(media):
            raise Refusal("a webcam has no end, so no file can be made from it. Use `live --sink OUT.mp4`, which Ctrl-C ends.")
        sound = _sound(media, source, settings)
        loop = _loop(source, settings, prior, listen)
        count = lost = 0
        height, width = loop.size
        try:
            alpha = settings.background == TRANSPARENT
            with VideoWriter(output, width, height, lossless=lossless, alpha=alpha, **sound) as writer:
                for frame in counted(media, "render", media.frame_count_estimate, listen):
                    followed = loop.follow(frame)
                    picture = loop.draw(followed)
                    writer.write(marked(picture) if settings.mark else picture, frame.time, frame.duration)
                    count, lost, end = count + 1, lost + (not followed.seen), frame.time + frame.duration
                _require_a_face(count, lost, driver)
        finally:
            loop.close()
    return {
        "output": str(output), "frames": count, "width": width, "height": height, "duration": end, "pose": settings.pose,
        "same_person": False, "lost_frames": lost, "landmark_error_percent": None,
        "audio": settings.audio if "audio_from" in sound else "none",
    }  # fmt: skip


def go_live(
    source: str, driver: str, sink: str, settings: Settings, delivery: Delivery, prior: AnnyPrior,
    listen: Listener = silent, say: Callable[[str], None] | None = None,
) -> dict:  # fmt: skip
    """Runs until the driver ends, the sink is closed, or Ctrl-C; returns the engine's report.

    What was written until then is finished and stays. A clip into a file is different: all of it, or nothing.

    Args:
        say: hears a line about how it goes, once a second.

    Raises:
        MediaError, ModelError, Refusal: before anything is shown, or where the camera or the sink fails for good.
    """
    alpha = settings.background == TRANSPARENT
    for name in filter(None, (sink, delivery.record)):
        check_sink(name, alpha)
    check_background(settings.background)
    check_writable(delivery.performance)
    with open_driver(driver) as media:
        camera = _is_camera(media)
        keep = is_file(sink) and not camera
        loop = _loop(source, settings, prior, listen, background=not keep)
        try:
            width, height = delivery.width or loop.size[1], delivery.height or loop.size[0]
            options = _sound(media, source, settings) if keep else {}
            out, copied = _opened(sink, width, height, delivery.record, settings.mark, options, alpha)
            recorder = PerformanceRecorder()
            engine = Engine(
                _frames(media, driver), loop, out, Pace(keep, not camera, camera, max_age=delivery.max_age), say,
                recorder.heard if delivery.performance else None,
            )  # fmt: skip
            report = _played(engine, out, sink, driver, keep)
            if recorder:
                recorder.performance().save(delivery.performance)
        finally:
            loop.close()
    report |= {"source": source, "driver": driver, "sink": sink, "width": width, "height": height, "pose": settings.pose}
    if copied is not None:
        report |= {"record": delivery.record, "record_failed": str(copied.failed) if copied.failed else None}
    return report


def _played(engine: Engine, out: Sink, sink: str, driver: str, whole: bool) -> dict:
    """Runs the engine and finishes the sink, whatever ends it; a file that is to be `whole` is dropped where it isn't."""
    try:
        report = engine.run()
        if whole:
            _require_a_face(report["frames_out"], report["frames_without_face"], driver)
        out.close()
        return report
    except BaseException as error:
        kept = not whole and engine.frames_out > 0
        try:
            out.close() if kept else out.discard()
        except (OSError, FFmpegError):
            out.discard()
            kept = False
        if not isinstance(error, (OSError, FFmpegError)):
            raise
        reason = getattr(error, "strerror", None) or error
        rest = "What came before is kept" if kept else "Nothing was kept"
        raise MediaError(f"{sink}: can't be written any more ({reason}). {rest}; make room and start again.") from None


def _is_camera(media: Media) -> bool:
    return bool(getattr(media, "is_endless", False))


def _loop(source: str, settings: Settings, prior: AnnyPrior, listen: Listener, background: bool = False) -> LiveLoop:
    light = None if settings.light is None else open_light(settings.light, prior)
    who = open_ensemble(source, prior, settings.cast != "one", choose_device(settings.device), listen)
    if light is not None:
        who = lit(who, light, prior, device=choose_device(settings.device))
    return LiveLoop(prior, who, settings, background)


def _opened(
    sink: str, width: int, height: int, record: str | None, mark: bool, options: dict, alpha: bool
) -> tuple[Sink, Copied | None]:  # fmt: skip
    """The sink with what comes before it (the mark, the size, the record), and that which records."""
    held = {"alpha": True, "preset": "ultrafast"} if alpha else {}
    out: Sink = open_sink(sink, width, height, **options, **held) if is_file(sink) else open_sink(sink, width, height)
    copied = Copied(out, open_sink(record, width, height, **held)) if record else None
    out = Fitted(copied or out, width, height)
    return Marked(out) if mark else out, copied


def _frames(media: Media, driver: str) -> Callable[[], Iterator[Frame]]:
    """Opens the stream: the media at hand first; afterwards, for a camera that went away, another one by its name."""
    waiting = [media]

    def opened() -> Iterator[Frame]:
        if waiting:
            yield from waiting.pop()
        else:
            media.close()
            with open_media(driver) as again:
                yield from again

    return opened


def _require_a_face(frames: int, lost: int, driver: str) -> None:
    if frames == lost:
        raise Refusal(f"no face found in {driver} ({frames} frames). Use a video where the face is at least 64 px wide.")


def _sound(media: Media, source: str, settings: Settings) -> dict:
    """`VideoWriter`'s options for whose sound goes along."""
    rate = {"comment": settings.comment} | ({"rate": media.average_rate} if media.average_rate else {})
    voice = None
    if settings.audio == "driver":
        voice = media
    elif settings.audio == "source" and source != BUILTIN and not is_avatar(source):
        voice = open_media(source)
    if voice is None or not voice.has_audio:
        return rate
    return {"audio_from": voice.path, "audio_start": getattr(voice, "start", 0.0)} | rate
