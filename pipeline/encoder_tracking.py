"""`track --encoder-only`: whole videos through the encoder. A detector finds each face once; from there its own codes lead on.

Frames are taken in chunks: first all of a chunk with the crop that the chunk before ended on, then each again with the crop
where its face turned out to be. So every look is a batch, and on CUDA no frame waits for the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from capture.face_finder import FaceBox, FaceFinder
from capture.frame import Frame
from capture.media import Media
from models.code import Person
from models.encoder.crop import Crop
from models.head import with_look
from models.prior.face import AnnyPrior
from pipeline.encoding import SURE, Encoded, FaceEncoder, crop_of_box, crop_of_landmarks, out_of_crop, typical_camera
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.tracking import MOST_PEOPLE, Tracked, finished, nobody

CHUNK = 16
_NEAR = 0.5  # of a crop's side: a box nearer to a person than this is theirs


@dataclass
class _Followed:
    """One person so far."""

    crop: Crop | None  # None while they are lost
    last: Crop
    frames: list[int] = field(default_factory=list)
    seen: list[Encoded] = field(default_factory=list)


def track_by_encoder(
    media: Media, prior: AnnyPrior, encoder: FaceEncoder, people: int = 1, smoothing: float = 1.0, listen: Listener = silent
) -> Tracked:
    """Everyone in a shot, from pixels alone.

    Args:
        people: how many are followed at least, where they are there; everyone in the first frames is.

    Raises:
        Refusal: where no frame shows a face.
    """
    camera = typical_camera(media.width, media.height)
    followed: list[_Followed] = []
    times, durations = [], []
    chunk: list[Frame] = []
    most = 0
    with FaceFinder() as finder:

        def work() -> None:
            nonlocal most
            first = len(times) - len(chunk)
            if not followed or any(one.crop is None for one in followed):
                for number, frame in enumerate(chunk):
                    boxes = finder(frame.image)
                    if not followed and boxes:
                        most = min(max(people, len(boxes)), MOST_PEOPLE)
                    _claim(followed, boxes, camera, most)
                    if boxes or number >= 3:
                        break
            for one in followed:
                if one.crop is not None:
                    _follow(one, chunk, first, encoder)

        for frame in counted(media, "encode", media.frame_count_estimate, listen):
            times.append(frame.time)
            durations.append(frame.duration)
            chunk.append(frame)
            if len(chunk) == CHUNK:
                work()
                chunk.clear()
        if chunk:
            work()
    performances = {}
    for one in followed:
        if one.frames:
            performances[len(performances)] = _perform(one, camera, np.array(times), np.array(durations), smoothing)
    if not performances:
        raise nobody(media)
    return Tracked(performances, np.array(times), {}, {})


def _claim(followed: list[_Followed], boxes: list[FaceBox], camera, most: int) -> None:
    """Gives boxes to the lost people nearest to them, then to new ones while there is room."""
    taken = [one.crop for one in followed if one.crop is not None]
    for box in boxes:
        crop = crop_of_box(camera, box)
        away = lambda other: np.hypot(other.centre[0] - crop.centre[0], other.centre[1] - crop.centre[1]) / max(other.side, 1.0)
        if any(away(other) < _NEAR for other in taken):
            continue
        lost = [one for one in followed if one.crop is None]
        if lost:
            one = min(lost, key=lambda one: away(one.last))
            one.crop = crop
        elif len(followed) < most:
            followed.append(_Followed(crop, crop))
        else:
            continue
        taken.append(crop)


def _follow(one: _Followed, chunk: list[Frame], first: int, encoder: FaceEncoder) -> None:
    crops = [one.crop] * len(chunk)
    for look in range(2):
        pictures = np.stack([crop.take(frame.image) for crop, frame in zip(crops, chunk)])
        codes = encoder.codes(pictures, np.array([crop.focal for crop in crops]))
        found = [out_of_crop(codes, k, crop) for k, crop in enumerate(crops)]
        if look == 0:
            last = one.crop
            for k, encoded in enumerate(found):
                if encoded.code.confidence > SURE:
                    last = crop_of_landmarks(last.camera, encoder.landmarks(encoded, last.camera))
                crops[k] = last
    for k, encoded in enumerate(found):
        if encoded.code.confidence > SURE:
            one.frames.append(first + k)
            one.seen.append(encoded)
            one.crop = one.last = crop_of_landmarks(crops[k].camera, encoder.landmarks(encoded, crops[k].camera))
        elif k == len(chunk) - 1:
            one.crop = None  # lost at the chunk's end: looked for again


def _perform(one: _Followed, camera, times: np.ndarray, durations: np.ndarray, smoothing: float) -> Performance:
    count, at = len(times), np.array(one.frames)
    codes = [encoded.code for encoded in one.seen]
    weight = np.array([code.confidence for code in codes])
    mean = lambda values: np.average(np.stack(values), axis=0, weights=weight)
    # one person, one shot: who they are does not change from frame to frame
    person = Person(
        mean([e.identity for e in one.seen]), np.zeros((478, 3)), camera, np.zeros(52), np.zeros((2, 2)),
        mean([e.albedo for e in one.seen]),
    )  # fmt: skip
    tracked = np.zeros(count, bool)
    tracked[at] = True
    expression, rotation = np.zeros((count, 52)), np.tile(np.eye(3), (count, 1, 1))
    translation, gaze, light = np.zeros((count, 3)), np.zeros((count, 2, 2)), np.zeros((count, 9, 3))
    confidence = np.zeros(count)
    for index, encoded in zip(at, one.seen):
        code = encoded.code
        expression[index], rotation[index] = with_look(code.expression, code.gaze), code.rotation
        translation[index], gaze[index], confidence[index] = code.translation, code.gaze, code.confidence
        light[index] = encoded.light.coefficients
    raw = Performance(
        person, times, durations, tracked, expression, rotation, translation, gaze, confidence, np.full(count, np.nan), light
    )
    return finished(raw, smoothing)
