"""Makes a picture of a person move: a fitted head textured from the picture, on an elastic sheet of the rest of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.code import Camera, FaceCode
from models.colour import DECODE, ENCODE, to_linear16
from models.head import Head
from models.matting import ALONE, Matte
from models.portrait.extend import extend_colours, hair_colour, hair_offsets
from models.portrait.eyes import SIZE, eye_texture, texel_positions
from models.portrait.mouth import (
    TEETH_HEIGHT,
    TEETH_WIDTH,
    MouthView,
    cut_mouth,
    fitted_patch,
    mouth_weight,
    openness,
    teeth_texels,
    teeth_texture,
)
from models.portrait.shade import draw_sheet, facing, shade
from models.portrait.surround import Surround
from models.portrait.topology import INNER, FaceLayer, softened
from models.portrait.view import View, as_bytes
from models.prior.face import LEFT_EYE, RIGHT_EYE
from models.raster import Fragments
from models.raster.cpu import PARALLEL, rasterise

FINER = 2  # samples a side in eyes and mouth
FINE_MOST = 40_000  # pixels a box: larger faces show no crawling worth the time
_HIDDEN = 0.004  # metres behind what the picture shows from which a vertex counts as hidden
_SKIN_ALBEDO = 0.33  # mean linear albedo the mouth's colours are given against
_BALL_SWELL = 1.10
_CHIN, _CORNERS = 152, (33, 263)
_OPEN = (0.07, 0.18)  # of the mouth's width: below, what shows between the lips is no texture; above, it is
_TURN = np.radians((6.0, 16.0))  # turns between which the head's hidden sides are brought in
_OWN, _OWN_WEIGHT, _OPACITY, _UNDER, _SLOTS = slice(0, 3), 3, 4, 5, 6  # columns of the attributes
_JAWS = (4, 5)
_EYE_SHADE = 0.45  # of the light that lids and corners keep from an eyeball


def _smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    x = np.clip((x - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True)
class _Seen:
    """What one picture shows of the head: V-long arrays, and the fragments they come from."""

    plate: np.ndarray
    projected: np.ndarray
    fragments: Fragments
    trust: np.ndarray
    shown: np.ndarray


class Portrait:
    """Renders one person from views of them."""

    def __init__(self, head: Head, layer: FaceLayer | None = None, device: str = "cpu"):
        """Args:
        layer: constants that portraits of one prior can share.
        device: `cpu` draws with numba, any other with torch on that device.
        """
        self.head, self.device = head, device
        self._shader = None
        if device != "cpu":
            from models.portrait.shade_torch import TorchShader

            self._shader = TorchShader(device)
        prior = head.prior
        self.layer = layer or FaceLayer.of(prior)
        numbers = [prior.regions.index(n) for n in ("skin", "lips", "eyelids", "ears", "scalp", "neck")]
        self._skin = np.isin(prior.region, numbers)
        self._inside = np.isin(prior.region, [prior.regions.index(n) for n in INNER])
        self._balls = [np.flatnonzero(prior.part == ball) for ball in (LEFT_EYE, RIGHT_EYE)]
        self._mouth = mouth_weight(prior, head.neutral, self.layer.lips, self.layer.inner)
        self._lips = np.flatnonzero(self.layer.lips)
        self._ring = np.flatnonzero((self._mouth > 0.02) & (self._mouth < 0.5) & self.layer.outer)

    def view(
        self, image: np.ndarray, code: FaceCode, matte: np.ndarray | None = None, *, room: tuple[int, int] = (0, 0),
        still: bool = False, eyes_from: View | None = None, alpha: np.ndarray | None = None,
    ) -> View:  # fmt: skip
        """Prepares an H x W x 3 uint8 sRGB picture whose face was fitted as `code`.

        Args:
            matte: H x W float32 in [0, 1], the person.
            room: height and width of the largest mouth that may be lent to this view.
            eyes_from: a view whose eyes are open; its eyeballs are used.
            still: the head will keep this picture's pose, so nothing of its hidden sides is needed.
            alpha: H x W float32 in [0, 1], everyone in the picture, where `matte` is of one of them.
        """
        prior, camera, layer = self.head.prior, self.head.person.camera, self.layer
        height, width = image.shape[:2]
        seen = self._look(image, code)
        plate, projected, fragments, trust = seen.plate, seen.projected, seen.fragments, seen.trust.copy()
        mirrored = projected[prior.mirror, :2].copy()
        mirrored_trust = np.maximum(trust[prior.mirror] - trust, 0) * ~layer.inner
        brightness = self._brightness(plate, projected, trust)

        strip = max(SIZE, 2 * TEETH_HEIGHT, room[0])
        left = 2 * SIZE + TEETH_WIDTH
        rooms = (left, height), (left + room[1], height)
        canvas = np.zeros((height + strip, max(width, left + 2 * room[1]), 3), np.float32)
        canvas[:height, :width] = plate
        canvas[:height, width:] = plate[:, -1:]
        position = projected[:, :2].copy()
        for side, eye in enumerate(self._balls):
            straight = self.head.neutral[eye]
            texels = texel_positions(straight)
            behind = straight[:, 2] - straight[:, 2].min()
            if eyes_from is None:
                texture = eye_texture(plate, fragments, prior.triangles, eye, texels, projected[:, :2], behind, brightness)
            else:
                top = eyes_from.matte.shape[0]
                texture = eyes_from.canvas[top : top + SIZE, side * SIZE : (side + 1) * SIZE]
            canvas[height : height + SIZE, side * SIZE : (side + 1) * SIZE] = texture
            position[eye] = texels + np.array([side * SIZE, height])
            trust[eye], mirrored_trust[eye] = 1, 0
        for row, jaw in enumerate(_JAWS):
            teeth, texels = teeth_texels(prior, prior.mean, jaw)
            texture = teeth_texture(float(np.ptp(prior.mean[teeth, 1])), jaw) * (brightness * 65535)
            top = height + row * TEETH_HEIGHT
            canvas[top : top + TEETH_HEIGHT, 2 * SIZE : left] = np.clip(texture, 0, 65535)
            mirrored[teeth] = texels + np.array([2 * SIZE, top])
            mirrored_trust[teeth] = 1 - trust[teeth]

        own = layer.own * (brightness * 65535)
        own_weight = (layer.inner | layer.socket).astype(np.float32)
        own_weight[np.concatenate(self._balls)] = 1  # their own colour is the dark that keeps the light from them
        under, hair = np.zeros(len(own), np.float32), np.zeros_like(own)
        if not still:
            bare = fragments.triangle >= 0
            eyes = float(projected[np.concatenate(self._balls), 1].mean())
            hair_is = None if matte is None or not bare.any() else hair_colour(plate, matte, bare, eyes)
            known = trust * layer.outer
            own[layer.outer] = extend_colours(prior.triangles, plate, projected, known, layer.scalp, hair_is)[layer.outer]
            own_weight[layer.outer] = 1
            under = ((1 - seen.shown) * layer.outer).astype(np.float32)
            if matte is not None:
                hair = hair_offsets(
                    self.head.neutral, prior.triangles, layer.scalp, matte, bare, projected[:, 1],
                    float(code.translation[2] / camera.focal),
                )  # fmt: skip
        attributes = np.concatenate(
            [own, own_weight[:, None], layer.opacity[:, None], under[:, None], position, trust[:, None], mirrored,
             mirrored_trust[:, None]], 1,
        ).astype(np.float32)  # fmt: skip
        surround = Surround.of(
            matte, fragments, prior.triangles, self._skin, code, camera,
            self.head.neutral[prior.landmark_vertices[_CHIN, 0]], self._face_width(code), content_box(image),
        )  # fmt: skip
        shaped = self.head.shaped(code.expression, np.zeros((2, 2)))
        person = np.full((height, width), 255, np.uint8)
        if matte is not None:
            # half-transparent rims hold the background's colour, so they count as background
            rim = max(3, round(self._face_width(code) / 12)) | 1
            solid = cv2.erode(matte, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (rim, rim)))
            person = np.round(255 * cv2.blur(solid, (rim // 2 | 1, rim // 2 | 1))).astype(np.uint8)
        return View(
            person, canvas, rooms, room, attributes, surround, code, shaped, hair.astype(np.float32),
            self._ring_colours(seen), image, as_bytes(matte if alpha is None else alpha, height, width),
        )  # fmt: skip

    def mouth(self, image: np.ndarray, code: FaceCode) -> MouthView | None:
        """The mouth of a picture whose face was fitted as `code`, to be lent to other views; None where it isn't in it."""
        seen = self._look(image, code)
        return cut_mouth(seen.plate, seen.projected, seen.trust, self._mouth, code, self._ring_colours(seen))

    def _look(self, image: np.ndarray, code: FaceCode) -> _Seen:
        """What of the head a picture shows, and how far its colours there can be trusted."""
        prior, camera, layer = self.head.prior, self.head.person.camera, self.layer
        height, width = image.shape[:2]
        posed = self.head.posed(code)
        projected = self._project(posed, camera)
        pushed = projected.copy()
        pushed[:, 2] += layer.push
        fragments = rasterise(pushed, prior.triangles, height, width)
        x, y = projected[:, 0], projected[:, 1]
        inside = (x > 0.5) & (x < width - 0.5) & (y > 0.5) & (y < height - 0.5)
        column, row = np.clip(x.astype(int), 0, width - 1), np.clip(y.astype(int), 0, height - 1)
        shown = inside & (pushed[:, 2] < fragments.depth[row, column] + _HIDDEN)
        cosine = facing(posed, prior.triangles)
        pixel = max(self._face_width(code) / 40, 1)
        # a vertex near the outline may in truth lie beside the head: a pixel of misfit would bring in the background
        covered = (fragments.triangle >= 0).astype(np.uint8)
        from_outline = cv2.distanceTransform(covered, cv2.DIST_L2, 3)[row, column] / pixel
        trust = shown * _smoothstep(cosine, 0.05, 0.25) * _smoothstep(from_outline, 0.1, 0.8)
        # between lips that are hardly apart nothing is sharp enough to be stretched over an open mouth
        wide = float(_smoothstep(np.array(openness(prior.at_landmarks(projected[:, :2]))), *_OPEN))
        gap = (covered > 0) & self._inside[np.maximum(fragments.triangle, 0)]
        from_lips = cv2.distanceTransform(gap.astype(np.uint8), cv2.DIST_L2, 3)[row, column] / pixel
        near = pushed[:, 2] < fragments.depth[row, column] + 0.0015
        trust[layer.inner] = (wide * inside * near * _smoothstep(from_lips, 0.1, 0.5))[layer.inner]
        # a trust that ends from one vertex to the next would show as a ragged edge
        eased = np.minimum(softened(np.where(layer.inner | layer.lips, trust, 0), prior.triangles, 2) * 1.3, trust)
        trust[layer.inner] = eased[layer.inner]
        trust[layer.socket] = 0
        return _Seen(to_linear16(image), projected, fragments, trust, shown * _smoothstep(cosine, 0.3, 0.7))

    def _ring_colours(self, seen: _Seen) -> np.ndarray:
        height, width = seen.plate.shape[:2]
        x = np.clip(seen.projected[self._ring, 0].astype(int), 0, width - 1)
        y = np.clip(seen.projected[self._ring, 1].astype(int), 0, height - 1)
        return np.concatenate([seen.plate[y, x].astype(np.float32), seen.trust[self._ring, None].astype(np.float32)], 1)

    def _project(self, posed: np.ndarray, camera: Camera) -> np.ndarray:
        """V x 3 pixels and depth; eyeballs a little large, so that a lid's misfit opens no gap beside them."""
        projected = camera.project(posed)
        for ball in self._balls:
            centre = projected[ball, :2].mean(0)
            projected[ball, :2] = centre + _BALL_SWELL * (projected[ball, :2] - centre)
        return projected

    def _face_width(self, code: FaceCode) -> float:
        """Distance of the outer eye corners in pixels as if seen from the front."""
        a, b = (self.head.neutral[self.head.prior.landmark_vertices[k, 0]] for k in _CORNERS)
        return float(np.linalg.norm(a - b) * self.head.person.camera.focal / code.translation[2])

    def _brightness(self, plate: np.ndarray, projected: np.ndarray, trust: np.ndarray) -> float:
        """The light's strength: the face's linear colour (0..1) in the picture over the mean skin albedo.

        The brighter parts of dark skin still tell how strong the light is, so they set a floor.
        """
        cheeks = (self.head.prior.face_weight > 0.9) & (trust > 0.9)
        if not cheeks.any():
            return 0.6
        x, y = projected[cheeks, 0].astype(int), projected[cheeks, 1].astype(int)
        colours = (plate[y, x] / 65535.0).mean(1)
        return float(max(np.median(colours) / _SKIN_ALBEDO, np.percentile(colours, 90) / 0.5))

    def render(
        self, view: View, code: FaceCode, camera: Camera | None = None, mouths: Sequence[tuple[MouthView, float]] = (),
        matte: Matte = None,
    ) -> np.ndarray:  # fmt: skip
        """H x W x 3 uint8 sRGB: the view's picture with the face, hair and neck of `code`.

        Args:
            camera: the picture is taken with; the person's own where None. It must have the view's width and height.
            mouths: up to two mouths of other pictures and their shares, which sum to at most 1.
            matte: H x W x 4 instead, with people's alpha.
        """
        source_camera = self.head.person.camera
        camera = camera or source_camera
        height, width = view.matte.shape
        turn = view.code.rotation.T @ code.rotation
        turned = float(_smoothstep(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)), *_TURN))
        shaped = self.head.shaped(code.expression, code.gaze)
        solid = shaped + view.hair if turned > 0 else shaped
        posed = solid @ code.rotation.T.astype(np.float32) + code.translation.astype(np.float32)
        projected = self._project(posed, camera)
        projected[:, 2] += self.layer.push
        triangles = self.layer.head if turned > 0 else self.layer.triangles
        attributes, canvas = view.attributes.copy(), view.canvas
        # towards the outline the layer gives way to the sheet, whose edge is soft
        outline = _smoothstep(facing(posed, triangles), 0.0, 0.25)
        attributes[:, _OPACITY] *= np.where(self.layer.outer, outline, 1)
        attributes[:, _UNDER] *= turned
        for side, ball in enumerate(self._balls):
            attributes[ball, _SLOTS + 2] = self._eye_light(shaped[ball] - self.head.eyes[side])
        # the wider the mouth, the more light falls into it
        wide = openness(self.head.prior.at_landmarks(projected[:, :2]))
        attributes[self.layer.inner, _OWN] *= 0.45 + 0.55 * float(_smoothstep(np.array(wide), 0.05, 0.45))
        if mouths and view.room[0]:
            attributes, canvas = self._lend(view, attributes, mouths)
        knots = view.surround.knots(shaped - view.shaped, view.code, code, source_camera, camera)
        boxes = self._fine_boxes(projected, width, height)
        if self._shader is not None:
            return self._shader.draw(view, canvas, projected, triangles, attributes, knots, boxes, matte)
        motion = view.surround.motion(knots)
        out = _drawn(view, matte, canvas, projected, triangles, attributes, motion, (0, 0, 1), boxes)
        for left, top, right, bottom in boxes:
            size = right - left, bottom - top
            closer = (projected - np.array([left, top, 0], np.float32)) * np.array([FINER, FINER, 1], np.float32)
            part = cv2.resize(motion[top:bottom, left:right], None, fx=FINER, fy=FINER, interpolation=cv2.INTER_LINEAR)
            fine = _drawn(view, matte, canvas, closer, triangles, attributes, part, (left, top, FINER))
            out[top:bottom, left:right] = cv2.resize(fine, size, interpolation=cv2.INTER_AREA)
        return out

    def _fine_boxes(self, projected: np.ndarray, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """(left, top, right, bottom) of eyes and mouth, whose rims are drawn finer and averaged so that they don't crawl."""
        boxes = []
        for part in (np.concatenate(self._balls), self._lips):
            low, high = projected[part, :2].min(0) - 3, projected[part, :2].max(0) + 3
            left, top = np.clip(np.floor(low), 0, (width, height)).astype(int)
            right, bottom = np.clip(np.ceil(high), 0, (width, height)).astype(int)
            if right - left >= 2 and bottom - top >= 2 and (right - left) * (bottom - top) <= FINE_MOST:
                boxes.append((left, top, right, bottom))
        return boxes

    @staticmethod
    def _eye_light(offsets: np.ndarray) -> np.ndarray:
        """N: how much light reaches an eyeball's vertices: less under the upper lid and in the corners."""
        radius = np.abs(offsets[:, 1]).max()
        aside = np.abs(offsets[:, 0]) / radius
        above = -offsets[:, 1] / radius
        return 1 - _EYE_SHADE * np.maximum(_smoothstep(aside, 0.45, 0.95), _smoothstep(above, 0.1, 0.6)).astype(np.float32)

    def _lend(self, view: View, attributes: np.ndarray, mouths: Sequence[tuple[MouthView, float]]):
        """Attributes and canvas with other pictures' mouths in place of the view's own."""
        canvas = view.canvas.copy()
        kept = np.ones(len(attributes), np.float32)
        slots = []
        for (mouth, share), (left, top) in zip(mouths, view.rooms):
            both = (view.ring[:, 3] > 0.5) & (mouth.skin[:, 3] > 0.5)
            gain = np.ones(3)
            if both.sum() >= 8:
                gain = np.clip(np.median(view.ring[both, :3], 0) / np.maximum(np.median(mouth.skin[both, :3], 0), 1), 0.7, 1.4)
            patch, scale = fitted_patch(mouth, view.room, gain)
            canvas[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
            slot = mouth.slots.copy()
            slot[:, :2] = slot[:, :2] * scale + (left, top)
            slot[:, 2] *= share
            kept -= slot[:, 2]
            slots.append(slot)
        attributes[:, _SLOTS + 2] *= kept
        attributes[:, _SLOTS + 5] *= kept
        return np.concatenate([attributes, *slots], 1), canvas


def _drawn(
    view: View, matte: Matte, canvas, projected, triangles, attributes, motion, place: tuple[float, float, float],
    without: Sequence[tuple] = (),
) -> np.ndarray:  # fmt: skip
    """Rasterises and shades into a picture of the motion's size; `place` as in `shade`.

    Args:
        without: boxes where the head is left out, since they are drawn again.
    """
    fragments = rasterise(projected, triangles, *motion.shape[:2])
    for left, top, right, bottom in without:
        fragments.triangle[top:bottom, left:right] = -1
    out = draw_sheet(view.sheet(matte), motion, place)
    corner = np.array(place, np.float32)
    with PARALLEL:
        shade(
            canvas, motion, corner, view.matte, fragments.triangle, fragments.barycentric, triangles, attributes, DECODE, ENCODE,
            matte == ALONE, out,
        )  # fmt: skip
    return out


def content_box(image: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of a picture without the plain bars at its edges."""
    grey = image.astype(np.int16)
    height, width = image.shape[:2]
    plain_column = np.ptp(grey, 0).max(1) <= 12
    plain_row = np.ptp(grey, 1).max(1) <= 12

    def run(plain: np.ndarray, most: int) -> int:
        stop = int(np.argmin(plain)) if not plain.all() else 0
        return stop if stop <= most else 0

    return (
        run(plain_column, width // 3), run(plain_row, height // 3), width - run(plain_column[::-1], width // 3),
        height - run(plain_row[::-1], height // 3),
    )  # fmt: skip
