"""`python -m tests.figures NAME [--media DIR]`: measures what docs/figures.md states, and prints it as a table.

NAMES, at the end, says which there are. Apart from the tests, since most take minutes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import pipeline  # noqa: F401  (sets the threads before numpy's libraries start them)

# isort: split
import av
import numpy as np
from safetensors import safe_open

from capture.face_tracker import FaceTracker
from capture.frame import Frame
from capture.media import StillPicture, open_media
from capture.photo import write_photo
from capture.video import VideoReader
from capture.writer import VideoWriter
from models.prior.face import load_prior, prior_path

ROOT = Path(__file__).resolve().parents[1]
JITTER_CLIPS = (
    "face/talking_head_male_turning_25fps_512.mp4", "driver/driver_male_smile_greenscreen_25fps_512.mp4",
    "driver/driver_female_frowns_gaze_30fps_512.mp4", "face/selfie_female_expressions_blackbar_30fps_512.mp4",
    "driver/driver_male_mouth_wide_30fps_480.mp4",
)  # fmt: skip
LENGTH_CLIPS = (
    "face/speech_male_older_25fps_512_audio.mp4", "face/talking_head_male_suit_30fps_960.mp4",
    "face/speech_male_suit_vfr_700_audio.mp4", "odd/vfr_irregular_timestamps.mp4",
    "driver/driver_male_singing_dark_outdoor_25fps_480_audio.mp4", "odd/rotated_90_metadata.mp4",
)  # fmt: skip
CROSS = (
    (
        "portrait/photo_man_moustache_colourised_375x500.jpg", "driver/driver_male_singing_dark_outdoor_25fps_480_audio.mp4",
        "relative",
    ),
    ("builtin", "driver/driver_female_frowns_gaze_30fps_512.mp4", "relative"),
    ("face/speech_female_blue_30fps_700_audio.mp4", "driver/driver_male_mouth_wide_30fps_480.mp4", "relative"),
    ("portrait/painting_mona_lisa_720x1280.jpg", "driver/driver_female_winks_30fps_480.mp4", "relative"),
    ("face/talking_head_male_turning_25fps_512.mp4", "driver/driver_female_frowns_gaze_30fps_512.mp4", "off"),
    ("portrait/painting_lady_seated_600x704.jpg", "driver/driver_male_smile_greenscreen_25fps_512.mp4", "relative"),
    ("builtin", "face/talking_head_male_turning_25fps_512.mp4", "relative"),
    ("portrait/painting_lady_black_dress_564x729.jpg", "driver/driver_male_mouth_wide_30fps_480.mp4", "absolute"),
)  # fmt: skip


def row(*cells: object) -> None:
    print("| " + " | ".join(f"{c:.2f}" if isinstance(c, float) else str(c) for c in cells) + " |", flush=True)


def head(*cells: str) -> None:
    row(*cells)
    print("|" + " --- |" * len(cells), flush=True)


def clips(media: Path, *folders: str) -> list[Path]:
    return [p for folder in folders for p in sorted((media / folder).glob("*.mp4"))]


def landmarks(media: Path) -> None:
    """Mean distance of the fitted 478 landmarks from the tracker's, % of the outer eye corners' distance."""
    from pipeline.tracking import track

    prior = load_prior()
    head("clip", "frames", "error %")
    for path in clips(media, "face", "driver"):
        performance = track(open_media(path), prior, smoothing=0.0).performances[0]
        row(f"`{path.relative_to(media)}`", len(performance), 100 * float(np.nanmean(performance.error)))


def self_(media: Path) -> None:
    """`evaluate` on every face clip."""
    from pipeline.evaluation import evaluate

    prior = load_prior()
    head("clip", "output dB", "still dB", "gain dB", "landmarks %", "mouth %", "eyes %", "iris %")
    gains = []
    for path in clips(media, "face"):
        r = evaluate(str(path), prior)
        d = r["landmark_distance_percent"]
        gains.append(r["gain_db"])
        row(
            f"`{path.name}`", r["psnr_output"], r["psnr_still"], r["gain_db"], d["overall"], d["mouth"], d["eyes"], d["iris"]
        )  # fmt: skip
    row("mean / least gain", "", "", f"{np.mean(gains):.2f} / {min(gains):.2f}", "", "", "", "")


def jitter(media: Path) -> None:
    """One frame repeated for three seconds with noise of 2 grey levels (seed 0) drives the built-in portrait."""
    from pipeline.alignment import align
    from pipeline.builtin import builtin_portrait
    from pipeline.flow import reference_code
    from pipeline.live.driver import LiveDriver
    from pipeline.puppet import PortraitPuppet
    from pipeline.reenactment import Reenactment, Settings
    from pipeline.source import prepare_picture
    from pipeline.tracking import track

    prior = load_prior()
    source = prepare_picture(builtin_portrait(), prior)
    points = prior.at_landmarks(source.portrait.head.neutral)[[1, 33, 263, 152, 10]]

    def rms(codes) -> float:
        shown = np.stack([source.person.camera.project(points @ c.rotation.T + c.translation)[:, :2] for c in codes])
        return float(np.sqrt(((shown - shown.mean(0)) ** 2).sum(-1).mean()))

    head("first frame of", "file mode, px rms", "aligned (avatars), px rms", "live mode, px rms (after 1 s)")
    for name in JITTER_CLIPS:
        rng = np.random.default_rng(0)
        still = next(iter(open_media(media / name))).image.astype(np.float32)
        frames = [
            Frame(np.clip(still + rng.normal(0, 2, still.shape), 0, 255).astype(np.uint8), i / 30, 1 / 30) for i in range(90)
        ]
        noisy = StillPicture(frames[0].image, name)
        noisy.__class__ = type("NoisyClip", (StillPicture,), {"is_photo": False, "__iter__": lambda self: iter(frames)})
        performance = track(noisy, prior).performances[0]
        carry = Reenactment(PortraitPuppet(source), performance.person, reference_code(performance), Settings()).retargeter
        base = source.views[0].code
        both = rms([carry(performance.code(i), base) for i in range(len(performance))])
        aligned = align(noisy, performance, prior)
        pixels = rms([carry(aligned.code(i), base) for i in range(len(aligned))])
        live, codes = LiveDriver(prior), []
        with FaceTracker() as tracker:
            for frame in frames:
                codes.append(live(tracker(frame)[0], frame))
        carry = Reenactment(PortraitPuppet(source), live.person, live.reference, Settings()).retargeter
        row(f"`{name}`", f"{both:.3f}", f"{pixels:.3f}", f"{rms([carry(c, base) for c in codes[50:]]):.3f}")


def lengths(media: Path) -> None:
    """Durations of picture and sound of the driver and of the output."""
    from pipeline.flow import reenact

    prior = load_prior()
    head("driver", "frames", "picture s, in / out", "sound s, in / out", "longest frame s", "times equal to")
    for name in LENGTH_CLIPS:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.mp4"
            try:
                reenact("builtin", str(media / name), out, prior=prior)
            except ValueError as error:
                row(f"`{name}`", "refused:", str(error).replace(str(media), "…"), "", "", "")
                continue
            given, made = list(VideoReader(media / name)), list(VideoReader(out))
            apart = np.abs(np.array([f.time for f in given]) - [f.time for f in made]).max()
            sound = []
            for path in (media / name, out):
                with av.open(str(path)) as file:
                    s = file.streams.audio
                    sound.append(f"{float(s[0].duration * s[0].time_base):.3f}" if s and s[0].duration else "none")
            ends = [f"{f[-1].time + f[-1].duration:.3f}" for f in (given, made)]
            row(
                f"`{name}`",
                len(made),
                " / ".join(ends),
                " / ".join(sound),
                f"{max(f.duration for f in given):.3f}",
                f"{1e3 * apart:.3f} ms",
            )


def command(*words: object, limit: float = 600) -> tuple[int, str, float]:
    start = perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, words)], cwd=ROOT, capture_output=True, text=True, timeout=limit
    )
    lines = [x for x in (done.stderr + done.stdout).strip().splitlines() if "━" not in x]
    return done.returncode, "\n".join(lines), perf_counter() - start


def odd(media: Path) -> None:
    """Every odd file as a driver (videos) or a source (photos), through the command line."""
    head("file", "exit code", "output file", "what was said")
    for path in sorted(p for p in (media / "odd").iterdir() if p.is_file()):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.mp4"
            photo = path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".hdr", ".exr", ".pgm")
            words = ["--source", path, "--driver", "builtin"] if photo else ["--source", "builtin", "--driver", path]
            code, said, _ = command("reenact", *words, "--output", out)
            assert (code == 0) == out.exists() and code in (0, 2) and len(list(Path(folder).iterdir())) == (code == 0)
            row(
                f"`{path.name}`",
                code,
                "yes" if out.exists() else "none",
                said.replace("\n", " / ").replace(str(media), "…").replace(str(out), "out.mp4"),
            )


def memory(media: Path) -> None:
    """Peak resident memory of `reenact` on a looped clip: one minute beside ten."""
    clip = media / "driver/driver_male_mouth_wide_30fps_480.mp4"
    head("driver", "frames", "peak MB", "seconds")
    with tempfile.TemporaryDirectory() as folder:
        frames = [f.image for f in open_media(clip)]
        for minutes in (1, 10):
            long = Path(folder) / f"{minutes}.mp4"
            with VideoWriter(long, 480, 480, preset="ultrafast", crf=20) as writer:
                for i in range(minutes * 60 * 30):
                    writer.write(frames[i % len(frames)], i / 30, 1 / 30)
            start = perf_counter()
            code = (
                "import resource, sys, pipeline\nfrom pipeline.flow import reenact\n"
                "r = reenact('builtin', sys.argv[1], sys.argv[2])\n"
                "print(r['frames'], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code, str(long), str(Path(folder) / "out.mp4")], cwd=ROOT, capture_output=True, text=True
            )
            count, peak = done.stdout.split()[-2:]
            row(f"`{clip.name}`, {minutes} min", count, float(peak), perf_counter() - start)


def prior(media: Path) -> None:
    """Loading and evaluating the prior, one thread."""
    import torch

    torch.set_num_threads(1)
    load_prior()
    times = []
    for _ in range(5):
        start = perf_counter()
        loaded = load_prior()
        times.append(perf_counter() - start)
    identity, expression = torch.randn(1, 80), torch.rand(1, 52)
    evaluations = []
    for _ in range(220):
        start = perf_counter()
        loaded.vertices(identity, expression)
        evaluations.append(perf_counter() - start)
    many = torch.randn(64, 80), torch.rand(64, 52)
    start = perf_counter()
    for _ in range(10):
        loaded.vertices(*many)
    batch = (perf_counter() - start) / 640
    head("what", "time")
    row("load from the cache (warm disk)", f"{1e3 * np.median(times):.0f} ms")
    row("evaluate one head, one core (median)", f"{1e3 * np.median(evaluations[20:]):.3f} ms")
    row("evaluate in batches of 64, a head, one core", f"{1e3 * batch:.3f} ms")
    with safe_open(str(prior_path()), framework="np") as file:
        row("variance of identity that 80 components keep", f"{100 * float(file.metadata()['identity_variance']):.1f} %")


def speed(media: Path) -> None:
    """`bench` on the synthetic driver and on a real one."""
    for words in ((), ("--clip", media / "driver/driver_female_frowns_gaze_30fps_512.mp4")):
        print(command("bench", *words)[1].replace(str(media), "…"), flush=True)


def cross(media: Path) -> None:
    """Contact sheets (driver above, output below) into out/cross; none of them goes into the project."""
    from pipeline.evaluation import ContactSheet
    from pipeline.flow import pictures, prepare
    from pipeline.reenactment import Settings

    prior_ = load_prior()
    folder = ROOT / "out" / "cross"
    folder.mkdir(parents=True, exist_ok=True)
    for number, (source, driver, pose) in enumerate(CROSS):
        settings = Settings(pose=pose, audio="none")
        where = source if source == "builtin" else str(media / source)
        prepared = prepare(where, str(media / driver), settings, prior_)
        still = next(iter(prepared.source_media)).image
        sheet = ContactSheet(len(prepared.driver))
        for index, (made, frame) in enumerate(zip(pictures(prepared, settings), open_media(media / driver))):
            sheet.offer(index, frame.image, still, made.image, error=False)
        write_photo(folder / f"{number}.png", sheet.picture())
        print(folder / f"{number}.png", source, driver, pose, flush=True)


def encoder(media: Path, weights: str | None = None) -> None:
    """The encoder on real faces: labelled photos, clips beside the tracker, lamps; pictures into out/encoder."""
    from tests.encoder_figures import EncoderFigures

    figures = EncoderFigures(media, row, head, weights)
    for table in (figures.photos, figures.clips, figures.lamps):
        table()
        print(flush=True)
    figures.write_sheets(ROOT / "out" / "encoder")


def photometric(media: Path, weights: str | None = None) -> None:
    """Photometric error on real frames never trained on, of one or more encoders (--weights A,B)."""
    from models.encoder.weights import SHIPPED
    from tests.encoder_figures import photometric as table

    table(media, row, head, (weights or str(SHIPPED)).split(","))


def dense(media: Path) -> None:
    """Landmark error with and without pixels, and the encoder alone beside both, over whole clips."""
    from pipeline.encoder_tracking import track_by_encoder
    from pipeline.encoding import FaceEncoder
    from pipeline.fitting import LandmarkModel
    from pipeline.shot import frame_fitter
    from pipeline.tracking import track

    prior = load_prior()
    look, model = FaceEncoder(prior), LandmarkModel.of(prior)
    head("clip", "landmarks only %", "`--dense` %", "head jitter of both, mrad", "`--encoder-only` beside landmarks, 68 points %")
    for path in clips(media, "driver"):
        plain = track(open_media(path), prior).performances[0]
        both = track(open_media(path), prior, encoder=look).performances[0]
        alone = track_by_encoder(open_media(path), prior, look).performances[0]
        apart = []
        for index in np.flatnonzero(plain.tracked & alone.tracked):
            a, b = (prior.ibug68 @ frame_fitter(model, p.person).landmarks(p.code(index)) for p in (alone, plain))
            apart.append(100 * np.linalg.norm(a - b, axis=1).mean() / np.linalg.norm(b[36] - b[45]))
        shake = [1e3 * float(np.abs(np.diff(p.rotation, 2, axis=0)).mean()) for p in (plain, both)]
        row(
            f"`{path.name}`", 100 * float(np.nanmean(plain.error)), 100 * float(np.nanmean(both.error)),
            f"{shake[0]:.2f} / {shake[1]:.2f}", float(np.mean(apart)),
        )  # fmt: skip


def shape(media: Path) -> None:
    """Shape of a face from one picture, with and without what the encoder lets the fit expect."""
    from tests.encoder_figures import person_shapes

    person_shapes(row, head)


def raster(media: Path) -> None:
    """The rasteriser's speed beside the torch oracle's."""
    from tests.encoder_figures import rasteriser_speed

    rasteriser_speed(row, head)


def avatar(media: Path) -> None:
    from tests.avatar_figures import held_out

    held_out(media, row, head)


def avatar_ablations(media: Path) -> None:
    from tests.avatar_figures import ablations

    ablations(media, row, head)


def avatar_speed(media: Path) -> None:
    from tests.avatar_figures import speed

    speed(row, head)


def live(media: Path) -> None:
    from tests.live_figures import engine

    engine(media, row, head)


def yale(media: Path) -> None:
    from tests.light_figures import yale as measured

    measured(media, row, head)


def relight(media: Path) -> None:
    """The laws of light, flicker, skin tones and speed on real clips."""
    from tests.relight_figures import flicker, laws, speed, tones

    for measured in (laws, flicker, tones, speed):
        measured(media, row, head)


def relight_moved(media: Path) -> None:
    from tests.moved_light_figures import carried, steadiness

    for measured in (steadiness, carried):
        measured(media, row, head)


def relight_truth(media: Path) -> None:
    from tests.relight_truth import truth

    truth(media, row, head)


def live_overload(media: Path) -> None:
    from tests.live_figures import overload

    overload(media, row, head)


NAMES = {
    "landmarks": landmarks, "self": self_, "jitter": jitter, "lengths": lengths, "odd": odd, "memory": memory, "prior": prior,
    "speed": speed, "cross": cross, "encoder": encoder, "raster": raster,
    "photometric": photometric, "dense": dense, "shape": shape, "avatar": avatar, "avatar-speed": avatar_speed,
    "avatar-ablations": avatar_ablations, "live": live, "live-overload": live_overload, "yale": yale, "relight": relight,
    "relight-truth": relight_truth, "relight-moved": relight_moved,
}  # fmt: skip

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--media", type=Path, default=Path(os.environ.get("UNDERSTUDY_MEDIA", ROOT.parent / "shared/media")))
    parser.add_argument("--weights", help="encoder weights; those that ship where none are given")
    chosen = parser.parse_args()
    NAMES[chosen.name](chosen.media, *([chosen.weights] if chosen.name in ("encoder", "photometric") else []))
