"""The CUDA kernels of the tri-plane ops, run lane by lane on the CPU and compared with the references.

This shows that indices, barriers and gradients are right where there is no GPU; it says nothing of speed, nor of what a
real card does with memory that several lanes touch at once (`make bench-cuda` runs compute-sanitizer there).
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fourdface.ops import _build, _native
from fourdface.ops.triplane_render import (
    DecoderWeights,
    Draws,
    OffsetGrid,
    Rays,
    RaySampling,
    Rendered,
    Skipping,
    triplane_render,
)
from fourdface.ops.triplane_sample import triplane_sample

pytestmark = pytest.mark.slow
HERE = Path(__file__).resolve()
CUDA, SHIM = HERE.parents[2] / "cuda", HERE.parents[1] / "support" / "cuda_on_cpu"
SOURCES = ("triplane_render.cu", "triplane_render_backward.cuh", "triplane_sample.cu")


def translate(source: str) -> str:
    """What a C++ compiler cannot read: launches, and shared memory of a size chosen at the launch."""
    source = source.replace("extern __shared__ float shared[];", "float* const shared = emulated::shared_memory;")
    return re.sub(r"(\w+)<<<(.*?)>>>\((.*?)\);", r"emulated::launch(\2, [&] { \1(\3); });", source)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = _build.find_compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    for name in SOURCES:
        target = name if name.endswith(".cuh") else f"{name}.cpp"
        (folder / target).write_text(translate((CUDA / name).read_text(encoding="utf-8")), encoding="utf-8")
    files = [*sorted(str(p) for p in folder.glob("*.cpp")), str(SHIM / "emulated.cpp")]
    output = folder / "libemulated.so"
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", f"-I{SHIM}", f"-I{folder}", f"-I{CUDA}"]
    subprocess.run([compiler, *flags, "-o", str(output), *files], check=True, capture_output=True)
    return ctypes.CDLL(str(output))


@pytest.fixture(params=[0, 1], ids=["forwards", "backwards"])
def emulated(library: ctypes.CDLL, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Native calls go to the CUDA kernels, with the scratch memory that they are given on a GPU, full of NaN."""
    library.emulated_backwards(request.param)
    kept: list[Tensor] = []

    def scratch(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> int:
        kept.append(torch.full(shape, float("nan"), dtype=dtype) if dtype.is_floating_point else torch.zeros(shape))
        return kept[-1].data_ptr()

    def run(op: str, arguments: Any, device: torch.device) -> None:
        if op.startswith("triplane_render"):
            shape = arguments.batch, 3, arguments.height + 2, arguments.width + 2, (arguments.hidden + 15) // 16 * 16
            arguments.packed = scratch(shape)
            cells = arguments.occupancy_size
            if op.endswith("backward"):
                arguments.scratch = scratch(shape)
            elif cells:
                arguments.occupancy = scratch((arguments.batch, cells, cells, cells), torch.int32)
                arguments.scratch = scratch((arguments.batch, cells, cells, cells), torch.uint8)
        assert library[f"fourd_{op}_cuda"](ctypes.byref(arguments), None) == 0

    monkeypatch.setattr(_native, "run", run)
    monkeypatch.setattr(_native, "usable", lambda device: True)
    yield


def render_case(rays: int, batch: int, shape: tuple[int, int, int]) -> tuple[Tensor, DecoderWeights, Rays]:
    """Random planes, a decoder of `shape` (channels, hidden, outputs), and rays through the unit box."""
    channels, hidden, outputs = shape
    draw = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=draw)

    out_weight = normal(1 + outputs, hidden) / hidden**0.5
    out_weight[0] *= 6
    decoder = DecoderWeights(normal(hidden, channels), normal(hidden), out_weight, normal(1 + outputs))
    directions = torch.cat([normal(batch, rays, 2) * 0.15, torch.ones(batch, rays, 1)], dim=-1)
    origins = torch.tensor([0.0, 0.0, -2.0]) + 0.05 * normal(batch, rays, 3)
    near = torch.full((batch, rays), 1.4)
    directions = torch.nn.functional.normalize(directions, dim=-1)
    return normal(batch, 3, channels, 9, 14) * 2, decoder, Rays(origins, directions, near, near + 1.1)


def sums(out: Rendered) -> list[Tensor]:
    return [out.features, out.ray_distance * out.weight_sum, out.weight_sum]


def compare(call: Callable[[str], list[Tensor]]) -> None:
    for got, want in zip(call("native"), call("reference"), strict=True):
        limit = 1e-6 + 2e-4 * float(want.detach().abs().max())
        torch.testing.assert_close(got, want, atol=limit, rtol=0)


WARP = OffsetGrid(torch.linspace(-0.1, 0.1, 360).reshape(1, 3, 4, 5, 6), 0.9)
DRAWS = Draws(torch.tensor([[[0.2, 0.7, 0.0, 0.9, 0.5]] * 2]), torch.tensor([[[0.9, 0.1, 0.4]] * 2]))


@pytest.mark.parametrize(
    ("rays", "batch", "shape", "sampling", "options"),
    [
        (5, 1, (5, 20, 3), RaySampling(7, 6), {}),
        (6, 2, (32, 64, 32), RaySampling(20, 21, placement="jitter", seed=5), {"axes": "portrait4d", "box_size": 1.2}),
        (3, 1, (5, 33, 40), RaySampling(9, 0, "disparity", "centres"), {"reduce": "sum"}),
        (3, 1, (5, 20, 3), RaySampling(9, 5), {"warp": WARP}),
        (2, 1, (5, 20, 3), RaySampling(5, 3), {"draws": DRAWS}),
    ],
)
def test_render(
    emulated: None, rays: int, batch: int, shape: tuple[int, int, int], sampling: RaySampling, options: dict[str, Any]
) -> None:
    planes, decoder, lines = render_case(rays, batch, shape)

    def both(backend: str) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in (planes, *decoder)]
        out = sums(triplane_render(leaves[0], DecoderWeights(*leaves[1:]), lines, sampling, **options, backend=backend))
        loss = torch.stack([(t * torch.cos(torch.arange(t.numel())).reshape(t.shape)).sum() for t in out]).sum()
        return [*out, *torch.autograd.grad(loss, leaves)]

    compare(both)


def test_skipping_what_is_not_empty_is_exact(emulated: None) -> None:
    case, sampling = render_case(4, 2, (5, 20, 3)), RaySampling(12, 9)
    skip = Skipping(32, 1e-6, 1e-6)  # nothing is empty, no ray ends: colours alone are shared
    got = triplane_render(*case, sampling, skip=skip, backend="native")
    want = triplane_render(*case, sampling, backend="reference")
    torch.testing.assert_close(got.weight_sum, want.weight_sum, atol=2e-4, rtol=0)
    torch.testing.assert_close(got.features, want.features, atol=0.05, rtol=0)


@pytest.mark.parametrize("shape", [(2, 5, 9, 14), (1, 33, 5, 6), (2, 3, 4, 9, 14)])
def test_sample(emulated: None, shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    planes = torch.randn(shape[0], 3, *shape[1:], generator=draw).requires_grad_()
    points = ((torch.rand(shape[0], 40, 3, generator=draw) - 0.5) * 1.3).requires_grad_()

    def both(backend: str) -> list[Tensor]:
        out = triplane_sample(planes, points, axes="next3d", backend=backend)
        loss = (out * torch.cos(torch.arange(out.numel())).reshape(out.shape)).sum()
        return [out, *torch.autograd.grad(loss, (planes, points))]

    compare(both)
