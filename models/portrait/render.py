"""Makes a picture of a person move: a fitted head textured from the picture, on an elastic sheet of the rest of it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from models.code import Camera, FaceCode
from models.colour import ENCODE, to_linear16
from models.head import Head
from models.portrait.eyes import SIZE, eye_texture, texel_positions
from models.portrait.shade import facing, shade
from models.portrait.surround import Surround
from models.portrait.topology import FaceLayer
from models.prior.face import LEFT_EYE, RIGHT_EYE
from models.raster.cpu import rasterise

_HIDDEN = 0.004  # metres behind what the picture shows from which a vertex counts as hidden
_SKIN_ALBEDO = 0.33  # mean linear albedo the mouth's colours are given against
_BALL_SWELL = 1.10
_CHIN, _CORNERS = 152, (33, 263)


def _smoothstep(x: np.ndarray, low: float, high: float) -> np.ndarray:
    x = np.clip((x - low) / (high - low), 0, 1)
    return x * x * (3 - 2 * x)


@dataclass(frozen=True)
class View:
    """One picture of the person with its fit, prepared as a texture.

    Attributes:
        plate: H x W x 3 uint16 linear.
        canvas: the plate with the eyeballs' textures below it.
        attributes: V x 11, constant part of what `shade` interpolates.
        surround: the sheet.
        code: fitted in this picture.
        shaped: V x 3, the head of `code` in the head frame with straight eyes.
    """

    plate: np.ndarray
    canvas: np.ndarray
    attributes: np.ndarray
    surround: Surround
    code: FaceCode
    shaped: np.ndarray


class Portrait:
    """Renders one person from views of them."""

    def __init__(self, head: Head, layer: FaceLayer | None = None):
        self.head = head
        self.layer = layer or FaceLayer.of(head.prior)
        self._skin = np.isin(
            head.prior.region, [head.prior.regions.index(n) for n in ("skin", "lips", "eyelids", "ears", "scalp", "neck")]
        )
        self._balls = [np.flatnonzero(head.prior.part == ball) for ball in (LEFT_EYE, RIGHT_EYE)]

    def view(self, image: np.ndarray, code: FaceCode, matte: np.ndarray | None = None) -> View:
        """Prepares an H x W x 3 uint8 sRGB picture whose face was fitted as `code`."""
        prior, camera, layer = self.head.prior, self.head.person.camera, self.layer
        height, width = image.shape[:2]
        plate = to_linear16(image)
        posed = self.head.posed(code)
        projected = self._project(posed, camera)
        pushed = projected.copy()
        pushed[:, 2] += layer.push
        fragments = rasterise(pushed, prior.triangles, height, width)

        x, y = projected[:, 0], projected[:, 1]
        inside = (x > 0.5) & (x < width - 0.5) & (y > 0.5) & (y < height - 0.5)
        column, row = np.clip(x.astype(int), 0, width - 1), np.clip(y.astype(int), 0, height - 1)
        shown = pushed[:, 2] < fragments.depth[row, column] + _HIDDEN
        cosine = facing(posed, prior.triangles)
        # a vertex near the outline may in truth lie beside the head: a pixel of misfit would bring in the background
        covered = (fragments.triangle >= 0).astype(np.uint8)
        from_outline = cv2.distanceTransform(covered, cv2.DIST_L2, 3)[row, column] / max(self._face_width(code) / 40, 1)
        trust = (inside & shown) * _smoothstep(cosine, 0.05, 0.25) * _smoothstep(from_outline, 0.1, 0.8)
        trust[layer.inner] = (inside & (pushed[:, 2] < fragments.depth[row, column] + 0.0015))[layer.inner]
        trust[layer.socket] = 0
        mirrored = projected[prior.mirror, :2]
        mirrored_trust = np.maximum(trust[prior.mirror] - trust, 0) * ~layer.inner

        brightness = self._brightness(plate, projected, trust)
        canvas = np.zeros((height + SIZE, max(width, 2 * SIZE), 3), np.uint16)
        canvas[:height, :width] = plate
        canvas[:height, width:] = plate[:, -1:]
        position = projected[:, :2].copy()
        for side, eye in enumerate(self._balls):
            straight = self.head.neutral[eye]
            texels = texel_positions(straight)
            behind = straight[:, 2] - straight[:, 2].min()
            canvas[height:, side * SIZE : (side + 1) * SIZE] = eye_texture(
                plate, fragments, prior.triangles, eye, texels, projected[:, :2], behind, float(brightness.mean())
            )
            position[eye] = texels + np.array([side * SIZE, height])
            trust[eye], mirrored_trust[eye] = 1, 0
        own = layer.own * (brightness * 65535)
        own_weight = (layer.inner | layer.socket).astype(np.float32)
        attributes = np.concatenate(
            [position, trust[:, None], mirrored, mirrored_trust[:, None], own, own_weight[:, None], layer.opacity[:, None]], 1
        ).astype(np.float32)

        surround = Surround.of(
            matte, fragments, prior.triangles, self._skin, code, camera,
            self.head.neutral[prior.landmark_vertices[_CHIN, 0]],
            self._face_width(code),
        )  # fmt: skip
        shaped = self.head.shaped(code.expression, np.zeros((2, 2)))
        return View(plate, canvas, attributes, surround, code, shaped)

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

    def _brightness(self, plate: np.ndarray, projected: np.ndarray, trust: np.ndarray) -> np.ndarray:
        """3: the skin's linear colour (0..1) in the picture over the mean skin albedo: the light's strength and tint."""
        cheeks = (self.head.prior.face_weight > 0.9) & (trust > 0.9)
        if not cheeks.any():
            return np.full(3, 0.6)
        x, y = projected[cheeks, 0].astype(int), projected[cheeks, 1].astype(int)
        return np.full(3, np.median(plate[y, x] / 65535.0, 0).mean() / _SKIN_ALBEDO)

    def render(self, view: View, code: FaceCode, camera: Camera | None = None, mouth: View | None = None) -> np.ndarray:
        """H x W x 3 uint8 sRGB: the view's picture with the face, hair and neck of `code`.

        Args:
            camera: the picture is taken with; the person's own where None. It must have the view's width and height.
            mouth: another view of the person that the mouth is taken from.
        """
        source_camera = self.head.person.camera
        camera = camera or source_camera
        height, width = view.plate.shape[:2]
        shaped = self.head.shaped(code.expression, code.gaze)
        posed = shaped @ code.rotation.T.astype(np.float32) + code.translation.astype(np.float32)
        projected = self._project(posed, camera)
        projected[:, 2] += self.layer.push
        fragments = rasterise(projected, self.layer.triangles, height, width)
        attributes = view.attributes.copy()
        # towards the outline the layer gives way to the sheet, whose edge is soft
        attributes[:, 10] *= np.where(attributes[:, 9] > 0, 1, _smoothstep(facing(posed, self.layer.triangles), 0.0, 0.25))
        knots = view.surround.knots(shaped - view.shaped, view.code, code, source_camera, camera)
        warp = view.surround.warp(knots)
        out = np.empty((height, width, 3), np.uint8)
        shade(
            view.plate, warp, view.canvas, fragments.triangle, fragments.barycentric, self.layer.triangles, attributes,
            ENCODE, out,
        )  # fmt: skip
        return out
