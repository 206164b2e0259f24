"""The CUDA kernels' source, run thread by thread on the CPU against the oracle; and on a GPU where there is one."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest
import torch

from models.raster import cuda
from models.raster import differentiable as R

# what CUDA's language adds to C++, for one thread at a time
SHIM = """
#include <algorithm>
#include <cmath>
#include <cstring>
using std::max; using std::min;
#define __global__
#define __device__ static
struct Three { long long x; };
static Three blockIdx, blockDim{1}, threadIdx{0};
static unsigned __float_as_uint(float v) { unsigned u; std::memcpy(&u, &v, 4); return u; }
static float __int_as_float(int v) { float f; std::memcpy(&f, &v, 4); return f; }
static void atomicMax(unsigned long long* at, unsigned long long v) { if (v > *at) *at = v; }
static void atomicAdd(float* at, float v) { *at += v; }
extern "C" void set_thread(long long k) { blockIdx.x = k; }
"""


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the kernels' source can't be run on this CPU")
    folder = tmp_path_factory.mktemp("kernels")
    (folder / "kernels.cpp").write_text(SHIM + cuda.SOURCE.read_text())
    subprocess.run(
        ["g++", "-O2", "-fPIC", "-shared", "-o", folder / "kernels.so", folder / "kernels.cpp"], check=True, capture_output=True
    )
    return ctypes.CDLL(str(folder / "kernels.so"))


@pytest.fixture
def on_cpu(kernels, monkeypatch):
    """`models.raster.cuda` with its launches run here, one thread after another."""

    def launch(name, jobs, *arguments):
        values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, torch.Tensor) else ctypes.c_int(a) for a in arguments]
        function = getattr(kernels, name)
        for thread in range(-(-jobs // cuda._THREADS) * cuda._THREADS):
            kernels.set_thread(ctypes.c_longlong(thread))
            function(*values)

    monkeypatch.setattr(cuda, "_launch", launch)
    return cuda


def scene(seed: int = 0, size: int = 24):
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, size, (2, 40, 1, 2))
    points = np.concatenate([centres + rng.normal(0, 5, (2, 40, 3, 2)), rng.uniform(0.5, 4, (2, 40, 3, 1))], -1)
    points[0, 0, :, 2] = -1  # behind the camera
    points = torch.from_numpy(points.reshape(2, 120, 3).astype(np.float32))
    triangles = torch.arange(120, dtype=torch.int32).reshape(40, 3)
    attributes = torch.from_numpy(rng.normal(size=(2, 120, 3)).astype(np.float32))
    goal = torch.from_numpy(rng.normal(size=(2, size, size, 3)).astype(np.float32))
    return points, triangles, attributes, goal, size


def compared(kernel, device: str = "cpu") -> None:
    """Values and gradients of the kernels beside the oracle's."""
    points, triangles, attributes, goal, size = scene()
    results = []
    for fast in (True, False):
        where = device if fast else "cpu"
        p, a = points.to(where).requires_grad_(), attributes.to(where).requires_grad_()
        cells = triangles.to(where)
        hits = R.Hits(*kernel.rasterise(p, cells, size, size)) if fast else R.rasterise_plain(p, cells, size, size)
        values = kernel.interpolate(*hits[:2], cells, a) if fast else R.interpolate_plain(hits, cells, a)
        well = hits.triangle >= 0
        ((values - goal.to(where)).square().sum(-1) * well).sum().add(hits.depth[well].sum()).backward()
        results.append([x.detach().cpu() for x in (hits.triangle, hits.barycentric, hits.depth, values, p.grad, a.grad)])
    fast, plain = results
    assert torch.equal(fast[0], plain[0].int())
    well = fast[0] >= 0
    assert 0.3 < well.float().mean() and torch.isinf(fast[2][~well]).all() and (fast[3][~well] == 0).all()
    for k, tolerance in ((1, 1e-4), (3, 1e-3)):
        assert (fast[k] - plain[k]).abs().max() < tolerance
    assert (fast[2] / plain[2] - 1)[well].abs().max() < 1e-4
    for k in (4, 5):
        assert (fast[k] - plain[k]).norm() / plain[k].norm() < 1e-4


def test_kernels_agree_with_the_oracle(on_cpu):
    compared(on_cpu)


def test_the_source_compiles_for_gpus(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not installed: whether the source is CUDA can't be told here")
    command = ["nvcc", "-ptx", "-arch=compute_80", "-o", tmp_path / "kernels.ptx", cuda.SOURCE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ptx = (tmp_path / "kernels.ptx").read_text()
    assert all(f".entry {name}(" in ptx for name in ("nearest", "weigh", "carry", "carry_back", "points_back"))


@pytest.mark.cuda
def test_a_gpu_agrees_with_the_oracle():
    compared(cuda, "cuda")
