"""`python -m pipeline COMMAND`: the command line.

A user gets one clear line on bad input, exit code 2 and no output file; Ctrl-C leaves nothing half-written (code 130).
"""

from __future__ import annotations

import os
import signal
import sys

import tyro

from pipeline.commands import Bench, Command, Evaluate, EvaluateEncoder, LearnAvatar, Live, Reenact, Relight, Track, TrainEncoder
from pipeline.device import DeviceChoice

GainRange = (0.0, 3.0)


def _one_of(flag: str, value: str, allowed: tuple[str, ...]) -> str:
    from pipeline.errors import Refusal

    if value not in allowed:
        raise Refusal(f"{flag} {value}: unknown, expected {' or '.join(allowed)}. Choose one of these.")
    return value


def _in_range(flag: str, value: float, low: float, high: float) -> float:
    from pipeline.errors import Refusal

    if not low <= value <= high:
        raise Refusal(f"{flag} {value}: out of range, expected {low:g} to {high:g}. Choose a value between them.")
    return value


def run(command: Command) -> None:
    """Does what was asked for; raises MediaError or Refusal with the line to show."""
    from models.prior.face import load_prior
    from pipeline.device import choose_device
    from pipeline.progress import TerminalProgress
    from pipeline.report import check_writable, write_json

    check_writable(command.json)
    if isinstance(command, Reenact):
        from pipeline.flow import reenact
        from pipeline.reenactment import Settings
        from pipeline.retargeting import Gains

        gain = _in_range("--expression-gain", command.expression_gain, *GainRange)
        settings = Settings(
            pose=_one_of("--pose", command.pose, ("relative", "absolute", "off")),
            gains=Gains(brows=gain, eyes=gain, mouth=gain),
            audio=_one_of("--audio", command.audio, ("driver", "source", "none")),
            person=int(_in_range("--person", command.person, 0, 19)),
            cast=_one_of("--cast", command.cast, ("one", "all", "each")),
            smoothing=_in_range("--smoothing", command.smoothing, 0, 10),
            background=command.background,
            light=command.light,
            mark=command.mark,
            device=_device(command.device),
        )
        with TerminalProgress() as progress:
            report = reenact(
                command.source, command.driver, command.output, settings, prior=load_prior(), listen=progress,
                causal=command.causal,
            )  # fmt: skip
        size = f"{report['width']}x{report['height']}"
        line = f"{report['output']}: {_count(report['frames'], 'frame')}, {report['duration']:.2f} s, {size}"
        if report["lost_frames"]:
            line += f", the driver's face was lost in {report['lost_frames']}"
    elif isinstance(command, Live):
        report, line = _live(command)
    elif isinstance(command, Relight):
        report, line = _relight(command)
    elif isinstance(command, Track):
        report, line = _track(command)
    elif isinstance(command, LearnAvatar):
        report, line = _learn_avatar(command)
    elif isinstance(command, Evaluate) and command.avatar:
        report, line = _evaluate_avatar(command)
    elif isinstance(command, Evaluate):
        from pipeline.evaluation import evaluate

        check_writable(command.sheet)
        device = choose_device(_device(command.device))
        with TerminalProgress() as progress:
            report = evaluate(command.clip, load_prior(), progress, command.sheet, device)
        distance = report["landmark_distance_percent"]
        line = (
            f"{command.clip}: {report['psnr_output']:.2f} dB in the face, the still first frame {report['psnr_still']:.2f} dB, "
            f"gain {report['gain_db']:+.2f} dB; landmarks {distance['overall']:.2f} % of the inter-ocular distance "
            f"(mouth {distance['mouth']:.2f}, eyes {distance['eyes']:.2f}, iris {distance['iris']:.2f})"
        )
    elif isinstance(command, TrainEncoder):
        report, line = _train_encoder(command)
    elif isinstance(command, EvaluateEncoder):
        from pipeline import encoder_evaluation

        with TerminalProgress() as progress:
            report = encoder_evaluation.evaluate_encoder(
                load_prior(), command.weights, int(_in_range("--faces", command.faces, 32, 100000)),
                int(_in_range("--refined", command.refined, 8, command.faces)), choose_device(_device(command.device)), progress,
            )  # fmt: skip
        line = encoder_evaluation.table(report)
    else:
        from pipeline.bench import bench, table

        report = bench(
            load_prior(),
            _device(command.device),
            command.clip,
            command.source,
            int(_in_range("--frames", command.frames, 10, 100000)),
        )
        line = table(report)
    if command.json:
        write_json(command.json, report)
    print(line)


def _live(command: Live) -> tuple[dict, str]:
    from capture.sinks import VIRTUAL_CAMERA, WINDOW
    from models.prior.face import load_prior
    from pipeline.errors import Refusal
    from pipeline.live.stream import Delivery, go_live
    from pipeline.progress import TerminalProgress
    from pipeline.reenactment import Settings
    from pipeline.retargeting import Gains

    parts = ("brows", "eyes", "mouth", "head", "gaze")
    settings = Settings(
        pose=_one_of("--pose", command.pose, ("relative", "absolute", "off")),
        gains=Gains(**{part: _in_range(f"--{part}", getattr(command, part), *GainRange) for part in parts}),
        audio=_one_of("--audio", command.audio, ("driver", "source", "none")),
        person=int(_in_range("--person", command.person, 0, 19)),
        cast=_one_of("--cast", command.cast, ("one", "all", "each")),
        smoothing=_in_range("--smoothing", command.smoothing, 0, 10),
        background=command.background,
        light=command.light,
        mark=command.sink in (WINDOW, VIRTUAL_CAMERA) if command.mark is None else command.mark,
        device=_device(command.device),
    )
    for flag, side in (("--width", command.width), ("--height", command.height)):
        if side is not None:
            _in_range(flag, side, 16, 8192)
    if command.performance and not command.performance.endswith(".safetensors"):
        raise Refusal(f"{command.performance}: can't write a performance so, expected .safetensors. Name it so.")
    delivery = Delivery(
        command.width, command.height, _in_range("--max-age-ms", command.max_age_ms, 10, 10000) / 1000,
        command.record, command.performance,
    )  # fmt: skip
    with TerminalProgress() as progress:
        report = go_live(
            command.source, command.driver, command.sink, settings, delivery, load_prior(), progress, progress.say
        )  # fmt: skip
    line = f"{command.sink}: {_count(report['frames_out'], 'picture')} of {_count(report['frames_in'], 'frame')}"
    line += f" in {report['seconds']:.1f} s, {report['fps']:.1f} a second"
    if report["age_ms"]["p50"] is not None:
        line += f", age {report['age_ms']['p50']:.0f} ms (p95 {report['age_ms']['p95']:.0f})"
    if report["frames_without_face"]:
        line += f"; no face in {report['frames_without_face']}"
    if report.get("record_failed"):
        line += f"; {command.record} could not be written to its end ({report['record_failed']})"
    return report, line


def _relight(command: Relight) -> tuple[dict, str]:
    from models.prior.face import load_prior
    from pipeline.progress import TerminalProgress
    from pipeline.relight import STOPS, Relighting, relight

    how = Relighting(
        _turn(command.rotate), _in_range("--exposure", command.exposure, -STOPS, STOPS), command.background,
        _in_range("--smoothing", command.smoothing, 0, 10), command.mark, device=_device(command.device),
        wall=None if command.wall is None else _in_range("--wall", command.wall, 0.05, 10),
    )  # fmt: skip
    with TerminalProgress() as progress:
        report = relight(
            command.input, command.light, command.output, how, prior=load_prior(), source_light=command.source_light,
            listen=progress,
        )  # fmt: skip
    size = f"{report['width']}x{report['height']}"
    lines = [f"{one['output']}: {_count(one['frames'], 'frame')}, {size}, under {one['light']}" for one in report["results"]]
    return report, "\n".join([*lines, *(f"hint: {hint}" for hint in report["hints"])])


def _turn(told: str) -> tuple[float, float]:
    from pipeline.errors import Refusal

    try:
        degrees = [float(part) for part in told.split(":")]
    except ValueError:
        degrees = []
    if len(degrees) not in (1, 2) or not all(abs(one) <= 36000 for one in degrees):
        raise Refusal(f"--rotate {told}: expected degrees, or degrees:degrees over a video. Write 90 or 0:360.")
    return degrees[0], degrees[-1]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _device(value: str) -> DeviceChoice:
    return _one_of("--device", value, ("auto", "cpu", "cuda"))


def _track(command: Track) -> tuple[dict, str]:
    from pathlib import Path

    from capture.media import open_media
    from capture.photo import check_photo_output
    from models.prior.face import load_prior
    from pipeline.device import choose_device
    from pipeline.errors import Refusal
    from pipeline.outputs import check_output
    from pipeline.progress import TerminalProgress
    from pipeline.report import check_writable, track_report, write_overlay
    from pipeline.tracking import track

    _in_range("--smoothing", command.smoothing, 0, 10)
    output = Path(command.output)
    if output.suffix != ".safetensors":
        raise Refusal(f"{output}: can't write a performance as {output.suffix or 'that'}, expected .safetensors. Name it so.")
    check_writable(output)
    media = open_media(command.input)
    if command.preview:
        check_photo_output(command.preview) if media.is_photo else check_output(command.preview)
    prior = load_prior()
    if command.dense and command.encoder_only:
        raise Refusal("--dense and --encoder-only: either landmarks and pixels or the encoder alone. Choose one of these.")
    encoder = None
    if command.dense or command.encoder_only:
        from pipeline.encoding import FaceEncoder

        encoder = FaceEncoder(prior, command.weights, choose_device(_device(command.device)))
    with TerminalProgress() as progress:
        if command.encoder_only:
            from pipeline.encoder_tracking import track_by_encoder

            tracked = track_by_encoder(media, prior, encoder, people=2, smoothing=command.smoothing, listen=progress)
        else:
            tracked = track(media, prior, people=2, smoothing=command.smoothing, listen=progress, encoder=encoder)
        report = track_report(tracked, prior, media)
        if command.preview:
            write_overlay(command.preview, tracked, prior, media, progress)
    for number, (k, performance) in enumerate(tracked.performances.items()):
        performance.save(output if number == 0 else output.with_suffix(f".{k}.safetensors"))
    people = len(tracked.performances)
    line = f"{output}: {people} {'person' if people == 1 else 'people'}, {_count(len(tracked.times), 'frame')}"
    error = report["mean_landmark_error_percent"]
    if error is not None:
        line += f", landmark error {error:.2f} % of the inter-ocular distance"
    return report, line


def _learn_avatar(command: LearnAvatar) -> tuple[dict, str]:
    from models.prior.face import load_prior
    from pipeline.avatar.learning import LearningSettings, learn_avatar
    from pipeline.device import choose_device
    from pipeline.progress import TerminalProgress

    device = choose_device(_device(command.device))
    settings = LearningSettings(
        minutes=_in_range("--minutes", command.minutes, 0.05, 1000), holdout=_in_range("--holdout", command.holdout, 0, 0.9),
        turns=int(_in_range("--turns", command.turns, 0, 10)), bases=int(_in_range("--bases", command.bases, 1, 40)),
        person=int(_in_range("--person", command.person, 0, 19)),
    )  # fmt: skip
    with TerminalProgress() as progress:
        report = learn_avatar(
            command.input, command.output, load_prior(), settings, progress, lambda line: print(line, flush=True),
            resume=command.resume, device=device,
        )  # fmt: skip
    seconds = report["seconds_tracking"] + report["seconds_learning"]
    line = f"{report['output']}: {report['bytes'] / 1e6:.1f} MB, {report['width']}x{report['height']}, "
    line += f"{_count(report['frames'], 'frame')}, {seconds:.0f} s"
    return report, line + (", not finished: --resume goes on" if report["unfinished"] else "")


def _evaluate_avatar(command: Evaluate) -> tuple[dict, str]:
    from models.prior.face import load_prior
    from pipeline.avatar.evaluation import evaluate_avatar
    from pipeline.device import choose_device
    from pipeline.progress import TerminalProgress
    from pipeline.report import check_writable

    check_writable(command.sheet)
    with TerminalProgress() as progress:
        report = evaluate_avatar(
            command.avatar, command.clip, load_prior(), int(_in_range("--from-frame", command.from_frame, 0, 10**7)),
            command.mask, progress, command.sheet, choose_device(_device(command.device)),
        )  # fmt: skip
    lines = [f"{command.clip}, {_count(report['frames'], 'frame')} from {report['from_frame']}, mask {report['mask']}"]
    for name, told in report["methods"].items():
        cells = [f"{k.replace('psnr_', '')} {v:.2f}" for k, v in told.items() if k.startswith("psnr_")]
        lines.append(f"{name:>24}: dB {', '.join(cells)}; SSIM {told.get('ssim_mask', float('nan')):.3f}")
    return report, "\n".join(lines)


def _train_encoder(command: TrainEncoder) -> tuple[dict, str]:
    from pathlib import Path

    from pipeline.device import choose_device
    from pipeline.errors import Refusal
    from pipeline.progress import TerminalProgress
    from pipeline.report import check_writable
    from pipeline.training import TrainingSettings, train_encoder

    output = Path(command.output)
    if output.suffix != ".safetensors":
        raise Refusal(f"{output}: can't write weights as {output.suffix or 'that'}, expected .safetensors. Name it so.")
    check_writable(output)
    settings = TrainingSettings(
        _in_range("--minutes", command.minutes, 0.05, 100000), command.data, command.landmarks, command.resume,
        choose_device(_device(command.device)), command.seed,
    )  # fmt: skip
    with TerminalProgress() as progress:
        report = train_encoder(output, settings, progress, say=lambda line: print(line, flush=True))
    line = f"{output}: {report['steps']} steps, {report['seconds'] / 60:.1f} minutes in all"
    return report, line + (", stopped early; --resume goes on" if report["stopped"] else "")


def quiet_natives() -> None:
    """Sends what C++ libraries print to nowhere: mediapipe and TensorFlow Lite log every start to stderr.

    UNDERSTUDY_VERBOSE=1 leaves it as it is.
    """
    if os.environ.get("UNDERSTUDY_VERBOSE"):
        return
    ours = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    sys.stderr = ours


def main(words: list[str] | None = None) -> int:
    """Parses, runs, and turns what went wrong into one line and an exit code.

    Args:
        words: of the command line; None takes the process' own.
    """
    names = {
        "reenact": Reenact, "live": Live, "relight": Relight, "track": Track,
        "avatar": LearnAvatar, "evaluate": Evaluate, "bench": Bench,
        "train-encoder": TrainEncoder,
        "evaluate-encoder": EvaluateEncoder,
    }  # fmt: skip
    command = tyro.extras.subcommand_cli_from_dict(
        names, args=words, prog="python -m pipeline", description="One person's performance drives another person's picture."
    )
    from capture.errors import MediaError
    from models.errors import ModelError
    from pipeline.errors import Refusal

    try:
        run(command)
    except (MediaError, ModelError, Refusal) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(str(stopped) or "stopped; nothing was written", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    # as with Ctrl-C, being told to end leaves nothing half-written; in the background of a script Ctrl-C itself may be deaf
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    quiet_natives()
    sys.exit(main())
