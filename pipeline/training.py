"""`train-encoder`: the encoder learns from synthetic faces, then from real ones, in the time it has; it can go on another day."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full

import numpy as np
import torch
from torch import Tensor

from capture.photo import write_photo
from models.encoder.decoder import Decoder
from models.encoder.losses import PhotometricLoss, SyntheticLoss, as_tensors
from models.encoder.network import Codes, Encoder
from models.encoder.synthetic import SyntheticFaces, Truth
from models.encoder.weights import load_weights, save_weights
from models.errors import ModelError
from models.prior.face import AnnyPrior, load_prior
from models.prior.reflectance import Reflectance, load_reflectance
from models.tensors import read_tensors, save_aside
from pipeline.encoder_evaluation import HELD_OUT, as_input, code_errors, encode, identity_spread
from pipeline.progress import Listener, silent

_BATCH = 64
_POOL = 16384  # crops kept to be met again
_FRESH_EVERY = 5  # steps: drawing faces and learning from them share the same cores
_RATE = 1.5e-3
_WARM = 300  # steps
_SHARES = 2  # of a batch, learned from side by side
_REAL_BATCH, _REAL_WEIGHT, _RATE_REAL = 16, 2.0, 5e-4
SYNTHETIC = "synthetic"
_AVERAGE = 0.998  # of the weights over the steps; the average is what is saved


@dataclass
class Training:
    """Where a training stands; saved beside the weights so that it can go on.

    Attributes:
        seconds: spent so far.
        steps, fresh: taken, and synthetic faces drawn so far.
    """

    seconds: float = 0.0
    steps: int = 0
    fresh: int = 0


def _feed(queue, seed: int, count: int) -> None:
    """In a process of its own: draws batches until it is ended."""
    import numba

    numba.set_num_threads(1)
    torch.set_num_threads(1)
    prior = load_prior()
    faces = SyntheticFaces(prior, load_reflectance(prior), seed)
    queue.cancel_join_thread()  # with nobody left to read, what is queued may be lost
    parent = multiprocessing.parent_process()
    while parent.is_alive():  # whichever way it ended
        drawn = faces.batch(count, maps=True)
        while parent.is_alive():
            try:
                queue.put(drawn, timeout=5)
                break
            except Full:
                continue


class Feed:
    """Synthetic crops from processes beside this one, and a pool of earlier ones; a context manager."""

    def __init__(self, seed: int, processes: int = 1, batch: int = _BATCH):
        """Args:
        processes: that draw. One shares the cores with the training, and every fifth step meets something new; several
            (beside a GPU) draw as fast as they can, and every step takes what is there.
        """
        self._rng = np.random.default_rng(seed)
        context = multiprocessing.get_context("spawn")
        self._queue = context.Queue(4 * processes)
        self._processes = [
            context.Process(target=_feed, args=(self._queue, seed + 1_000_003 * k, batch), daemon=True) for k in range(processes)
        ]
        self._batch, self._turns = batch, 0
        self._pictures: np.ndarray | None = None
        self._truth: dict[str, np.ndarray] = {}
        self._filled = self._next = self.fresh = 0

    def __enter__(self) -> Feed:
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join(5)

    def _keep(self, pictures: np.ndarray, truth: Truth) -> None:
        if self._pictures is None:
            self._pictures = np.empty((_POOL, *pictures.shape[1:]), np.uint8)
            kept = {k: np.float16 if k == "maps" else np.float32 for k in vars(truth)}
            self._truth = {k: np.empty((_POOL, *v.shape[1:]), kept[k]) for k, v in vars(truth).items()}
        index = (self._next + np.arange(len(pictures))) % _POOL
        self._pictures[index] = pictures
        for name, values in vars(truth).items():
            self._truth[name][index] = values
        self._next = int(index[-1] + 1) % _POOL
        self._filled = max(self._filled, int(index.max()) + 1)
        self.fresh += len(pictures)
        self._newest = index

    def __call__(self) -> tuple[np.ndarray, Truth]:
        """A batch: half of it new where there is something new, the rest met before."""
        newest = None
        wait = self._filled < 8 * self._batch or (len(self._processes) == 1 and self._turns % _FRESH_EVERY == 0)
        try:
            if wait or len(self._processes) > 1:
                self._keep(*self._queue.get(block=wait, timeout=300))
                newest = self._newest
        except Empty:
            if wait:
                raise ModelError(
                    "the process that draws synthetic faces says nothing. Free some memory and go on with --resume."
                ) from None
        self._turns += 1
        index = self._rng.integers(0, self._filled, self._batch)
        if newest is not None:
            index[: self._batch // 2] = self._rng.choice(newest, self._batch // 2, replace=False)
        return self._pictures[index], Truth(**{k: v[index] for k, v in self._truth.items()})


def augmented(pictures: Tensor, seed: int) -> Tensor:
    """N x 3 x S x S with things in the way, blur and noise that leave the codes true (kornia)."""
    import kornia.augmentation as K

    torch.manual_seed(seed)
    chain = K.AugmentationSequential(
        K.RandomErasing(p=0.2, scale=(0.01, 0.1), value=0.3), K.RandomGaussianBlur((5, 5), (0.3, 1.2), p=0.15),
        K.RandomGaussianNoise(std=0.02, p=0.3),
        data_keys=["input"],
    )  # fmt: skip
    return chain(pictures).clamp(0, 1)


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        minutes: that a run takes; the learning rate falls to its end over them.
        data: `synthetic` alone, or folders and files of real faces, which are then learned from beside synthetic ones.
        landmarks: whether real faces come with the tracker's landmarks (weight 10) or with nothing but their pixels.
        resume: go on from the output and its state.
        report_every: seconds.
    """

    minutes: float
    data: tuple[str, ...] = (SYNTHETIC,)
    landmarks: bool = False
    resume: bool = False
    device: str = "cpu"
    seed: int = 0
    report_every: float = 120.0


class Trainer:
    """One run: `run` takes steps until its time is over, saving the averaged weights and its own state as it goes."""

    def __init__(self, output: str | Path, settings: TrainingSettings, listen: Listener = silent, say=print):
        """Raises:
        ModelError: nothing to resume from.
        MediaError: no real face in the data.
        """
        self.output, self.settings, self._listen, self._say = Path(output), settings, listen, say
        self.prior = load_prior()
        self.reflectance = load_reflectance(self.prior)
        self.encoder, self.training = Encoder(self.prior), Training()
        device = settings.device
        if settings.resume:
            kept, origin = load_weights(self.output)
            self.encoder.load_state_dict(kept.state_dict())
            self.training = Training(**origin["training"])
        self.encoder = self.encoder.to(device, memory_format=torch.channels_last)
        self._average = {k: v.detach().clone() for k, v in self.encoder.state_dict().items()}
        self._optimiser = torch.optim.AdamW(self.encoder.parameters(), lr=_RATE, weight_decay=0.02, betas=(0.9, 0.98))
        if settings.resume:
            _restore(self.output, self.encoder, self._optimiser, device)
        self._parameters = list(self.encoder.parameters())
        # on a CPU two halves of a batch in threads of their own go faster than two cores on each of hundreds of small steps
        self._shares = _SHARES if device == "cpu" else 1
        self._pool = ThreadPoolExecutor(self._shares)
        self._loss = SyntheticLoss(self.prior, self.reflectance, device)
        self._held_out = SyntheticFaces(self.prior, self.reflectance, HELD_OUT).batch(512)
        self.real = None
        places = [place for place in settings.data if place != SYNTHETIC]
        if places:
            from pipeline.real_faces import read_real_faces

            self.real = read_real_faces(places, settings.seed, settings.landmarks, listen=listen)
            for name, why in self.real.skipped:
                say(f"skipped {name}: {why}")
            say(f"{len(self.real)} crops of real faces from {len(self.real.files)} files, {len(self.real.skipped)} files skipped")
            decoder = Decoder(self.prior, self.reflectance, device)
            self._photometric = PhotometricLoss(decoder, landmarks=10.0 if settings.landmarks else 0.0)
        self._sums: dict[str, float] = {}
        self._counted = 0
        self._stopped = False

    def run(self) -> dict:
        """Trains; returns a report. Ctrl-C ends it early, and what was learned is kept."""
        minutes = self.settings.minutes
        begun, first = self.training.seconds, self.training.steps
        start = since = time.perf_counter()
        self._say(
            "minutes | steps | faces drawn | loss | landmarks % | expression | pose deg | light deg | gaze deg | albedo | rms"
        )
        processes = 1 if self.settings.device == "cpu" else max(1, (os.cpu_count() or 2) - 2)
        with _one_thread_each(self._shares), Feed(self.settings.seed + 1 + self.training.steps, processes) as feed:
            self.encoder.train()
            while (elapsed := time.perf_counter() - start) < 60 * minutes:
                fall = 0.5 + 0.5 * np.cos(np.pi * elapsed / (60 * minutes))
                highest = _RATE if self.real is None else _RATE_REAL
                for group in self._optimiser.param_groups:
                    group["lr"] = highest * min(1.0, (self.training.steps - first + 1) / _WARM) * fall + 1e-6
                try:
                    self._step(*feed())
                except KeyboardInterrupt:
                    self._stopped = True
                    break
                self.training.fresh += feed.fresh
                feed.fresh = 0
                self.training.seconds = begun + elapsed
                self._listen("train", int(elapsed), int(60 * minutes))
                if time.perf_counter() - since > self.settings.report_every:
                    self._keep()
                    since = time.perf_counter()
        self.training.seconds = begun + time.perf_counter() - start
        return self._keep()

    def _step(self, pictures: np.ndarray, truth: Truth) -> None:
        device, step = self.settings.device, self.training.steps
        crops = as_input(pictures, device)
        half = len(crops) // 2  # the other half stays as it was drawn
        crops = torch.cat([crops[:half], augmented(crops[half:], step)])
        tensors = as_tensors(truth, device)
        unsure = (1 + 0.2 * torch.randn_like(tensors["focal"])).clamp(0.6, 1.6)  # nobody tells the focal length exactly
        focal = tensors["focal"] * unsure
        shares = [slice(k, None, self._shares) for k in range(self._shares)]
        work = [(crops[share], focal[share], {k: v[share] for k, v in tensors.items()}) for share in shares]
        told = list(self._pool.map(lambda one: self._synthetic_gradients(*one), work))
        if self.real is not None:
            told.append(self._real_gradients(step))
        parts: dict[str, float] = {}
        for number, (_, named) in enumerate(told):
            for name, value in named.items():
                parts[name] = parts.get(name, 0.0) + value / (self._shares if number < self._shares else 1)
        if not np.isfinite(list(parts.values())).all():
            raise ModelError(f"{self.output}: training went astray at step {step} ({parts}). Go on with --resume.")
        for parameter, *gradients in zip(self._parameters, *(gradients for gradients, _ in told)):
            known = [g for g in gradients[: self._shares] if g is not None]
            own = sum(known) / self._shares if known else None
            for g in gradients[self._shares :]:
                own = own if g is None else _REAL_WEIGHT * g if own is None else own + _REAL_WEIGHT * g
            parameter.grad = own
        torch.nn.utils.clip_grad_norm_(self._parameters, 5.0)
        self._optimiser.step()
        self.training.steps += 1
        decay = min(_AVERAGE, 1 - 1 / (self.training.steps + 1))
        with torch.no_grad():
            for name, value in self.encoder.state_dict().items():
                if value.is_floating_point():
                    self._average[name].lerp_(value, 1 - decay)
                else:
                    self._average[name].copy_(value)
        self._counted += 1
        for name, value in parts.items():
            self._sums[name] = self._sums.get(name, 0.0) + value

    def _synthetic_gradients(self, crops: Tensor, focal: Tensor, tensors: dict[str, Tensor]) -> tuple[tuple, dict[str, float]]:
        codes, inner = self.encoder.with_inner(crops.contiguous(memory_format=torch.channels_last), focal)
        total, parts = self._loss(codes, tensors)
        extra, seen = self._loss.on_the_way(codes, inner, tensors)
        gradients = torch.autograd.grad(total + extra, self._parameters, allow_unused=True)
        return gradients, parts | seen | {"total": float((total + extra).detach())}

    def _real_gradients(self, step: int) -> tuple[tuple, dict[str, float]]:
        total, parts = self._real_step(step)
        return torch.autograd.grad(total, self._parameters, allow_unused=True), parts

    def _real_step(self, step: int) -> tuple[Tensor, dict[str, float]]:
        device = self.settings.device
        chosen = np.random.default_rng((self.settings.seed, step)).integers(0, len(self.real), _REAL_BATCH)
        crops = as_input(self.real.crops[chosen], device).contiguous(memory_format=torch.channels_last)
        focal = torch.from_numpy(self.real.focal[chosen].astype(np.float32)).to(device)
        marks = torch.from_numpy(self.real.marks[chosen]).to(device)
        # in training mode few real crops would bend the norms' statistics, which synthetic ones set
        self.encoder.eval()
        codes = self.encoder(crops, focal)
        self.encoder.train()
        sure = (codes.confidence > 0).nonzero()[:, 0]  # detectors also find printed faces and the backs of heads
        if not len(sure):
            return codes.identity.sum() * 0, {}
        return self._photometric(Codes(*(c[sure] for c in codes)), crops[sure], focal[sure], marks[sure])

    def averaged(self) -> Encoder:
        """The averaged weights, on the CPU, ready to run."""
        copy = Encoder(self.prior)
        copy.load_state_dict({k: v.cpu() for k, v in self._average.items()})
        return copy.eval()

    def _keep(self) -> dict:
        encoder = self.averaged()
        pictures, truth = self._held_out
        codes = encode(encoder, pictures, truth.focal)
        errors = code_errors(codes, truth, self.prior, self.reflectance)
        told = {k: float(v.mean()) for k, v in errors.items()}
        data = list(self.settings.data) if self.real is None else [SYNTHETIC, *(Path(f).name for f in self.real.files)]
        origin = {"data": data, "seed": self.settings.seed, "training": vars(self.training), "held_out": told}
        origin["identity_spread"] = identity_spread(codes, truth).round(3).tolist()
        save_weights(self.output, encoder, origin)
        moments = {f"weights.{k}": v.cpu() for k, v in self.encoder.state_dict().items()}
        for number, value in self._optimiser.state_dict()["state"].items():
            moments |= {f"moment.{number}.{k}": torch.as_tensor(v).cpu() for k, v in value.items()}
        save_aside(_state_of(self.output), moments, {"format": "understudy-training"})
        _sample_sheet(self.output.with_suffix(".png"), encoder, self._held_out, self.prior, self.reflectance)
        mean = {k: v / max(self._counted, 1) for k, v in self._sums.items()}
        self._say(
            f"{self.training.seconds / 60:.1f} | {self.training.steps} | {self.training.fresh} | {mean.get('total', 0):.3f} | "
            + " | ".join(f"{told[k]:.3f}" for k in ("landmarks", "expression", "pose", "light", "gaze", "albedo"))
            + (f" | {mean['rms']:.4f}" if "rms" in mean else " | -")
        )
        self._sums.clear()
        self._counted = 0
        report = {"output": str(self.output), **vars(self.training), "held_out": told, "data": data, "stopped": self._stopped}
        return report | ({"skipped": self.real.skipped} if self.real else {})


def train_encoder(output: str | Path, settings: TrainingSettings, listen: Listener = silent, say=print) -> dict:
    """Trains into `output` (.safetensors); its state lies beside it, and a sheet of samples. Returns a report.

    Raises:
        ModelError, MediaError: one line; earlier weights stay as they were.
    """
    return Trainer(output, settings, listen, say).run()


@contextmanager
def _one_thread_each(shares: int):
    """Where a batch is shared among threads, none of them needs more of its own."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if shares > 1 else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _state_of(output: Path) -> Path:
    return output.with_suffix(".state.safetensors")


def _restore(output: Path, encoder: Encoder, optimiser: torch.optim.Optimizer, device: str) -> None:
    """Weights as they were (not their average) and the optimiser's moments, where the state lies beside the weights."""
    state = _state_of(output)
    if not state.is_file():
        return
    _, tensors = read_tensors(state, "pt", "not whole", "Delete it to go on from the weights alone.", device)
    encoder.load_state_dict({k.removeprefix("weights."): v for k, v in tensors.items() if k.startswith("weights.")})
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("moment."):
            _, number, key = name.split(".")
            moments.setdefault(int(number), {})[key] = value
    whole = optimiser.state_dict()
    whole["state"] = moments
    optimiser.load_state_dict(whole)


def _sample_sheet(
    path: Path, encoder: Encoder, held_out: tuple[np.ndarray, Truth], prior: AnnyPrior, reflectance: Reflectance
) -> None:
    """Some held-out crops, and below each what the encoder made of it."""
    from models.encoder.render import rendered

    pictures, truth = held_out[0][:8], held_out[1][:8]
    shown = rendered(encode(encoder, pictures, truth.focal), truth.focal, prior, reflectance, pictures.shape[1])
    write_photo(path, np.vstack([np.hstack(pictures), np.hstack(shown)]))
