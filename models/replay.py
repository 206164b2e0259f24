"""A drawing of fixed shapes on a device: arrays go up, a picture comes down, and on CUDA one graph in between is replayed.

What goes up and comes down lies in pages that stay in place and travels on streams of its own, so that a frame asks for no
memory and waits for nothing but itself. Never run on a GPU so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from threading import RLock

import numpy as np
import torch
from torch import Tensor

_WARM_UPS = 3  # runs before a graph is captured
_OWNED = RLock()  # by whoever draws: several visitors may share an avatar, and all graphs share their memory


class Replay:
    """One drawing."""

    def __init__(self, draw: Callable[..., Tensor], arrays: Sequence[np.ndarray], device: torch.device):
        """Args:
        draw: a picture of tensors like `arrays`; its shapes follow from theirs alone, and nothing in it waits for the device.
        arrays: examples of what will go up.
        """
        self._draw, self._device = draw, device
        self._sent = [torch.from_numpy(np.array(array)) for array in arrays]
        self._given = [sent.to(device) for sent in self._sent]
        self._got: Tensor | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            self._sent = [sent.pin_memory() for sent in self._sent]
            self._upload, self._download = torch.cuda.Stream(device), torch.cuda.Stream(device)

    @torch.inference_mode()
    def draw(self, *arrays: np.ndarray) -> Tensor:
        """The picture on the device; on CUDA it holds until anything is drawn again, so draw from one thread alone."""
        if self._device.type != "cuda":
            return self._draw(*(torch.from_numpy(np.ascontiguousarray(array)).to(self._device) for array in arrays))
        self._upload.synchronize()  # the ones before are over there
        for sent, array in zip(self._sent, arrays, strict=True):
            sent.numpy()[:] = array
        current = torch.cuda.current_stream(self._device)
        self._upload.wait_stream(current)
        with torch.cuda.stream(self._upload):
            for given, sent in zip(self._given, self._sent):
                given.copy_(sent, non_blocking=True)
        current.wait_stream(self._upload)
        if self._graph is None:
            self._capture()
        self._graph.replay()
        return self._out

    def picture(self, *arrays: np.ndarray) -> np.ndarray:
        """The same as an array of its own; from any thread."""
        with _OWNED:
            return self._picture(*arrays)

    def _picture(self, *arrays: np.ndarray) -> np.ndarray:
        drawn = self.draw(*arrays)
        if self._device.type != "cuda":
            return drawn.cpu().numpy()
        if self._got is None:
            self._got = torch.empty(drawn.shape, dtype=drawn.dtype).pin_memory()
        self._download.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._download):
            self._got.copy_(drawn, non_blocking=True)
        self._download.synchronize()
        return self._got.numpy().copy()

    def _capture(self) -> None:
        """What the drawing runs on is compiled and chosen by then."""
        aside = torch.cuda.Stream(self._device)
        aside.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UPS):
                self._draw(*self._given)
        torch.cuda.current_stream(self._device).wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        # one pool for all: no two run at once, and no picture is kept there for longer than until the next one
        with torch.cuda.graph(self._graph, pool=_pool(self._device.index or 0), capture_error_mode="thread_local"):
            self._out = self._draw(*self._given)


@cache
def _pool(device: int):
    with torch.cuda.device(device):
        return torch.cuda.graph_pool_handle()
