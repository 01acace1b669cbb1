"""triplane_sample: official numbers, a brute-force truth, gradients, native against reference, refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from parity.rule import draw, parity_arrays

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
    torch.testing.assert_close(got, numbers["out"].sum(dim=1), atol=1e-5, rtol=1e-5)
    got = triplane_sample(planes, points, axes="portrait4d", box_size=1.3 * 0.98, reduce="sum") * 1.5
    torch.testing.assert_close(got, numbers["out_list_scale098"].sum(dim=1), atol=1e-5, rtol=1e-5)


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
def test_against_brute_force(axes: str, shape: tuple[int, ...]) -> None:
    draw_from = torch.Generator().manual_seed(1)
    planes = torch.randn(1, 3, 4, *shape, generator=draw_from)
    points = (torch.rand(1, 60, 3, generator=draw_from) - 0.5) * 1.4
    got = triplane_sample(planes, points, axes=axes, box_size=1.1, reduce="sum")[0].numpy()
    want = [brute_force(planes[0].double().numpy(), p.double().numpy(), axes, 1.1) for p in points[0]]
    np.testing.assert_allclose(got, np.stack(want), atol=2e-5)


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 5)])
def test_gradients_in_double(shape: tuple[int, ...]) -> None:
    draw_from = torch.Generator().manual_seed(2)
    planes = torch.randn(2, 3, 2, *shape, generator=draw_from, dtype=torch.float64).requires_grad_()
    points = ((torch.rand(2, 6, 3, generator=draw_from, dtype=torch.float64) - 0.5) * 1.2).requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: triplane_sample_reference(*a, axes="next3d"), (planes, points))


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
