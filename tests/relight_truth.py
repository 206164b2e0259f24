"""Relighting against ground truth: heads with textured skin and hair, path-traced by Mitsuba 3 under many lights.

Mitsuba is a development dependency of this figure alone: `pip install mitsuba==3.9.1`. Where DRJIT_LIBLLVM_PATH names an LLVM of
19 or so it renders four times as fast; else its scalar variant does, which needs nothing. Used by `tests.figures`.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from torchmetrics.functional.image import structural_similarity_index_measure

from capture.frame import Frame
from capture.media import StillPicture, open_media
from capture.motion import Motion
from models.code import Camera, FaceCode, Person
from models.colour import DECODE, to_srgb8
from models.encoder.synthetic import SyntheticFaces
from models.head import Head, rotation_of_angles
from models.light.harmonics import spread_directions
from models.light.lights import Lamp, Light, ambient_light, light_of_environment
from models.light.presets import PRESETS
from models.moved import Moved
from models.prior.face import EXPRESSIONS, AnnyPrior, load_prior
from models.prior.reflectance import hair_colour, load_reflectance
from models.prior.synthetic import vertex_normals
from models.raster.cpu import interpolate, rasterise
from models.relight.carried import Carried
from models.relight.surface import unit
from pipeline.looking import Shot, look_at
from pipeline.relight import Behind, changes_of, relit_picture
from pipeline.relighting import Look, Relit
from tests.light_figures import from_front
from tests.relight_figures import flicker_of

SIZE = 256  # pixels
_FOCAL = 1.9 * SIZE
_LAMPS = 40
_FARTHEST = 75.0  # degrees from the camera
_AMBIENT = 0.05  # beside a lamp
_TONES = (-1.8, 0.0, 1.8)  # of the skins, from dark to light
_POSES = ((0.0, 0.0), (0.35, 0.05), (-0.3, -0.1))  # yaw and pitch, radians
_ENVIRONMENTS = ("studio", "window", "overcast", "sunset")
_MOMENTS = 25  # frames of a performance
_APART = 1 / 25  # seconds between them
_TURNED = 0.35  # radians to either side in it
_TRAVELS = np.radians(60.0)  # of a lamp to either side
_DARKER = 0.35  # of what a lamp would send back: shadow


@dataclass(frozen=True)
class Subject:
    """One synthetic person.

    Attributes:
        person, code: of the head.
        vertices: V' x 3 camera axes, with hair; triangles: T' x 3; albedo: V' x 3 linear.
    """

    person: Person
    code: FaceCode
    vertices: np.ndarray
    triangles: np.ndarray
    albedo: np.ndarray


def subjects(prior: AnnyPrior, seed: int = 0) -> list[Subject]:
    rng, reflectance = np.random.default_rng(seed), load_reflectance(prior)
    faces = SyntheticFaces(prior, reflectance, seed=seed)
    out = []
    for tone, (yaw, pitch) in zip(_TONES, _POSES):
        identity = rng.normal(0, 0.8, len(prior.identity))
        expression = np.zeros(52)
        expression[[EXPRESSIONS.index(name) for name in ("mouthSmileLeft", "mouthSmileRight", "browInnerUp")]] = 0.35, 0.35, 0.2
        person = Person(identity, np.zeros((478, 3)), Camera(_FOCAL, SIZE, SIZE), np.zeros(52), np.zeros((2, 2)))
        code = FaceCode(expression, rotation_of_angles(yaw, pitch), np.array([0.0, 0.01, 0.62]))
        head = Head(prior, person)
        shape = head.shaped(expression, np.zeros((2, 2)))
        colour = hair_colour(np.array([np.exp(rng.uniform(-1, 1.5))]), np.array([0.4])).astype(np.float32)
        hair, strands = faces._hair(shape[None], colour)
        whole = np.concatenate([shape, hair[0]]) @ code.rotation.T + code.translation
        albedo = rng.normal(0, 0.7, 32)
        albedo[0] = tone
        skin = reflectance.albedo_of(albedo[None])[0]
        skin = np.clip(skin * np.exp(rng.normal(0, 0.05, (len(skin), 1))), 0, 1)  # freckles
        out.append(Subject(person, code, whole, faces._cells, np.concatenate([skin, np.clip(strands[0], 0, 1)])))
    return out


def moved(subject: Subject, prior: AnnyPrior, code: FaceCode) -> Subject:
    """The same person elsewhere and with another expression; hair goes along stiffly."""
    count = len(prior.mean)
    hair = (subject.vertices[count:] - subject.code.translation) @ subject.code.rotation
    whole = np.concatenate([Head(prior, subject.person).shaped(code.expression, code.gaze), hair])
    return replace(subject, code=code, vertices=whole @ code.rotation.T + code.translation)


def performance(subject: Subject, prior: AnnyPrior) -> list[Subject]:
    """A second of somebody who turns from one side to the other, nods and speaks."""
    out = []
    for share in np.linspace(0, 1, _MOMENTS):
        expression = subject.code.expression.copy()
        expression[EXPRESSIONS.index("jawOpen")] = 0.25 * np.sin(2 * np.pi * share) ** 2
        turn = rotation_of_angles(_TURNED * np.cos(np.pi * share), 0.08 * np.sin(2 * np.pi * share))
        out.append(moved(subject, prior, replace(subject.code, expression=expression, rotation=turn)))
    return out


class Tracer:
    """Mitsuba's pictures of subjects."""

    def __init__(self, samples: int = 256):
        import mitsuba

        self._mi, self._samples = mitsuba, samples
        mitsuba.set_variant("llvm_ad_rgb" if os.environ.get("DRJIT_LIBLLVM_PATH") else "scalar_rgb")

    def __call__(self, subject: Subject, light: Light) -> np.ndarray:
        """H x W x 3 linear radiance."""
        mi, up = self._mi, self._mi.ScalarTransform4f()
        with tempfile.TemporaryDirectory() as folder:
            mesh = Path(folder) / "head.ply"
            _write_ply(mesh, subject)
            scene = {
                "type": "scene", "integrator": {"type": "path", "max_depth": 4},
                "sensor": {
                    "type": "perspective", "fov": float(2 * np.degrees(np.arctan(SIZE / 2 / _FOCAL))),
                    "to_world": up.look_at([0, 0, 0], [0, 0, 1], [0, -1, 0]),
                    "film": {"type": "hdrfilm", "width": SIZE, "height": SIZE, "pixel_format": "rgb", "rfilter": {"type": "box"}},
                    "sampler": {"type": "independent", "sample_count": self._samples, "seed": 1},
                },
                "head": {
                    "type": "ply", "filename": str(mesh),
                    "bsdf": {"type": "twosided", "nested": {
                        "type": "principled", "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
                        "roughness": 0.5, "specular": 0.35,
                    }},
                },
            }  # fmt: skip
            for number, lamp in enumerate(light.lamps):
                scene[f"lamp{number}"] = {
                    "type": "directional", "direction": [float(-v) for v in lamp.direction],
                    "irradiance": {"type": "rgb", "value": [float(np.pi * v) for v in lamp.colour]},
                }  # fmt: skip
            if light.environment is not None:
                around = np.ascontiguousarray(light.environment.radiance, np.float32)
                # its middle is ahead and its top is up, which is -y here
                scene["sky"] = {"type": "envmap", "bitmap": mi.Bitmap(around), "to_world": up.rotate([0, 0, 1], 180)}
            else:
                level = [float(v) for v in light.soft[0, 0]]
                scene["sky"] = {"type": "constant", "radiance": {"type": "rgb", "value": level}}
            return np.array(mi.render(mi.load_dict(scene)))[..., :3]


def _write_ply(path: Path, subject: Subject) -> None:
    normals = vertex_normals(subject.vertices, subject.triangles)
    columns = np.concatenate([subject.vertices, normals, subject.albedo], 1).astype("<f4")
    names = ("x", "y", "z", "nx", "ny", "nz", "r", "g", "b")
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(columns)}"]
    head += [f"property float {name}" for name in names]
    head += [f"element face {len(subject.triangles)}", "property list uchar int vertex_indices", "end_header", ""]
    faces = np.empty(len(subject.triangles), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, subject.triangles
    path.write_bytes("\n".join(head).encode() + columns.tobytes() + faces.tobytes())


def lights() -> dict[str, Light]:
    """The targets: environments and single lamps."""
    out = {name: PRESETS[name]() for name in _ENVIRONMENTS}
    around = spread_directions(400)
    around = around[[from_front(d) < _FARTHEST for d in around]]
    for number, direction in enumerate(around[np.linspace(0, len(around) - 1, _LAMPS).astype(int)]):
        lamp = Lamp("directional", np.full(3, 0.9), direction=direction)
        out[f"lamp {number} at {from_front(direction):.0f}"] = ambient_light(np.full(3, _AMBIENT), (lamp,))
    return out


def source_light() -> Light:
    """What the subjects are first seen in: a soft room, a lamp beside the camera."""
    room = PRESETS["overcast"]()
    key = Lamp("directional", np.full(3, 0.35), direction=np.array([-0.4, -0.3, -0.866]))
    return replace(light_of_environment(room.environment.radiance * 0.6), lamps=(key,))


@dataclass(frozen=True)
class Passes:
    """What is known of a subject's pixels: skin and head H x W bool, normals H x W x 3, albedo H x W x 3."""

    skin: np.ndarray
    head: np.ndarray
    normal: np.ndarray
    albedo: np.ndarray


def passes(subject: Subject, prior: AnnyPrior) -> Passes:
    points = subject.person.camera.project(subject.vertices).astype(np.float32)
    seen = rasterise(points, subject.triangles, SIZE, SIZE)
    normals = vertex_normals(subject.vertices, subject.triangles)
    carried = interpolate(seen, subject.triangles, np.concatenate([normals, subject.albedo], 1).astype(np.float32))
    region = np.concatenate([prior.region, np.full(len(subject.triangles) - len(prior.triangles), -1)])
    head = cv2.erode((seen.triangle >= 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    bare = (region[seen.triangle] == prior.regions.index("skin")) & (seen.triangle >= 0)
    skin = cv2.erode(bare.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return Passes(skin, head, carried[..., :3], carried[..., 3:])


def coded(linear: np.ndarray) -> np.ndarray:
    return to_srgb8(np.round(65535 * np.clip(linear, 0, 1)).astype(np.uint16))


def truth(media: Path, row, head) -> None:
    """dB and SSIM in sRGB codes over skin and over the head, with geometry and light given, and estimated from the picture."""
    prior, tracer = load_prior(), Tracer()
    targets, first = lights(), source_light()
    found: dict[tuple[str, str], list[list[float]]] = {}
    shape: list[tuple[float, float]] = []
    for subject in subjects(prior):
        known = passes(subject, prior)
        source = coded(tracer(subject, first))
        look = Look(source, subject.code, np.zeros((478, 3)), seen=False)
        given = Relit(subject.person, prior, [look], first, fine=True, exact=True)
        estimated = look_at(StillPicture(source, "subject"), prior)
        shape.append(_shape_errors(estimated, source, known))
        for light in targets.values():
            real = tracer(subject, light)
            kind = "lamps" if light.environment is None else "environments"
            everywhere = known.head.astype(np.float32)
            behind = Behind("keep", SIZE, SIZE)
            made = {
                "given": given(source, subject.code, everywhere, light, everywhere),
                "estimated": relit_picture(source, estimated, 0, light, behind, everywhere),
            }
            for how, picture in made.items():
                linear = DECODE[picture] / 65535
                gain = 1.0
                if how == "estimated":  # how bright skin is by itself, a picture does not tell
                    a, b = linear[known.skin], np.clip(real, 0, 1)[known.skin]
                    gain = float((a * b).sum() / max((a * a).sum(), 1e-9))
                mine, wanted = coded(gain * linear), coded(real)
                told = [_decibels(mine, wanted, known.skin), _decibels(mine, wanted, known.head), _ssim(mine, wanted, known.head)]
                told.append(_shadows(linear, real, known, light))
                found.setdefault((how, kind), []).append(told)
    head("geometry and light", "targets", "pictures", "skin, dB", "head, dB", "head, SSIM", "shadows' overlap")
    for (how, kind), rows in sorted(found.items(), reverse=True):
        row(how, kind, len(rows), *np.nanmean(rows, axis=0))
    _moving(prior, tracer, first, row, head)
    head("subject", "normals of the skin, degrees off", "albedo of the skin, % off")
    for number, (angle, off) in enumerate(shape, 1):
        row(number, angle, off)


def _lamp_at(azimuth: float) -> Light:
    direction = np.array([np.sin(azimuth) * 0.94, -0.34, -np.cos(azimuth) * 0.94])
    return ambient_light(np.full(3, _AMBIENT), (Lamp("directional", np.full(3, 0.9), direction=direction),))


def _moving(prior: AnnyPrior, tracer: Tracer, first: Light, row, head) -> None:
    """A moving head under lights that stay and one that travels: dB, and how unsteady what differs from the truth is."""
    subject = subjects(prior)[1]
    steps = performance(subject, prior)
    known = [passes(one, prior) for one in steps]
    films = [coded(tracer(one, first)) for one in steps]
    around = np.linspace(-_TRAVELS, _TRAVELS, _MOMENTS)
    targets = {
        "an environment": _MOMENTS * [PRESETS["window"]()],
        "a lamp": _MOMENTS * [_lamp_at(around[3])],
        "a lamp that travels": [_lamp_at(azimuth) for azimuth in around],
    }
    given = Relit(subject.person, prior, [Look(films[0], steps[0].code, np.zeros((478, 3)), seen=False)], first, exact=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, film in enumerate(films):
            cv2.imwrite(str(Path(folder) / f"{number:03d}.png"), film[..., ::-1])
        estimated = look_at(open_media(folder), prior)
    head(
        "geometry and light", "moving head under", "frames", "skin, dB", "error's change, codes", "truth's change, codes",
        "flicker over the source's", "truth's flicker",
    )  # fmt: skip
    over = [where.head for where in known]
    everywhere = [one.head.astype(np.float32) for one in known]
    for name, lights_ in targets.items():
        real = [np.clip(tracer(one, light), 0, 1) for one, light in zip(steps, lights_)]
        for how in ("given", "estimated"):
            if how == "given":
                made = [given(*all_) for all_ in zip(films, [one.code for one in steps], everywhere, lights_, everywhere)]
            else:
                made = as_filmed(films, estimated, lights_, everywhere)
            linear = [DECODE[one] / 65535 for one in made]
            gain = 1.0
            if how == "estimated":  # one for all frames
                a, b = (np.concatenate([one[where.skin] for one, where in zip(films_, known)]) for films_ in (linear, real))
                gain = float((a * b).sum() / max((a * a).sum(), 1e-9))
            mine, wanted = [coded(gain * one).astype(float) for one in linear], [coded(one).astype(float) for one in real]
            off = [a - b for a, b in zip(mine, wanted)]
            level = np.mean([_decibels(a, b, where.skin) for a, b, where in zip(mine, wanted, known)])
            both = [before.skin & after.skin for before, after in zip(known, known[1:])]
            change = lambda films_: np.mean([np.abs(b - a)[where].mean() for a, b, where in zip(films_, films_[1:], both)])
            flickers = (unexplained(films, one, over) for one in (made, [coded(one) for one in real]))
            row(how, name, _MOMENTS, level, change(off), change(wanted), *flickers)


def as_filmed(films: list[np.ndarray], shot: Shot, lights_: list[Light], mattes: list[np.ndarray]) -> list[np.ndarray]:
    """Frames relit one after the other, as `relit_frames` does with known mattes: carried along where the light stays."""
    behind, motions, carried = Behind("keep", SIZE, SIZE), Motion(), Carried()
    stays, out = all(light is lights_[0] for light in lights_), []
    for k, (film, light, matte) in enumerate(zip(films, lights_, mattes)):
        (change,) = changes_of(film, shot, k, light, matte)
        moved = Moved.after(_APART, motions(film)) if stays else None
        out.append(relit_picture(film, shot, k, light, behind, matte, [carried(change, moved)]))
    return out


def unexplained(films: list[np.ndarray], relit: list[np.ndarray], over: list[np.ndarray]) -> float:
    """What the source's motion does not explain of relit frames from one to the next, over the same of the source."""
    stacked = (np.dstack([one, np.uint8(255) * where]) for one, where in zip(relit, over))
    return flicker_of([Frame(film) for film in films], stacked)[0]


def _shape_errors(shot: Shot, source: np.ndarray, known: Passes) -> tuple[float, float]:
    """(degrees between normals, percent between albedos under the one gain that suits them) over skin, as estimated."""
    relit, performance = shot.people[0]
    code = performance.code(0)
    lit = relit.shader.lit
    posed = lit.head.posed(code)
    fragments = rasterise(relit.person.camera.project(posed).astype(np.float32), lit.triangles, SIZE, SIZE)
    normal = unit(interpolate(fragments, lit.triangles, lit.normals(posed)))
    both = known.skin & (fragments.triangle >= 0)
    cosine = (normal * known.normal).sum(-1)[both] / np.maximum(np.linalg.norm(known.normal, axis=-1)[both], 1e-6)
    shaded = relit.shader(code, np.ones((SIZE, SIZE), np.float32), [relit.source], SIZE, SIZE)[0]
    albedo = (DECODE[source] / 65535 - shaded.gloss)[both] / np.maximum(shaded.diffuse[both], 0.02)
    real = known.albedo[both]
    gain = (albedo * real).sum() / (albedo * albedo).sum()
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean()), float(100 * np.abs(gain * albedo / real - 1).mean())


def _decibels(made: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((made[where] / 255.0 - wanted[where] / 255.0) ** 2) + 1e-12))


def _ssim(made: np.ndarray, wanted: np.ndarray, where: np.ndarray) -> float:
    import torch

    as_tensor = lambda one: torch.from_numpy(one.astype(np.float32) / 255).permute(2, 0, 1)[None]
    _, full = structural_similarity_index_measure(as_tensor(made), as_tensor(wanted), data_range=1.0, return_full_image=True)
    return float(full[0].mean(0).numpy()[where].mean())


def _shadows(made: np.ndarray, real: np.ndarray, known: Passes, light: Light) -> float:
    """Intersection over union of what a single lamp should light, by the normals, and does not."""
    if light.environment is not None:
        return np.nan
    lamp = light.lamps[0]
    cosine = known.normal @ lamp.direction
    could = known.skin & (cosine > 0.2)
    full = known.albedo.mean(-1) * (cosine * lamp.colour.mean())
    dark, ours = (could & (one.mean(-1) < _DARKER * full + _AMBIENT * known.albedo.mean(-1)) for one in (real, made))
    return float((dark & ours).sum() / max((dark | ours).sum(), 1)) if dark.sum() > 0.01 * known.skin.sum() else np.nan
