"""How good the encoder is: on held-out synthetic heads against their codes."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from models.code import Camera
from models.encoder.crop import Crop
from models.encoder.landmarks import Landmarks
from models.encoder.network import Codes, Encoder
from models.encoder.synthetic import SyntheticFaces, Truth
from models.encoder.weights import SHIPPED, load_weights
from models.light.harmonics import LUMINANCE, dominant_direction
from models.prior.face import AnnyPrior
from models.prior.reflectance import Reflectance, load_reflectance
from pipeline.encoding import FaceEncoder, out_of_crop
from pipeline.progress import Listener, counted, silent
from pipeline.refinement import Refiner, Seen

HELD_OUT = 10_000_019  # a seed that training never uses
_OUTER_EYES = (36, 45)  # of the 68


def as_input(pictures: np.ndarray, device: str | torch.device = "cpu") -> Tensor:
    """N x S x S x 3 uint8 sRGB to what the encoder takes: N x 3 x S x S in [0, 1], channels last."""
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).float().div(255)


def encode(encoder: Encoder, pictures: np.ndarray, focal: np.ndarray, batch: int = 128) -> Codes:
    """The codes of N crops, on the CPU."""
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        parts = [
            encoder(as_input(pictures[k : k + batch], device), torch.from_numpy(np.float32(focal[k : k + batch])).to(device))
            for k in range(0, len(pictures), batch)
        ]
    return Codes(*(torch.cat(p).cpu() for p in zip(*parts)))


def angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between ... x 3 directions."""
    cosine = (a * b).sum(-1) / np.maximum(np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1), 1e-12)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def turn(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between ... x 3 x 3 rotations."""
    trace = np.einsum("...ij,...ij->...", a, b)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def turn_by_axis(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean difference of yaw, pitch and roll between ... x 3 x 3 rotations, degrees: what papers on head pose state."""
    angles = lambda r: np.stack(
        [np.arctan2(r[..., 0, 2], r[..., 2, 2]), np.arcsin(np.clip(r[..., 1, 2], -1, 1)), np.arctan2(r[..., 1, 0], r[..., 1, 1])]
    )
    return np.degrees(np.abs((angles(a) - angles(b) + np.pi) % (2 * np.pi) - np.pi)).mean(0)


def code_errors(codes: Codes, truth: Truth, prior: AnnyPrior, reflectance: Reflectance) -> dict[str, np.ndarray]:
    """Error of each face by name: landmarks (% of the outer eye corners' distance), pose and light (degrees), and so on."""
    seen = truth.face > 0.5
    codes = Codes(*(c[torch.from_numpy(seen)] for c in codes))
    truth = truth[seen]
    model = Landmarks(prior)
    tensor = lambda array: torch.from_numpy(np.asarray(array, np.float32))
    focal = tensor(truth.focal)
    made = model.shown(model.shape(codes.identity, codes.expression), codes.rotation, codes.place, focal)
    true = model.shown(
        model.shape(tensor(truth.identity), tensor(truth.expression)), tensor(truth.rotation), tensor(truth.place), focal
    )
    made, true = prior.ibug68 @ made.numpy(), prior.ibug68 @ true.numpy()
    eyes = np.linalg.norm(true[:, _OUTER_EYES[0]] - true[:, _OUTER_EYES[1]], axis=1)
    full_eyes = np.maximum(eyes, 0.5 * np.percentile(eyes, 90))  # seen from the side, the eyes lie close together
    albedo, true_albedo = reflectance.mean_skin(codes.albedo.numpy()), reflectance.mean_skin(truth.albedo)
    return {
        "landmarks": 100 * np.linalg.norm(made - true, axis=2).mean(1) / full_eyes,
        "expression": np.abs(codes.expression.numpy() - truth.expression).mean(1),
        "pose": turn(codes.rotation.numpy(), truth.rotation),
        "axes": turn_by_axis(codes.rotation.numpy(), truth.rotation),
        "gaze": np.degrees(np.abs(codes.gaze.numpy() - truth.gaze)).mean((1, 2)),
        "light": angle(dominant_direction(codes.light.numpy()), dominant_direction(truth.light)),
        "albedo": np.abs(np.log(albedo / true_albedo)).mean(1),
    }


def identity_spread(codes: Codes, truth: Truth) -> np.ndarray:
    """80 standard deviations of how far identities are off."""
    seen = truth.face > 0.5
    return (codes.identity.numpy()[seen] - truth.identity[seen]).std(0)


NAMES = {
    "landmarks": "68 landmarks, % of outer eye distance", "expression": "expression, mean of 52",
    "pose": "head pose, angle, degrees", "axes": "head pose, mean of its 3 axes, degrees",
    "gaze": "gaze, degrees", "light": "dominant light direction, degrees", "albedo": "skin albedo, mean |log|",
}  # fmt: skip
_EDGES = {
    "landmarks": (1, 2, 3, 4, 6, 8, 12, 20), "expression": (0.02, 0.04, 0.06, 0.08, 0.1, 0.15),
    "pose": (1, 2, 3, 4, 6, 10, 20), "axes": (1, 2, 3, 4, 6, 10, 20),
    "gaze": (2, 4, 6, 8, 12, 20), "light": (3, 6, 12, 20, 40, 90), "albedo": (0.05, 0.1, 0.2, 0.3, 0.5, 0.8),
}  # fmt: skip
TONES = 5
_STRENGTHS = 4


def refined_codes(
    codes: Codes, pictures: np.ndarray, truth: Truth, prior: AnnyPrior, reflectance: Reflectance, listen: Listener = silent
) -> Codes:
    """The encoder's answers for crops, each refined on its own pixels."""
    refiner = Refiner(prior, reflectance)
    identity, expression, gaze, rotation, place, albedo, light = (np.array(c, np.float64) for c in codes[:7])
    size = pictures.shape[1]
    for n in counted(range(len(pictures)), "refine", len(pictures), listen):
        focal = float(truth.focal[n])
        camera = Camera(focal * size, size, size)
        start = out_of_crop(codes, n, Crop(camera, (size / 2, size / 2), size))
        found = refiner(camera, [Seen(pictures[n], start.code, points=start.points)], start.identity, start.albedo, start.light)
        code = found.codes[0]
        x, y, z = code.translation
        identity[n], albedo[n], light[n] = found.identity, found.albedo, found.light.coefficients
        expression[n], rotation[n] = code.expression, code.rotation
        place[n] = focal * x / z, focal * y / z, np.log(0.1 * focal / z)
    single = lambda array: torch.from_numpy(array.astype(np.float32))
    return Codes(*map(single, (identity, expression, gaze, rotation, place, albedo, light)), *codes[7:])


def _summary(values: np.ndarray, edges: tuple[float, ...]) -> dict:
    counts = np.histogram(values, [-np.inf, *edges, np.inf])[0]
    return {
        "mean": float(values.mean()), "median": float(np.median(values)), "p90": float(np.percentile(values, 90)),
        "histogram": {"edges": list(edges), "share": (counts / len(values)).round(4).tolist()},
    }  # fmt: skip


def evaluate_encoder(
    prior: AnnyPrior, weights: str | None = None, count: int = 512, refined: int = 128, device: str = "cpu",
    listen: Listener = silent,
) -> dict:  # fmt: skip
    """Errors on held-out synthetic faces (a seed that training never uses), by skin tone as well, and the time of one look.

    Args:
        weights: file; None takes those that ship with the project.
        refined: of the faces, how many are refined as well.

    Raises:
        ModelError: weights that can't be used.
    """
    reflectance = load_reflectance(prior)
    encoder, origin = load_weights(weights)
    face_encoder = FaceEncoder(prior, device=device, encoder=encoder)
    pictures, truth = SyntheticFaces(prior, reflectance, HELD_OUT).batch(count)
    codes = face_encoder.codes(pictures, truth.focal)
    alone = code_errors(codes, truth, prior, reflectance)
    few = truth[:refined]
    after = refined_codes(Codes(*(c[:refined] for c in codes)), pictures[:refined], few, prior, reflectance, listen)
    then = code_errors(after, few, prior, reflectance)
    seen = truth.face > 0.5
    bright = reflectance.mean_skin(truth.albedo[seen]) @ LUMINANCE
    groups = np.array_split(np.argsort(bright), TONES)
    tones = [
        {"luminance": [float(bright[g].min()), float(bright[g].max())]}
        | {k: float(alone[k][g].mean()) for k in ("albedo", "light")}
        for g in groups
    ]
    # a light without a direction has a dominant one all the same, which nothing tells
    bands = truth.light[seen] @ LUMINANCE
    directed = np.linalg.norm(bands[:, 1:4], axis=1) / np.maximum(bands[:, 0], 1e-9)
    strengths = [
        {"directed": [float(directed[g].min()), float(directed[g].max())], "light": _summary(alone["light"][g], _EDGES["light"])}
        for g in np.array_split(np.argsort(directed), _STRENGTHS)
    ]
    worst = {k: max(t[k] for t in tones) / float(alone[k].mean()) for k in ("albedo", "light")}
    told = torch.sigmoid(codes.confidence).numpy()
    one, focal = pictures[:1], truth.focal[:1]
    times = []
    for _ in range(120):
        start = perf_counter()
        face_encoder.codes(one, focal)
        times.append(perf_counter() - start)
    return {
        "weights": str(weights or SHIPPED), "origin": origin, "faces": int(seen.sum()), "seed": HELD_OUT,
        "encoder": {k: _summary(v, _EDGES[k]) for k, v in alone.items()},
        "refined": {k: _summary(v, _EDGES[k]) for k, v in then.items()},
        "tones": tones, "worst_tone_over_mean": worst, "light_by_strength": strengths,
        "face_or_not": {"faces_told": float((told[seen] > 0.5).mean()), "others_told": float((told[~seen] <= 0.5).mean())},
        "milliseconds_per_image": 1e3 * float(np.median(times[20:])),
    }  # fmt: skip


def table(report: dict) -> str:
    """The report as lines to read."""
    lines = [f"{'':44}  encoder: mean  median     p90   refined: mean  median"]
    for name, title in NAMES.items():
        a, b = report["encoder"][name], report["refined"][name]
        lines.append(
            f"{title:44}  {a['mean']:13.3f} {a['median']:7.3f} {a['p90']:7.3f}   {b['mean']:13.3f} {b['median']:7.3f}"
        )  # fmt: skip
        edges, share = a["histogram"]["edges"], a["histogram"]["share"]
        cells = [f"<{e:g}: {100 * s:.0f}%" for e, s in zip(edges, share)] + [f"more: {100 * share[-1]:.0f}%"]
        lines.append(f"{'':6}" + "  ".join(cells))
    lines.append("skin tones, darkest to lightest (luminance): albedo |log|, light degrees")
    for tone in report["tones"]:
        low, high = tone["luminance"]
        lines.append(f"      {low:.3f} to {high:.3f}: {tone['albedo']:.3f}, {tone['light']:.1f}")
    worst = report["worst_tone_over_mean"]
    lines.append(f"      worst over mean: albedo {worst['albedo']:.2f}, light {worst['light']:.2f}")
    lines.append("light by how directed it is (first band over ambient, luminance): mean, median degrees")
    for group in report["light_by_strength"]:
        low, high = group["directed"]
        lines.append(f"      {low:.2f} to {high:.2f}: {group['light']['mean']:.1f}, {group['light']['median']:.1f}")
    told = report["face_or_not"]
    lines.append(f"faces told as faces {100 * told['faces_told']:.1f} %, others as none {100 * told['others_told']:.1f} %")
    lines.append(f"one crop, batch of one: {report['milliseconds_per_image']:.2f} ms")
    return "\n".join(lines)
