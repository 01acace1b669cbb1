"""Upsample, filter, downsample: the resampling of StyleGAN2, and its two everyday forms `upsample2d`, `downsample2d`.

Per channel: insert `up - 1` zeros after every sample, pad (or crop, where negative), convolve with a small filter, keep
every `down`-th sample. Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), appendix B.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, pad

from fourdface.ops import _native

__all__ = ["binomial_filter", "downsample2d", "upfirdn2d", "upfirdn2d_reference", "upsample2d"]

Padding = tuple[int, int, int, int]


def binomial_filter(taps: tuple[float, ...] = (1.0, 3.0, 3.0, 1.0)) -> Tensor:
    """Return the outer product [K, K] of 1D taps with themselves, with sum 1."""
    line = torch.tensor(taps, dtype=torch.float32)
    square = torch.outer(line, line)
    return square / square.sum()


def upfirdn2d(
    x: Tensor,
    filter2d: Tensor,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0, 0, 0),
    *,
    flip_filter: bool = False,
    gain: float = 1.0,
    backend: str = "auto",
) -> Tensor:
    """Resample pictures with one filter for all channels.

    Args:
        x: [B, C, H, W] floats. filter2d: [K, L], converted to x's type; needs no gradient of its own.
        up, down: integer factors of both axes, >= 1.
        padding: left, right, top, bottom in upsampled pixels; negative values crop.
        flip_filter: False is a true convolution, True a correlation.
        gain: factor of the result (the square of `up` keeps the brightness).
        backend: "auto" or "reference"; both are torch's own convolution (docs/methods/genhead.md says why).

    Returns:
        [B, C, (H up + top + bottom - K) // down + 1, (W up + left + right - L) // down + 1], differentiable twice.

    Raises:
        ValueError: wrong shapes, factors below 1, or a filter larger than the padded picture.
    """
    _native.check_backend(backend, ("auto", "reference"))
    _check(x, filter2d, up, down, padding)
    if backend == "reference" or up == 1 or x.numel() == 0:
        return upfirdn2d_reference(x, filter2d, up, down, padding, flip_filter=flip_filter, gain=gain)
    return _by_transposed_convolution(x, filter2d, up, down, padding, flip_filter, gain)


def upfirdn2d_reference(
    x: Tensor,
    filter2d: Tensor,
    up: int = 1,
    down: int = 1,
    padding: Padding = (0, 0, 0, 0),
    *,
    flip_filter: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Resample step by step; arguments and result as in `upfirdn2d`."""
    batch, channels, height, width = x.shape
    if up > 1:
        spaced = x.reshape(batch, channels, height, 1, width, 1)
        spaced = pad(spaced, (0, up - 1, 0, 0, 0, up - 1))
        x = spaced.reshape(batch, channels, height * up, width * up)
    x = pad(x, padding)  # pad crops where a number is negative
    kernel = _kernel(filter2d, x, not flip_filter, gain)
    return conv2d(x, kernel, stride=down, groups=channels)


def upsample2d(x: Tensor, filter2d: Tensor, up: int = 2) -> Tensor:
    """Enlarge [B, C, H, W] by `up` with brightness kept: [B, C, H up, W up]."""
    left, right = _around(filter2d, up)
    return upfirdn2d(x, filter2d, up=up, padding=(left, right, left, right), gain=float(up * up))


def downsample2d(x: Tensor, filter2d: Tensor, down: int = 2) -> Tensor:
    """Shrink [B, C, H, W] by `down`: [B, C, H / down, W / down]."""
    size = filter2d.shape[0]
    left, right = (size - down + 1) // 2, (size - down) // 2
    return upfirdn2d(x, filter2d, down=down, padding=(left, right, left, right))


def _around(filter2d: Tensor, up: int) -> tuple[int, int]:
    """Padding left and right that centres the filter on the enlarged picture."""
    size = filter2d.shape[0]
    return (size + up - 1) // 2, (size - up) // 2


def _kernel(filter2d: Tensor, x: Tensor, flipped: bool, gain: float) -> Tensor:
    """The filter as weight [C, 1, K, L] of a depthwise convolution; torch correlates, so a true one is flipped.

    One channel at a time instead (a batch of B C pictures) is eight times slower on CPUs.
    """
    kernel = filter2d.to(device=x.device, dtype=x.dtype) * gain
    return (kernel.flip(0, 1) if flipped else kernel).repeat(x.shape[1], 1, 1, 1)


def _by_transposed_convolution(
    x: Tensor, filter2d: Tensor, up: int, down: int, padding: Padding, flip_filter: bool, gain: float
) -> Tensor:
    """Scatter every sample times the filter: no multiplication by an inserted zero."""
    left, right, top, bottom = padding
    rows, cols = filter2d.shape
    kernel = _kernel(filter2d, x, flip_filter, gain)
    full = conv_transpose2d(x, kernel, stride=up, groups=x.shape[1])  # from -(K - 1) on, no zeros after the last sample
    cut = (left - cols + 1, right - cols + up, top - rows + 1, bottom - rows + up)
    return pad(full, cut)[:, :, ::down, ::down]


def _check(x: Tensor, filter2d: Tensor, up: int, down: int, padding: Padding) -> None:
    _native.check_shape("x", x, ("B", "C", "H", "W"))
    _native.check_shape("filter2d", filter2d, ("K", "L"))
    if not x.is_floating_point():
        raise ValueError(f"x must be floats, got {str(x.dtype).removeprefix('torch.')}")
    if up < 1 or down < 1:
        raise ValueError(f"up and down must be at least 1, got {up} and {down}")
    if len(padding) != 4:
        raise ValueError(f"padding must be (left, right, top, bottom), got {padding!r}")
    width = int(x.shape[3]) * up + padding[0] + padding[1]
    height = int(x.shape[2]) * up + padding[2] + padding[3]
    if height < filter2d.shape[0] or width < filter2d.shape[1]:
        raise ValueError(
            f"the filter is {tuple(filter2d.shape)}, larger than the padded picture ({height}, {width}): pad more"
        )
