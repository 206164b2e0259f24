"""The encoder put to work: a face's box in a picture in, its whole code in the camera's axes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import torch

from capture.face_finder import FaceBox
from models.code import Camera, FaceCode, Person
from models.encoder.compiled import CompiledEncoder
from models.encoder.crop import Crop
from models.encoder.network import SIZE, Codes, Encoder, folded
from models.encoder.synthetic import ROOM, translation_of_place
from models.encoder.weights import load_weights
from models.light.harmonics import HarmonicLight
from models.prior.face import AnnyPrior, load_prior
from pipeline.fitting import LandmarkModel
from pipeline.refinement import SeenPoints
from pipeline.shot import TYPICAL_FOCAL, Expected, frame_fitter

SURE = 0.5  # confidence below which there is no face
# The fit takes 478 landmarks to err one by one, but they err together: as evidence on who somebody is they are worth far fewer.
# What they are weighed against is made so much surer instead (table `shape` of docs/figures.md).
_SURER = 0.2
_BOX = 0.984  # a detector's box over the landmarks' box, median over the media's clips and photos


@dataclass(frozen=True)
class Encoded:
    """What the encoder says of one face.

    Attributes:
        identity: 80.
        code: in the camera's axes; its confidence is that there is a face at all.
        albedo: 32 coefficients of `models.prior.reflectance`.
        light: in the camera's axes.
        points: where the 68 points of the iBUG order were seen, in the camera's picture.
    """

    identity: np.ndarray
    code: FaceCode
    albedo: np.ndarray
    light: HarmonicLight
    points: SeenPoints

    def person(self, camera: Camera) -> Person:
        """The one seen, as far as one look tells."""
        return Person(self.identity, np.zeros((478, 3)), camera, np.zeros(52), np.zeros((2, 2)))


def typical_camera(width: int, height: int) -> Camera:
    """The camera that a picture of unknown origin is taken to come from."""
    return Camera(TYPICAL_FOCAL * max(width, height), width, height)


def crop_of_box(camera: Camera, box: FaceBox) -> Crop:
    return Crop(camera, box.centre, ROOM * box.side / _BOX)


def crop_of_landmarks(camera: Camera, landmarks: np.ndarray) -> Crop:
    """The crop about 478 x 2+ landmarks (pixels), as the encoder is used to."""
    low, high = landmarks[:468, :2].min(0), landmarks[:468, :2].max(0)
    middle = (low + high) / 2
    return Crop(camera, (float(middle[0]), float(middle[1])), float(max((high - low).max(), 8.0)) * ROOM)


def out_of_crop(codes: Codes, index: int, crop: Crop) -> Encoded:
    """One of the encoder's answers, from its crop's axes to the camera's."""
    identity, expression, gaze, rotation, place, albedo, light, confidence, points, doubt = (
        np.asarray(c[index], np.float64) for c in codes
    )  # fmt: skip
    translation = translation_of_place(place[None], np.array([crop.focal]))[0]
    code = FaceCode(
        expression, crop.rotation_out(rotation), crop.translation_out(translation), np.clip(gaze, -0.9, 0.9),
        float(1 / (1 + np.exp(-confidence))),
    )  # fmt: skip
    shown = np.concatenate([(points + 0.5) * SIZE, np.ones((len(points), 1))], 1) @ crop.homography().T
    seen = SeenPoints(shown[:, :2] / shown[:, 2:], doubt * crop.side)
    return Encoded(identity, code, albedo, HarmonicLight(light).rotated(crop.rotation), seen)


#: 80 coefficients of somebody's identity, or None for what does not look like a face; worked out when first asked
Who = Callable[[], np.ndarray | None]


class FaceEncoder:
    """Crops in, codes out."""

    def __init__(self, prior: AnnyPrior, weights: str | None = None, device: str = "cpu", encoder: Encoder | None = None):
        """Args:
        weights: file; None takes those that ship with the project.

        Raises:
            ModelError: weights that can't be used.
        """
        self.prior, self.device = prior, device
        self._model = LandmarkModel.of(prior)
        origin: dict = {}
        if encoder is None:
            encoder, origin = load_weights(weights)
        self.identity_spread = np.array(origin.get("identity_spread", np.ones(len(prior.identity))))
        network = folded(encoder).to(device)
        self._network = network if device != "cpu" else None
        self._single = CompiledEncoder(network) if device == "cpu" else None

    def codes(self, crops: np.ndarray, focal: np.ndarray) -> Codes:
        """Of N x S x S x 3 uint8 sRGB crops with N focal lengths (crop widths); on the CPU, as tensors."""
        if self._single is not None:  # one by one: a crop's codes don't depend on its neighbours
            looks = [self._single(crop, float(length)) for crop, length in zip(crops, focal)]
            return Codes(*map(torch.cat, zip(*looks)))
        with torch.inference_mode():
            pictures = torch.from_numpy(crops).to(self.device).permute(0, 3, 1, 2).float().div_(255)
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            lengths = torch.from_numpy(np.asarray(focal, np.float32)).to(self.device)
            return Codes(*(part.cpu() for part in self._network(pictures, lengths)))

    def __call__(self, image: np.ndarray, crop: Crop) -> Encoded:
        """The face in one crop of an H x W x 3 uint8 sRGB picture."""
        return self._told(crop.take(image), crop)

    def _told(self, pixels: np.ndarray, crop: Crop) -> Encoded:
        return out_of_crop(self.codes(pixels[None], np.array([crop.focal])), 0, crop)

    def who(self, image: np.ndarray, landmarks: np.ndarray) -> Who:
        """Cuts out the face with 478 x 2+ landmarks (pixels), to be told whose it is when that is asked."""
        crop = crop_of_landmarks(typical_camera(image.shape[1], image.shape[0]), landmarks)
        pixels = crop.take(image)

        def identity() -> np.ndarray | None:
            encoded = self._told(pixels, crop)
            return encoded.identity if encoded.code.confidence > SURE else None

        return cache(identity)

    def expected(self, looks: list[Who]) -> Expected | None:
        """What several looks at one person let a fit expect; None without any that shows a face."""
        told = [look() for look in looks]
        identities = [one for one in told if one is not None]
        return Expected(np.mean(identities, 0), _SURER * self.identity_spread) if identities else None

    def settled(self, image: np.ndarray, crop: Crop, looks: int = 2) -> Encoded:
        """The same after looking again where the face turned out to be."""
        encoded, first = self(image, crop), crop
        for _ in range(looks - 1):
            if encoded.code.confidence < 0.3:
                break
            crop = crop_of_landmarks(crop.camera, self.landmarks(encoded, crop.camera))
            if not 0.6 < crop.side / first.side < 1.6:  # that is not what was pointed at
                break
            encoded = self(image, crop)
        return encoded

    def landmarks(self, encoded: Encoded, camera: Camera) -> np.ndarray:
        """478 x 2 landmarks of a code, pixels of the camera's picture."""
        return frame_fitter(self._model, encoded.person(camera)).landmarks(encoded.code)


@lru_cache(1)
def shipped_encoder() -> FaceEncoder:
    """The encoder that ships with the project, on the CPU, once in a process."""
    return FaceEncoder(load_prior())
