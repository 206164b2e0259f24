"""The prior of skin reflectance: what colours a head can have, as a Gaussian over coefficients.

The logit of albedo is linear: a(c) = 1 / (1 + exp(-(mean + sum_k c_k basis_k))) with c standard normal, so that an albedo lies
between 0 and 1 whatever the coefficients. Mean and basis are the principal components of drawn heads, whose skin comes
from two pigments (`models.prior.skin`) that vary over the head with its lowest Laplace-Beltrami harmonics (Vallet & Levy
2008), and whose lips, brows, hair, sclera, iris, teeth and tongue have colours of their own.

Convention: linear sRGB albedo per vertex of the prior's head.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy.interpolate import RegularGridInterpolator
from scipy.sparse.linalg import eigsh
from torch import Tensor

from models.light.harmonics import spread_directions
from models.prior.face import LEFT_EYE, RIGHT_EYE, AnnyPrior, OnDevice, cache_folder
from models.prior.face import VERSION as PRIOR_VERSION
from models.prior.skin import MELANIN, skin_colour
from models.prior.synthetic import IRIS_RADIUS, brow_distance, vertex_normals
from models.raster.cpu import rasterise

VERSION = 1  # part of the cache's file name, after the prior's own
COMPONENTS = 32
SAMPLES = 2000
LEAST_OPEN = 0.12  # light that reaches even the inside of a mouth
HARMONICS = 20
_SKIN_REGIONS = ("skin", "eyelids", "neck", "ears", "lips", "scalp")
# how much a region's vertices weigh in the principal components: small ones that the eye rests on weigh more
_WEIGHT = {"skin": 1.0, "eyelids": 1.5, "lips": 2.0, "eyeballs": 1.5, "neck": 0.5, "ears": 0.5, "scalp": 0.5}
# attenuation of hair pigments for red, green, blue (after Chiang et al. 2016; greens as strong as photographs show them)
_EUMELANIN, _PHEOMELANIN = np.array([0.419, 0.75, 1.25]), np.array([0.187, 0.5, 1.05])


@dataclass(frozen=True)
class Reflectance(OnDevice):
    """Albedo of the prior's head from coefficients.

    Attributes:
        mean: V x 3 logits.
        basis: K x V x 3, for standard normal coefficients, the most telling first.
        skin: V, each vertex' share of the face's bare skin; sums to 1.
        openness: V, the share of the light from all around that the head itself lets through to each vertex, 0..1.
    """

    mean: np.ndarray
    basis: np.ndarray
    skin: np.ndarray
    openness: np.ndarray
    explained: np.ndarray
    _tensors: dict = field(default_factory=dict, repr=False, compare=False)

    @property
    def reached(self) -> np.ndarray:
        """V: `openness`, nowhere below `LEAST_OPEN`: what drawing multiplies the light by."""
        return np.maximum(self.openness, np.float32(LEAST_OPEN))

    def albedo(self, coefficients: Float[Tensor, "*b k"]) -> Float[Tensor, "*b v 3"]:
        """Linear RGB of every vertex; differentiable."""
        device, dtype = coefficients.device, coefficients.dtype
        basis = self.tensor("basis", device)[: coefficients.shape[-1]].flatten(1).to(dtype)
        flat = self.tensor("mean", device).flatten().to(dtype) + coefficients @ basis
        return flat.unflatten(-1, (-1, 3)).sigmoid()

    def albedo_of(self, coefficients: np.ndarray) -> np.ndarray:
        """N x V x 3 float32 of N x K coefficients: `albedo` for arrays."""
        count = coefficients.shape[-1]
        flat = coefficients.astype(np.float32) @ self.basis[:count].reshape(count, -1)
        return 1 / (1 + np.exp(-(self.mean + flat.reshape(-1, *self.mean.shape))))

    def mean_skin(self, coefficients: np.ndarray) -> np.ndarray:
        """... x 3 mean albedo of the face's bare skin, linear RGB."""
        chosen = np.flatnonzero(self.skin)
        count = coefficients.shape[-1]
        logit = self.mean[chosen] + np.tensordot(coefficients, self.basis[:count, chosen], 1)
        return np.einsum("v,...vc->...c", self.skin[chosen], 1 / (1 + np.exp(-logit)))


def _vertex_regions(prior: AnnyPrior) -> np.ndarray:
    """V x R shares of the regions of the triangles around each vertex."""
    shares = np.zeros((len(prior.mean), len(prior.regions)))
    for k in range(3):
        np.add.at(shares, (prior.triangles[:, k], prior.region), 1)
    return shares / np.maximum(shares.sum(1, keepdims=True), 1)


def _areas(prior: AnnyPrior) -> np.ndarray:
    a, b, c = (prior.mean[prior.triangles[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 6
    out = np.zeros(len(prior.mean))
    for k in range(3):
        np.add.at(out, prior.triangles[:, k], area)
    return out


def laplace_beltrami(vertices: np.ndarray, triangles: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(values, V x count functions) of the lowest harmonics of a surface, by cotangents; unit mean square each."""
    size = len(vertices)
    weights = sp.csr_matrix((size, size))
    mass = np.zeros(size)
    for k in range(3):
        i, j, o = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        u, v = vertices[i] - vertices[o], vertices[j] - vertices[o]
        cross = np.linalg.norm(np.cross(u, v), axis=1)
        cotangent = np.clip((u * v).sum(1) / np.maximum(cross, 1e-12), -5, 5) / 2
        weights = weights + sp.csr_matrix((cotangent, (i, j)), (size, size)) + sp.csr_matrix((cotangent, (j, i)), (size, size))
        np.add.at(mass, triangles[:, k], cross / 6)
    laplacian = sp.diags(np.asarray(weights.sum(1)).ravel()) - weights
    mass = np.maximum(mass, 1e-9 * mass.max())
    start = np.random.default_rng(0).normal(size=size)
    values, functions = eigsh(laplacian.tocsc(), count, sp.diags(mass).tocsc(), sigma=-1e-3, v0=start)
    functions = functions * np.sqrt(mass.sum())
    return values, functions * np.sign(functions[np.abs(functions).argmax(0), np.arange(count)])


def ambient_openness(vertices: np.ndarray, triangles: np.ndarray, directions: int = 96, size: int = 192) -> np.ndarray:
    """V: cosine-weighted share of the directions above each vertex that the surface itself leaves open (ambient occlusion).

    The surface is drawn from every direction without perspective; what is not nearest there is in the shade of the rest.
    """
    normals = vertex_normals(vertices, triangles)
    centre, reach = vertices.mean(0), np.linalg.norm(vertices - vertices.mean(0), axis=1).max() * 1.02
    lit, all_of_it = np.zeros(len(vertices)), np.full(len(vertices), 1e-9)
    for towards in spread_directions(directions):
        side = np.cross(towards, (0.0, 1, 0) if abs(towards[1]) < 0.9 else (1.0, 0, 0))
        side /= np.linalg.norm(side)
        local = (vertices - centre) @ np.stack([side, np.cross(towards, side), -towards], 1)
        # depths far away, so that perspective-correct interpolation is as good as linear
        points = np.concatenate([(local[:, :2] / reach + 1) * size / 2, 1e3 + local[:, 2:]], 1).astype(np.float32)
        depth = rasterise(points, triangles, size, size).depth
        column, row = (np.clip(points[:, k].astype(int), 0, size - 1) for k in (0, 1))
        cosine = np.maximum(normals @ towards, 0)
        lit += cosine * (points[:, 2] <= depth[row, column] + 3 * 2 * reach / size)
        all_of_it += cosine
    return lit / all_of_it


def _bump(distance: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-0.5 * (distance / width) ** 2)


@dataclass(frozen=True)
class _Map:
    """Where on the head what colour can be; V each, 0..1."""

    shares: np.ndarray
    harmonics: np.ndarray
    fall: np.ndarray
    brow: np.ndarray
    iris: np.ndarray
    pupil: np.ndarray
    flushed: np.ndarray
    beard: np.ndarray


def _map(prior: AnnyPrior) -> _Map:
    mean, part = prior.mean.astype(np.float64), prior.part
    body = np.flatnonzero(part == 0)
    number = np.full(len(mean), -1)
    number[body] = np.arange(len(body))
    cells = number[prior.triangles]
    values, functions = laplace_beltrami(mean[body], cells[(cells >= 0).all(1)], HARMONICS + 1)
    harmonics = np.zeros((HARMONICS, len(mean)))
    harmonics[:, body] = functions[:, 1:].T
    fall = 1 / (1 + values[1:] / values[4])
    shares = _vertex_regions(prior)
    of = lambda *names: sum(shares[:, prior.regions.index(n)] for n in names)
    brow, iris, pupil = (np.zeros(len(mean)) for _ in range(3))
    at = prior.at_landmarks(mean)
    flushed = np.zeros(len(mean))
    for ball in (LEFT_EYE, RIGHT_EYE):
        mine = part == ball
        centre = mean[mine].mean(0)
        radius = np.linalg.norm(mean[mine] - centre, axis=1).max()
        brow = np.maximum(brow, 1 / (1 + np.exp((brow_distance(mean, centre) - 0.0042) / 0.0008)))
        across = np.linalg.norm((mean - centre)[:, :2], axis=1) / radius
        front = mine & (mean[:, 2] < centre[2])
        iris[front & (across < IRIS_RADIUS * 1.02)] = 1
        pupil[front & (across < 0.5 * IRIS_RADIUS)] = 1
    for landmark, width in ((50, 0.022), (280, 0.022), (4, 0.013)):  # cheeks and the tip of the nose
        flushed = np.maximum(flushed, _bump(np.linalg.norm(mean - at[landmark], axis=1), width))
    flushed = np.maximum(flushed, of("ears")) * of(*_SKIN_REGIONS)
    brow *= of("skin", "eyelids") * (mean[:, 2] < mean[part == LEFT_EYE][:, 2].mean() + 0.01)
    # where a beard grows: below the nose in front, along the jaw to the ears
    low = 1 / (1 + np.exp(-(mean[:, 1] - at[2, 1] - 0.004) / 0.003))
    side = 1 / (1 + np.exp(-(np.abs(mean[:, 0]) - 0.055) / 0.004))
    jaw = 1 / (1 + np.exp(-(mean[:, 1] - at[4, 1] + 0.005) / 0.01))
    beard = np.maximum(low * (1 - _bump(np.linalg.norm(mean - at[50], axis=1), 0.02)), 0.7 * side * jaw)
    beard *= of("skin") * (1 - of("lips"))
    return _Map(shares, harmonics, fall, brow, iris, pupil, flushed, beard)


def hair_colour(eumelanin: np.ndarray, pheomelanin: np.ndarray) -> np.ndarray:
    """... x 3 linear albedo of hair: light crosses about one fibre's width of pigment."""
    return 0.55 * np.exp(-(np.multiply.outer(eumelanin, _EUMELANIN) + np.multiply.outer(pheomelanin, _PHEOMELANIN)))


def draw_logits(prior: AnnyPrior, count: int, rng: np.random.Generator, place: _Map | None = None) -> np.ndarray:
    """count x V x 3 logits of the albedo of drawn heads."""
    place = place or _map(prior)
    shares = place.shares
    of = lambda *names: sum(shares[:, prior.regions.index(n)] for n in names)
    lips = of("lips")
    mouth, teeth, tongue, socket = of("mouth_interior"), of("teeth"), of("tongue"), of("eye_socket")
    ball = of("eyeballs")
    steps = np.log(np.geomspace(0.005, 0.5, 60)), np.log(np.geomspace(0.004, 0.3, 40))
    table = np.log(skin_colour(*np.exp(np.meshgrid(*steps, indexing="ij"))))
    pigments = RegularGridInterpolator(steps, table)
    out = np.empty((count, *prior.mean.shape), np.float32)
    for n in range(count):
        normal = rng.normal
        tone = np.clip(0.10 * np.exp(0.65 * np.clip(normal(), -2.3, 2.3)), *MELANIN)
        melanin = tone * np.exp((0.16 * place.fall * normal(size=HARMONICS)) @ place.harmonics)
        blood = 0.028 * np.exp(0.3 * normal() + (0.2 * place.fall * normal(size=HARMONICS)) @ place.harmonics)
        blood = blood * np.exp(place.flushed * np.clip(0.5 + 0.35 * normal(), -0.3, 1.6))
        melanin = melanin * np.exp(lips * (0.1 + 0.2 * normal()) + of("eyelids") * (0.12 + 0.15 * normal()))
        blood = blood * np.exp(lips * (1.4 + 0.5 * normal()))
        log = pigments(np.log(np.stack([np.clip(melanin, 0.005, 0.5), np.clip(blood, 0.004, 0.3)], -1)))
        log += 0.05 * normal() + 0.02 * normal(size=3)  # cameras and creams
        log += lips[:, None] * 0.12 * normal(size=3)  # lipstick
        stubble = np.clip(0.15 + 0.35 * normal(), 0, 1.2)
        log -= (stubble * place.beard)[:, None] * np.array([0.95, 0.85, 0.7]) * 0.7
        # the darker the skin, the darker the hair, for most
        eumelanin = np.exp(np.clip(np.log(2.2) + 0.9 * normal() + 6 * (tone - 0.12), np.log(0.25), np.log(6)))
        pheomelanin = 0.2 + 0.4 * np.abs(normal())
        hair = np.log(hair_colour(eumelanin, pheomelanin))
        log += (np.clip(0.75 + 0.3 * normal(), 0.1, 1) * place.brow)[:, None] * (hair - log)
        bald = rng.random() < 0.15
        log += (of("scalp") * (0.15 if bald else 0.9))[:, None] * (hair - log)
        brown = np.log([0.12, 0.055, 0.025]) + 0.35 * normal()
        blue = np.log([0.17, 0.23, 0.30]) + 0.3 * normal()
        light = np.clip(0.25 + 0.5 * normal() - 3 * (tone - 0.12), 0, 1)
        eye = np.log([0.68, 0.63, 0.60]) + 0.10 * normal() + 0.03 * normal(size=3)
        balls = np.where(place.iris[:, None] > 0, brown + light * (blue - brown), eye)
        balls = np.where(place.pupil[:, None] > 0, np.log(0.012), balls)
        log += ball[:, None] * (balls - log)
        for share, colour in (
            (teeth, (0.66, 0.60, 0.48)), (tongue, (0.38, 0.13, 0.12)), (mouth, (0.10, 0.03, 0.03)), (socket, (0.22, 0.09, 0.08)),
        ):  # fmt: skip
            log += share[:, None] * (np.log(colour) + 0.12 * normal() + 0.04 * normal(size=3) - log)
        log = np.minimum(log, np.log(0.9))
        out[n] = log - np.log1p(-np.exp(log))
    return out


def bake_reflectance(prior: AnnyPrior, seed: int = 0) -> dict[str, np.ndarray]:
    """Principal components of drawn heads; takes some ten seconds."""
    place = _map(prior)
    drawn = draw_logits(prior, SAMPLES, np.random.default_rng(seed), place)
    area = _areas(prior)
    weight = place.shares @ np.array([_WEIGHT.get(n, 0.3) for n in prior.regions])
    weight = np.sqrt(weight * (1 + 3 * place.brow) * (1 + 6 * place.iris) * (0.2 + prior.face_weight) * area / area.mean())
    mean = drawn.mean(0)
    flat = ((drawn - mean) * weight[:, None]).reshape(SAMPLES, -1).astype(np.float64)
    values, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(values)[::-1][:COMPONENTS]
    # each component as a mixture of the drawn heads, so that it also says what unweighted vertices do
    mixture = vectors[:, order].T / np.sqrt(SAMPLES - 1)
    basis = np.tensordot(mixture, drawn - mean, 1)
    basis *= np.sign((basis * weight[:, None]).sum((1, 2)))[:, None, None]
    bare = (place.shares[:, prior.regions.index("skin")] > 0.99) & (prior.face_weight > 0.9) & (place.brow < 0.05)
    skin = np.where(bare, area, 0)
    return {
        "mean": mean.astype(np.float32), "basis": basis.astype(np.float32), "skin": (skin / skin.sum()).astype(np.float32),
        "openness": ambient_openness(prior.mean, prior.triangles).astype(np.float32),
        "explained": np.array([values[order].sum() / values.sum()], np.float32),
    }  # fmt: skip


def load_reflectance(prior: AnnyPrior, path: Path | None = None) -> Reflectance:
    """The baked prior of reflectance; bakes it first where the cache has none (once)."""
    path = path or cache_folder() / f"anny-reflectance-v{PRIOR_VERSION}.{VERSION}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        os.close(handle)
        try:
            save_file(bake_reflectance(prior), partial)
            os.replace(partial, path)
        finally:
            Path(partial).unlink(missing_ok=True)
    with safe_open(str(path), framework="np") as file:
        return Reflectance(**{name: file.get_tensor(name) for name in file.keys()})
