"""A person under another light: their picture looked at once, each frame relit the same way. Photos, videos, avatars, live."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice

import cv2
import numpy as np

from capture.frame import FaceObservation
from capture.media import Media
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
from models.relight.shading import Change, Shader, applied, change, joined
from models.relight.shape_from_shading import Glance, shape_from_shading
from models.relight.surface import LitHead, unit
from pipeline.close_tracking import track_closely
from pipeline.encoding import crop_of_landmarks, shipped_encoder
from pipeline.errors import Refusal
from pipeline.fitting import LandmarkModel
from pipeline.performance import Performance
from pipeline.progress import Listener, silent
from pipeline.shot import frame_fitter
from pipeline.tracking import Tracked

MOST = 4  # people who are relit, the largest
_STEADY = 0.4  # seconds over which light is taken to stay
_VARIES = 0.15  # of the logarithm, above which a shot's light is said to vary
_DEPTH_PULL = 0.5  # of the way to MediaPipe's depths
_SETTLED = 24  # steps of a fit that starts from nothing
_LOOKS = 8  # frames of a shot that tell its light
_LOOK_SIDE = 960  # pixels of a video's longer side in them
_OFTEN = 0.25  # seconds between frames whose light is foretold
_SKIN = [4, 5, 195, 197, 6, 8, 9, 151, 108, 337, 69, 299, 50, 280, 101, 330, 36, 266, 205, 425, 187, 411, 118, 347, 117, 346]
_SIDE = 288  # pixels of the longer side in which moving pictures are shaded
_FINE_SIDE = 1024  # photos
_EDGE = (0.65, 0.95)  # of a matte: up to here a pixel is left as it is, from here on it is a person's
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
        source: the light they stand in; None estimates it.
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
        # a picture tells no more than the product of light and skin: very dark skin is told from little light by guessing
        tone = float(reflectance.mean_skin(coefficients) @ LUMINANCE)
        believed = float(np.clip(tone, *_TONES))
        expected = HarmonicLight(np.mean([one.light.coefficients for one in told], 0))
        return albedo * (believed / tone), expected, min(1.0, (believed / _FULL_GLOSS) ** _GLOSS_BY_TONE)

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
        return change(joined(first, rest[0], self._of_head(code, camera, size[0])) if rest else first, after)

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
            share: H x W in [0, 1], how far each pixel changes; None is the matte.
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
    """H x W in [0, 1]: how far people change before a background that stays, so that there is no glow.

    Beside their outline they are mixed with what is behind them, which is not relit.
    """
    return np.clip((matte - _EDGE[0]) / (_EDGE[1] - _EDGE[0]), 0, 1)


@dataclass(frozen=True)
class Shot:
    """A photo or a video whose people are known, ready to be relit.

    Attributes:
        people: each with their light, and what they do, the largest first.
        gains: N x 3, by how much the light of each frame differs from the shot's; None where it stays.
    """

    people: list[tuple[Relit, Performance]]
    gains: np.ndarray | None

    @property
    def source(self) -> Light:
        """The light that the largest stands in."""
        return self.people[0][0].source

    @property
    def device(self) -> str:
        """Where its pictures are made."""
        return self.people[0][0].device


def look_at(
    media: Media, prior: AnnyPrior, source: Light | None = None, people: int = MOST, smoothing: float = 1.0,
    listen: Listener = silent, device: str = "cpu",
) -> Shot:  # fmt: skip
    """Looks at a photo or a video once: who is there, what they do, and in which light.

    Args:
        source: the light they stand in, where it is known.
        device: where they will be relit.

    Raises:
        Refusal: where nobody is seen, or too little of them to tell the light.
    """
    kept = _Kept()
    watch = None if media.is_photo else kept.watch
    tracked = track_closely(media, prior, people=people, smoothing=smoothing, listen=listen, watch=watch)
    numbers = sorted(tracked.performances)[:people]
    first = tracked.performances[numbers[0]]
    relit: list[tuple[Relit, Performance]] = []
    for number, k in enumerate(numbers, 1):
        person = tracked.performances[k].person
        looks = kept.looks(media, tracked, k)
        try:
            one = Relit(person, prior, looks, source, fine=media.is_photo, device=device)
        except Refusal:  # too dark or too bright a face among others: it stands in the same light
            if not relit:
                raise
            one = Relit(person, prior, looks, relit[0][0].source, fine=media.is_photo, device=device)
        relit.append((one, replace(tracked.performances[k], person=one.person)))
        listen("light", number, len(numbers))
    known = source is not None or media.is_photo
    return Shot(relit, None if known else _light_over_time(relit[0][0], first, kept.skin(numbers[0], len(tracked.times))))


class _Kept:
    """What is kept of a video while it is tracked: some of its frames, and how bright faces are in each."""

    def __init__(self) -> None:
        self._every, self._frames = 1, {}
        self._skin: dict[int, dict[int, np.ndarray]] = {}

    def watch(self, index: int, image: np.ndarray, faces: list[FaceObservation]) -> None:
        if index % self._every == 0:
            scale = _LOOK_SIDE / max(image.shape[:2])
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
            self._frames[index] = small
            if len(self._frames) > 3 * _LOOKS:
                self._every *= 2
                self._frames = {k: frame for k, frame in self._frames.items() if k % self._every == 0}
        for face in faces:
            if face.found:
                self._skin.setdefault(face.id, {})[index] = _skin_colour(image, face.landmarks)

    def looks(self, media: Media, tracked: Tracked, number: int) -> list[Look]:
        """Frames spread over a shot, the surest of each stretch, that show somebody."""
        performance = tracked.performances[number]
        if media.is_photo:
            return [Look(next(iter(media)).image, performance.code(0), tracked.keyframes[number][0])]
        seen = np.array([k for k in self._frames if k < len(performance) and performance.tracked[k]], int)
        if not len(seen):  # so short a time that none of the frames kept shows them
            index = int(np.argmax(performance.tracked))
            self._frames[index] = next(islice(iter(media), index, None)).image
            seen = np.array([index])
        stretches = np.array_split(seen, min(_LOOKS, len(seen)))
        chosen = [int(one[np.argmax(performance.confidence[one])]) for one in stretches]
        return [Look(self._frames[k], performance.code(k), tracked.landmarks_of(number, k)) for k in chosen]

    def skin(self, number: int, count: int) -> np.ndarray:
        """`count` x 3 linear: the colour of somebody's skin in each frame, NaN where they are not seen."""
        out = np.full((count, 3), np.nan)
        for index, colour in self._skin.get(number, {}).items():
            out[index] = colour
        return out


def _skin_colour(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """3 linear: the median of cheeks, nose and brow; NaN where these are out of the picture."""
    x, y = landmarks[_SKIN, 0].astype(int), landmarks[_SKIN, 1].astype(int)
    inside = (x >= 1) & (y >= 1) & (x < image.shape[1] - 1) & (y < image.shape[0] - 1)
    if inside.sum() < len(_SKIN) // 2:
        return np.full(3, np.nan)
    near = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    patches = np.concatenate([DECODE[image[y[inside] + dy, x[inside] + dx]] for dy, dx in near])
    return np.median(patches, axis=0) / 65535 + 1e-4


def _light_over_time(relit: Relit, performance: Performance, skin: np.ndarray) -> np.ndarray | None:
    """N x 3 gains on the shot's light, smooth in time; None where it hardly varies."""
    seen = np.flatnonzero(np.isfinite(skin).all(1))
    if len(seen) < 3:
        return None
    chosen = np.flatnonzero(load_reflectance(relit.shader.lit.prior).skin > 0)[::4]
    times = performance.times[seen]
    apart = seen[np.unique(np.searchsorted(times, np.arange(times[0], times[-1] + _OFTEN, _OFTEN)).clip(max=len(seen) - 1))]
    told = np.array([relit.shader.irradiance(performance.code(int(i)), relit.source)[chosen].mean(0) for i in apart])
    expected = np.stack([np.interp(times, performance.times[apart], told[:, c]) for c in range(3)], 1)
    gain = np.log(skin[seen] / np.maximum(expected, 1e-6))
    width = _STEADY
    smooth = np.empty_like(gain)
    for row, time in enumerate(times):
        weight = np.exp(-0.5 * ((times - time) / width) ** 2)
        smooth[row] = weight @ gain / weight.sum()
    smooth -= np.median(smooth, axis=0)
    if np.ptp(smooth @ LUMINANCE) < _VARIES:
        return None
    return np.exp(np.stack([np.interp(performance.times, times, smooth[:, c]) for c in range(3)], 1))
