"""What is moved: a source's pictures behind one door, whether they come from a portrait or an avatar."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np

from capture.matte import selfie_matte
from models.avatar.avatar import Avatar, is_avatar, load_avatar
from models.avatar.render import AvatarRenderer
from models.code import Camera, FaceCode, Person
from models.head import Head
from models.matting import BESIDE, Matte, with_alpha
from models.portrait.view import Faceless, View
from models.prior.face import AnnyPrior
from pipeline.errors import Refusal
from pipeline.progress import Listener, silent
from pipeline.smoothing import nearest_rotation
from pipeline.source import Source, head_feature, mouth_feature, open_source, prepare_source

_HEAD_LEAD, _HEAD_SWITCH = 0.6, 0.2  # the whole picture changes with the view, so it is left late: at some 12 degrees
_MOUTH_LEAD, _MOUTH_SWITCH = 0.12, 0.1
_CHIN, _NOSE = 152, 1
_FACE_OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150,
              136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]  # fmt: skip
_GAP = 1 / 32  # of the picture's longer side: gaps this narrow between head and shoulders are the neck
_NECK = 0.3  # of the way from chin to nose that a raised chin lays bare


class Puppet(Protocol):
    """Shows one person in any code; it may remember what it showed last.

    Attributes:
        person: who.
        rest: 52, their resting expression.
        base: their own pose and look.
        is_video: whether there are frames of theirs that can serve as plates.
    """

    person: Person
    rest: np.ndarray
    base: FaceCode
    is_video: bool

    def again(self) -> Puppet:
        """The same person without the memory."""
        ...

    def __call__(
        self, code: FaceCode, camera: Camera, time: float, plate: View | Faceless | None = None, matte: Matte = None
    ) -> np.ndarray:  # fmt: skip
        """H x W x 3 uint8 sRGB.

        Args:
            plate: a picture that keeps its own motion, drawn instead of the person's own pictures (a portrait's alone).
            matte: H x W x 4 instead, with people's alpha.
        """
        ...

    def turned(self, code: FaceCode) -> np.ndarray | None:
        """3 x 3, by how much the head of the picture shown last has turned to a code, its light and shadows with it.

        None where a head is lit as it would be where it turns.
        """
        ...


def open_puppet(source: str, prior: AnnyPrior, device: str = "cpu", listen: Listener = silent) -> Puppet:
    """Whoever a photo, a video, an avatar or `builtin` shows, ready to be moved.

    Raises:
        MediaError, ModelError, Refusal: where nobody can be.
    """
    if is_avatar(source):
        return AvatarPuppet(load_avatar(source, prior), prior, device)
    media = open_source(source)
    if getattr(media, "is_endless", False):
        raise Refusal(f"{source}: a webcam can't be the picture that is moved. Give a photo, a video or an avatar.")
    return PortraitPuppet(prepare_source(media, prior, listen=listen, device=device))


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


class PortraitPuppet:
    """A photo's or a video's person: the nearest of their views, with the nearest of their mouths."""

    def __init__(self, source: Source):
        self.source = source
        self.person, self.rest, self.is_video = source.person, source.rest, source.is_video
        self.base = source.views[0].code
        self._shown = self.base.rotation
        self._heads, self._mouths = Chooser(_HEAD_LEAD, _HEAD_SWITCH), Chooser(_MOUTH_LEAD, _MOUTH_SWITCH)

    def again(self) -> PortraitPuppet:
        return PortraitPuppet(self.source)

    def __call__(
        self, code: FaceCode, camera: Camera, time: float, plate: View | Faceless | None = None, matte: Matte = None
    ) -> np.ndarray:  # fmt: skip
        if isinstance(plate, Faceless):
            return with_alpha(plate.image, plate.alpha, matte)
        if plate is not None:
            self._shown = plate.code.rotation
            return self._render(plate, code, camera, time, matte)
        views = self.source.views
        near = [float(np.linalg.norm(head_feature(v.code) - head_feature(code))) for v in views]
        (number, share), *other = self._heads(near, time)
        self._shown = nearest_rotation(sum(part * views[k].code.rotation for k, part in ((number, share), *other)))
        image = self._render(views[number], code, camera, time, matte)
        for old, _ in other:
            before = self._render(views[old], code, camera, time, matte)
            image = np.round(before + share * (image.astype(np.float32) - before)).astype(np.uint8)
        return image

    def turned(self, code: FaceCode) -> np.ndarray:
        return code.rotation @ self._shown.T

    def _render(self, view: View, code: FaceCode, camera: Camera, time: float, matte: Matte) -> np.ndarray:
        bank = self.source.mouths
        mouths = []
        if bank:
            wanted = mouth_feature(code)
            near = [float(np.linalg.norm(mouth_feature(m.code) - wanted)) for m in (view, *bank)]
            # number 0 is the view's own mouth, which needs no lending
            mouths = [(bank[k - 1], share) for k, share in self._mouths(near, time) if k > 0]
        return self.source.portrait.render(view, code, camera, mouths, matte)


class AvatarPuppet:
    """A learned person."""

    is_video = False

    def __init__(self, avatar: Avatar, prior: AnnyPrior, device: str = "cpu"):
        """Args:
        device: `cpu` draws with numba, any other with torch on that device.
        """
        if device == "cpu":
            self.renderer = AvatarRenderer(avatar, prior)
        else:
            from models.avatar.render_torch import TorchAvatarRenderer

            self.renderer = TorchAvatarRenderer(avatar, prior, device)
        self.person, self.rest = avatar.person, avatar.person.neutral
        self.base = avatar.space.middle
        self._prior, self._head, self._matted = prior, Head(prior, avatar.person), False

    def again(self) -> AvatarPuppet:
        return self

    def __call__(
        self, code: FaceCode, camera: Camera, time: float, plate: View | Faceless | None = None, matte: Matte = None
    ) -> np.ndarray:  # fmt: skip
        if matte is not None and not self._matted:
            self.renderer.set_alpha(self._scene_alpha())
            self._matted = True
        picture = self.renderer.render(code, camera, matte)
        if matte == BESIDE:
            picture[..., 3] = without_gaps(picture[..., 3])
        return picture

    def turned(self, code: FaceCode) -> None:
        return None

    def _scene_alpha(self) -> np.ndarray:
        """H x W uint8: what of the scene is the person. Behind the head it holds no more than a guess, so that is nobody."""
        rest = rest_picture(self)
        alpha = np.round(255 * selfie_matte(rest)).astype(np.uint8)
        code = replace(self.base, expression=self.rest)
        head = self._prior.at_landmarks(self.person.camera.project(self._head.posed(code)))
        top = np.zeros_like(alpha)
        cv2.fillConvexPoly(top, cv2.convexHull(head[_FACE_OVAL, :2].astype(np.int32)), 1)
        top[int(head[_CHIN, 1] - _NECK * (head[_CHIN, 1] - head[_NOSE, 1])) :] = 0  # below it the neck comes into sight
        alpha[top > 0] = 0
        return alpha


def without_gaps(alpha: np.ndarray) -> np.ndarray:
    """H x W uint8: an alpha closed where a learned head, which leaves its neck to the scene, doesn't meet the shoulders."""
    size = round(_GAP * max(alpha.shape)) | 1
    # beyond its sides a picture goes on as it ends
    wide = cv2.copyMakeBorder(np.ascontiguousarray(alpha), size, size, size, size, cv2.BORDER_REPLICATE)
    round_ = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.morphologyEx(wide, cv2.MORPH_CLOSE, round_)[size:-size, size:-size]


def rest_picture(puppet: Puppet, matte: Matte = None) -> np.ndarray:
    """H x W x 3 uint8 sRGB: a source at rest, seen with no driver at all; with a matte H x W x 4."""
    return puppet.again()(replace(puppet.base, expression=puppet.rest), puppet.person.camera, 0.0, matte=matte)
