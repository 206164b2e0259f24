"""Video files in, frame by frame, with the times the file itself gives (PyAV)."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError

from capture.errors import MediaError
from capture.frame import Frame

_LARGEST = 8192  # pixels along a side
_PATIENCE = 500  # damaged packets in a row before the rest of a file is given up


class VideoReader:
    """A video file as `Frame`s, again and again, in constant memory.

    Pictures come upright (rotation flag applied), with square pixels (width scaled), deinterlaced where a frame is flagged
    interlaced, and all of the first picture's size. Edit lists are respected. Damaged packets are skipped.

    Raises:
        MediaError: in the constructor where the file has no video that decodes.
    """

    is_photo = False

    def __init__(self, path: str | Path):
        self.path = str(path)
        self._container: av.container.InputContainer | None = None
        with self._opened() as container:
            stream = container.streams.best("video")
            self.has_audio = bool(container.streams.audio)
            self.average_rate: Fraction | None = stream.average_rate or stream.guessed_rate
            aspect = stream.sample_aspect_ratio
            self._aspect = Fraction(aspect) if aspect else Fraction(1)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise MediaError(f"{self.path}: no picture in it can be decoded. Give a video that plays.")
            self.height, self.width = self._upright(first).shape[:2]
            self.start = float(first.time or 0.0)
            length = stream.duration * stream.time_base if stream.duration else None
            if length is None and container.duration:
                length = Fraction(container.duration - max(container.start_time or 0, 0), av.time_base)
            self.duration: float | None = float(length) if length else None
            estimate = stream.frames or (self.duration and self.average_rate and round(self.duration * self.average_rate))
            self.frame_count_estimate: int | None = int(estimate) if estimate else None
        if max(self.width, self.height) > _LARGEST:
            raise MediaError(
                f"{self.path}: {self.width}x{self.height} is too large, expected at most {_LARGEST} a side. Scale it down first."
            )

    def _opened(self) -> av.container.InputContainer:
        try:
            container = av.open(self.path, metadata_errors="ignore")
        except (FFmpegError, OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", "") or error).split(":")[0]
            raise MediaError(
                f"{self.path}: not a readable video ({reason}). Give a video or photo that opens elsewhere."
            ) from None
        if not container.streams.video:
            what = "only sound" if container.streams.audio else "nothing"
            container.close()
            raise MediaError(f"{self.path}: holds {what}, expected a video stream. Give a file with pictures in it.")
        return container

    @staticmethod
    def _decoded(container, stream) -> Iterator[av.VideoFrame]:
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        bad = 0
        while bad < _PATIENCE:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except FFmpegError:  # the container itself ends in damage: what was read so far stands
                bad += 1
                continue
            try:
                frames = packet.decode()
                bad = 0
            except FFmpegError:
                bad += 1
                continue
            yield from frames

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        image = frame.to_ndarray(format="rgb24")
        turns = round((frame.rotation or 0) / 90) % 4
        if self._aspect != 1:
            width = max(1, round(image.shape[1] * self._aspect))
            image = cv2.resize(
                image, (width, image.shape[0]), interpolation=cv2.INTER_AREA if self._aspect < 1 else cv2.INTER_LINEAR
            )
        if turns:
            image = np.ascontiguousarray(np.rot90(image, turns))
        return image

    def __iter__(self) -> Iterator[Frame]:
        with self._opened() as container:
            stream = container.streams.best("video")
            frames = _deinterlaced(self._decoded(container, stream), stream)
            step = 1 / float(self.average_rate) if self.average_rate else 0.04
            last = -step
            held: Frame | None = None
            for raw in frames:
                time = float(raw.time) - self.start if raw.time is not None else last + step
                if time <= last:  # missing, repeated or backward stamps: the nominal rate stands in
                    time = last + step
                image = self._upright(raw)
                if image.shape[:2] != (self.height, self.width):
                    image = cv2.resize(image, (self.width, self.height), interpolation=cv2.INTER_AREA)
                if held is not None:
                    yield Frame(held.image, held.time, time - held.time)
                said = float(raw.duration * raw.time_base) if raw.duration and raw.time_base else 0.0
                held = Frame(image, max(time, 0.0), said if 0 < said < 20 * step else step)
                last = held.time
            if held is not None:
                yield held

    def close(self) -> None:
        """Nothing stays open between iterations."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _deinterlaced(frames: Iterator[av.VideoFrame], stream) -> Iterator[av.VideoFrame]:
    """Passes progressive video through; a stream whose first picture is flagged interlaced goes through bwdif."""
    first = next(frames, None)
    if first is None:
        return
    if not first.interlaced_frame:
        yield first
        yield from frames
        return
    graph = av.filter.Graph()
    source = graph.add_buffer(template=stream, time_base=stream.time_base)
    filter_ = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(filter_)
    filter_.link_to(sink)
    graph.configure()

    def pulled() -> Iterator[av.VideoFrame]:
        while True:
            try:
                yield graph.vpull()
            except (BlockingIOError, EOFError):
                return

    graph.vpush(first)
    yield from pulled()
    for frame in frames:
        graph.vpush(frame)
        yield from pulled()
    graph.vpush(None)
    yield from pulled()
