"""Video out: H.264 (VP9 in .webm, which can be transparent) with exact times.

Another file's sound goes beside it, copied where the container allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError

from capture.errors import MediaError

_TICKS = 90_000
_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_COPIED = {
    "mp4": {"aac", "mp3", "ac3", "eac3", "opus", "alac", "flac"},
    "mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le"},
    "webm": {"opus", "vorbis"},
}
_BT709 = 1


class VideoWriter:
    """Writes frames and, as video time goes on, the sound of another file.

    The file appears under its name only when `close` succeeds: until then it grows beside it under a hidden name, which an
    error or Ctrl-C removes. Use as a context manager.

    Args:
        path: .mp4, .mov, .mkv or .webm.
        audio_from: a media file whose first sound track goes along; its time 0 is that file's first shown picture.
        audio_start: seconds in that file at which its first picture is shown.
        lossless: RGB without loss, for measurements.
        comment: kept in the file's metadata.
        alpha: pictures are H x W x 4; .webm alone can hold them.

    Raises:
        MediaError: before any work, where the file can't be written.
    """

    def __init__(
        self, path: str | Path, width: int, height: int, *, audio_from: str | Path | None = None, audio_start: float = 0.0,
        rate: Fraction | None = None, crf: int = 16, preset: str = "veryfast", lossless: bool = False, comment: str | None = None,
        alpha: bool = False,
    ):  # fmt: skip
        self.path = Path(path)
        kind = _CONTAINERS.get(self.path.suffix.lower())
        if kind is None:
            ending = self.path.suffix or "a file without an ending"
            raise MediaError(f"{path}: can't write {ending}. Use .mp4, .mov, .mkv or .webm.")
        if alpha and kind != "webm":
            raise MediaError(f"{path}: {self.path.suffix} can't hold a transparent video. Use .webm, or another background.")
        if self.path.is_dir():
            raise MediaError(f"{path}: is a folder. Name a file in it.")
        if not self.path.parent.is_dir():
            raise MediaError(f"{path}: the folder {self.path.parent} does not exist. Make it first or name another.")
        self._partial = self.path.with_name(f".{self.path.stem}.partial{self.path.suffix}")
        try:
            self._container = av.open(str(self._partial), "w", format=kind)
        except (OSError, FFmpegError) as error:
            raise MediaError(f"{path}: can't be written ({error.strerror or error}). Name a place you may write to.") from None
        if comment:
            self._container.metadata["comment"] = comment
        webm = kind == "webm"
        codec = "libvpx-vp9" if webm else "libx264rgb" if lossless else "libx264"
        self._stream = self._container.add_stream(codec, rate=rate or Fraction(30))
        self._stream.width, self._stream.height = width, height
        # 4:2:0 halves both sides, so an odd one needs full chroma to keep its exact size
        self._taken = "rgba" if alpha else "rgb24"
        self._format = "rgb24" if lossless else "yuv444p" if width % 2 or height % 2 else "yuv420p"
        if webm:
            self._format = "yuva420p" if alpha else "gbrp" if lossless else self._format
        self._stream.pix_fmt = self._format
        context = self._stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.options = {"crf": "0" if lossless else str(crf), "preset": "ultrafast" if lossless else preset}
        if webm:
            speed = {"deadline": "realtime", "cpu-used": "8"} if preset == "ultrafast" else {"deadline": "good", "cpu-used": "5"}
            context.options = {"b": "0", "crf": str(crf + 8), "row-mt": "1"} | speed | ({"lossless": "1"} if lossless else {})
        context.thread_type = "AUTO"
        if not lossless:
            context.colorspace = context.color_primaries = context.color_trc = _BT709
            context.color_range = 1  # limited
        self._durations: dict[int, int] = {}
        self._last = -1
        self._end = 0.0
        self._audio = _AudioTrack(self._container, kind, audio_from, audio_start) if audio_from is not None else None

    def write(self, image: np.ndarray, time: float, duration: float = 0.0) -> None:
        """Adds an H x W x 3 (or 4) uint8 sRGB picture shown at `time` for `duration` seconds (what is not known is 0)."""
        frame = av.VideoFrame.from_ndarray(image, format=self._taken)
        if self._format != self._taken:
            frame = frame.reformat(format=self._format, dst_colorspace="ITU709")
        ticks = max(round(time * _TICKS), self._last + 1)
        frame.pts, frame.time_base = ticks, Fraction(1, _TICKS)
        if duration > 0:
            self._durations[ticks] = max(1, round(duration * _TICKS))
        self._last, self._end = ticks, time + duration
        self._mux(self._stream.encode(frame))
        if self._audio:
            self._audio.advance(time)

    def _mux(self, packets) -> None:
        for packet in packets:
            known = self._durations.pop(packet.pts, None)
            if known:
                packet.duration = round(known * Fraction(1, _TICKS) / packet.time_base)
            self._container.mux(packet)

    def close(self) -> None:
        """Finishes the file and gives it its name."""
        self._mux(self._stream.encode())
        if self._audio:
            self._audio.advance(self._end, finish=True)
        self._container.close()
        os.replace(self._partial, self.path)

    def discard(self) -> None:
        """Drops everything written; an earlier file of that name stays as it was."""
        try:
            self._container.close()
        except (FFmpegError, OSError, ValueError):
            pass
        if self._audio:
            self._audio.close()
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            try:
                self.close()
            except BaseException:
                self.discard()
                raise
        else:
            self.discard()


class _AudioTrack:
    """The sound of another file, moved along with the video's clock. Damage in it never stops the video."""

    def __init__(self, output, kind: str, path: str | Path, start: float):
        self._output, self._start = output, Fraction(start).limit_denominator(_TICKS)
        self._input = None
        try:
            self._input = av.open(str(path), metadata_errors="ignore")
        except (FFmpegError, OSError):
            return
        if not self._input.streams.audio:
            self.close()
            return
        self._source = self._input.streams.audio[0]
        name = self._source.codec_context.name
        self._copies = kind == "matroska" or name in _COPIED.get(kind, set())
        if self._copies:
            self._stream = output.add_stream_from_template(self._source)
        else:
            sort = ("libopus", 48_000) if kind == "webm" else ("aac", self._source.rate or 48_000)
            self._stream = output.add_stream(sort[0], rate=sort[1])
        self._packets = self._sound()
        self._waiting = next(self._packets, None)

    def _sound(self) -> Iterator[tuple[Fraction, object]]:
        """(seconds on the video's clock, packet) in the order of the file, from the first picture on."""
        demuxed = self._input.demux(self._source)
        while True:
            try:
                packet = next(demuxed)
            except (StopIteration, FFmpegError):
                return
            if packet.pts is None or packet.size == 0:
                continue
            moved = packet.pts - round(self._start / packet.time_base)
            length = packet.duration or 0
            if moved + length <= 0:
                continue  # all of it lies before the first picture
            if self._copies:
                packet.pts = packet.dts = moved
                seconds = moved * packet.time_base
                packet.stream = self._stream
                yield seconds, packet
                continue
            try:
                frames = packet.decode()
            except FFmpegError:
                continue
            for frame in frames:
                frame.pts = None if frame.pts is None else frame.pts - round(self._start / frame.time_base)
                try:
                    encoded = self._stream.encode(frame)
                except FFmpegError:
                    continue
                for out in encoded:
                    yield Fraction(out.pts or 0) * out.time_base, out

    def advance(self, time: float, finish: bool = False) -> None:
        """Muxes what sounds before `time`; with `finish`, the rest after it is dropped."""
        if self._input is None:
            return
        while self._waiting is not None and self._waiting[0] < time:
            try:
                self._output.mux(self._waiting[1])
            except (FFmpegError, ValueError):
                pass  # a damaged packet of sound is left out
            self._waiting = next(self._packets, None)
        if finish:
            if not self._copies:
                for packet in self._stream.encode(None):
                    if packet.pts is not None and packet.pts * packet.time_base < time:
                        self._output.mux(packet)
            self.close()

    def close(self) -> None:
        if self._input is not None:
            self._input.close()
            self._input = None
