"""Volume rendering of a tri-plane radiance field, fused: lookup, decoder, density and marching in one pass per ray.

Chan et al., EG3D (2022), section 4.1 and supplement; the decoder is its light MLP: softplus, then density and colours
sigmoid(x) 1.002 - 0.001 (mip-NeRF's widened sigmoid).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native
from fourdface.ops._ray_marching import (
    Draws,
    Field,
    Rays,
    RaySampling,
    Rendered,
    check_draws,
    check_rays,
    render_field,
)
from fourdface.ops._triplane_axes import check_axes, check_box, check_reduce
from fourdface.ops.triplane_sample import triplane_sample_reference

__all__ = [
    "DecoderWeights",
    "Draws",
    "OffsetGrid",
    "RaySampling",
    "Rays",
    "Rendered",
    "decode",
    "triplane_field",
    "triplane_render",
    "triplane_render_reference",
    "warp_by_grid",
]


class DecoderWeights(NamedTuple):
    """hidden_weight [H, C], hidden_bias [H], out_weight [1+K, H], out_bias [1+K]; density is the first output."""

    hidden_weight: Tensor
    hidden_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor


class OffsetGrid(NamedTuple):
    """A warp of the samples: offsets [B, 3, D, H, W] (x, y, z) on a grid whose outermost nodes lie on a cube.

    A sample at x is looked up at x + the trilinear interpolation of the offsets at 2 x / `size` (align_corners True,
    x along W, y along H, z along D), zero outside.
    """

    offsets: Tensor
    size: float


def triplane_render(
    planes: Tensor,
    decoder: DecoderWeights,
    rays: Rays,
    sampling: RaySampling | None = None,
    *,
    axes: str = "eg3d",
    box_size: float = 1.0,
    reduce: str = "mean",
    warp: OffsetGrid | None = None,
    draws: Draws | None = None,
    over_batch: bool = False,
    backend: str = "auto",
) -> Rendered:
    """Render rays through a tri-plane field.

    Args:
        planes: [B, 3, C, H, W]; `axes`, `box_size` and `reduce` as in `triplane_sample`.
        decoder: effective weights (gains applied), see `DecoderWeights`.
        rays: origins and unit directions [B, R, 3], near and far [B, R], in the units of `box_size`.
        sampling: numbers and places of the samples; None is `RaySampling()`, 48 + 48.
        warp: offsets added to the samples before the lookup (no gradients), or None.
        draws: numbers that replace the placement's own, or None.
        over_batch: give rays that meet nothing the farthest distance of all rays instead of their own.
        backend: "auto", "reference" or "native".

    Returns:
        features [B, R, K] (colours times weights, no background, in 0..1 up to 0.001), ray_distance, weight_sum and
        transmittance [B, R, 1]. Differentiable in planes and decoder. A ray with a number that is not finite is NaN.

    Raises:
        ValueError: wrong shapes, an unknown option, or a backend that is not available here.
    """
    sampling = sampling or RaySampling()
    _check(planes, decoder, rays, warp, axes, box_size, reduce)
    check_draws(draws, rays, sampling)
    _native.check_backend(backend, ("auto", "reference"))
    return triplane_render_reference(
        planes, decoder, rays, sampling,
        axes=axes, box_size=box_size, reduce=reduce, warp=warp, draws=draws, over_batch=over_batch,
    )  # fmt: skip


def triplane_render_reference(
    planes: Tensor,
    decoder: DecoderWeights,
    rays: Rays,
    sampling: RaySampling | None = None,
    *,
    axes: str = "eg3d",
    box_size: float = 1.0,
    reduce: str = "mean",
    warp: OffsetGrid | None = None,
    draws: Draws | None = None,
    over_batch: bool = False,
) -> Rendered:
    """Render rays through a tri-plane field; as `triplane_render`, in plain torch, any device and precision."""
    sampling = sampling or RaySampling()
    _check(planes, decoder, rays, warp, axes, box_size, reduce)
    check_draws(draws, rays, sampling)
    field = triplane_field(planes, decoder, axes=axes, box_size=box_size, reduce=reduce)

    def warped(points: Tensor) -> tuple[Tensor, Tensor]:
        return field(points if warp is None else warp_by_grid(points, warp))

    return render_field(warped, rays, sampling, draws, over_batch=over_batch)[0]


def triplane_field(planes: Tensor, decoder: DecoderWeights, *, axes: str, box_size: float, reduce: str) -> Field:
    """Return the field of planes and decoder as a function of points, in plain torch."""

    def field(points: Tensor) -> tuple[Tensor, Tensor]:
        features = triplane_sample_reference(planes, points.flatten(1, 2), axes=axes, box_size=box_size, reduce=reduce)
        density, colours = decode(features.unflatten(1, points.shape[1:3]).to(decoder.hidden_weight.dtype), decoder)
        return density, colours

    return field


def decode(features: Tensor, decoder: DecoderWeights) -> tuple[Tensor, Tensor]:
    """Return raw density [...] and colours [..., K] in -0.001..1.001 of features [..., C]."""
    hidden = torch.nn.functional.softplus(features @ decoder.hidden_weight.T + decoder.hidden_bias)
    out = hidden @ decoder.out_weight.T + decoder.out_bias
    return out[..., 0], torch.sigmoid(out[..., 1:]) * 1.002 - 0.001


def warp_by_grid(points: Tensor, warp: OffsetGrid) -> Tensor:
    """Return points [B, R, S, 3] moved by the offsets at their places."""
    grid = (points * (2.0 / warp.size)).to(warp.offsets.dtype)[:, :, :, None]
    offsets = torch.nn.functional.grid_sample(warp.offsets, grid, padding_mode="zeros", align_corners=True)
    return points + offsets[..., 0].permute(0, 2, 3, 1).to(points.dtype)


def _check(
    planes: Tensor,
    decoder: DecoderWeights,
    rays: Rays,
    warp: OffsetGrid | None,
    axes: str,
    box_size: float,
    reduce: str,
) -> None:
    _native.check_shape("planes", planes, ("B", 3, "C", "H", "W"))
    batch, channels = int(planes.shape[0]), int(planes.shape[2])
    if min(planes.shape[2:]) < 1:
        raise ValueError(f"planes must have at least one channel and texel, got {list(planes.shape)}")
    _native.check_shape("decoder.hidden_weight", decoder.hidden_weight, ("H", channels))
    hidden = int(decoder.hidden_weight.shape[0])
    _native.check_shape("decoder.hidden_bias", decoder.hidden_bias, (hidden,))
    _native.check_shape("decoder.out_weight", decoder.out_weight, ("1+K", hidden))
    _native.check_shape("decoder.out_bias", decoder.out_bias, (int(decoder.out_weight.shape[0]),))
    if hidden < 1 or decoder.out_weight.shape[0] < 2:
        raise ValueError(f"the decoder needs a hidden unit and a colour, got {list(decoder.out_weight.shape)}")
    check_rays(rays, batch)
    if warp is not None:
        _native.check_shape("warp offsets", warp.offsets, (batch, 3, "D", "H", "W"))
        check_box(warp.size)
    check_axes(axes)
    check_reduce(reduce)
    check_box(box_size)
