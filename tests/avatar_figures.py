"""What docs/figures.md states of avatars; run through `python -m tests.figures`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from capture.face_tracker import FaceMesh
from capture.media import open_media
from models.avatar.avatar import Avatar, load_avatar
from models.avatar.render import AvatarRenderer
from models.avatar.render_torch import TorchAvatarRenderer
from models.avatar.space import CodeSpace
from models.code import FaceCode, at_height
from models.prior.face import load_prior
from pipeline.alignment import align
from pipeline.avatar.evaluation import ALIGNED, AVATAR, NEAREST, ONE_SHOT, evaluate_avatar
from pipeline.avatar.footage import Footage, footage_of, read_clips
from pipeline.avatar.learning import Learner, LearningSettings, learn_avatar
from pipeline.avatar.regions import chin_of, head_region, hull
from pipeline.device import choose_device
from pipeline.evaluation import EYES, LIPS, psnr
from pipeline.tracking import track

CLIPS = (
    "face/talking_head_male_turning_25fps_512.mp4", "face/selfie_male_glasses_expressions_30fps_512x480.mp4",
    "face/talking_head_male_suit_30fps_960.mp4", "face/selfie_female_expressions_blackbar_30fps_512.mp4",
)  # fmt: skip
HOLDOUT = 0.2


def held_out(media: Path, row, head) -> None:
    """Each clip's last fifth, by an avatar that learned from the rest, and by what is easy."""
    prior = load_prior()
    head(
        "clip", "seconds in all", "MB", "avatar: head dB", "all", "face", "mouth", "eyes", "SSIM head", "MS-SSIM all",
        "landmarks %", "mouth %", "eyes %", "flicker", "by its own motion", "nearest: head dB", "aligned: head dB (face)",
        "one-shot: head dB (face)",
    )  # fmt: skip
    table, curves = [], []
    folder = Path("out/avatars")
    folder.mkdir(parents=True, exist_ok=True)
    for name in CLIPS:
        path = folder / f"{Path(name).stem}.avatar"
        begun = perf_counter()
        learned = learn_avatar(
            [str(media / name)],
            path,
            prior,
            LearningSettings(holdout=HOLDOUT),
            say=lambda line: None,
            device=choose_device("auto"),
        )
        seconds = perf_counter() - begun
        report = evaluate_avatar(path, str(media / name), prior, learned["first_held_out"][0], sheet=path.with_suffix(".png"))
        ours, easy = report["methods"][AVATAR], report["methods"]
        values = [seconds, learned["bytes"] / 1e6]
        values += [ours[f"psnr_{k}"] for k in ("mask", "all", "face", "mouth", "eyes")]
        values += [ours["ssim_mask"], ours["ms_ssim_all"]]
        values += [ours[f"landmarks_{k}"] for k in ("overall", "mouth", "eyes")]
        values += [ours["flicker"], ours["flicker_own_motion"], easy[NEAREST]["psnr_mask"]]
        cells = [f"{v:.3f}" if 7 <= k <= 8 else float(v) for k, v in enumerate(values)]
        pairs = [(easy[k]["psnr_mask"], easy[k]["psnr_face"]) for k in (ALIGNED, ONE_SHOT) if k in easy]
        row(f"`{Path(name).name}`", *cells, *(f"{a:.2f} ({b:.2f})" for a, b in pairs))
        best = [max(v[f"psnr_{k}"] for name, v in easy.items() if name != AVATAR) for k in ("mask", "face")]
        table.append([ours["psnr_mask"], ours["psnr_all"], ours["psnr_face"], *best])
        curves.append((name, learned["curve"]))
    middle = np.mean(table, 0)
    head("mean of four", "dB")
    for name, value in zip(("head", "all", "face", "head, best baseline of each", "face, best baseline of each"), middle):
        row(name, float(value))
    head("clip", "seconds since the start: head dB on frames learned from")
    for name, curve in curves:
        row(f"`{Path(name).name}`", ", ".join(f"{p['seconds']:.0f} s: {p['psnr_head_seen']:.2f}" for p in curve))


ABLATED = (CLIPS[2],)
VARIANTS = {
    "as shipped": {}, "without joint correction": {"turns": 0}, "without weights for mouth and eyes": {"mouth": 1.0, "eyes": 1.0},
    "without the shell": {"halo": False}, "without the light": {"light": False},
    "without the scene's motion": {"sway": False},
    "5 bases": {"bases": 5}, "10 bases": {"bases": 10}, "20 bases": {"bases": 20}, "40 bases": {"bases": 40},
}  # fmt: skip


def ablations(media: Path, row, head) -> None:
    """What each part is worth: tracked once, learned again and again, judged on every second held-out frame. And what an avatar
    is worth as time goes on."""
    prior, curves = load_prior(), []
    head("clip", "variant", "seconds learning", "head dB", "all", "mouth", "eyes")
    for name in ABLATED:
        clip = open_media(str(media / name))
        begun = perf_counter()
        footage, ends, _ = read_clips([clip], prior, HOLDOUT)
        tracking = perf_counter() - begun
        tracked = track(clip, prior)
        person = replace(footage.person, camera=at_height(footage.person.camera, clip.height, clip.width))
        told = align(clip, tracked.performance_of(0, person, prior), prior)
        held = np.array([k for k in np.flatnonzero(told.tracked) if k >= ends[0]][::2])
        later = replace(footage_of(clip, told, held), person=footage.person)
        points = [tracked.landmarks_of(0, int(k)) * (later.size[0] / clip.height) for k in later.numbers]
        for variant, settings in VARIANTS.items():
            learned, seconds, begun = [], [], perf_counter()
            for avatar, _ in Learner(footage, prior, LearningSettings(**settings)).stages():
                learned.append(avatar)
                seconds.append(perf_counter() - begun)
            row(f"`{Path(name).name}`", variant, seconds[-1], *_on(later, learned[-1], prior, points))
            if not settings:
                curves.append((name, [(tracking + s, _on(later, a, prior, points)[0]) for s, a in zip(seconds, learned)]))
    head("clip", "seconds since the start: head dB on held-out frames")
    for name, curve in curves:
        row(f"`{Path(name).name}`", ", ".join(f"{second:.0f} s: {reached:.2f}" for second, reached in curve))


def _on(later: Footage, avatar: Avatar, prior, points: list[np.ndarray]) -> list[float]:
    """dB over head, everything, mouth and eyes, in the mean of the frames.

    Args:
        points: 478 x 3 landmarks of each frame.
    """
    renderer, reached = AvatarRenderer(avatar, prior), []
    chin = chin_of(renderer.shape.head)
    for image, matte, code, seen in zip(later.images, later.mattes, later.codes, points):
        square = ((renderer.render(code).astype(np.float32) - image) ** 2).mean(-1)
        areas = [
            head_region(matte, code, later.person.camera, chin), np.ones(later.size, bool), hull(seen, LIPS, later.size),
            hull(seen, EYES[:16], later.size) | hull(seen, EYES[16:], later.size),
        ]  # fmt: skip
        reached.append([psnr(float(square[area].mean())) for area in areas])
    return [float(v) for v in np.mean(reached, 0)]


def speed(row, head, path: str | None = None) -> None:
    """An avatar drawn again and again, in turns with MediaPipe's face mesh."""
    prior = load_prior()
    found = [path] if path else sorted(str(p) for p in Path("out/avatars").glob("*.avatar"))
    head("avatar", "size", "frames a second", "of the face mesh's time")
    for name in found:
        avatar = load_avatar(name, prior)
        renderer, mesh = AvatarRenderer(avatar, prior), FaceMesh()
        space, times = avatar.space, {"avatar": [], "mesh": []}
        rng = np.random.default_rng(0)
        codes = [_example(space, int(k)) for k in rng.integers(len(space.examples), size=120)]
        for code in codes:
            start = perf_counter()
            picture = renderer.render(code)
            between = perf_counter()
            mesh(picture)
            times["avatar"].append(between - start)
            times["mesh"].append(perf_counter() - between)
        mesh.close()
        ours, theirs = (float(np.median(times[k][20:])) for k in ("avatar", "mesh"))
        row(f"`{Path(name).stem}`", f"{avatar.width}x{avatar.height}", 1 / ours, ours / theirs)
    if torch.cuda.is_available():
        head(f"avatar on {torch.cuda.get_device_name()}, one after another, left on the device", "frames a second")
        for name in found:
            avatar = load_avatar(name, prior)
            renderer = TorchAvatarRenderer(avatar, prior, "cuda")
            codes = [_example(avatar.space, k % len(avatar.space.examples)) for k in range(1000)]
            for code in codes[:10]:
                renderer.draw(code)
            torch.cuda.synchronize()
            start = perf_counter()
            for code in codes:
                renderer.draw(code)
            torch.cuda.synchronize()
            row(f"`{Path(name).stem}`", len(codes) / (perf_counter() - start))


def _example(space: CodeSpace, number: int) -> FaceCode:
    """A code that an avatar was learned from, its head as it mostly is."""
    features = space.centre + space.scale * space.examples[number]
    return FaceCode(np.clip(features[:52], 0, 1), space.middle.rotation, features[59:62], features[52:56].reshape(2, 2))
