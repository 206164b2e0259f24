"""What docs/figures.md states of the encoder on real faces, and of the rasteriser; run through `python -m tests.figures`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
import torch

from capture.face_finder import FaceFinder
from capture.face_tracker import FaceMesh
from capture.media import open_media
from capture.photo import write_photo
from models.encoder.crop import Crop
from models.encoder.decoder import Decoder
from models.encoder.draw import draw_heads
from models.encoder.losses import PhotometricLoss
from models.encoder.network import SIZE, Encoder, folded
from models.encoder.render import rendered
from models.encoder.synthetic import SyntheticFaces, translation_of_place
from models.encoder.weights import load_weights
from models.head import shapes
from models.prior.face import load_prior
from models.prior.reflectance import load_reflectance
from models.prior.synthetic import encode_srgb, vertex_normals
from models.raster import oracle
from models.raster.cpu import interpolate, rasterise
from pipeline.bench import synthetic_driver
from pipeline.encoder_evaluation import angle
from pipeline.encoding import FaceEncoder, crop_of_box, crop_of_landmarks, typical_camera
from pipeline.fitting import LandmarkModel
from pipeline.real_faces import read_real_faces
from pipeline.refinement import Refiner, Seen
from pipeline.shot import fit_person, frame_fitter

_ROOT = Path(__file__).parents[1]
# WFLW's 98 points as the 68 of iBUG's order (Wu et al. 2018, figure 4)
_WFLW = (
    *range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60), 60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75,
    *range(76, 96),
)  # fmt: skip
_SIZE = 160


def labelled_faces(media: Path) -> list[tuple[Path, np.ndarray]]:
    """Photos with 68 labelled points."""
    folder = media / "groundtruth" / "face_landmarks"
    found = []
    for entry in json.loads((folder / "landmarks.json").read_text())["images"]:
        points = np.array(entry["faces"][0]["points_xyv"])[:, :2]
        if len(points) == 98:
            points = points[list(_WFLW)]
        if len(points) == 68:
            found.append((folder / entry["file"], points))
    return found


def percent(made: np.ndarray, true: np.ndarray, first: int = 0) -> float:
    """Mean distance of the 68 points (from the 18th on without the jaw), % of the outer eye distance."""
    return float(100 * np.linalg.norm(made - true, axis=1)[first:].mean() / np.linalg.norm(true[36] - true[45]))


def lamp_picture(path: Path) -> np.ndarray:
    """H x W x 3 uint8 sRGB of a picture that holds linear grey values."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    return np.repeat(encode_srgb(grey / 255.0)[..., None], 3, 2)


def towards_lamp(path: Path) -> np.ndarray:
    """Unit vector in camera axes towards a Yale picture's lamp; azimuths count towards the person's right."""
    azimuth, elevation = (np.radians(int(x)) for x in re.match(r".*A([+-]\d+)E([+-]\d+)", path.stem).groups())
    return np.array(
        [-np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), -np.cos(azimuth) * np.cos(elevation)]
    )  # fmt: skip


class EncoderFigures:
    """The tables, and a sheet of pictures (picture | landmarks | decoded codes) that grows with them."""

    def __init__(self, media: Path, row, head, weights: str | None):
        self.media, self.row, self.head = media, row, head
        self.prior = load_prior()
        self.reflectance = load_reflectance(self.prior)
        self.look, self.refine = FaceEncoder(self.prior, weights), Refiner(self.prior, self.reflectance)
        self.finder, self.mesh = FaceFinder(), FaceMesh(1, still=True)
        self.sheet: list[np.ndarray] = []

    def points(self, landmarks: np.ndarray) -> np.ndarray:
        """68 x 2 of 478 x 2+."""
        return self.prior.ibug68 @ landmarks[:, :2]

    def show(self, image: np.ndarray, crop: Crop, landmarks: np.ndarray) -> None:
        focal, picture = np.array([crop.focal]), crop.take(image, _SIZE)
        codes = self.look.codes(crop.take(image)[None], focal)
        made = rendered(codes, focal, self.prior, self.reflectance, _SIZE, picture[None])[0]
        marked = picture.copy()
        at = np.concatenate([self.points(landmarks), np.ones((68, 1))], 1) @ np.linalg.inv(crop.homography(_SIZE)).T
        for x, y in at[:, :2] / at[:, 2:]:
            cv2.circle(marked, (int(x * 8), int(y * 8)), 8, (0, 255, 0), -1, cv2.LINE_AA, 3)
        self.sheet.append(np.vstack([picture, marked, made]))

    def photos(self) -> None:
        self.head("photo", "encoder %", "inner 51", "refined %", "inner 51", "MediaPipe %", "inner 51")
        sums = []
        for path, true in labelled_faces(self.media):
            image = next(iter(open_media(path))).image
            camera, boxes = typical_camera(image.shape[1], image.shape[0]), self.finder(image)
            if not boxes:
                self.row(f"`{path.name}`", "no face found", "", "", "", "", "")
                continue
            first = self.look.settled(image, crop_of_box(camera, boxes[0]))
            own, tracked = self.look.landmarks(first, camera), self.mesh(image)
            marks = tracked[0] if tracked else None
            found = self.refine(camera, [Seen(image, first.code, marks, first.points)], first.identity, first.albedo, first.light)
            person = replace(first.person(camera), identity=found.identity)
            after = frame_fitter(self.refine.model, person).landmarks(found.codes[0])
            numbers = [
                percent(self.points(points), true, k) if points is not None else float("nan")
                for points in (own, after, marks) for k in (0, 17)
            ]  # fmt: skip
            sums.append(numbers)
            self.row(f"`{path.name}`", *numbers)
            self.show(image, crop_of_landmarks(camera, own), own)
        self.row("mean", *np.nanmean(sums, 0).tolist())

    def clips(self) -> None:
        self.head("clip", "encoder beside the tracker, 68 points %", "inner 51")
        sums = []
        for path in sorted((self.media / "face").glob("*.mp4")) + sorted((self.media / "driver").glob("*.mp4")):
            errors = []
            for number, frame in enumerate(open_media(path)):
                if number % 10:
                    continue
                camera = typical_camera(frame.width, frame.height)
                seen, boxes = self.mesh(frame.image), self.finder(frame.image)
                if not seen or not boxes:
                    continue
                own = self.look.landmarks(self.look.settled(frame.image, crop_of_box(camera, boxes[0])), camera)
                if not errors:
                    self.show(frame.image, crop_of_landmarks(camera, own), own)
                errors.append([percent(self.points(own), self.points(seen[0]), k) for k in (0, 17)])
            sums.append(np.mean(errors, 0))
            self.row(f"`{path.parent.name}/{path.name}`", *sums[-1].tolist())
        self.row("mean", *np.mean(sums, 0).tolist())

    def lamps(self) -> None:
        self.head("Yale B", "lamps", "median error of the light's direction, degrees", "of lamps within 60 degrees")
        for person in sorted(p for p in (self.media / "light" / "yale_b").iterdir() if p.is_dir()):
            frontal = lamp_picture(person / f"{person.name}_P00A+000E+00.pgm")
            camera = typical_camera(frontal.shape[1], frontal.shape[0])
            crop = crop_of_box(camera, self.finder(frontal)[0])  # the head did not move between the lamps
            landmarks = self.look.landmarks(self.look(frontal, crop), camera)
            errors = []
            for path in sorted(person.glob("*_P00A[+-]*.pgm")):
                image, towards = lamp_picture(path), towards_lamp(path)
                found = self.look(image, crop).light.dominant_direction()
                errors.append((float(angle(found, towards)), float(angle(towards, np.array([0, 0, -1.0])))))
                if re.search(r"A.0[05]0E.(00|20|40)$", path.stem):
                    self.show(image, crop, landmarks)
            errors = np.array(errors)
            near = errors[:, 1] < 60
            self.row(person.name, len(errors), float(np.median(errors[:, 0])), float(np.median(errors[near, 0])))

    def write_sheets(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        blank = np.zeros_like(self.sheet[0])
        for number in range(0, len(self.sheet), 16):
            part = self.sheet[number : number + 16]
            part += [blank] * (-len(part) % 8)
            rows = [np.hstack(part[k : k + 8]) for k in range(0, len(part), 8)]
            write_photo(folder / f"{number // 16}.png", np.vstack(rows))


def rasteriser_speed(row, head) -> None:
    """512 x 512, whole head, colour and normal, beside the torch oracle."""
    prior = load_prior()
    v = prior.mean + np.array([0, 0.02, 0.6], np.float32)
    points = np.stack([900 * v[:, 0] / v[:, 2] + 256, 900 * v[:, 1] / v[:, 2] + 256, v[:, 2]], 1).astype(np.float32)
    attributes = np.concatenate([prior.mean, vertex_normals(v, prior.triangles)], 1).astype(np.float32)
    cells, at, values = torch.from_numpy(prior.triangles).long(), torch.from_numpy(points), torch.from_numpy(attributes)

    def fast() -> None:
        interpolate(rasterise(points, prior.triangles, 512, 512), prior.triangles, attributes)

    def plain() -> None:
        triangle, barycentric, _ = oracle.rasterise(at, cells, 512, 512)
        oracle.interpolate(triangle, barycentric, cells, values)

    def frames(work, count: int) -> float:
        work()
        times = []
        for _ in range(count):
            start = perf_counter()
            work()
            times.append(perf_counter() - start)
        return 1 / float(np.median(times))

    head("rasteriser, 512 x 512, 9,276 triangles, 6 channels", "frames a second")
    row("numba, two cores", frames(fast, 200))
    row("torch oracle, two cores", frames(plain, 10))

    if torch.cuda.is_available():
        from models.raster.differentiable import interpolate as carry
        from models.raster.differentiable import rasterise as find

        triangles = torch.from_numpy(prior.triangles).cuda()
        for count in (1, 8, 32):
            many = torch.from_numpy(points).cuda().expand(count, -1, -1).contiguous()
            carried = torch.from_numpy(attributes).cuda().expand(count, -1, -1).contiguous()

            def on_gpu(many=many, carried=carried) -> None:
                carry(find(many, triangles, 512, 512), triangles, carried)
                torch.cuda.synchronize()

            row(f"CUDA, {torch.cuda.get_device_name()}, {count} at once", count * frames(on_gpu, 100))
        for count in (64, 1024, 8192):
            row(f"encoder on CUDA, images a second in batches of {count}", look_rate(count, "cuda"))
    looks(row, head)
    beside_mesh(fast, row, head)


_MESH_MS = 3.3  # MediaPipe's face mesh on the machine on which the bars were set (shared/design/anchors.md)


def beside_mesh(fast, row, head) -> None:
    """Rasteriser and encoder in turns with MediaPipe's face mesh, so that a slow minute slows all three."""
    encoder, mesh = FaceEncoder(load_prior()), FaceMesh()
    picture = synthetic_driver(load_prior(), 1)[0].image
    crop, focal = np.zeros((1, SIZE, SIZE, 3), np.uint8), np.full(1, 4.0)
    works = {
        "MediaPipe's face mesh": lambda: mesh(picture), "rasteriser": fast, "one look": lambda: encoder.codes(crop, focal)
    }  # fmt: skip
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(21):
        for name, work in works.items():
            work()
            for _ in range(15):
                start = perf_counter()
                work()
                if turn:
                    times[name].append(1e3 * (perf_counter() - start))
    mesh.close()
    bars = {"rasteriser": 4.0, "one look": 3.0}
    head("in turns, two cores", "ms", "of the face mesh", f"bar, at {_MESH_MS} ms for the face mesh")
    base = float(np.median(times["MediaPipe's face mesh"]))
    for name, values in times.items():
        middle = float(np.median(values))
        row(name, middle, middle / base, bars[name] / _MESH_MS if name in bars else "")


_LOOKS = {  # each in a process of its own: what to run, environment
    "as the project looks (OpenVINO, then one step of the correction)": ("look_rate()", {}),
    "the same network by torch, its threads sleep between layers (as in the live loop)": ("torch_rate()", {}),
    "the same network by torch, its threads never sleep": ("torch_rate()", {"OMP_WAIT_POLICY": "ACTIVE"}),
    "the same network by torch, one thread": ("torch_rate()", {"OMP_NUM_THREADS": "1"}),
}


def looks(row, head) -> None:
    """One look of the encoder, batch of one, beside the same by torch alone."""
    head("one look of the encoder, two cores", "ms")
    for name, (what, setting) in _LOOKS.items():
        script = f"import pipeline; from tests.encoder_figures import look_rate, torch_rate; print({what})"
        work = [sys.executable, "-c", script]
        told = subprocess.run(work, env=os.environ | setting, capture_output=True, text=True, check=True, cwd=_ROOT)
        row(name, 1e3 / float(told.stdout.split()[-1]))


def look_rate(count: int = 1, device: str = "cpu") -> float:
    """Images a second."""
    encoder = FaceEncoder(load_prior(), device=device)
    crops, focal = np.zeros((count, SIZE, SIZE, 3), np.uint8), np.full(count, 4.0)
    return _rate(lambda: encoder.codes(crops, focal), count)


def torch_rate() -> float:
    """Images a second of the folded network, batch of one."""
    network: Encoder = folded(load_weights()[0])
    crop = torch.zeros(1, 3, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    focal = torch.tensor([4.0])
    with torch.inference_mode():
        return _rate(lambda: network(crop, focal), 1)


def _rate(work, count: int) -> float:
    times = []
    for _ in range(30 if count > 1 else 200):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return count / float(np.median(times[5:]))


def photometric(media: Path, row, head, weights: list[str]) -> None:
    """Photometric error (rms of sRGB codes over the face's skin, 0..1) on the clips under driver/, which no training has seen."""
    prior = load_prior()
    reflectance = load_reflectance(prior)
    loss = PhotometricLoss(Decoder(prior, reflectance), size=SIZE)
    faces = read_real_faces([media / "driver"], looks=1, most=12, jitter=0.0)
    names = [Path(f).name for f in faces.files]
    encoders = [FaceEncoder(prior, w) for w in weights]
    head("clip", *(Path(w).name for w in weights))
    table = []
    for number, name in enumerate(names):
        chosen = np.flatnonzero(faces.file == number)
        crops = torch.from_numpy(faces.crops[chosen]).permute(0, 3, 1, 2).float() / 255
        focal = torch.from_numpy(faces.focal[chosen].astype(np.float32))
        with torch.no_grad():
            found = [loss(e.codes(faces.crops[chosen], faces.focal[chosen]), crops, focal)[1]["rms"] for e in encoders]
        table.append(found)
        row(f"`{name}`", *(f"{v:.4f}" for v in found))
    row("mean", *(f"{v:.4f}" for v in np.mean(table, 0)))


_DRAWN = 384  # pixels of the heads that `person_shapes` draws


def person_shapes(row, head, count: int = 64) -> None:
    """Shape of the face from one picture of a rendered head (seed 5, known shape), by what the fit expects of it.

    Mean distance of the face's vertices from the truth in the head frame, both at rest.
    """
    prior = load_prior()
    reflectance = load_reflectance(prior)
    faces = SyntheticFaces(prior, reflectance, 5)
    truth = faces.codes(count)
    shape = shapes(prior, truth.identity, truth.expression, truth.gaze)
    posed = shape @ truth.rotation.transpose(0, 2, 1) + translation_of_place(truth.place, truth.focal)[:, None]
    drawn = draw_heads(
        posed, prior.triangles, reflectance.albedo_of(truth.albedo), truth.light, np.tile([0.05, 30.0], (count, 1)),
        np.tile([0.0, -0.5, -0.87], (count, 1)), truth.focal * _DRAWN, np.tile(reflectance.reached, (count, 1)), _DRAWN,
    )  # fmt: skip
    encoder, model, mesh = FaceEncoder(prior), LandmarkModel.of(prior), FaceMesh(still=True)
    chosen = np.flatnonzero((prior.face_weight > 0.5) & (prior.part == 0))
    apart = lambda made, true: 1e3 * np.linalg.norm(np.tensordot(made - true, prior.identity[:, chosen], 1), axis=1).mean()
    found: list[list[float]] = []
    for n in range(count):
        bright = np.percentile(drawn[n][drawn[n, ..., 3] > 0.5][:, 1], 90)
        linear = drawn[n, ..., :3] * 0.6 / max(bright, 1e-3) + 0.3 * (1 - drawn[n, ..., 3:])
        picture = encode_srgb(np.clip(linear, 0, 1))
        seen = next(iter(mesh(picture)), None)
        if seen is None:
            continue
        camera = typical_camera(_DRAWN, _DRAWN)
        look = encoder(picture, crop_of_landmarks(camera, seen)).identity
        made = [fit_person(model, seen[None], _DRAWN, _DRAWN, e).identity for e in (None, encoder.expected([look]))]
        true = truth.identity[n]
        found.append([apart(np.zeros(80), true), *(apart(m, true) for m in made), apart(look, true)])
    head("from one picture", f"shape of the face, mm ({len(found)} rendered heads)")
    names = "mean head", "landmarks alone", "landmarks, expecting who the encoder sees (`track`, live)", "encoder alone"
    for name, value in zip(names, np.mean(found, 0)):
        row(name, value)
