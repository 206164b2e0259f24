"""The encoder's layers on a CPU by OpenVINO: torch wakes its threads anew for each layer, and most take less long than that."""

from __future__ import annotations

import sys
import warnings
from threading import Lock

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from models.encoder.network import SIZE, Codes, Encoder

_THREADS = 2  # more would wait for each other


class _Before(nn.Module):
    """From the bytes of one picture to the system whose solution OpenVINO has no operation for."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, picture: Tensor, focal: Tensor) -> tuple[Tensor, ...]:
        codes, system = self.encoder.expected(picture.permute(0, 3, 1, 2).float() / 255, focal)
        return *codes, *system


class CompiledEncoder:
    """One crop in, its codes out; the same numbers as the encoder's but for rounding. Callable from any thread."""

    def __init__(self, encoder: Encoder):
        """Args:
        encoder: folded.
        """
        openvino = _openvino()
        example = torch.zeros((1, SIZE, SIZE, 3), dtype=torch.uint8), torch.ones(1)
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # tracing is deprecated; OpenVINO asks for it
            traced = torch.jit.trace(_Before(encoder).eval(), example)
            model = openvino.convert_model(traced, example_input=example, input=[list(part.shape) for part in example])
        settings = {
            "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": _THREADS, "INFERENCE_PRECISION_HINT": "f32",
            "ENABLE_CPU_PINNING": False,
        }  # fmt: skip
        self._request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        self._lock = Lock()

    def __call__(self, picture: UInt8[np.ndarray, "s s 3"], focal: float) -> Codes:
        """Args:
        picture: sRGB.
        focal: crop widths.

        Returns:
            codes of a batch of one.
        """
        with self._lock:
            told = self._request.infer([picture[None], np.array([focal], np.float32)]).to_tuple()
        *codes, square, off, carried = told
        # what is left is too little for any of torch's threads: the solution, and `Correction.moved` in numpy's words
        step = (carried[0].T @ cho_solve(cho_factor(square[0], check_finite=False), off[0], check_finite=False))[:, 0]
        codes = Codes(*codes)
        turn, move, person, face = np.split(step, np.cumsum((3, 3, codes.identity.shape[1])))
        codes = codes._replace(
            identity=codes.identity + person, expression=np.clip(codes.expression + face, 0, 1),
            rotation=cv2.Rodrigues(turn)[0] @ codes.rotation, place=codes.place + move,
        )  # fmt: skip
        return Codes(*map(torch.from_numpy, codes))


def _openvino():
    """The module, without the reports on its use that it would send to its makers unasked."""
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # not to be found: OpenVINO then takes its own silent stand-in
    import openvino

    return openvino
