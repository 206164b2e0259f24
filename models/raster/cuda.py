"""The rasteriser on CUDA: `kernels.cu`, compiled by the NVRTC that travels with torch.

Never run on a GPU so far; `tests/models/test_cuda_kernels.py` runs the same source, thread by thread, on a CPU against the
oracle, and the tests marked cuda run it where a GPU is.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_THREADS = 256
_STRIPES = 8  # as in kernels.cu
SOURCE = Path(__file__).with_name("kernels.cu")


@cache
def _kernel(name: str, device: int):
    # torch 2.9 and later; the name lost its underscore on the way
    compile_kernel = getattr(torch.cuda, "compile_kernel", None) or torch.cuda._compile_kernel
    return compile_kernel(SOURCE.read_text(), name)


def _launch(name: str, jobs: int, *arguments) -> None:
    blocks = -(-jobs // _THREADS)
    device = next(a.device.index for a in arguments if isinstance(a, Tensor))
    with torch.cuda.device(device):
        _kernel(name, device)(grid=(blocks, 1, 1), block=(_THREADS, 1, 1), args=list(arguments))


class _Rasterise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, points: Tensor, triangles: Tensor, height: int, width: int):
        count, vertices = points.shape[:2]
        winner = torch.zeros(count, height, width, dtype=torch.int64, device=points.device)
        sizes = (count, vertices, len(triangles), height, width)
        _launch("nearest", count * len(triangles) * _STRIPES, points, triangles, winner, *sizes)
        triangle = torch.empty(count, height, width, dtype=torch.int32, device=points.device)
        barycentric = torch.empty(count, height, width, 3, device=points.device)
        depth = torch.empty(count, height, width, device=points.device)
        _launch(
            "weigh", winner.numel(), points, triangles, winner, triangle, barycentric, depth, count, vertices, height, width
        )  # fmt: skip
        ctx.save_for_backward(points, triangles, triangle, barycentric, depth)
        ctx.mark_non_differentiable(triangle)
        return triangle, barycentric, depth

    @staticmethod
    def backward(ctx, _, to_barycentric: Tensor, to_depth: Tensor):
        points, triangles, triangle, barycentric, depth = ctx.saved_tensors
        out = torch.zeros_like(points)
        to_depth = torch.where(triangle >= 0, to_depth, torch.zeros_like(to_depth)).contiguous()
        _launch(
            "points_back", triangle.numel(), points, triangles, triangle, barycentric, depth, to_barycentric.contiguous(),
            to_depth, out, *points.shape[:2], *triangle.shape[1:],
        )  # fmt: skip
        return out, None, None, None


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, triangle: Tensor, barycentric: Tensor, triangles: Tensor, attributes: Tensor):
        count, vertices, channels = attributes.shape
        out = torch.empty(*triangle.shape, channels, device=attributes.device)
        ctx.save_for_backward(triangle, barycentric, triangles, attributes)
        _launch(
            "carry", triangle.numel(), triangle, barycentric, triangles, attributes, out, count, vertices, channels,
            *triangle.shape[1:],
        )  # fmt: skip
        return out

    @staticmethod
    def backward(ctx, to_values: Tensor):
        triangle, barycentric, triangles, attributes = ctx.saved_tensors
        to_attributes, to_barycentric = torch.zeros_like(attributes), torch.empty_like(barycentric)
        _launch(
            "carry_back", triangle.numel(), triangle, barycentric, triangles, attributes, to_values.contiguous(), to_attributes,
            to_barycentric, *attributes.shape, *triangle.shape[1:],
        )  # fmt: skip
        return None, to_barycentric, None, to_attributes


def rasterise(points: Tensor, triangles: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `models.raster.differentiable.rasterise`; float32 on CUDA."""
    return _Rasterise.apply(points.float().contiguous(), triangles.int().contiguous(), height, width)


def interpolate(triangle: Tensor, barycentric: Tensor, triangles: Tensor, attributes: Tensor) -> Tensor:
    """As `models.raster.differentiable.interpolate`; float32 on CUDA."""
    return _Interpolate.apply(triangle, barycentric.contiguous(), triangles.int().contiguous(), attributes.float().contiguous())
