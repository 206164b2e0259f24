"""`train-encoder`: the encoder learns from synthetic faces, in the time it is given, and can go on another day."""

from __future__ import annotations

import json
import multiprocessing
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Full

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from capture.photo import write_photo
from models.encoder.losses import SyntheticLoss, as_tensors
from models.encoder.network import WIDTHS, Encoder
from models.encoder.synthetic import SyntheticFaces, Truth
from models.encoder.weights import load_weights, save_aside, save_weights
from models.errors import ModelError
from models.prior.face import AnnyPrior, load_prior
from models.prior.reflectance import Reflectance, load_reflectance
from pipeline.encoder_evaluation import HELD_OUT, as_input, code_errors, encode
from pipeline.progress import Listener, silent

_BATCH = 64
_POOL = 16384  # crops kept to be met again
_FRESH_EVERY = 3  # steps: drawing faces and learning from them share the same cores
_RATE = 2e-3
_WARM = 300  # steps
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
    parent = multiprocessing.parent_process()
    while parent.is_alive():  # whichever way it ended
        drawn = faces.batch(count)
        while parent.is_alive():
            try:
                queue.put(drawn, timeout=5)
                break
            except Full:
                continue


class Feed:
    """Synthetic crops from a process beside this one, and a pool of earlier ones; a context manager."""

    def __init__(self, seed: int, batch: int = _BATCH):
        self._rng = np.random.default_rng(seed)
        context = multiprocessing.get_context("spawn")
        self._queue = context.Queue(4)
        self._process = context.Process(target=_feed, args=(self._queue, seed, batch), daemon=True)
        self._batch, self._turns = batch, 0
        self._pictures: np.ndarray | None = None
        self._truth: dict[str, np.ndarray] = {}
        self._filled = self._next = self.fresh = 0

    def __enter__(self) -> Feed:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join(5)

    def _keep(self, pictures: np.ndarray, truth: Truth) -> None:
        if self._pictures is None:
            self._pictures = np.empty((_POOL, *pictures.shape[1:]), np.uint8)
            self._truth = {k: np.empty((_POOL, *v.shape[1:]), np.float32) for k, v in vars(truth).items()}
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
        if self._turns % _FRESH_EVERY == 0 or self._filled < 8 * self._batch:
            try:
                self._keep(*self._queue.get(timeout=300))
            except Empty:
                raise ModelError(
                    "the process that draws synthetic faces says nothing. Free some memory and go on with --resume."
                ) from None
            newest = self._newest
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


def train_encoder(
    output: str | Path, minutes: float, *, resume: bool = False, device: str = "cpu", seed: int = 0, listen: Listener = silent,
    say=print, report_every: float = 120.0,
) -> dict:  # fmt: skip
    """Trains for some minutes; writes the weights to `output`, and the training's state beside them, every few minutes.

    Args:
        minutes: that this call takes; the learning rate falls to its end over them.
        resume: go on from `output` and its state.
        say: told a table, line by line.

    Raises:
        ModelError: nothing to resume, or no room on the disk; earlier weights stay as they were.
    """
    output = Path(output)
    prior = load_prior()
    reflectance = load_reflectance(prior)
    encoder, training = Encoder().to(device), Training()
    if resume:
        kept, origin = load_weights(output)
        encoder.load_state_dict(kept.state_dict())
        encoder.to(device)
        training = Training(**origin["training"])
    encoder = encoder.to(memory_format=torch.channels_last)
    average = {k: v.detach().clone() for k, v in encoder.state_dict().items()}
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=_RATE, weight_decay=0.02, betas=(0.9, 0.98))
    if resume:
        _restore(output, encoder, optimiser, device)
    loss = SyntheticLoss(prior, reflectance, device)
    held_out = SyntheticFaces(prior, reflectance, HELD_OUT).batch(512)
    state = output.with_suffix(".state.safetensors")
    begun, since, start = training.seconds, time.perf_counter(), time.perf_counter()
    sums: dict[str, float] = {}
    counted = 0
    say("minutes | steps | faces drawn | loss | landmarks % | expression | pose deg | light deg | gaze deg | albedo")

    def keep() -> dict:
        training.seconds = begun + time.perf_counter() - start
        copy = Encoder()
        copy.load_state_dict({k: v.cpu() for k, v in average.items()})
        copy.eval()
        errors = {
            k: float(v.mean())
            for k, v in code_errors(encode(copy, held_out[0], held_out[1].focal), held_out[1], prior, reflectance).items()
        }
        origin = {"data": "synthetic", "seed": seed, "training": vars(training), "held_out": errors}
        save_weights(output, copy, WIDTHS, origin)
        moments = {f"weights.{k}": v.cpu() for k, v in encoder.state_dict().items()}
        for number, value in optimiser.state_dict()["state"].items():
            moments |= {f"moment.{number}.{k}": torch.as_tensor(v).cpu() for k, v in value.items()}
        save_aside(state, moments, {"format": "understudy-training", "training": json.dumps(vars(training))})
        _sample_sheet(output.with_suffix(".png"), copy, held_out, prior, reflectance)
        say(
            f"{training.seconds / 60:.1f} | {training.steps} | {training.fresh} | {sum(sums.values()) / max(counted, 1):.3f} | "
            + " | ".join(f"{errors[k]:.3f}" for k in ("landmarks", "expression", "pose", "light", "gaze", "albedo"))
        )
        return {"output": str(output), **vars(training), "held_out": errors}

    with Feed(seed + 1 + training.steps) as feed:
        encoder.train()
        while (elapsed := time.perf_counter() - start) < 60 * minutes:
            share = elapsed / (60 * minutes)
            rate = _RATE * min(1.0, (training.steps + 1) / _WARM) * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-6
            for group in optimiser.param_groups:
                group["lr"] = rate
            pictures, truth = feed()
            crops = as_input(pictures, device)
            half = len(crops) // 2  # the other half stays as it was drawn
            crops = torch.cat([crops[:half], augmented(crops[half:], training.steps)]).contiguous(
                memory_format=torch.channels_last
            )
            tensors = as_tensors(truth, device)
            total, parts = loss(
                encoder(crops, tensors["focal"] * (1 + 0.2 * torch.randn_like(tensors["focal"])).clamp(0.6, 1.6)), tensors
            )
            if not torch.isfinite(total):
                raise ModelError(
                    f"{output}: training went astray at step {training.steps} (loss {float(total)}). Go on with --resume."
                )
            optimiser.zero_grad(set_to_none=True)
            total.backward()
            torch.nn.utils.clip_grad_norm_(encoder.parameters(), 5.0)
            optimiser.step()
            training.steps += 1
            training.fresh += feed.fresh
            feed.fresh = 0
            decay = min(_AVERAGE, 1 - 1 / (training.steps + 1))
            with torch.no_grad():
                for name, value in encoder.state_dict().items():
                    if value.is_floating_point():
                        average[name].lerp_(value, 1 - decay)
                    else:
                        average[name].copy_(value)
            counted += 1
            for name, value in (parts | {"loss": float(total.detach()) - sum(parts.values())}).items():
                sums[name] = sums.get(name, 0.0) + value
            listen("train", int(elapsed), int(60 * minutes))
            if time.perf_counter() - since > report_every:
                keep()
                since, counted = time.perf_counter(), 0
                sums.clear()
    return keep()


def _restore(output: Path, encoder: Encoder, optimiser: torch.optim.Optimizer, device: str) -> None:
    """Weights as they were (not their average) and the optimiser's moments, where the state lies beside the weights."""
    state = output.with_suffix(".state.safetensors")
    if not state.is_file():
        return
    try:
        with safe_open(str(state), framework="pt", device=device) as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ModelError(f"{state}: not whole ({error}). Delete it to go on from the weights alone.") from None
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
