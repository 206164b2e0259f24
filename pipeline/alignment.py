"""Alignment: a shot's codes, brought nearer to its pixels by what the shot itself shows.

Landmarks place a face to about a pixel, each in its own way in each pose. All frames together tell how the face looks (a few
bases of colour that follow the code) and where its surface lies beside the fitted head (what all frames agree on). A frame is
then compared by optical flow with what that appearance shows in its code, and pose and expression follow the flow by damped
Gauss-Newton steps about where the landmarks had them: the photometric bundle adjustment of Garrido et al. 2016 (4), with flow
in place of colour differences, which carries farther and minds no shading.

Nothing but the shot is looked at: no avatar, no other clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from capture.frame import at_size
from capture.media import Media
from models.avatar.linear import Linear, Smoother, regress
from models.avatar.mesh_colours import MeshColours
from models.avatar.shape import AvatarHead
from models.avatar.space import CodeSpace
from models.code import Camera, FaceCode, Person, at_height
from models.head import LOOK, gaze_in_head, look_in_camera, with_look
from models.prior.face import AnnyPrior
from pipeline.fitting import bounded_step, jacobian, rotation_of_vector
from pipeline.performance import Performance
from pipeline.progress import Listener, counted, silent
from pipeline.surface_flow import (
    agreed,
    completed,
    flow_search,
    look,
    pixel_jacobian,
    smoothing_matrix,
    vertex_flow,
)
from pipeline.tracking import finished

_LEAST, _FEW = 16, 128  # frames below which nothing is learned; frames that appearance and surface are learned from
_TURNS = 3  # of learning the appearance and moving the codes
_EYES, _SIDE = 90.0, 1024  # pixels, at most, between the outer eye corners and of a picture at which flow is taken
_SPACING, _MOST_SAMPLES = 1.4, 60_000  # pixels between samples
_RANK = 8
_FLOW_SIGMA, _PLACES = 0.5, 200  # pixels; so many places of a face err on their own
_FAR = 3.0  # pixels: flows of this length begin to pull less
_TURN, _MOVE, _DEPTH, _EXPRESSION = 0.02, 0.003, 0.01, 0.1  # radians, metres, how far landmarks may be off
_LIFT_SIGMA = 0.006  # metres
_LEAST_SEEN = 0.2  # share of the face's surface that must be seen, for the flow to be trusted


@dataclass(frozen=True, eq=False)
class Appearance:
    """How a face looks in one shot.

    Attributes:
        shape: its surface; colours: samples on it; skin: S x 3 values, sRGB codes, that follow the place in `space`.
        face: V square metres that a vertex stands for where its flow counts, else 0.
        camera: at the size at which it is compared.
    """

    shape: AvatarHead
    colours: MeshColours
    skin: Linear
    space: CodeSpace
    face: np.ndarray
    camera: Camera

    def skin_of(self, code: FaceCode) -> np.ndarray:
        """S x 3 sRGB codes of the samples."""
        return self.skin.blend(self.space.nearness(self.space.place(code))).reshape(-1, 3)


def align(
    media: Media, performance: Performance, prior: AnnyPrior, smoothing: float = 1.0, listen: Listener = silent
) -> Performance:
    """The performance with its poses and expressions nearer to the pixels; as it was where too few frames show the face.

    The media is read twice more. Losses stay held.

    Args:
        smoothing: strength of the two-sided filter that the flow's own noise is taken out with.
    """
    seen = np.flatnonzero(performance.tracked)
    if media.is_photo or len(seen) < _LEAST:
        return performance
    chosen = seen[np.unique(np.linspace(0, len(seen) - 1, _FEW).round().astype(int))]
    camera = _compared_at(performance)
    images = [image for _, image in _frames(media, chosen, camera)]
    chosen = chosen[: len(images)]
    before = [performance.code(int(k)) for k in chosen]
    codes = list(before)
    appearance = None
    for turn in range(_TURNS):
        appearance = _learned(images, codes, performance.person, camera, prior, appearance)
        aligner = Aligner(appearance)
        steps = [aligner(image, code, start) for image, code, start in zip(images, codes, before)]
        codes = [code for code, _, _ in steps]
        appearance = _lifted(appearance, codes, steps)
        listen("appearance", turn + 1, _TURNS)
    aligner = Aligner(appearance)
    guess = _between(chosen, before, codes)
    fields = "expression", "rotation", "translation", "gaze"
    moved = replace(performance, **{name: getattr(performance, name).copy() for name in fields})
    for k, image in counted(_frames(media, seen, camera), "align", len(seen), listen):
        start = performance.code(k)
        code, _, _ = aligner(image, guess(k, start), start)
        for name in fields:
            getattr(moved, name)[k] = getattr(code, name)
    return replace(finished(moved, smoothing), person=performance.person)


class Aligner:
    """Moves codes to where frames show what an appearance says."""

    def __init__(self, appearance: Appearance):
        self.appearance = appearance
        prior = appearance.shape.prior
        self._search = flow_search()
        self._basis = prior.expression.reshape(len(prior.expression), -1, 3).astype(float)
        # the irises say where the eyes look, and lids follow
        self._trust = np.concatenate(
            [[1 / _TURN**2] * 3, [1 / _MOVE**2] * 2, [1 / _DEPTH**2], np.where(LOOK, 1e6, 1 / _EXPRESSION**2)]
        )

    def __call__(self, image: np.ndarray, code: FaceCode, start: FaceCode) -> tuple[FaceCode, np.ndarray, np.ndarray]:
        """One step: the code, and what flow it leaves: V x 2 pixels, and V, how sure that is.

        Args:
            image: H x W x 3 uint8 of the appearance's camera; code: so far; start: as landmarks have it.
        """
        a = self.appearance
        prior, camera = a.shape.prior, a.camera
        posed, projected = a.shape.posed(code, camera)
        found, sure = vertex_flow(self._search, image, posed, projected, prior.triangles, a.colours, a.skin_of(code))
        sure[a.face == 0] = 0
        left = np.zeros_like(found)
        area = a.face * sure
        if area.sum() < _LEAST_SEEN * a.face.sum() / 2:  # half of a head faces away
            return code, left, np.zeros_like(sure)
        index = np.flatnonzero(area)
        area, flow = area[index], found[index].astype(float)
        points = np.ascontiguousarray((posed[index] - code.translation) @ code.rotation, float)
        basis = np.ascontiguousarray(self._basis[:, index].reshape(len(self._basis), -1))
        centre = camera.width / 2, camera.height / 2
        rotation = np.ascontiguousarray(code.rotation)
        _, along = jacobian(points, basis, rotation, code.translation, camera.focal, *centre)
        weight = area / area.sum() * _PLACES / _FLOW_SIGMA**2 / (1 + (flow**2).sum(1) / _FAR**2)
        weight = np.repeat(weight, 2)
        away = np.concatenate(
            [
                cv2.Rodrigues(np.ascontiguousarray(code.rotation @ start.rotation.T))[0].ravel(),
                code.translation - start.translation, code.expression - start.expression,
            ]
        )  # fmt: skip
        hessian = (along * weight[:, None]).T @ along + np.diag(self._trust)
        gradient = self._trust * away - along.T @ (weight * flow.ravel())
        step = bounded_step(hessian, gradient, code.expression)
        left[index] = flow - (along @ step).reshape(-1, 2)
        return _moved(code, step), left, sure


def _moved(code: FaceCode, step: np.ndarray) -> FaceCode:
    rotation = rotation_of_vector(step[:3]) @ code.rotation
    gaze = gaze_in_head(rotation, look_in_camera(code.rotation, code.gaze))  # eyes look where they looked
    expression = with_look(code.expression + step[6:], gaze)
    return replace(code, rotation=rotation, translation=code.translation + step[3:6], expression=expression, gaze=gaze)


def _compared_at(performance: Performance) -> Camera:
    """The shot's camera at the size at which flow is taken."""
    person = performance.person
    depth = float(np.median(performance.translation[performance.tracked, 2]))
    # a face's outer eye corners are some 9 cm apart
    eyes = 0.09 * person.camera.focal / depth
    sides = person.camera.height, person.camera.width
    scale = min(1.0, _EYES / eyes, _SIDE / max(sides))
    height, width = (max(16, round(side * scale)) for side in sides)
    return at_height(person.camera, height, width)


def _frames(media: Media, numbers: np.ndarray, camera: Camera):
    """Numbers and pictures of chosen frames at the camera's size."""
    wanted = set(numbers.tolist())
    for number, frame in enumerate(media):
        if number in wanted:
            yield number, at_size(frame.image, camera.height, camera.width)


def _learned(
    images: Sequence[np.ndarray], codes: list[FaceCode], person: Person, camera: Camera, prior: AnnyPrior, last: Appearance | None
) -> Appearance:
    """How the face looks, of frames and codes; on the surface found last."""
    if last is None:
        shape = AvatarHead(prior, person, np.zeros_like(prior.mean))
        pixel = float(np.median([code.translation[2] for code in codes])) / camera.focal
        shown = (shape.opacity[prior.triangles] > 0).any(1)
        colours = MeshColours.spaced(shape.head.neutral, prior.triangles, np.where(shown, _SPACING * pixel, 1.0), _MOST_SAMPLES)
        corners = shape.head.neutral[prior.triangles]
        area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
        face = np.bincount(prior.triangles.ravel(), np.repeat(area / 6, 3), len(prior.mean))
        face *= (shape.opacity > 0.5) & (prior.part == 0)
    else:
        shape, colours, face = last.shape, last.colours, last.face
    space = CodeSpace.of(codes)
    seen = look(images, codes, camera, shape, colours)
    skin = regress(seen.colour, seen.weight, Smoother.of(space.nearness(space.examples)), _RANK)
    skin = completed(skin, seen.weight, prior.triangles, colours)
    return Appearance(shape, colours, skin, space, face, camera)


def _lifted(appearance: Appearance, codes: list[FaceCode], steps: list) -> Appearance:
    """The same with its surface where all frames agree that it lies."""
    shape, camera = appearance.shape, appearance.camera
    jacobians = [pixel_jacobian(shape.posed(code, camera)[0], code.rotation, camera.focal) for code in codes]
    left, sure = (np.stack([step[k] for step in steps]) for k in (1, 2))
    lift = agreed(jacobians, left, sure, smoothing_matrix(shape.prior.triangles, len(shape.prior.mean)), _LIFT_SIGMA)
    return replace(appearance, shape=AvatarHead(shape.prior, shape.person, shape.lift + lift))


def _between(numbers: np.ndarray, before: list[FaceCode], after: list[FaceCode]):
    """What neighbours were moved by, in between as well: (frame, code) -> code."""
    turns = np.stack([cv2.Rodrigues(b.rotation @ a.rotation.T)[0].ravel() for a, b in zip(before, after)])
    moves = np.stack([b.translation - a.translation for a, b in zip(before, after)])
    changes = np.stack([b.expression - a.expression for a, b in zip(before, after)])
    steps = np.concatenate([turns, moves, np.where(LOOK, 0, changes)], 1)

    def guess(number: int, code: FaceCode) -> FaceCode:
        step = np.array([np.interp(number, numbers, column) for column in steps.T])
        step[6:] = np.clip(code.expression + step[6:], 0, 1) - code.expression
        return _moved(code, step)

    return guess
