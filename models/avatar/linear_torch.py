"""`linear.regress` on a torch device: the same solve, its matrix products where they are fast."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

_CHUNK = 3 << 17  # columns at once


@torch.inference_mode()
def solve(
    values: np.ndarray, weight: np.ndarray, fit: np.ndarray, inverse: np.ndarray, rank: int, importance: np.ndarray, rounds: int,
    device: str,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """The regression's mean (S x C float32), bases (r x (S C) float32), and mixing (N x r float64).

    Args:
        values, weight, importance, rounds: as of `regress`.
        fit, inverse: N x N, the smoother's `fit` and `solve`.
    """
    there = torch.device(device)
    send = lambda array, kind: torch.from_numpy(np.ascontiguousarray(array)).to(there).to(kind)
    count, places, channels = values.shape
    fitting, important = send(fit, torch.float32), send(importance, torch.float32)
    hidden = bool((weight < 255).any())
    power = torch.zeros(count, count, dtype=torch.float64, device=there)
    means, kept = [], []
    for first in range(0, places, max(_CHUNK // channels, 1)):
        part = slice(first, min(first + max(_CHUNK // channels, 1), places))
        mean, y = _centred(send(values[:, part].astype(np.float32), torch.float32), send(weight[:, part], torch.float32) / 255)
        if hidden and rounds:
            unseen = (1 - send(weight[:, part], torch.float32) / 255)[..., None].expand(-1, -1, channels).flatten(1)
            own = y
            for _ in range(rounds):
                y = own + unseen * (fitting @ y)
        power += ((important[part].repeat_interleave(channels) * y) @ y.T).double()
        means.append(mean)
        kept.append(y)
    # the fit's own Gram matrix, and its leading left vectors; see `regress`
    whole = send(fit, torch.float64)
    energy, left = torch.linalg.eigh(whole @ power @ whole.T)
    energy, left = energy.flip(0)[:rank].clamp(min=1e-12), left.flip(1)[:, :rank]
    down = left.T @ whole
    mixing = send(inverse, torch.float64) @ (power @ down.T / energy)
    basis = torch.cat([down.float() @ y for y in kept], 1)
    return torch.cat(means).cpu().numpy(), basis.cpu().numpy(), mixing.cpu().numpy()


def _centred(values: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """S x C weighted means, and the N x (S C) weighted differences from them, as `_centre` has them."""
    total = weight.sum(0)
    mean = (weight[..., None] * values).sum(0) / total.clamp(min=1e-3)[:, None]
    # where a place was hardly ever seen, what was seen is no rule
    trust = weight * (total / 3).clamp(max=1)
    return mean, (trust[..., None] * (values - mean)).flatten(1)
