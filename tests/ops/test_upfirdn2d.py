"""upfirdn2d against StyleGAN2's own numbers, a loop in numpy, and finite differences."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from parity.rule import parity_arrays

from fourdface.ops.upfirdn2d import binomial_filter, downsample2d, upfirdn2d, upfirdn2d_reference, upsample2d


@pytest.fixture(scope="module")
def numbers() -> dict[str, torch.Tensor]:
    return parity_arrays("stylegan2_ops_fixture.npz", "eg3d_gen3d_coherent3d")


def test_stylegan2_numbers(numbers: dict[str, torch.Tensor]) -> None:
    taps = binomial_filter()
    torch.testing.assert_close(taps, numbers["filter_1331"], rtol=0, atol=0)
    torch.testing.assert_close(upsample2d(numbers["x"], taps), numbers["upsample2d"], rtol=0, atol=1e-5)
    torch.testing.assert_close(downsample2d(numbers["x"], taps), numbers["downsample2d"], rtol=0, atol=1e-5)


def by_hand(
    x: np.ndarray, taps: np.ndarray, up: int, down: int, padding: tuple[int, int, int, int], flip: bool, gain: float
) -> np.ndarray:
    """The definition, sample by sample: zeros between, padding, convolution, every down-th sample."""
    left, right, top, bottom = padding
    height, width = x.shape[2] * up, x.shape[3] * up
    wide = np.zeros((*x.shape[:2], height + abs(top) + abs(bottom) + 99, width + abs(left) + abs(right) + 99))
    wide[:, :, 40 : 40 + height : up, 40 : 40 + width : up] = x
    rows, cols = taps.shape
    kernel = taps if flip else taps[::-1, ::-1]
    out_h = (height + top + bottom - rows) // down + 1
    out_w = (width + left + right - cols) // down + 1
    out = np.zeros((*x.shape[:2], out_h, out_w))
    for i, j in product(range(out_h), range(out_w)):
        y, z = 40 - top + i * down, 40 - left + j * down
        out[:, :, i, j] = (wide[:, :, y : y + rows, z : z + cols] * kernel).sum((2, 3))
    return out * gain


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize(
    ("up", "down", "padding", "flip"),
    [
        (1, 1, (0, 0, 0, 0), False),
        (2, 1, (2, 1, 2, 1), False),
        (2, 1, (1, 1, 1, 1), True),
        (1, 2, (1, 1, 1, 1), False),
        (3, 2, (4, 3, 2, 5), True),
        (2, 3, (-1, 2, 3, -2), False),
        (2, 1, (5, 6, 7, 8), False),
    ],
)
def test_definition(backend: str, up: int, down: int, padding: tuple[int, int, int, int], flip: bool) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 7, 9, generator=draw, dtype=torch.float64)
    taps = torch.randn(4, 3, generator=draw, dtype=torch.float64)
    out = upfirdn2d(x, taps, up, down, padding, flip_filter=flip, gain=1.7, backend=backend)
    np.testing.assert_allclose(out, by_hand(x.numpy(), taps.numpy(), up, down, padding, flip, 1.7), atol=1e-12)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 257])
@pytest.mark.parametrize("up", [1, 2])
def test_edge_sizes_and_strides(size: int, up: int) -> None:
    """Non-contiguous pictures of awkward sizes; a constant picture stays constant away from the border."""
    taps = binomial_filter()
    x = torch.randn(2, 6, size, 3)[:, ::2].transpose(2, 3)
    padding = (2, 1, 2, 1)
    out = upfirdn2d(x, taps, up=up, padding=padding)
    torch.testing.assert_close(out, upfirdn2d_reference(x.contiguous(), taps, up, 1, padding), rtol=1e-5, atol=1e-6)
    if size >= 31:
        flat = upsample2d(torch.full((1, 1, size, size), 0.7), taps)
        torch.testing.assert_close(flat[..., 4:-4, 4:-4], torch.full_like(flat[..., 4:-4, 4:-4], 0.7))


def test_empty_batch() -> None:
    assert upsample2d(torch.zeros(0, 3, 4, 4), binomial_filter()).shape == (0, 3, 8, 8)
    assert downsample2d(torch.zeros(0, 3, 4, 4), binomial_filter()).shape == (0, 3, 2, 2)


def test_nan_stays_where_the_filter_reaches() -> None:
    x = torch.zeros(1, 1, 16, 16)
    x[0, 0, 8, 8] = torch.nan
    bad = torch.isnan(upsample2d(x, binomial_filter()))
    assert bad.any() and int(bad.sum()) <= 16


@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_gradients_twice(up: int, down: int) -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    taps = torch.rand(3, 4, dtype=torch.float64)

    def op(value: torch.Tensor) -> torch.Tensor:
        return upfirdn2d(value, taps, up, down, (2, 1, 1, 2), gain=2.0)

    assert torch.autograd.gradcheck(op, (x,))
    assert torch.autograd.gradgradcheck(op, (x,))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": torch.zeros(3, 4, 4)}, "x must be"),
        ({"filter2d": torch.zeros(4)}, "filter2d must be"),
        ({"up": 0}, "at least 1"),
        ({"filter2d": torch.zeros(9, 9)}, "larger than the padded picture"),
        ({"x": torch.zeros(1, 1, 4, 4, dtype=torch.int32)}, "floats"),
        ({"padding": (1, 1)}, "padding must be"),
        ({"backend": "cuda"}, "backend must be"),
    ],
)
def test_bad_input(change: dict[str, object], words: str) -> None:
    call = {"x": torch.zeros(1, 1, 4, 4), "filter2d": binomial_filter(), **change}
    with pytest.raises(ValueError, match=words):
        upfirdn2d(**call)  # type: ignore[arg-type]
