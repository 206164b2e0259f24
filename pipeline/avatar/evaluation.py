"""An avatar measured on a clip of its person, beside what is easy: the nearest training frame, the same aligned, one photo.

The driver's codes come from the tracker alone, told as the avatar's person. PSNR is that of sRGB codes, taken per frame and
averaged. The head: the person's matte above the chin, at most 16 cm from the head's midline. Flicker: what changes over the mask
from frame to frame beside the clip's own motion (optical flow), as a ratio to the clip's own; 1 is as steady as the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from capture.face_tracker import FaceMesh
from capture.frame import Frame, at_size
from capture.matte import SelfieMatte
from capture.media import Media, StillPicture, open_media
from capture.photo import write_photo
from models.avatar.avatar import Avatar, load_avatar
from models.code import Camera, FaceCode, at_height
from models.head import Head
from models.prior.face import AnnyPrior
from pipeline.alignment import align
from pipeline.avatar.regions import chin_of, head_region, hull
from pipeline.errors import Refusal
from pipeline.evaluation import EYES, GROUPS, LIPS, ContactSheet, face_region, psnr
from pipeline.fitting import inter_ocular
from pipeline.progress import Listener, counted, silent
from pipeline.puppet import AvatarPuppet, PortraitPuppet, Puppet
from pipeline.source import as_same_person, prepare_source
from pipeline.surface_flow import flow_search
from pipeline.tracking import Tracked, track

AVATAR, NEAREST, ALIGNED, ONE_SHOT = "avatar", "nearest training frame", "the same, aligned", "one-shot portrait"
_STRUCTURE_EVERY = 4  # frames: structural similarity is slow to take
_MOST_KEPT = 480  # training frames the baselines choose from
Render = Callable[[int], np.ndarray]


@dataclass
class Scores:
    """What one method reached, frame by frame."""

    values: dict[str, list[float]] = field(default_factory=dict)
    missed: int = 0
    before: np.ndarray | None = None

    def add(self, name: str, value: float) -> None:
        self.values.setdefault(name, []).append(value)

    def means(self) -> dict[str, float]:
        means = {name: float(np.mean(v)) for name, v in self.values.items()}
        if "change" in means:
            own = max(means.pop("own_change"), 1e-6)
            means["flicker"] = means.pop("change") / own
            if "change_own_motion" in means:
                means["flicker_own_motion"] = means.pop("change_own_motion") / own
        return means | {"frames_without_face": self.missed}


def evaluate_avatar(
    path: str | Path, clip: str, prior: AnnyPrior, from_frame: int = 0, mask: str = "head", listen: Listener = silent,
    sheet: str | Path | None = None, device: str = "cpu",
) -> dict:  # fmt: skip
    """Measures an avatar on frames `from_frame` and later of a clip; the baselines choose from the frames before.

    Args:
        mask: `head`, `all`, or a video of masks (white counts) with the clip's frames.
        device: where the avatar is drawn.

    Raises:
        ModelError, MediaError, Refusal: one line.
    """
    avatar = load_avatar(path, prior)
    media = open_media(clip)
    if media.is_photo:
        raise Refusal(f"{clip}: a photo has no motion to evaluate. Give a video.")
    own_masks = None if mask in ("head", "all") else open_media(mask)
    tracked = track(media, prior, listen=listen)
    who = next(iter(tracked.performances))
    person = replace(avatar.person, camera=at_height(avatar.person.camera, media.height, media.width))
    performance = align(media, tracked.performance_of(who, person, prior), prior, listen=listen)
    held_out = [int(k) for k in np.flatnonzero(performance.tracked) if k >= from_frame]
    if not held_out:
        raise Refusal(
            f"{clip}: no face in frames {from_frame} and later, of {len(performance)}. Use --from-frame with a lower number."
        )
    size, camera = (avatar.height, avatar.width), avatar.person.camera
    scale = avatar.height / media.height
    landmarks = lambda k: tracked.landmarks_of(who, k) * scale
    codes = {k: performance.code(k) for k in held_out}
    methods: dict[str, Render] = {AVATAR: _of_puppet(AvatarPuppet(avatar, prior, device), codes, camera)}
    methods |= _baselines(media, tracked, who, landmarks, from_frame, size, avatar, prior, performance.person, codes, listen)
    chin = chin_of(Head(prior, avatar.person))
    scores = {name: Scores() for name in methods}
    contact = ContactSheet(len(held_out))
    mesh, matte = FaceMesh(still=True), SelfieMatte()
    try:
        first, last = None, None
        search = flow_search()
        for turn, (k, truth, given) in enumerate(
            counted(_chosen(media, own_masks, set(held_out), size), "compare", len(held_out), listen)
        ):
            first = truth if first is None else first
            seen = landmarks(k)
            person_there = np.round(255 * matte(truth)).astype(np.uint8)
            region = given if given is not None else np.ones(size, bool)
            if mask == "head":
                region = head_region(person_there, codes[k], camera, chin)
            areas = {"mask": region, "all": np.ones(size, bool), "face": face_region(seen, *size)}
            areas |= {"mouth": hull(seen, LIPS, size), "eyes": hull(seen, EYES[:16], size) | hull(seen, EYES[16:], size)}
            back = None if last is None or last[0] != k - 1 else _flow(search, truth, last[1])
            own = None if back is None else _change(truth, last[1], back, region)
            last = k, truth
            for name, make in methods.items():
                made = make(k)
                if own is not None:
                    scores[name].add("change", _change(made, scores[name].before, back, region))
                    scores[name].add("own_change", own)
                    if name == AVATAR:
                        moved = _flow(search, made, scores[name].before)
                        scores[name].add("change_own_motion", _change(made, scores[name].before, moved, region))
                scores[name].before = made
                _compare(scores[name], made, truth, areas, mesh, seen, turn % _STRUCTURE_EVERY == 0)
                if name == AVATAR:
                    contact.offer(turn, truth, first, made)
    finally:
        mesh.close()
        matte.close()
    if sheet is not None:
        write_photo(sheet, contact.picture())
    told = {name: one.means() for name, one in scores.items()}
    easy = {name: told[name]["psnr_mask"] for name in told if name != AVATAR}
    best = max(easy, key=easy.get) if easy else None
    return {
        "avatar": str(path), "clip": str(clip), "from_frame": from_frame, "frames": len(held_out), "mask": mask,
        "width": size[1], "height": size[0], "methods": told, "best_baseline": best,
        "gain_db": told[AVATAR]["psnr_mask"] - easy[best] if best else None,
        "fit_error_percent": float(100 * np.nanmean(performance.error[held_out])),
    }  # fmt: skip


def _chosen(
    media: Media, masks: Media | None, numbers: set[int], size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
    """Number, picture and given mask of the chosen frames, at the avatar's size."""
    others: Iterator[Frame] | None = None if masks is None else iter(masks)
    for number, frame in enumerate(media):
        mask = None if others is None else next(others, None)
        if others is not None and mask is None:
            raise Refusal(f"{masks.path}: ends before frame {number} of the clip. Give a mask for every frame.")
        if number in numbers:
            given = None if mask is None else at_size(mask.image, *size).max(-1) > 127
            yield number, at_size(frame.image, *size), given


def _of_puppet(puppet: Puppet, codes: dict[int, FaceCode], camera: Camera) -> Render:
    return lambda k: puppet(codes[k], camera, 0.0)


def _baselines(
    media, tracked: Tracked, who: int, landmarks, from_frame: int, size, avatar: Avatar, prior, person, codes, listen
) -> dict[str, Render]:
    """What is easy: needs frames before the ones that are held out."""
    kept = [k for k in range(from_frame) if tracked.performances[who].tracked[k]]
    if not kept:
        return {}
    kept = [kept[j] for j in np.unique(np.linspace(0, len(kept) - 1, _MOST_KEPT).round().astype(int))]
    pictures = {k: picture for k, picture, _ in _chosen(media, None, set(kept), size)}
    points = np.stack([landmarks(k)[:468, :2] for k in kept])

    def nearest(k: int) -> int:
        return kept[int(np.argmin(np.linalg.norm(points - landmarks(k)[:468, :2], axis=2).mean(1)))]

    def aligned(k: int) -> np.ndarray:
        wanted = landmarks(k)[:468, :2]
        fits = [_similarity(p, wanted) for p in points]
        away = [np.linalg.norm(p @ m[:, :2].T + m[:, 2] - wanted, axis=1).mean() for p, m in zip(points, fits)]
        best = int(np.argmin(away))
        picture = pictures[kept[best]]
        return cv2.warpAffine(picture, fits[best], (size[1], size[0]), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)

    methods = {NEAREST: lambda k: pictures[nearest(k)], ALIGNED: aligned}
    still = StillPicture(pictures[kept[0]], "the first frame")
    source = prepare_source(still, prior, listen=listen)
    same = as_same_person(source, replace(person, camera=avatar.person.camera), prior, next(iter(still)))
    if same is not None:
        methods[ONE_SHOT] = _of_puppet(PortraitPuppet(same), codes, avatar.person.camera)
    return methods


def _flow(search, now: np.ndarray, before: np.ndarray) -> np.ndarray:
    """H x W x 2: where each pixel of this frame was in the one before."""
    return search.calc(*(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (now, before)), None)


def _change(now: np.ndarray, before: np.ndarray, back: np.ndarray, region: np.ndarray) -> float:
    """Mean change of a region that motion does not explain, sRGB codes: what is not the clip's own is flicker.

    By the clip's motion, what is drawn a little beside where it is in the clip counts as well; by the drawn picture's own motion,
    only what comes and goes.
    """
    if not region.any():
        return 0.0
    y, x = np.mgrid[0 : back.shape[0], 0 : back.shape[1]].astype(np.float32)
    warped = cv2.remap(before, x + back[..., 0], y + back[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return float(np.abs(now.astype(np.float32) - warped)[region].mean())


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """2 x 3: rotation, scale and shift that bring points a (N x 2) to b in the least-squares sense (Umeyama 1991)."""
    ca, cb = a.mean(0), b.mean(0)
    x, y = a - ca, b - cb
    over = (x**2).sum()
    cosine, sine = (x * y).sum() / over, (x[:, 0] * y[:, 1] - x[:, 1] * y[:, 0]).sum() / over
    turn = np.array([[cosine, -sine], [sine, cosine]])
    return np.concatenate([turn, (cb - turn @ ca)[:, None]], 1)


def _compare(scores: Scores, made, truth, areas, mesh: FaceMesh, seen: np.ndarray, structure: bool) -> None:
    square = ((made.astype(np.float32) - truth) ** 2).mean(-1)
    for name, area in areas.items():
        if area.any():
            scores.add(f"psnr_{name}", psnr(float(square[area].mean())))
    if structure and areas["mask"].any():
        a, b = (torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None].float() / 255 for p in (made, truth))
        inside = torch.from_numpy(areas["mask"])
        masked = torch.where(inside, a, b)  # outside the mask both are the truth
        _, full = structural_similarity_index_measure(a, b, data_range=1.0, return_full_image=True)
        scores.add("ssim_all", float(full.mean()))
        scores.add("ssim_mask", float(full[0].mean(0)[inside].mean()))
        if min(truth.shape[:2]) > 160:  # five scales of windows of eleven pixels
            scores.add("ms_ssim_all", float(multiscale_structural_similarity_index_measure(a, b, data_range=1.0)))
            scores.add("ms_ssim_mask", float(multiscale_structural_similarity_index_measure(masked, b, data_range=1.0)))
    shown = mesh(made) if structure else []
    if structure and not shown:
        scores.missed += 1
    if shown:
        away = 100 * np.linalg.norm(shown[0][:, :2] - seen[:, :2], axis=1) / inter_ocular(seen)
        for name, group in GROUPS.items():
            scores.add(f"landmarks_{name}", float(away[list(group)].mean()))
