"""triplane_sample: official numbers, a brute-force truth, gradients, native against reference, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from parity.rule import draw, parity_arrays

from fourdface.ops._triplane_sample_native import sample_op
from fourdface.ops.triplane_sample import AXES, triplane_sample, triplane_sample_reference


@pytest.mark.parametrize(
    ("axes", "box", "key"), [("eg3d", 1.0, "eg3d"), ("next3d", 1.0, "next3d"), ("eg3d", 2.0, "eg3d_boxwarp2")]
)
def test_eg3ds_and_next3ds_features(axes: str, box: float, key: str) -> None:
    numbers = parity_arrays("eg3d_planes_camera_fixture.npz", "eg3d_gen3d_coherent3d")
    for reduce in ("mean", "sum"):
        got = triplane_sample(numbers["planes_small"], numbers["points"], axes=axes, box_size=box, reduce=reduce)
        want = getattr(numbers[f"feat_{key}"], reduce)(dim=1)
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_portrait4ds_features() -> None:
    numbers = parity_arrays("triplane_sampler.npz")
    planes, points = draw("in:planes", (2, 3, 32, 24, 24)), draw("in:coords", (2, 200, 3), "pm1") * 0.8
    got = triplane_sample(planes, points, axes="portrait4d", box_size=1.3, reduce="sum")
    torch.testing.assert_close(got, numbers["out"].sum(dim=1), atol=5e-5, rtol=0)
    got = triplane_sample(planes, points, axes="portrait4d", box_size=1.3 * 0.98, reduce="sum") * 1.5
    torch.testing.assert_close(got, numbers["out_list_scale098"].sum(dim=1), atol=5e-5, rtol=0)


def brute_force(planes: np.ndarray, point: np.ndarray, axes: str, box: float) -> np.ndarray:
    """Sum over planes of one point's linear interpolation, texel by texel; planes [3, C, (D,) H, W]."""
    total = np.zeros(planes.shape[1])
    for plane, order in zip(planes, AXES[axes], strict=True):
        sizes = plane.shape[:0:-1]  # W, H, (D)
        at = [((point[a] * 2 / box + 1) * n - 1) / 2 for a, n in zip(order, sizes, strict=False)]
        for corner in itertools.product((0, 1), repeat=len(sizes)):
            index = [int(np.floor(x)) + c for x, c in zip(at, corner, strict=True)]
            weight = np.prod([1 - abs(x - i) for x, i in zip(at, index, strict=True)])
            if all(0 <= i < n for i, n in zip(index, sizes, strict=True)):
                total += weight * plane[(slice(None), *reversed(index))]
    return total


@pytest.mark.parametrize("axes", sorted(AXES))
@pytest.mark.parametrize("shape", [(5, 7), (3, 5, 7), (1, 1), (1, 4, 1)])
def test_against_brute_force(backend: str, axes: str, shape: tuple[int, ...]) -> None:
    draw_from = torch.Generator().manual_seed(1)
    planes = torch.randn(1, 3, 4, *shape, generator=draw_from)
    points = (torch.rand(1, 60, 3, generator=draw_from) - 0.5) * 1.4
    got = triplane_sample(planes, points, axes=axes, box_size=1.1, reduce="sum", backend=backend)[0].numpy()
    want = [brute_force(planes[0].double().numpy(), p.double().numpy(), axes, 1.1) for p in points[0]]
    np.testing.assert_allclose(got, np.stack(want), atol=2e-5)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)])
def test_gradients_in_double(shape: tuple[int, ...]) -> None:
    draw_from = torch.Generator().manual_seed(2)
    planes = torch.randn(2, 3, 2, *shape, generator=draw_from, dtype=torch.float64).requires_grad_()
    points = ((torch.rand(2, 6, 3, generator=draw_from, dtype=torch.float64) - 0.5) * 1.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: triplane_sample_reference(*a, axes="next3d"), (planes, points))


def both(planes: torch.Tensor, points: torch.Tensor, **options: Any) -> None:
    """Compare values and gradients of the two backends."""
    found = []
    for backend in ("native", "reference"):
        leaves = [t.detach().clone().requires_grad_() for t in (planes, points)]
        out = triplane_sample(*leaves, **options, backend=backend)
        weight = torch.sin(torch.arange(out.numel(), device=out.device)).reshape(out.shape)
        found.append([out, *torch.autograd.grad((out * weight).sum(), leaves)])
    for got, want in zip(*found, strict=True):
        largest = float(want.detach().abs().amax()) if want.numel() else 0.0
        torch.testing.assert_close(got, want, atol=2e-5 * max(1.0, largest), rtol=0)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257, 3000])
@pytest.mark.parametrize("shape", [(2, 5, 9, 14), (1, 32, 33, 8), (2, 3, 4, 9, 14)])
def test_native_equals_reference(native: str, count: int, shape: tuple[int, ...]) -> None:
    draw_from = torch.Generator().manual_seed(3)
    planes = torch.randn(shape[0], 3, *shape[1:], generator=draw_from)
    points = (torch.rand(shape[0], count, 3, generator=draw_from) - 0.5) * 1.3
    both(planes, points, axes="portrait4d")
    both(planes, points, axes="next3d", box_size=0.7, reduce="sum")


def test_layouts_and_points_at_the_edge(needs_native: None) -> None:
    draw_from = torch.Generator().manual_seed(3)
    planes = torch.randn(1, 3, 9, 14, 5, generator=draw_from).movedim(-1, 2)
    points = torch.tensor([[[0.5, 0.5, 0.5], [-0.5, 0, 0.5], [0.6, 9, 0], [-1e30, 0, 0]]]).repeat(1, 40, 1)
    strided = torch.stack([points, points], dim=-1)[..., 0]
    wanted = triplane_sample_reference(planes, points)
    torch.testing.assert_close(triplane_sample(planes, strided, backend="native"), wanted, atol=1e-6, rtol=0)


def test_points_that_are_not_finite(backend: str) -> None:
    points = torch.zeros(1, 5, 3)
    points[0, 2, 1], points[0, 3, 0] = float("nan"), float("inf")
    points.requires_grad_()
    planes = torch.ones(1, 3, 2, 4, 4).requires_grad_()
    out = triplane_sample(planes, points, backend=backend)
    assert out.isnan().any(-1)[0].tolist() == [False, False, True, True, False]
    (grad,) = torch.autograd.grad(out.nan_to_num().sum(), planes)
    assert bool(grad.isfinite().all())


def test_bits_do_not_depend_on_threads(native: str, threads: Any) -> None:
    draw_from = torch.Generator().manual_seed(3)
    planes = torch.randn(1, 3, 16, 20, 20, generator=draw_from).requires_grad_()
    points = (torch.rand(1, 2000, 3, generator=draw_from) - 0.5).requires_grad_()
    found = []
    for count in (1, 2, 3):
        threads(count)
        out = triplane_sample(planes, points, backend="native")
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), (planes, points))])
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_registered_and_compiled(needs_native: None) -> None:
    planes, points = torch.randn(1, 3, 2, 4, 5).requires_grad_(), (torch.rand(1, 6, 3) - 0.5).requires_grad_()
    torch.library.opcheck(sample_op, (planes, points, "eg3d", 1.0, 1.0))

    def total(p: torch.Tensor) -> torch.Tensor:
        return triplane_sample(p * 2, points, axes="next3d").square().sum()

    torch._dynamo.reset()
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        torch.autograd.grad(compiled(planes), planes)[0], torch.autograd.grad(total(planes), planes)[0]
    )


@pytest.mark.cuda
@pytest.mark.parametrize("shape", [(2, 5, 9, 14), (1, 32, 33, 8), (2, 3, 4, 9, 14)])
def test_cuda_equals_the_reference(shape: tuple[int, ...]) -> None:
    draw_from = torch.Generator().manual_seed(3)
    planes = torch.randn(shape[0], 3, *shape[1:], generator=draw_from)
    both(planes.cuda(), (torch.rand(shape[0], 700, 3, generator=draw_from).cuda() - 0.5) * 1.3)


@pytest.mark.parametrize(
    ("planes", "points", "options", "message"),
    [
        ((1, 2, 4, 5, 5), (1, 3, 3), {}, r"planes must be \[B, 3, C, H, W\], got \[1, 2, 4, 5, 5\]"),
        ((1, 3, 4, 5), (1, 3, 3), {}, "planes must be"),
        ((2, 3, 4, 5, 5), (1, 3, 3), {}, r"points must be \[2, N, 3\]"),
        ((1, 3, 4, 0, 5), (1, 3, 3), {}, "at least one"),
        ((1, 3, 4, 5, 5), (1, 3, 3), {"axes": "xyz"}, "axes must be one of"),
        ((1, 3, 4, 5, 5), (1, 3, 3), {"reduce": "max"}, "reduce"),
        ((1, 3, 4, 5, 5), (1, 3, 3), {"box_size": 0.0}, "box_size"),
        ((1, 3, 4, 5, 5), (1, 3, 3), {"backend": "gpu"}, "backend"),
    ],
)
def test_refusals(planes: tuple[int, ...], points: tuple[int, ...], options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        triplane_sample(torch.zeros(planes), torch.zeros(points), **options)  # type: ignore[arg-type]
