"""What can be asked for on the command line; a field's docstring is its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Reenact:
    """One person's performance drives another person's picture, from file to file."""

    source: str
    """Photo, video or avatar of the person to move, or `builtin`."""
    driver: str
    """Video of the person who performs, or `builtin`."""
    output: str
    """Video to write: .mp4, .mov, .mkv or .webm."""
    pose: Annotated[str, tyro.conf.arg(metavar="relative|absolute|off")] = "relative"
    """Head pose: the driver's motion added to the source's pose, the driver's own pose, or the source's."""
    expression_gain: float = 1.0
    """Factor on the driver's expressions, 0 to 3."""
    audio: Annotated[str, tyro.conf.arg(metavar="driver|source|none")] = "driver"
    """Whose sound goes along."""
    person: int = 0
    """Which of the driver's faces, from 0 (the largest in the first frame)."""
    cast: Annotated[str, tyro.conf.arg(metavar="one|all|each")] = "one"
    """Whom the driver moves: the source's largest face, all in the source's picture, or each face the source's of its number."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the pixels are made."""
    background: Annotated[str, tyro.conf.arg(metavar="keep|blur|transparent|PICTURE")] = "keep"
    """Behind whoever is moved; transparent goes into .webm alone."""
    light: Annotated[str | None, tyro.conf.arg(metavar="ENV|SH.txt|LIGHTS.json|PRESET|from:PHOTO")] = None
    """Light to show whoever is moved under (see `relight`); their own where none is given."""
    smoothing: float = 1.0
    """Strength of the two-sided smoothing; 0 is none."""
    causal: bool = False
    """No frame knows what comes after it: what `live` makes of the same clip."""
    mark: bool = False
    """The visible mark on every picture."""
    json: str | None = None
    """Report to write."""


@dataclass(frozen=True)
class Live:
    """A camera's or a clip's person drives another person's picture as it happens, into a window, a camera or a file."""

    source: str
    """Photo, video or avatar of the person to move, or `builtin`."""
    driver: str
    """`webcam:0`, or a video that plays as if it were filmed now."""
    sink: Annotated[str, tyro.conf.arg(metavar="virtualcam|window|null|OUT.mp4")]
    """A camera for other programs, a window, nowhere (to measure), or a video to write; a clip goes into it whole."""
    width: int | None = None
    """Of what goes out; the source's own where none is given. The picture is shown whole, on black."""
    height: int | None = None
    """Of what goes out."""
    max_age_ms: float = 100.0
    """Frames older than this when their turn comes are dropped."""
    pose: Annotated[str, tyro.conf.arg(metavar="relative|absolute|off")] = "relative"
    """Head pose: the driver's motion added to the source's pose, the driver's own pose, or the source's."""
    brows: float = 1.0
    """Factor on the brows' motion, 0 to 3."""
    eyes: float = 1.0
    """On the lids'."""
    mouth: float = 1.0
    """On the mouth's."""
    head: float = 1.0
    """On the head's, with --pose relative."""
    gaze: float = 1.0
    """On the gaze's."""
    audio: Annotated[str, tyro.conf.arg(metavar="driver|source|none")] = "driver"
    """Whose sound goes along from a clip into a file."""
    person: int = 0
    """Which of the driver's faces, from 0 (the largest)."""
    cast: Annotated[str, tyro.conf.arg(metavar="one|all|each")] = "one"
    """Whom the driver moves: the source's largest face, all in the source's picture, or each face the source's of its number."""
    background: Annotated[str, tyro.conf.arg(metavar="keep|blur|transparent|PICTURE")] = "keep"
    """Behind whoever is moved; transparent goes into .webm alone."""
    light: Annotated[str | None, tyro.conf.arg(metavar="ENV|SH.txt|LIGHTS.json|PRESET|from:PHOTO")] = None
    """Light to show whoever is moved under (see `relight`); their own where none is given."""
    smoothing: float = 1.0
    """Strength of the causal smoothing; 0 is none."""
    mark: bool | None = None
    """The visible mark; by default in a window and in a virtual camera, and not in a file."""
    record: str | None = None
    """Video to write beside the sink."""
    performance: str | None = None
    """Performance to write (.safetensors): what the driver's face did, without a pixel."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the pixels are made."""
    json: str | None = None
    """Report to write: rates, ages, drops and the time of every stage."""


@dataclass(frozen=True)
class Relight:
    """A photo, a video or an avatar as if filmed under another light."""

    input: str
    """Photo, video or avatar (at rest), or `builtin`."""
    light: Annotated[str, tyro.conf.arg(metavar="ENV.hdr|ENV.exr|SH.txt|LIGHTS.json|PRESET|from:PHOTO|FOLDER")]
    """A map, harmonics, lamps, a photo's light, studio, window, overcast, noon, sunset, night or rim; or a folder of lights."""
    output: str
    """Video or photo to write, as the input is; a folder where the light is one."""
    rotate: Annotated[str, tyro.conf.arg(metavar="DEG[:DEG]")] = "0"
    """Degrees by which the light is turned to the right, or from where to where over a video."""
    exposure: float = 0.0
    """Stops by which the light is made brighter, -20 to 20."""
    background: Annotated[str, tyro.conf.arg(metavar="keep|light|transparent|PICTURE")] = "keep"
    """Behind the people: their own, the light itself, nothing (.png, .webp, .webm), or a picture."""
    wall: float | None = None
    """Metres behind the head to a wall on which lamps throw people's shadows, 0.05 to 10; none where none is given."""
    source_light: str | None = None
    """The light they were filmed in, where it is known; estimated where none is given."""
    smoothing: float = 1.0
    """Strength of the tracking's two-sided smoothing; 0 is none."""
    mark: bool = False
    """The visible mark on every picture."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where pixels are relit; `auto` takes CUDA where it is there."""
    json: str | None = None
    """Report to write."""


@dataclass(frozen=True)
class Track:
    """Everyone's face in a video or a photo, as codes without a pixel."""

    input: str
    """Video or photo."""
    output: str
    """Performance to write (.safetensors); further people go beside it as NAME.1.safetensors and so on."""
    preview: str | None = None
    """Video (or picture, for a photo) with the fitted landmarks drawn over the input."""
    json: str | None = None
    """Report to write: every person of every frame."""
    smoothing: float = 1.0
    """Strength of the two-sided smoothing; 0 is none."""
    dense: bool = False
    """Look at the pixels as well: skin, light, and a shape that explains them."""
    encoder_only: bool = False
    """Go by the encoder alone, without landmarks; a detector finds each face once."""
    weights: str | None = None
    """Encoder weights (.safetensors); those that ship with the project where none are given."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the encoder runs."""


@dataclass(frozen=True)
class TrainEncoder:
    """Trains the encoder: from synthetic faces, or from these and real ones without labels."""

    output: str
    """Weights to write (.safetensors); the training's state and a sheet of samples go beside them."""
    data: tuple[str, ...] = ("synthetic",)
    """`synthetic`, or folders and files with real faces."""
    minutes: float = 60.0
    """Time to train."""
    resume: bool = False
    """Go on from the weights at --output."""
    landmarks: bool = False
    """Give real faces the tracker's landmarks as well; without, their pixels alone teach."""
    seed: int = 0
    """Of everything random."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where to train."""
    json: str | None = None
    """Report to write."""


@dataclass(frozen=True)
class EvaluateEncoder:
    """The encoder's errors on held-out synthetic faces, by skin tone as well, and its time."""

    weights: str | None = None
    """Encoder weights (.safetensors); those that ship with the project where none are given."""
    faces: int = 512
    """Synthetic faces to look at."""
    refined: int = 128
    """Of these, how many are refined as well."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the encoder runs."""
    json: str | None = None
    """Report to write."""


@dataclass(frozen=True)
class LearnAvatar:
    """Learns an avatar of one person from videos of them before one camera."""

    input: tuple[str, ...]
    """Videos of the person."""
    output: str
    """Avatar to write: NAME.avatar."""
    minutes: float = 5.0
    """After which no stage is begun, tracking included (half of it remains after a long tracking); what is best is kept."""
    resume: bool = False
    """Go on with a learning that was stopped (by --minutes or Ctrl-C), from what lies beside --output, without tracking again."""
    holdout: float = 0.0
    """Share of each clip's end that is not looked at, for `evaluate --from-frame`."""
    person: int = 0
    """Which of the clips' faces, from 0 (the largest in the first frame)."""
    turns: int = 2
    """Of the joint correction of shape and colour."""
    bases: int = 24
    """That the skin's colours are blended from."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where colours and motion are solved for; tracking and optical flow stay on the CPU."""
    json: str | None = None
    """Report to write."""


@dataclass(frozen=True)
class Evaluate:
    """Self-reenactment: the clip's first frame driven by the clip, measured against the clip; or an avatar of its person."""

    clip: str
    """Video of one person."""
    avatar: str | None = None
    """Avatar of that person to measure, beside the nearest training frame, the same aligned, and a one-shot portrait."""
    from_frame: int = 0
    """First frame to measure an avatar on; earlier ones are what the baselines choose from."""
    mask: str = "head"
    """Where to measure an avatar: `head`, `all`, or a video of masks."""
    json: str | None = None
    """Report to write."""
    sheet: str | None = None
    """Contact sheet to write (driver, source, output, error)."""
    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the pixels are made."""


@dataclass(frozen=True)
class Bench:
    """Times of every stage, of the whole loop, and its ratio to the bare tracker in the same run."""

    device: Annotated[str, tyro.conf.arg(metavar="auto|cpu|cuda")] = "auto"
    """Where the pixels are made."""
    clip: str | None = None
    """Driving video; synthetic heads where none is given."""
    source: str | None = None
    """Source picture; the built-in portrait where none is given."""
    frames: int = 240
    """Frames to time."""
    json: str | None = None
    """Report to write."""


Command = Reenact | Live | Relight | Track | LearnAvatar | Evaluate | Bench | TrainEncoder | EvaluateEncoder
