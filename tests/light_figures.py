"""Relighting against real photographs under known lamps. Used by `tests.figures`.

Extended Yale Face Database B (Georghiades, Belhumeur & Kriegman 2001; Lee, Ho & Kriegman 2005): from the picture under the
frontal lamp to each other lamp within 60 degrees or little more of the same face. The pictures' values are linear; they are
compared in linear light over skin, with one free gain a picture.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from capture.face_tracker import FaceMesh
from capture.media import StillPicture
from models.code import FaceCode
from models.colour import DECODE
from models.head import Head
from models.light.harmonics import HarmonicLight, lamp
from models.light.lights import Lamp, Light, ambient_light
from models.prior.face import AnnyPrior, load_prior
from models.prior.synthetic import encode_srgb, vertex_normals
from models.raster.cpu import interpolate, rasterise
from pipeline.fitting import LandmarkModel
from pipeline.looking import Shot, look_at
from pipeline.relight import Behind, relit_picture
from pipeline.shot import fit_person, frame_fitter
from tests.photometric import Relief, photometric_relief

_FARTHEST = 62.5  # degrees from the camera, so that the lamps at an azimuth of 60 are among them
_BANDS = ((0, 25), (25, 50), (50, 63))
_TORN = 1.5  # rows differ so much more from the next than from the one after it in captures that are half exposed
_RIM = 40  # grey around a face
_LARGER, _MARGIN = 3, 0.3  # as faces are tracked: times as large, with so much of the width around them
_FARTHEST_SHIFT = 8  # pixels
_DARKEST = 0.02  # of a shading that is divided by
_SHADOWED = 1 / 3
_ENOUGH = 0.02  # of the skin in shadow, for pictures whose shadows are compared
_SETTLED = 24  # steps of a fit to one picture
Method = Callable[["Sitter", np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sitter:
    """One person under many lamps.

    Attributes:
        source: H x W linear in [0, 1], under the frontal lamp.
        targets: (direction towards the lamp, H x W linear picture registered to the source), half-exposed ones left out.
        skin: H x W bool.
        normals: H x W x 3 in camera axes, of the fitted head.
    """

    name: str
    source: np.ndarray
    targets: list[tuple[np.ndarray, np.ndarray]]
    skin: np.ndarray
    normals: np.ndarray


def towards(azimuth: float, elevation: float) -> np.ndarray:
    """A lamp's direction in camera axes; the database's angles are degrees, positive to the sitter's right and up."""
    a, e = np.radians([azimuth, elevation])
    return np.array([-np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e)])


def from_front(direction: np.ndarray) -> float:
    """Degrees between a lamp and the camera."""
    return float(np.degrees(np.arccos(np.clip(-direction[2], -1, 1))))


def read_sitters(folder: Path, prior: AnnyPrior) -> list[Sitter]:
    pictures: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    with open(folder / "lights.csv") as file:
        for line in csv.DictReader(file):
            picture = cv2.imread(str(folder / line["file"]), cv2.IMREAD_GRAYSCALE)
            direction = towards(float(line["azimuth_deg"]), float(line["elevation_deg"]))
            if from_front(direction) <= _FARTHEST and picture.shape == (192, 168):
                pictures.setdefault(line["file"].split("/")[0], []).append((direction, picture))
    return [_sitter(name, mine, prior) for name, mine in sorted(pictures.items())]


def _sitter(name: str, pictures: list[tuple[np.ndarray, np.ndarray]], prior: AnnyPrior) -> Sitter:
    source = next(picture for direction, picture in pictures if from_front(direction) < 1)
    whole = [(d, p) for d, p in pictures if from_front(d) >= 1 and not _half_exposed(p)]
    # two runs of flashes, one of the lamps from 20 to 25 degrees, between which the head moved: one shift each
    runs = [20 <= round(from_front(direction)) <= 25 for direction, _ in whole]
    found = np.array([_shift(source, picture) for _, picture in whole])
    targets = []
    for (direction, picture), run in zip(whole, runs):
        across, down = np.median(found[[other == run for other in runs]], axis=0)
        move = np.float32([[1, 0, -across], [0, 1, -down]])
        moved = cv2.warpAffine(picture, move, picture.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
        targets.append((direction, moved / 255.0))
    skin, normals = _surface(source, prior)
    return Sitter(name, source / 255.0, targets, skin & (source < 250), normals)


def _half_exposed(picture: np.ndarray) -> bool:
    rows = picture.astype(float)
    return np.abs(rows[1:-1] - rows[:-2]).mean() > _TORN * np.abs(rows[2:] - rows[:-2]).mean()


def _shift(source: np.ndarray, target: np.ndarray) -> tuple[int, int]:
    """Columns and rows by which the target's features lie beside the source's: of what light changes least."""
    rim = _FARTHEST_SHIFT
    match = cv2.matchTemplate(_features(target), _features(source)[rim:-rim, rim:-rim], cv2.TM_CCOEFF_NORMED)
    across, down = cv2.minMaxLoc(match)[3]
    return across - rim, down - rim


def _features(picture: np.ndarray) -> np.ndarray:
    log = np.log(picture.astype(np.float32) + 8)
    log -= cv2.GaussianBlur(log, (0, 0), 4)
    return log / (np.sqrt(cv2.GaussianBlur(log * log, (0, 0), 8)) + 0.02)


def _surface(source: np.ndarray, prior: AnnyPrior) -> tuple[np.ndarray, np.ndarray]:
    """The skin of a face, and the fitted head's normals."""
    height, width = source.shape
    grey = encode_srgb(source / 255.0)
    rim = round(_MARGIN * width)
    # cropped so closely that faces are found only with a dark rim around
    large = cv2.copyMakeBorder(grey, rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=_RIM)
    large = cv2.resize(large, None, fx=_LARGER, fy=_LARGER)
    mesh = FaceMesh(still=True)
    landmarks = np.asarray(mesh(cv2.cvtColor(large, cv2.COLOR_GRAY2RGB))[0], float)
    mesh.close()
    model = LandmarkModel.of(prior)
    person = fit_person(model, landmarks[None], large.shape[1], large.shape[0])
    fit = frame_fitter(model, person)
    for _ in range(_SETTLED):
        code: FaceCode = fit(landmarks)
    posed = Head(prior, person).posed(code)
    seen = rasterise(person.camera.project(posed), prior.triangles, *large.shape)
    normals = interpolate(seen, prior.triangles, vertex_normals(posed, prior.triangles).astype(np.float32))
    skin = (seen.triangle >= 0) & (prior.region[seen.triangle] == prior.regions.index("skin"))
    inner = slice(rim * _LARGER, -rim * _LARGER)
    small = cv2.resize(normals[inner, inner], (width, height), interpolation=cv2.INTER_AREA)
    small /= np.maximum(np.linalg.norm(small, axis=-1, keepdims=True), 1e-6)
    skin = cv2.resize(skin[inner, inner].astype(np.float32), (width, height), interpolation=cv2.INTER_AREA) > 0.99
    return skin, small


def unchanged(sitter: Sitter, direction: np.ndarray) -> np.ndarray:
    return sitter.source


def lambert(sitter: Sitter, direction: np.ndarray) -> np.ndarray:
    before = np.maximum(-sitter.normals[..., 2], _DARKEST)
    return sitter.source * np.maximum(sitter.normals @ direction, 0) / before


def harmonic(sitter: Sitter, direction: np.ndarray) -> np.ndarray:
    shade = lambda d: HarmonicLight(lamp(d, np.ones(3))).shading(sitter.normals)[..., 0]
    return sitter.source * np.maximum(shade(direction), 0) / np.maximum(shade(np.array([0.0, 0.0, -1.0])), _DARKEST)


BASELINES: dict[str, Method] = {"unchanged": unchanged, "Lambert ratio": lambert, "harmonic ratio": harmonic}


class AllLamps:
    """By the relief that all of a person's lamps tell, the target's among them: nobody has that, it says what is left to tell."""

    def __init__(self) -> None:
        self._reliefs: dict[str, Relief] = {}

    def __call__(self, sitter: Sitter, direction: np.ndarray) -> np.ndarray:
        front = np.array([0.0, 0.0, -1.0])
        if sitter.name not in self._reliefs:
            self._reliefs[sitter.name] = photometric_relief([*sitter.targets, (front, sitter.source)], sitter.skin)
        relief = self._reliefs[sitter.name]
        return sitter.source * relief.lit(direction) / np.maximum(relief.lit(front), _DARKEST)


class OurOwn:
    """The product's relighting, as its command does it: the frontal picture in, a picture out."""

    def __init__(self, prior: AnnyPrior, known: bool):
        """Args:
        known: the frontal lamp is given; else it is estimated.
        """
        self._prior, self._known = prior, known
        self._shots: dict[str, Shot] = {}

    def __call__(self, sitter: Sitter, direction: np.ndarray) -> np.ndarray:
        picture = cv2.cvtColor(encode_srgb(sitter.source), cv2.COLOR_GRAY2RGB)
        if sitter.name not in self._shots:
            front = _lamp(np.array([0.0, 0.0, -1.0])) if self._known else None
            self._shots[sitter.name] = look_at(StillPicture(picture, sitter.name), self._prior, front)
        behind = Behind("keep", picture.shape[1], picture.shape[0])
        everywhere = np.ones(picture.shape[:2], np.float32)  # the pictures are cut within the face: no matte
        out = relit_picture(picture, self._shots[sitter.name], 0, _lamp(direction), behind, everywhere)
        return DECODE[out[..., 1]] / 65535


def _lamp(direction: np.ndarray) -> Light:
    return ambient_light(np.zeros(3), (Lamp("directional", np.full(3, 0.8), direction=direction),))


def shadow(picture: np.ndarray, source: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """H x W bool: skin that is darker against its frontal picture than a third of what most of it is."""
    ratio = cv2.GaussianBlur(picture, (0, 0), 1.0) / np.maximum(cv2.GaussianBlur(source, (0, 0), 1.0), _DARKEST)
    return skin & (ratio < _SHADOWED * np.median(ratio[skin]))


def decibels(made: np.ndarray, truth: np.ndarray, skin: np.ndarray) -> float:
    """PSNR in linear light over skin, under the gain that suits it best."""
    a, b = made[skin], truth[skin]
    gain = (a @ b) / max(a @ a, 1e-12)
    return float(-10 * np.log10(np.mean((gain * a - b) ** 2)))


def yale(media: Path, row, head) -> None:
    """Relighting and the baselines that it is to beat, by the lamp's angle to the camera."""
    prior = load_prior()
    ours = {"relight, lamp given": OurOwn(prior, True), "relight, lamp estimated": OurOwn(prior, False)}
    methods = BASELINES | ours | {"relief by all of the lamps": AllLamps()}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in methods}
    for sitter in read_sitters(media / "light/yale_b", prior):
        for direction, truth in sitter.targets:
            dark = shadow(truth, sitter.source, sitter.skin)
            for name, method in methods.items():
                made = method(sitter, direction)
                told = shadow(made, sitter.source, sitter.skin)
                both, either = ((told & dark).sum(), (told | dark).sum()) if dark.sum() > _ENOUGH * sitter.skin.sum() else (0, 0)
                found[name].append((from_front(direction), decibels(made, truth, sitter.skin), both, either))
    bands = [f"{low:.0f} to {high:.0f} degrees" for low, high in _BANDS]
    head(
        "method",
        "pictures",
        *(f"{band}, dB" for band in bands),
        "mean dB",
        "shadows' overlap",
        *(f"at {band}" for band in bands),
        "of all at once",
    )
    for name, told in found.items():
        angle, value, both, either = np.array(told).T
        overlap = np.divide(both, either, out=np.full(len(both), np.nan), where=either > 0)
        within = [(angle > low) & (angle <= high + 1e-6) for low, high in _BANDS]
        row(
            name, len(value), *(value[one].mean() for one in within), value.mean(), np.nanmean(overlap),
            *(np.nanmean(overlap[one]) for one in within), both.sum() / either.sum(),
        )  # fmt: skip
