"""The picture that is to move, prepared once: a photo, or a video whose frames serve as plates and views."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from capture.frame import Frame
from capture.matte import selfie_matte
from capture.media import Media, StillPicture, open_media
from models.code import FaceCode, Person
from models.head import Head
from models.portrait.render import Portrait, View
from models.prior.face import AnnyPrior
from pipeline.builtin import BUILTIN, builtin_portrait
from pipeline.errors import Refusal
from pipeline.fitting import LandmarkModel, inter_ocular
from pipeline.performance import Performance
from pipeline.progress import Listener, silent
from pipeline.retargeting import photo_rest
from pipeline.shot import frame_fitter
from pipeline.tracking import people_at_start, track

VIEWS = 10  # source frames kept ready as textures
SAME_PERSON = 0.0115  # of the inter-ocular distance: own first frames fit at most at 0.0104, others' at 0.0089 and up
_SETTLED = 24  # steps for a single picture, which has nothing before it to start from


@dataclass(frozen=True)
class Source:
    """Who is to be moved.

    Attributes:
        portrait: renders them.
        views: pictures of them, ready as textures; the first one is a photo's only one.
        rest: 52, their resting expression.
        performance: of every source frame, for a video.
        landmarks: 478 x 3 of the first view's picture.
    """

    portrait: Portrait
    views: list[View]
    rest: np.ndarray
    performance: Performance
    landmarks: np.ndarray

    @property
    def person(self) -> Person:
        return self.portrait.head.person

    @property
    def is_video(self) -> bool:
        return len(self.performance) > 1


def prepare_source(media: Media, prior: AnnyPrior, person_id: int = 0, listen: Listener = silent) -> Source:
    """Fits a photo or a video of the source person and makes its textures.

    Raises:
        Refusal: where no (or not that) face is found.
    """
    tracked = track(media, prior, people=max(people_at_start(media), person_id + 1), smoothing=1.0, listen=listen)
    performance = pick_person(tracked.performances, person_id, media.path)
    portrait = Portrait(Head(prior, performance.person))
    if len(performance) == 1:
        frame = next(iter(media))
        code = performance.code(0)
        view = portrait.view(frame.image, code, selfie_matte(frame.image))
        return Source(portrait, [view], photo_rest(code), performance, tracked.keyframes[person_id][0])
    chosen = _choose_views(performance)
    views = []
    for index, frame in enumerate(media):
        if index in chosen:
            views.append(portrait.view(frame.image, performance.code(index), selfie_matte(frame.image)))
            listen("views", len(views), len(chosen))
        if len(views) == len(chosen):
            break
    return Source(portrait, views, performance.person.neutral, performance, tracked.keyframes[person_id][0])


def open_source(path: str) -> Media:
    """The media behind a source's name: a path, or `builtin` for the portrait that is always there."""
    return StillPicture(builtin_portrait(), BUILTIN) if path == BUILTIN else open_media(path)


def prepare_picture(image: np.ndarray, prior: AnnyPrior, name: str = "the picture") -> Source:
    """`prepare_source` for an H x W x 3 uint8 sRGB picture in memory."""
    return prepare_source(StillPicture(image, name), prior)


def pick_person(performances: dict[int, Performance], person_id: int, path: str) -> Performance:
    if person_id not in performances:
        raise Refusal(
            f"person {person_id} not found in {path}: {len(performances)} face(s) seen, numbered from 0. "
            f"Use --person with a number up to {len(performances) - 1}."
        )
    return performances[person_id]


def as_same_person(source: Source, driver: Person, prior: AnnyPrior, frame: Frame) -> Source | None:
    """The source refitted as the driver's own person where the two prove to be one, else None.

    One picture leaves much of a face's depth open; where the driver's shot shows the same person from all sides, its
    identity is the better one. The picture itself decides: its landmarks must lie on the driver's head nearly as well as
    frames of the driver's own shot do.
    """
    mine = source.person.camera
    scale = mine.height / driver.camera.height
    person = replace(driver, camera=replace(mine, focal=driver.camera.focal * scale))
    model = LandmarkModel.of(prior)
    fitter = frame_fitter(model, person)
    fitter.steps = _SETTLED
    code = fitter(source.landmarks)
    error = np.linalg.norm(fitter.landmarks(code)[:468] - source.landmarks[:468, :2], axis=1).mean()
    if error / inter_ocular(source.landmarks) > SAME_PERSON:
        return None
    portrait = Portrait(Head(prior, person), source.portrait.layer)
    view = portrait.view(frame.image, code, selfie_matte(frame.image))
    performance = replace(
        source.performance, person=person, expression=code.expression[None], rotation=code.rotation[None],
        translation=code.translation[None], gaze=code.gaze[None],
    )  # fmt: skip
    return Source(portrait, [view], person.neutral, performance, source.landmarks)


def _choose_views(performance: Performance) -> set[int]:
    """Numbers of the source frames that cover its poses and expressions best: farthest-point sampling from the calmest."""
    seen = np.flatnonzero(performance.tracked)
    if len(seen) == 0:
        return {0}
    features = np.stack([view_feature(performance.code(i)) for i in seen])
    calm = features - view_feature(replace(performance.code(int(seen[0])), expression=performance.person.neutral))
    chosen = [int(np.argmin((calm**2).sum(1)))]
    distance = ((features - features[chosen[0]]) ** 2).sum(1)
    while len(chosen) < min(VIEWS, len(seen)):
        chosen.append(int(np.argmax(distance)))
        distance = np.minimum(distance, ((features - features[chosen[-1]]) ** 2).sum(1))
    return {int(seen[i]) for i in chosen}


def view_feature(code: FaceCode) -> np.ndarray:
    """What makes two source frames interchangeable: where the head points, and what the mouth does. About 1 is far."""
    return np.concatenate([3.0 * code.rotation[:, 2], code.expression[22:49] * 0.8])
