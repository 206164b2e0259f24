"""Synthetic faces with known codes, without end: random people, faces, poses, skins, lights, hair, clothes, things in the way.

Convention: a crop is a square picture S x S with its own pinhole camera whose principal point is its centre; lengths in it are
given in crop widths, with x to the right and y down from the centre. `Truth` describes it in that camera's axes.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import cv2
import numpy as np

from models.encoder.draw import draw_heads, normals_into
from models.encoder.network import MAP_SIZE, MAPS, SIZE
from models.encoder.scenery import as_photographed, backdrop, draw_body, draw_fringe, draw_long_hair, draw_occluder
from models.head import gaze_in_head, rotation_of_angles, shapes, with_look
from models.light.harmonics import AMBIENT, COUNT, LUMINANCE, lamp
from models.prior.face import EXPRESSIONS, LEFT_EYE, RIGHT_EYE, AnnyPrior
from models.prior.reflectance import Reflectance, hair_colour
from models.prior.synthetic import vertex_normals
from models.raster.cpu import interpolate, rasterise

_DRAWN = 132  # heads are drawn larger and reduced, so that their edges are smooth
ROOM = 1.5  # crop width over the wider side of the landmarks' box
_AT = {name: k for k, name in enumerate(EXPRESSIONS)}
_PAIRS = [(k, _AT[n.replace("Left", "Right")]) for n, k in _AT.items() if n.endswith("Left") and n[:-4] + "Right" in _AT]
_LONE = ("browInnerUp", "cheekPuff", "mouthFunnel", "mouthPucker", "mouthRollLower", "mouthRollUpper", "mouthShrugLower",
         "mouthShrugUpper", "jawForward", "jawLeft", "jawRight", "mouthLeft", "mouthRight")  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """What a batch of crops shows; N first everywhere.

    Attributes:
        face: N, 1 where there is a face to see, 0 where not.
        identity, expression, gaze, rotation, albedo, light: as in `FaceCode`, in the crop camera's axes.
        place: N x (x, y, log s): where the head's origin appears, in crop widths from the centre, and the log of how many crop
            widths 0.1 m spans at its depth.
        focal: N, crop widths.
        maps: N x 7 x 24 x 24 float16 (see `models.encoder.network.Inner`, with 1 for the head and 0 beside it), where asked for.
    """

    face: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    gaze: np.ndarray
    rotation: np.ndarray
    place: np.ndarray
    focal: np.ndarray
    albedo: np.ndarray
    light: np.ndarray
    maps: np.ndarray | None = None

    def __getitem__(self, index) -> Truth:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return Truth(**{name: None if value is None else value[index] for name, value in values.items()})


def translation_of_place(place: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """N x 3 metres in crop camera axes."""
    depth = 0.1 * focal / np.exp(place[:, 2])
    return np.stack([place[:, 0] * depth / focal, place[:, 1] * depth / focal, depth], 1)


def draw_expressions(count: int, rng: np.random.Generator) -> np.ndarray:
    """count x 52: calm faces, speech, grimaces; mostly alike on both sides."""
    out = np.zeros((count, 52))
    for row in out:
        strength = rng.choice([0.25, 0.6, 1.0], p=[0.3, 0.4, 0.3])
        for left, right in _PAIRS:
            if EXPRESSIONS[left].startswith("eyeLook") or rng.random() > 0.3:
                continue
            value = strength * rng.beta(1.0, 1.4)
            apart = rng.normal(0, 0.05) if rng.random() < 0.8 else rng.normal(0, 0.5) * value
            row[left], row[right] = value, value + apart
        for name in _LONE:
            if rng.random() < 0.2:
                row[_AT[name]] = strength * rng.beta(1.0, 1.8)
        if rng.random() < 0.55:
            row[_AT["jawOpen"]] = strength * rng.beta(1.0, 1.6)
        if rng.random() < 0.3:
            row[_AT["mouthClose"]] = row[_AT["jawOpen"]] * rng.random()
        if rng.random() < 0.03:
            row[_AT["tongueOut"]] = rng.random()
        shut = rng.choice([0, rng.uniform(0, 0.5), rng.uniform(0.7, 1)], p=[0.45, 0.4, 0.15])
        row[_AT["eyeBlinkLeft"]] = row[_AT["eyeBlinkRight"]] = shut
        if rng.random() < 0.06:
            row[_AT[rng.choice(["eyeBlinkLeft", "eyeBlinkRight"])]] = rng.random()
        # what can't go together: a rounded mouth that also smiles, brows both up and down
        if row[_AT["mouthPucker"]] + row[_AT["mouthFunnel"]] > 0.5:
            for name in ("mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight"):
                row[_AT[name]] *= 0.3
        if row[_AT["browInnerUp"]] > 0.3:
            row[_AT["browDownLeft"]] *= 0.4
            row[_AT["browDownRight"]] *= 0.4
    return out.clip(0, 1)


def draw_lights(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(count x 9 x 3 light, count x 3 direction of its strongest lamp): rooms, skies, studios, single hard lamps."""
    light, strongest = np.zeros((count, COUNT, 3)), np.tile([0.0, -0.5, -0.87], (count, 1))
    tint = lambda spread: np.exp(rng.normal(0, spread) * np.array([1.0, 0.1, -1.0]) + rng.normal(0, spread / 4, 3))
    for n in range(count):
        hard = rng.random() < 0.2
        light[n, 0] = (rng.uniform(0.0, 0.15) if hard else rng.uniform(0.15, 1.0)) * AMBIENT * tint(0.2)
        light[n, 1] -= rng.uniform(-0.1, 0.5) * light[n, 0]  # brighter above (-y) than below
        best = 0.0
        for _ in range(1 if hard else rng.choice([0, 1, 2, 3], p=[0.1, 0.45, 0.3, 0.15])):
            azimuth = rng.normal(0, 1.0) if rng.random() < 0.85 else rng.uniform(-np.pi, np.pi)
            height = np.radians(rng.normal(5, 35) if hard else rng.normal(18, 30))  # a hard lamp may stand anywhere
            towards = np.array([np.sin(azimuth) * np.cos(height), -np.sin(height), -np.cos(azimuth) * np.cos(height)])
            power = np.exp(rng.normal(-0.2, 0.7))
            light[n] += lamp(towards, power * tint(0.2))
            if power > best:
                best, strongest[n] = power, towards
        light[n] += 0.06 * light[n, 0].mean() * rng.normal(size=(COUNT, 3))
    return light, strongest


class SyntheticFaces:
    """Draws batches of crops; the same seed gives the same ones."""

    def __init__(self, prior: AnnyPrior, reflectance: Reflectance, seed: int = 0, size: int = SIZE):
        self.prior, self.reflectance, self.size = prior, reflectance, size
        self.rng = np.random.default_rng(seed)
        self._shell()

    def _shell(self) -> None:
        """Hair is a second skin over the scalp: which vertices it starts from, its triangles, how far it may rise."""
        prior = self.prior
        scalp = prior.region == prior.regions.index("scalp")
        cells = prior.triangles[scalp]
        self._hair_from, cells = np.unique(cells, return_inverse=True)
        self._cells = np.concatenate([prior.triangles, cells.reshape(-1, 3) + len(prior.mean)]).astype(np.int32)
        self._rise = vertex_normals(prior.mean, prior.triangles)[self._hair_from]
        at = prior.mean[self._hair_from]
        outer = np.setdiff1d(prior.triangles[~scalp], -1)
        rim = at[np.isin(self._hair_from, outer)]
        gap = np.sqrt(((at[:, None] - rim[None]) ** 2).sum(-1)).min(1)
        self._taper = np.clip(gap / 0.02, 0.12, 1)
        self._waves = self.rng.normal(0, 1, (6, 3)) * 25

    @cached_property
    def _rings(self) -> np.ndarray:
        """2 x 40 x 3 outlines of glasses in front of the eyes, head frame, of unit size about each eye's centre."""
        turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        c, s = np.cos(turn), np.sin(turn)
        shape = np.stack([np.sign(c) * np.abs(c) ** 0.7, np.sign(s) * np.abs(s) ** 0.7, 0 * c], 1)
        return np.stack([shape, shape])

    def codes(self, count: int) -> Truth:
        """Random codes with their crops' cameras."""
        rng, prior = self.rng, self.prior
        identity = rng.normal(0, 1, (count, len(prior.identity))) * rng.uniform(0.5, 1.1, (count, 1))
        expression = draw_expressions(count, rng)
        angles = rng.normal(0, 1, (count, 3)) * np.radians([26, 14, 11])
        wide = rng.random(count) < 0.15
        angles[wide, 0] = rng.uniform(-1.2, 1.2, wide.sum())
        rotation = rotation_of_angles(*np.clip(angles, -np.radians([75, 45, 60]), np.radians([75, 45, 60])).T)
        look = rng.normal(0, 1, (count, 1, 2)) * np.array([0.25, 0.16]) + rng.normal(0, 0.02, (count, 2, 2))
        at_camera = rng.random(count) < 0.5
        gaze = look.copy()
        for n in np.flatnonzero(at_camera):  # people mostly look near the camera, whichever way they turn
            gaze[n] = gaze_in_head(rotation[n], 0.4 * look[n])
        gaze = np.clip(gaze, -0.7, 0.7)
        expression = with_look(expression, gaze)
        albedo = rng.normal(0, 1, (count, len(self.reflectance.basis)))
        # the darkest and the lightest are met as often as those between: tone is the first component
        evenly = rng.random(count) < 0.5
        albedo[evenly, 0] = rng.uniform(-2.3, 2.3, evenly.sum())
        light, self._lamp = draw_lights(count, rng)
        distance = np.exp(rng.uniform(np.log(0.35), np.log(3.0), count))
        shape = shapes(prior, identity, expression)
        marks = prior.at_landmarks(shape)[:, :468]
        turned = marks @ rotation.transpose(0, 2, 1)
        flat = turned[..., :2] / (turned[..., 2:] + distance[:, None, None])
        low, high = flat.min(1), flat.max(1)
        side = (high - low).max(1) * ROOM * np.exp(rng.normal(0, 0.1, count))
        focal = 1 / side
        away = rng.normal(0, 0.05, (count, 2))
        centre = away - focal[:, None] * (low + high) / 2
        place = np.concatenate([centre, np.log(0.1 * focal / distance)[:, None]], 1)
        face = np.ones(count)
        return Truth(face, identity, expression, gaze, rotation, place, focal, albedo, light)

    def batch(self, count: int, maps: bool = False) -> tuple[np.ndarray, Truth]:
        """(count x S x S x 3 uint8 sRGB, their truth, with its maps where asked for)."""
        rng = self.rng
        truth = self.codes(count)
        shape = shapes(self.prior, truth.identity, truth.expression, truth.gaze)
        albedo = self.reflectance.albedo_of(truth.albedo)
        albedo *= np.exp(rng.normal(0, 0.06, (*albedo.shape[:2], 1)).astype(np.float32))
        colour = hair_colour(np.exp(rng.uniform(-1.2, 1.8, count)), 0.2 + 0.5 * rng.random(count)).astype(np.float32)
        grey = rng.random(count) < 0.15
        colour[grey] = (colour[grey] + rng.uniform(0.2, 0.6, (grey.sum(), 1))) / 2
        shells, tones = self._hair(shape, colour)
        rotation = truth.rotation.astype(np.float32)
        posed = np.concatenate([shape, shells], 1) @ rotation.transpose(0, 2, 1)
        posed += translation_of_place(truth.place, truth.focal)[:, None].astype(np.float32)
        shade = np.concatenate(
            [np.tile(self.reflectance.reached, (count, 1)), np.ones((count, len(self._hair_from)))], 1
        ) * self._cast(shape, count)
        gloss = np.stack([rng.uniform(0, 0.12, count), rng.uniform(8, 60, count)], 1)
        drawn = draw_heads(
            posed, self._cells, np.concatenate([albedo, tones], 1), truth.light, gloss, self._lamp, truth.focal * _DRAWN, shade,
            _DRAWN,
        )  # fmt: skip
        pictures = np.empty((count, self.size, self.size, 3), np.uint8)
        skin = self.reflectance.mean_skin(truth.albedo)
        marks = self._marks(posed, truth.focal * _DRAWN)
        for n in range(count):
            pictures[n], exposure, face = self._picture(drawn[n], posed[n], marks[n], truth[n], skin[n], colour[n])
            truth.light[n] *= exposure
            truth.face[n] = face
        return pictures, replace(truth, maps=self._maps(posed, truth)) if maps else truth

    def _maps(self, posed: np.ndarray, truth: Truth) -> np.ndarray:
        out = np.zeros((len(posed), MAPS, MAP_SIZE, MAP_SIZE), np.float16)
        normals = np.empty(self.prior.mean.shape, np.float32)
        for n in np.flatnonzero(truth.face):
            head = np.ascontiguousarray(posed[n, : len(self.prior.mean)], np.float32)
            scale = truth.focal[n] * MAP_SIZE / head[:, 2:]
            shown = np.concatenate([head[:, :2] * scale + MAP_SIZE / 2, head[:, 2:]], 1)
            fragments = rasterise(shown, self.prior.triangles, MAP_SIZE, MAP_SIZE)
            normals_into(head, self.prior.triangles, normals)
            carried = interpolate(fragments, self.prior.triangles, np.concatenate([10 * self.prior.mean, normals], 1))
            out[n, 0] = fragments.triangle >= 0
            out[n, 1:] = carried.transpose(2, 0, 1)
        return out

    def _hair(self, shape: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(N x H x 3 vertices of hair in the head frame, N x H x 3 their albedo)."""
        rng, count = self.rng, len(shape)
        start = shape[:, self._hair_from]
        thick = np.where(rng.random(count) < 0.2, -0.004, rng.uniform(0.003, 0.05, count))[:, None]
        wave = np.sin(start @ self._waves.T.astype(np.float32) + rng.uniform(0, 6.3, (count, 1, 6))).mean(-1)
        rise = thick * self._taper * (1 + 0.6 * wave)
        # hair falls: below the crown it hangs outwards and down
        lift = self._rise + np.array([0, 0.5, 0]) * np.clip((start[..., 1:2] + 0.06) / 0.06, 0, 1.5)
        strands = np.exp(0.18 * rng.normal(size=(count, len(self._hair_from), 1)) + 0.3 * wave[..., None])
        return (start + rise[..., None] * lift).astype(np.float32), (colour[:, None] * strands).astype(np.float32)

    def _cast(self, shape: np.ndarray, count: int) -> np.ndarray:
        """N x (V + H) factors: now and then a shadow falls over half of a face."""
        rng = self.rng
        out = np.ones((count, shape.shape[1] + len(self._hair_from)))
        everything = np.concatenate([shape, shape[:, self._hair_from]], 1)
        for n in np.flatnonzero(rng.random(count) < 0.25):
            normal = rng.normal(size=3) * np.array([1, 0.7, 0.3])
            normal /= np.linalg.norm(normal)
            across = everything[n] @ normal - rng.normal(0, 0.04)
            out[n] = 1 - rng.uniform(0.2, 0.9) / (1 + np.exp(-across / rng.uniform(0.0015, 0.02)))
        return out

    def _marks(self, posed: np.ndarray, focal: np.ndarray) -> np.ndarray:
        """N x 478 x 2 landmarks in pixels of the drawn picture."""
        marks = self.prior.at_landmarks(posed[:, : len(self.prior.mean)])
        return focal[:, None, None] * marks[..., :2] / marks[..., 2:] + _DRAWN / 2

    def _picture(
        self, drawn: np.ndarray, posed: np.ndarray, marks: np.ndarray, truth: Truth, skin: np.ndarray, hair: np.ndarray
    ) -> tuple[np.ndarray, float, float]:
        """One crop as a camera would deliver it, the exposure it chose, and whether a face is left to see."""
        rng = self.rng
        focal = truth.focal * _DRAWN
        mask = drawn[..., 3]
        bright = float((drawn[..., :3] @ LUMINANCE).sum() / max(mask.sum(), 1))
        exposure = float(np.clip(np.exp(rng.normal(np.log(0.2), 0.45)) / max(bright, 1e-4), 0.02, 50))
        light = max(exposure * float(truth.light[0].mean()) / AMBIENT, 0.05)
        picture = backdrop(rng, _DRAWN) * rng.uniform(0.3, 1.3)
        wide = np.ptp(marks[:468, 0])
        draw_body(picture, marks, wide, skin * light, rng)
        if rng.random() < 0.4:
            draw_long_hair(picture, marks, wide, hair * light * rng.uniform(0.5, 1.2), rng)
        there = rng.random() > 0.07
        if there:
            picture = picture * (1 - mask[..., None]) + drawn[..., :3] * exposure
            if rng.random() < 0.25:
                draw_fringe(picture, marks, wide, hair * light * rng.uniform(0.5, 1.2), rng)
            if rng.random() < 0.18:
                self._draw_glasses(picture, posed, focal, rng)
        hidden = 0.0
        if rng.random() < 0.25:
            hidden = draw_occluder(picture, marks, wide, skin * light, rng)
        picture = cv2.resize(picture.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_AREA)
        return as_photographed(picture, rng), exposure, float(there and hidden < 0.6)

    def _draw_glasses(self, picture: np.ndarray, posed: np.ndarray, focal: float, rng: np.random.Generator) -> None:
        eyes = [posed[: len(self.prior.mean)][self.prior.part == part] for part in (LEFT_EYE, RIGHT_EYE)]
        centres = [e.mean(0) for e in eyes]
        across = (centres[0] - centres[1]) / np.linalg.norm(centres[0] - centres[1])
        nose = posed[self.prior.landmark_vertices[168]].mean(0)
        ahead = nose - (centres[0] + centres[1]) / 2
        ahead -= across * (ahead @ across)
        ahead /= np.linalg.norm(ahead)
        down = np.cross(ahead, across)
        down *= np.sign(down[1] + 1e-9)
        size = rng.uniform(0.021, 0.029), rng.uniform(0.014, 0.025)
        colour = np.exp(rng.uniform(-4, -0.7)) * rng.uniform(0.7, 1.0, 3)
        thick = max(1, int(rng.uniform(0.8, 4.5)))
        shaded = rng.uniform(0.05, 0.6) if rng.random() < 0.15 else 1.0
        for side, centre in enumerate(centres):
            ring = centre + 0.024 * ahead + self._rings[side] @ np.stack([across * size[0], down * size[1], ahead])
            shown = (focal * ring[:, :2] / ring[:, 2:] + _DRAWN / 2) * 16
            if shaded < 1:
                lens = np.zeros(picture.shape[:2], np.uint8)
                cv2.fillPoly(lens, [shown.astype(np.int32)], 1, shift=4)
                picture[lens > 0] *= shaded
            cv2.polylines(picture, [shown.astype(np.int32)], True, colour.tolist(), thick, cv2.LINE_AA, 4)
        ends = np.stack([c + 0.024 * ahead + across * s * size[0] for c, s in zip(centres, (-1, 1))])
        shown = (focal * ends[:, :2] / ends[:, 2:] + _DRAWN / 2).astype(int)
        cv2.line(picture, tuple(map(int, shown[0])), tuple(map(int, shown[1])), colour.tolist(), thick, cv2.LINE_AA)
