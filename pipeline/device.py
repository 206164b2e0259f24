"""The device is chosen once, at the door."""

from __future__ import annotations

from typing import Literal

from pipeline.errors import Refusal

DeviceChoice = Literal["auto", "cpu", "cuda"]


def choose_device(choice: DeviceChoice) -> str:
    """`cpu` or `cuda`. `auto` takes CUDA where one answers.

    Raises:
        Refusal: where CUDA is asked for and absent.
    """
    if choice == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if choice == "cuda":
        built = "this torch is built without CUDA" if torch.version.cuda is None else "no CUDA device answers"
        raise Refusal(f"--device cuda: {built}, expected an NVIDIA GPU. Use --device cpu or auto.")
    return "cpu"
