"""`avatar`: learns one person from a video, in a few closed-form solves that take turns, better and better as time goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from capture.media import open_media, probe
from models.avatar.avatar import SUFFIX, Avatar, load_avatar
from models.avatar.lighting import Lighting, take_out
from models.avatar.linear import CODE_HOLD, Linear, Smoother, regress, unheld
from models.avatar.mesh_colours import MeshColours, sample_areas
from models.avatar.render import AvatarRenderer
from models.avatar.shape import AvatarHead
from models.avatar.space import CodeSpace
from models.head import Head
from models.prior.face import AnnyPrior
from models.raster.cpu import PARALLEL
from pipeline.avatar.footage import Footage, read_clips
from pipeline.avatar.lighting import learn_light
from pipeline.avatar.outer import POSE_RIDGE, Lean, head_and_hair, learn_outer, learn_swell
from pipeline.avatar.regions import chin_of, head_region
from pipeline.avatar.registration import SHIFT_RANK, register, register_shell
from pipeline.avatar.unfinished import SUFFIX as UNFINISHED
from pipeline.avatar.unfinished import Geometry, Unfinished, load_unfinished, marks
from pipeline.errors import Refusal
from pipeline.evaluation import psnr
from pipeline.progress import Listener, silent
from pipeline.report import check_writable
from pipeline.surface_flow import completed, look

# distance between samples, of a pixel's size at the head
_SPACING = {
    "skin": 1.4, "lips": 1.1, "eyelids": 1.0, "eyeballs": 1.0, "mouth_interior": 1.8, "teeth": 1.4, "tongue": 2.1, "ears": 1.4,
    "scalp": 2.2, "neck": 2.0, "eye_socket": 4.0,
}  # fmt: skip
_MOST_SAMPLES, _MOST_AROUND = 130_000, 90_000
_AROUND_SPACING = 1.3
_EYE_RINGS, _LIPS = ((33, 133), (263, 362)), (61, 291, 0, 17)
_MOUTH_REACH, _EYE_REACH = 0.036, 0.026  # metres
_UNIT = np.float32(1 / 64)  # of colours without their light: whole codes would round, and 256 of them are too few
_FEW = 96  # frames of the first avatar and of the correction's first turn
_JUDGED = 24  # frames the curve is taken on
_TURN_AND_LAST = 4.0  # times a stage's time that one more turn and the last stage take
_INSIDE = ("lips", "mouth_interior", "teeth", "tongue")
_OF_EYES = ("eyelids", "eyeballs", "eye_socket")


@dataclass(frozen=True)
class LearningSettings:
    """How to learn.

    Attributes:
        minutes: after which no stage is begun, tracking included; of a clip that takes long to track, half of it after that.
        holdout: share of the clip's end that nothing is learned from.
        turns: of the joint correction, at most; 0 takes the tracker at its word.
        bases: that the skin's colours are blended from.
        halo: whether hair, ears and neck beyond the mesh get a layer of their own.
        light: whether a rule of light that all skin shares tells how it brightens as the head turns.
        sway: whether the scene moves along with the head, as a torso does.
        mouth, eyes: weights of their samples in the choice of bases.
        person: which of the clip's faces.
    """

    minutes: float = 5.0
    holdout: float = 0.0
    turns: int = 2
    bases: int = 24
    halo: bool = True
    light: bool = True
    sway: bool = True
    mouth: float = 10.0
    eyes: float = 20.0
    person: int = 0


class Stage(NamedTuple):
    """How far learning has come.

    Attributes:
        seconds: since the start, tracking included; frames: that the avatar saw.
        psnr: decibels over the head, on frames learned from.
        filmed, drawn: H x W x 3 uint8, one of them and what the avatar makes of it.
    """

    seconds: float
    frames: int
    psnr: float
    filmed: np.ndarray
    drawn: np.ndarray


def ignored(stage: Stage) -> None:
    """Watches nothing."""


class Learner:
    """Learns from footage; `stages` yields better and better avatars."""

    def __init__(
        self, footage: Footage, prior: AnnyPrior, settings: LearningSettings = LearningSettings(), origin: dict | None = None,
        known: Geometry | None = None, device: str = "cpu",
    ):  # fmt: skip
        """Args:
        known: what a stopped learning goes on from.
        device: where colours and motion are regressed; the rest is the CPU's.
        """
        self.footage, self.prior, self.settings = footage, prior, settings
        self.origin, self.device = origin or {}, device
        person = footage.person
        self.space = CodeSpace.of(footage.codes)
        head = Head(prior, person)
        self.lean: Lean | None = None
        self.turns, self.finished = 0, False  # of the correction, done; whether the last stage was told
        self.shift: tuple[Linear, CodeSpace] | None = None
        self.swell: tuple[Linear, CodeSpace] | None = None
        if known is None:
            self.shell, self.lean = head_and_hair(footage, head, self.space)
            self.shape = AvatarHead(prior, person, np.zeros_like(prior.mean))
        else:
            self.shell, self.swell, self.shift = known.shell, known.swell, known.shift
            self.shape, self.turns = AvatarHead(prior, person, known.lift), known.turns
        pixel = float(np.median([c.translation[2] for c in footage.codes])) / person.camera.focal
        spacing = _spacing(prior, pixel, self.shape.opacity)
        self.colours = MeshColours.spaced(head.neutral, prior.triangles, spacing, _MOST_SAMPLES)
        around = np.full(len(self.shell.triangles), _AROUND_SPACING * pixel)
        self.around = MeshColours.spaced(self.shell.vertices, self.shell.triangles, around, _MOST_AROUND)
        self.area = sample_areas(self.colours, head.neutral, prior.triangles)
        self.importance = self._importance()

    def stages(
        self, listen: Listener = silent, in_time: Callable[[float], bool] = lambda seconds: True
    ) -> Iterator[tuple[Avatar, int]]:
        """Yields better and better avatars, and how many frames each saw: a first one from few frames and the tracker's word,
        one after each turn of the joint correction, and one from all frames.

        Args:
            in_time: whether there is time for so many seconds of work: a turn that leaves none for the last stage is left out.
        """
        few, most, begun = self.footage.some(_FEW), self.settings.turns, perf_counter()
        if self.swell is None:
            yield self._avatar(few), len(few)
        while self.turns < most and in_time(_TURN_AND_LAST * (perf_counter() - begun)):
            begun = perf_counter()
            self._correct(self.footage.some(_FEW * (self.turns + 1)))
            self.turns += 1
            avatar = self._avatar(few)
            self._correct_shell(few, avatar)
            listen("correct", self.turns, most)
            yield avatar, len(few)
        self.finished = True
        yield self._avatar(self.footage), len(self.footage)

    def geometry(self) -> Geometry:
        """Where everything lies after the stage that was told last."""
        return Geometry(self.turns, self.shape.lift, self.shell, self.swell, self.shift)

    def _smoothers(self, footage: Footage) -> tuple[CodeSpace, Smoother, Smoother]:
        """The space with the footage's frames as its examples; the regression by the whole code, and by the pose."""
        examples = np.stack([self.space.place(code) for code in footage.codes])
        space = replace(self.space, examples=examples)
        by_code = Smoother.of(space.nearness(examples), device=self.device)
        return space, by_code, Smoother.of(space.pose_nearness(examples), POSE_RIDGE, self.device)

    def _correct(self, footage: Footage) -> None:
        space, smoother, _ = self._smoothers(footage)
        shift = None if self.shift is None else _carried(*self.shift, space, CodeSpace.nearness)
        lift, shift = register(footage, self.shape, self.colours, smoother, shift)
        self.shift = shift, space
        self.shape = AvatarHead(self.prior, self.footage.person, self.shape.lift + lift)

    def _correct_shell(self, footage: Footage, avatar: Avatar) -> None:
        space, _, by_pose = self._smoothers(footage)
        lift, swell = register_shell(footage, AvatarRenderer(avatar, self.prior), by_pose)
        self.swell = swell, space
        self.shell = replace(self.shell, vertices=self.shell.vertices + lift)

    def _avatar(self, footage: Footage) -> Avatar:
        space, smoother, by_pose = self._smoothers(footage)
        vertices = 3 * len(self.prior.mean)
        none = Linear(np.zeros(vertices, np.float32), np.zeros((SHIFT_RANK, vertices), np.int8), np.zeros(SHIFT_RANK, np.float32),
                      np.zeros((len(footage), SHIFT_RANK), np.float32), unheld(SHIFT_RANK))  # fmt: skip
        shift = none if self.shift is None else _carried(*self.shift, space, CodeSpace.nearness)
        shifts = [shift.blend(near).reshape(-1, 3) for near in smoother.kernel]
        skin, light = self._skin(footage, shifts, smoother)
        if self.swell is None:
            self.swell = learn_swell(footage, self.shape.head, self.shell, by_pose, self.lean), space
        swell = _carried(*self.swell, space, CodeSpace.pose_nearness)
        scene, halo, veil = learn_outer(footage, self.shape, by_pose, shifts, self.shell, swell, self.around, self.settings.sway)
        if not self.settings.halo:
            veil = replace(veil, mean=np.zeros_like(veil.mean), scale=np.zeros_like(veil.scale))
        return Avatar(
            footage.person, self.shape.lift, space, self.colours.segments, shift, skin, light, self.shell, swell,
            self.around.segments, halo, veil, *scene, self.origin | {"turns": self.turns},
        )  # fmt: skip

    def _skin(self, footage: Footage, shifts: list[np.ndarray], smoother: Smoother) -> tuple[Linear, np.ndarray]:
        """The colours of the mesh's samples, and the light that was taken out of them."""
        prior, colours, camera = self.prior, self.colours, footage.person.camera
        seen = look(footage.images, footage.codes, camera, self.shape, colours, shifts)
        posed = [self.shape.posed(code, camera, shift)[0] for code, shift in zip(footage.codes, shifts)]
        light = learn_light(seen, posed, colours, self.area, self.shape.opacity, prior)
        if not self.settings.light:
            light = np.zeros_like(light)
        lighting = Lighting(self.shape, self.space, light)
        unlit = np.empty(seen.colour.shape, np.uint16)
        for out, colour, vertices in zip(unlit, seen.colour, posed):
            with PARALLEL:
                gain = lighting.gain(vertices)
                take_out(colour, gain, prior.triangles, colours.triangle, colours.barycentric, _UNIT, out)
        skin = regress(unlit, seen.weight, smoother, self.settings.bases, self.importance, hold=CODE_HOLD)
        skin = replace(skin, mean=skin.mean * _UNIT, scale=skin.scale * _UNIT)
        return completed(skin, seen.weight, prior.triangles, colours), light

    def _importance(self) -> np.ndarray:
        """S: a sample's area, more in the mouth and around the eyes."""
        prior, neutral, settings = self.prior, self.shape.head.neutral, self.settings
        corners = neutral[prior.triangles[self.colours.triangle]]
        place = np.einsum("sk,skc->sc", self.colours.barycentric, corners)
        points = prior.at_landmarks(neutral)
        region = prior.region[self.colours.triangle]
        of = lambda names: np.isin(region, [prior.regions.index(name) for name in names])
        mouth = of(_INSIDE) | (np.linalg.norm((place - points[list(_LIPS)].mean(0)) * [1, 1, 0.5], axis=1) < _MOUTH_REACH)
        eyes = of(_OF_EYES)
        for ends in _EYE_RINGS:
            eyes |= np.linalg.norm((place - points[list(ends)].mean(0)) * [1, 1.2, 0.7], axis=1) < _EYE_REACH
        return self.area * np.where(eyes, settings.eyes, np.where(mouth, settings.mouth, 1.0))


def _carried(linear: Linear, of: CodeSpace, to: CodeSpace, nearness: Callable) -> Linear:
    """The same told by other examples: the mixing that gives the same weights at these."""
    if of is to:
        return linear
    before, kernel = nearness(of, to.examples) @ linear.mixing, nearness(to, to.examples)
    mixing = np.linalg.solve(kernel + 1e-6 * np.trace(kernel) / len(kernel) * np.eye(len(kernel)), before)
    return replace(linear, mixing=mixing.astype(np.float32))


def _spacing(prior: AnnyPrior, pixel: float, opacity: np.ndarray) -> np.ndarray:
    """T metres between samples of the head: about a pixel; nothing fine where the mesh is never shown."""
    spacing = pixel * np.array([_SPACING[name] for name in prior.regions])[prior.region]
    return np.where((opacity[prior.triangles] > 0).any(1), spacing, 1.0)


def learn_avatar(
    inputs: Sequence[str], output: str | Path, prior: AnnyPrior, settings: LearningSettings = LearningSettings(),
    listen: Listener = silent, say: Callable[[str], None] = print, watch: Callable[[Stage], None] = ignored,
    resume: bool = False, device: str = "cpu",
) -> dict:  # fmt: skip
    """Learns an avatar from videos of one person into `output` (.avatar); returns a report.

    Every stage that is better is saved at once; Ctrl-C after the first keeps it. Until all is learned, what it takes to go on
    lies beside it (`.unfinished`).

    Args:
        resume: go on from there, without tracking again.
        device: as of `Learner`.

    Raises:
        MediaError, Refusal, ModelError: one line; an avatar that was there before stays as it was.
    """
    output = Path(output)
    if output.suffix != SUFFIX:
        raise Refusal(f"{output}: can't write an avatar as {output.suffix or 'that'}, expected {SUFFIX}. Name it so.")
    started = begun = perf_counter()
    check_writable(output)
    if "webcam" in map(probe, inputs):
        raise Refusal("a webcam has no end, so that nothing can be learned from it. Record a video of the person first.")
    clips, aside = [open_media(name) for name in inputs], output.with_name(output.name + UNFINISHED)
    fixed = {name: value for name, value in vars(settings).items() if name not in ("minutes", "turns")}
    before = load_unfinished(aside, clips, fixed, prior, listen) if resume else None
    if before is None:
        footage, kept, warnings = read_clips(clips, prior, settings.holdout, settings.person, listen)
    else:
        footage, kept, warnings = before.footage, before.ends, before.warnings
        begun -= before.seconds
    for line in warnings:
        say(line)
    tracked = perf_counter()
    origin = {
        "clips": [Path(name).name for name in inputs], "frames": len(footage), "holdout": settings.holdout,
        "bases": settings.bases, "halo": settings.halo, "light": settings.light, "sway": settings.sway,
    }  # fmt: skip
    curve = [] if before is None else before.curve
    learner = Learner(footage, prior, settings, origin, None if before is None else before.geometry, device)
    # what is judged is a part of what may be learned from: nothing that is held out is ever looked at
    judged = footage.some(_JUDGED)
    best = -np.inf
    if before is not None and output.is_file():
        best = _head_psnr(load_avatar(output, prior), judged, prior)[0]
    say("seconds | frames | head, dB on frames learned from")
    stopped = False
    limit = max(started + 60 * settings.minutes, tracked + 30 * settings.minutes)
    try:
        for avatar, learned_from in learner.stages(listen, lambda seconds: perf_counter() + seconds < limit):
            reached, drawn = _head_psnr(avatar, judged, prior)
            stage = Stage(perf_counter() - begun, learned_from, reached, judged.images[len(judged) // 2], drawn)
            curve.append({"seconds": stage.seconds, "frames": stage.frames, "psnr_head_seen": stage.psnr})
            say(f"{stage.seconds:.0f} | {stage.frames} | {stage.psnr:.2f}")
            watch(stage)
            if reached > best:
                best = reached
                avatar.save(output)
            if learner.finished:
                aside.unlink(missing_ok=True)
                break
            seconds = perf_counter() - begun
            Unfinished(marks(clips), fixed, kept, warnings, seconds, curve, learner.geometry(), footage).save(aside)
            if perf_counter() > limit:
                break
    except KeyboardInterrupt:
        if best == -np.inf:
            raise
        stopped = True
    return {
        "output": str(output), "bytes": output.stat().st_size, "frames": len(footage), "first_held_out": kept,
        "width": footage.size[1], "height": footage.size[0], "seconds_tracking": tracked - started,
        "seconds_learning": perf_counter() - tracked, "turns": learner.turns, "curve": curve, "warnings": warnings,
        "stopped": stopped, "unfinished": str(aside) if aside.exists() else None,
    }  # fmt: skip


def _head_psnr(avatar: Avatar, footage: Footage, prior: AnnyPrior) -> tuple[float, np.ndarray]:
    """Decibels over the head, and the middle frame as the avatar shows it."""
    renderer, camera = AvatarRenderer(avatar, prior), footage.person.camera
    chin = chin_of(renderer.shape.head)
    reached, pictures = [], [renderer.render(code) for code in footage.codes]
    for image, matte, code, made in zip(footage.images, footage.mattes, footage.codes, pictures):
        region = head_region(matte, code, camera, chin)
        if region.any():
            reached.append(psnr(float(((made[region].astype(np.float32) - image[region]) ** 2).mean())))
    return float(np.mean(reached)) if reached else 0.0, pictures[len(pictures) // 2]
