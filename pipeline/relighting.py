"""One person whose light is known, under another one: each frame is relit the same way. Photos, videos, avatars, live."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numba import njit

from models.code import Camera, FaceCode, Person
from models.colour import DECODE
from models.head import Head
from models.light.estimate import SkinSeen, estimated_light, lobes_of_directions
from models.light.harmonics import LUMINANCE, HarmonicLight
from models.light.lights import Light
from models.moved import Moved
from models.prior.face import AnnyPrior
from models.prior.reflectance import load_reflectance
from models.raster.cpu import rasterise
from models.relight.nose import raised
from models.relight.shading import Change, Shader, applied, change, joined, scaled, skin_like
from models.relight.shape_from_shading import Glance, shape_from_shading
from models.relight.surface import LitHead, unit
from pipeline.encoding import crop_of_landmarks, shipped_encoder
from pipeline.errors import Refusal
from pipeline.fitting import LandmarkModel
from pipeline.shot import frame_fitter

_DEPTH_PULL = 0.5  # of the way to MediaPipe's depths
_SETTLED = 24  # steps of a fit that starts from nothing
_SIDE = 288  # pixels of the longer side in which moving pictures are shaded
_FINE_SIDE = 1024  # photos
_BRIGHTER = (0.65, 0.95)  # of a matte: up to here a pixel is made no brighter, from here on it is a person's
_DARKER = (0.4, 0.75)  # the same of darker: a rim of old light is worse than one of shade
_TONES = (0.08, 0.7)  # luminance of skin's albedo that is believed
_FULL_GLOSS = 0.35  # of it, below which gloss is taken to be weaker as well: dark skin may be bright skin in little light ...
_GLOSS_BY_TONE = 0.7  # ... or dark: by this power of it
_GRAZING = 0.25  # cosine to the camera below which skin tells little
_IN_FRONT = 0.004  # metres behind what is seen there at which a vertex is hidden
_SHAPED_BY = 3  # looks at most that tell a shape
_TOP, _CHIN = 10, 152  # landmarks
_NECK = 0.35  # of a face's height below its chin in which a neck ends
_FEWEST = 60  # vertices that tell a light
_LEAST = 0.3  # of the skin seen, neither black nor white, that tells one
_GREY = 4  # sRGB codes by which colours of a picture without any may differ, as they are stored
_SATURATED, _DARK = 250, 6  # sRGB codes beyond which a pixel tells no light


def relief(person: Person, landmarks: np.ndarray, prior: AnnyPrior) -> np.ndarray:
    """478 x 3 metres in the head frame: from where a person's landmarks are fitted part of the way to MediaPipe's depths.

    The fit goes by where landmarks are seen, which leaves a nose's bridge and a brow's depth to the prior. MediaPipe's own depths
    know them better, but lean forward or back as a whole and err as much as the fit (table `yale` of docs/figures.md).

    Args:
        landmarks: N x 478 x 3 pixels with MediaPipe's depths.
    """
    model = LandmarkModel.of(prior)
    neutral = model.neutral(person)
    offsets, weights = [], []
    for points in np.asarray(landmarks, float):
        fitter = frame_fitter(model, person)
        for _ in range(_SETTLED):
            code = fitter(points)
        shaped = neutral + np.tensordot(code.expression, model.expression, 1)
        posed = shaped @ code.rotation.T + code.translation
        camera = person.camera
        metres = posed[:468, 2].mean() / camera.focal
        depth = posed[:468, 2].mean() + metres * (points[:468, 2] - points[:468, 2].mean())
        x = (points[:468, 0] - camera.width / 2) / camera.focal * depth
        y = (points[:468, 1] - camera.height / 2) / camera.focal * depth
        offset = np.zeros((478, 3))
        offset[:468] = (np.stack([x, y, depth], 1) - posed[:468]) @ code.rotation
        offsets.append(offset)
        weights.append(max(code.rotation[2, 2], 0.05) ** 4)  # depths are surest from the front
    offset = np.average(offsets, axis=0, weights=weights)
    plane = np.concatenate([np.ones((468, 1)), neutral[:468, :2]], 1)
    offset[:468] -= plane @ np.linalg.lstsq(plane, offset[:468], rcond=None)[0]
    return _DEPTH_PULL * offset


@dataclass(frozen=True)
class Look:
    """One frame that tells of a person's light.

    Attributes:
        image: H x W x 3 uint8 sRGB, of any size.
        landmarks: 478 x 3 pixels of the person's camera, with MediaPipe's depths where they are `seen`.
    """

    image: np.ndarray
    code: FaceCode
    landmarks: np.ndarray
    seen: bool = True


def _colourless(image: np.ndarray) -> bool:
    """Whether a picture (H x W x 3) is black and white."""
    return bool(np.percentile(np.ptp(image[::2, ::2], axis=-1), 99) <= _GREY)


def _some(looks: list) -> list:
    """Spread over a shot, as many of them as tell a shape."""
    return looks[:: -(-len(looks) // _SHAPED_BY)]


class Relit:
    """One person whose light is known."""

    def __init__(
        self, person: Person, prior: AnnyPrior, looks: list[Look], source: Light | None = None, fine: bool = False,
        exact: bool = False, device: str = "cpu",
    ):  # fmt: skip
        """Args:
        looks: at least one.
        source: the light they stand in; None estimates it. Where it is known dark skin is dark, and has all of its gloss.
        fine: shade at (nearly) the picture's own size.
        exact: the person's shape is known, not fitted.
        device: `cpu` shades with numba, any other with torch on that device.
        """
        seen = [one.landmarks for one in looks if one.seen]
        self.person = replace(person, detail=person.detail + relief(person, np.stack(_some(seen)), prior)) if seen else person
        higher = None if exact else raised(prior, Head(prior, self.person).neutral)
        self.shader = Shader(LitHead(Head(prior, self.person, higher), softened=not exact))
        self.device, self._side, self._on_device = device, _FINE_SIDE if fine else _SIDE, None
        if exact and source is not None:
            self.source = source
            return
        albedo, expected, glossiness = self._told(prior, looks)
        skin = load_reflectance(prior).skin
        glances, shares = zip(*(self._glance(one, albedo, skin) for one in looks))
        glances = [one for one in glances if one is not None]
        if source is None:
            if not glances:
                raise Refusal(
                    f"the face is too dark or too bright to tell its light: {100 * max(shares):.0f} % of its skin lie between "
                    f"black and white, expected at least {100 * _LEAST:.0f} %. Use a picture with more or less exposure."
                )
            self.shader.glossiness = glossiness
        if exact or not glances:
            self.source = source or self._estimated(glances, expected)
            return
        # light tells shape, and the better known shape tells the light anew
        lit, transport, glossiness = self.shader.lit, self.shader.transport, self.shader.glossiness
        first = source or self._estimated(_some(glances), expected)
        moved = shape_from_shading(lit, transport, _some(glances), first, glossiness)
        self.shader = Shader(LitHead(Head(prior, self.person, higher + moved)), transport, glossiness)
        self.source = source or self._estimated(glances, expected, first)

    def _told(self, prior: AnnyPrior, looks: list[Look]) -> tuple[np.ndarray, HarmonicLight, float]:
        """(V x 3 albedo, the light, the share of skin's full gloss) that the encoder expects."""
        reflectance, encoder = load_reflectance(prior), shipped_encoder()
        told = []
        for one in looks:
            camera = self._camera_of(one)
            scale = camera.width / self.person.camera.width
            told.append(encoder(one.image, crop_of_landmarks(camera, one.landmarks * scale)))
        coefficients = np.mean([one.albedo for one in told], 0)
        albedo = reflectance.albedo_of(coefficients[None])[0]
        light = np.mean([one.light.coefficients for one in told], 0)
        if all(_colourless(one.image) for one in looks):  # else it would be brown skin in blue light
            albedo, light = (np.repeat((one @ LUMINANCE)[..., None], 3, -1) for one in (albedo, light))
        # a picture tells no more than the product of light and skin: very dark skin is told from little light by guessing
        tone = float(reflectance.mean_skin(coefficients) @ LUMINANCE)
        believed = float(np.clip(tone, *_TONES))
        return albedo * (believed / tone), HarmonicLight(light), min(1.0, (believed / _FULL_GLOSS) ** _GLOSS_BY_TONE)

    def _estimated(self, glances: list[Glance], expected: HarmonicLight, before: Light | None = None) -> Light:
        about = None if before is None else before.lamps[0].direction
        return estimated_light(SkinSeen.joined([self._lit_skin(one) for one in glances]), expected, about)

    def _lit_skin(self, glance: Glance) -> SkinSeen:
        chosen, transport, rotation = glance.vertices, self.shader.transport, glance.code.rotation
        posed = self.shader.lit.head.posed(glance.code)
        normals = self.shader.lit.normals(posed)[chosen]
        matrix = transport.matrix(normals @ rotation.astype(np.float32), chosen)
        lobes = matrix @ lobes_of_directions(transport.directions @ rotation.T)
        shine = (self.shader.glossiness * self.shader.lit.glossy[chosen])[:, None] / glance.albedo
        view = -unit(posed[chosen].astype(float))
        return SkinSeen(glance.colour / glance.albedo, normals.astype(float), matrix.sum(1), lobes, view, shine)

    def _camera_of(self, look: Look) -> Camera:
        """That a frame, as large as it is given, is seen through."""
        height, width = look.image.shape[:2]
        return Camera(self.person.camera.focal * width / self.person.camera.width, width, height)

    def _glance(self, look: Look, albedo: np.ndarray, skin: np.ndarray) -> tuple[Glance | None, float]:
        """(the bare skin that a frame shows, None where too little; how much of it lies between black and white)."""
        lit, camera = self.shader.lit, self._camera_of(look)
        height, width = camera.height, camera.width
        posed = lit.head.posed(look.code)
        points = camera.project(posed).astype(np.float32)
        depth = rasterise(points, lit.triangles, height, width).depth
        x, y = points[:, 0].astype(int), points[:, 1].astype(int)
        inside = (x >= 1) & (y >= 1) & (x < width - 1) & (y < height - 1) & (skin > 0)
        cosine = -(lit.normals(posed) * posed).sum(1) / np.linalg.norm(posed, axis=1)
        chosen = np.flatnonzero(inside & (cosine > _GRAZING))
        chosen = chosen[points[chosen, 2] < depth[y[chosen], x[chosen]] + _IN_FRONT]
        size = max(1, round(np.ptp(points[skin > 0, 0]) / 60))
        smooth = cv2.blur(DECODE[look.image].astype(np.float32) / 65535, (size, size))
        codes = look.image[y[chosen], x[chosen]].max(1)
        fair = (codes < _SATURATED) & (codes > _DARK)
        chosen, share = chosen[fair], float(fair.mean()) if len(fair) else 0.0
        if len(chosen) < _FEWEST or share < _LEAST:
            return None, share
        return Glance(look.code, chosen, smooth[y[chosen], x[chosen]], albedo[chosen]), share

    @staticmethod
    def landmarks_of(person: Person, code: FaceCode, prior: AnnyPrior) -> np.ndarray:
        """478 x 3: where somebody's landmarks are seen, pixels and depth."""
        return person.camera.project(prior.at_landmarks(Head(prior, person).posed(code)))

    def landmarks_at(self, code: FaceCode) -> np.ndarray:
        """478 x 3: where a code's landmarks are seen, pixels and depth."""
        lit = self.shader.lit
        return self.person.camera.project(lit.prior.at_landmarks(lit.head.posed(code)))

    def apart(self) -> Relit:
        """The same person, drawn on the device by itself."""
        other = copy(self)
        other._on_device = None
        return other

    def size(self, image: np.ndarray) -> tuple[int, int]:
        """Height and width in which a picture is shaded."""
        height, width = image.shape[:2]
        scale = min(1.0, self._side / max(height, width))
        return round(height * scale), round(width * scale)

    def change(
        self, image: np.ndarray, code: FaceCode, matte: np.ndarray, light: Light, gain: np.ndarray | None = None,
        camera: Camera | None = None, turned: np.ndarray | None = None,
    ) -> Change:  # fmt: skip
        """How the picture is to change; arguments as of a call."""
        size = self.size(image)
        lights = self._lights(light, gain, turned)
        first, after, *rest = self.shader(code, matte, lights, *size, camera)
        first = joined(first, rest[0], self._of_head(code, camera, size[0])) if rest else first
        if self.shader.lit.is_softened:
            share = skin_like(image, first)
            for one in (first, after):
                scaled(one.gloss, share)
        return change(first, after)

    def _lights(self, light: Light, gain: np.ndarray | None, turned: np.ndarray | None) -> list[Light]:
        """What a picture is lit by and what it is to be lit by; where its head carries a light along, what the rest is lit by."""
        own = self.source if gain is None else self.source.times(gain)
        return [own, light] if turned is None else [own.carried(turned), light, own]

    def _of_head(self, code: FaceCode, camera: Camera | None, height: int) -> np.ndarray:
        """H float32 in [0, 1]: rows of a picture in which people move with their heads, down to a neck in which that ends."""
        camera = camera or self.person.camera
        lit = self.shader.lit
        top, chin = camera.project(lit.prior.at_landmarks(lit.head.posed(code))[[_TOP, _CHIN]])[:, 1]
        rows = (np.arange(height) + 0.5) * camera.height / height
        share = np.clip(1 - (rows - chin) / max(_NECK * (chin - top), 1.0), 0, 1)
        return (share * share * (3 - 2 * share)).astype(np.float32)

    def __call__(
        self, image: np.ndarray, code: FaceCode, matte: np.ndarray, light: Light, share: np.ndarray | None = None,
        gain: np.ndarray | None = None, camera: Camera | None = None, moved: Moved | None = None,
        turned: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """H x W x 3 uint8 sRGB: the picture with its person under another light.

        Args:
            image: H x W x 3 uint8 sRGB; matte: H x W in [0, 1], 1 on people.
            share: H x W in [0, 1], how far each pixel changes, or H x W x 2, brighter and darker; None is the matte.
            gain: 3, by how much this frame's own light differs from the shot's.
            camera: that the picture is seen through, where it is not the person's.
            turned: 3 x 3, by how much the head has turned since it was taken, in a picture that was moved: light and shadows on
                it went along.
            moved: since the frame before of a video, for other devices than `cpu`, where `Carried` makes changes steady.
        """
        share = matte if share is None else share
        if self.device == "cpu":
            return applied(image, self.change(image, code, matte, light, gain, camera, turned), share)
        if self._on_device is None:
            from models.relight.shading_torch import TorchShader

            self._on_device = TorchShader(self.shader, self.device)
        camera = camera or self.person.camera
        lights, size = self._lights(light, gain, turned), self.size(image)
        of_head = None if turned is None else self._of_head(code, camera, size[0])
        return self._on_device(image, code, matte, lights, share, *size, camera, moved, of_head)


def edges_left_out(matte: np.ndarray) -> np.ndarray:
    """H x W x 2 in [0, 1]: how far people become brighter and darker before a background that stays, so that there is no glow.

    Beside their outline they are mixed with what is behind them, which is not relit.
    """
    out = np.empty((*matte.shape, 2), np.float32)
    _ramps(np.ascontiguousarray(matte, np.float32), *map(np.float32, (*_BRIGHTER, *_DARKER)), out)
    return out


@njit(cache=True, nogil=True, fastmath=True)
def _ramps(matte, first, last, other_first, other_last, out):
    zero, one = np.float32(0), np.float32(1)
    for y in range(matte.shape[0]):
        for x in range(matte.shape[1]):
            out[y, x, 0] = min(max((matte[y, x] - first) / (last - first), zero), one)
            out[y, x, 1] = min(max((matte[y, x] - other_first) / (other_last - other_first), zero), one)
