"""Volume rendering of a tri-plane radiance field, fused: lookup, decoder, density and marching in one pass per ray.

Chan et al., EG3D (2022), section 4.1 and supplement; the decoder is its light MLP: softplus, then density and colours
sigmoid(x) 1.002 - 0.001 (mip-NeRF's widened sigmoid).
"""

from __future__ import annotations

import dataclasses
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
    coarse_distances,
    finish,
    render_field,
)
from fourdface.ops._triplane_axes import check_axes, check_box, check_reduce
from fourdface.ops._triplane_render_native import make_settings, prepare_op, render_op
from fourdface.ops.triplane_sample import kernel_there, triplane_sample_reference

__all__ = [
    "DecoderWeights",
    "Draws",
    "OffsetGrid",
    "PreparedTriplane",
    "RaySampling",
    "Rays",
    "Rendered",
    "Skipping",
    "decode",
    "triplane_field",
    "triplane_prepare",
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


@dataclasses.dataclass(frozen=True)
class Skipping:
    """What a picture may leave out (native backend, no gradients); the default keeps 45 dB and more to the exact one.

    cells: side of the occupancy grid made from the planes (a multiple of 32; 0 for none). A sample is left out where
        its cell and all neighbours, and those of the samples beside it, are empty.
    empty_density: softplus(raw - 1) below which the middle of a cell is empty, per unit of length.
    min_transmittance: a ray ends where less is left, 0 < min_transmittance < 1.
    """

    cells: int = 64
    empty_density: float = 0.05
    min_transmittance: float = 1e-3

    def __post_init__(self) -> None:
        """Raise ValueError for numbers that mean nothing."""
        if self.cells % 32 or not 0 <= self.cells <= 512:
            raise ValueError(f"cells must be 0, 32, 64 .. 512, got {self.cells}")
        if not (self.empty_density > 0 and 0 < self.min_transmittance < 1):
            raise ValueError(
                f"empty_density must be above 0 and min_transmittance in 0..1, got {self.empty_density} and "
                f"{self.min_transmittance}"
            )


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
    skip: Skipping | None = None,
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
        skip: leave out what hardly shows (native backend; the gradients are the exact ones), or None: exact.
        backend: "auto" (native where there is a kernel: float32 rays and decoder, planes of float32, float16 or
            bfloat16, no gradients of rays or warp), "reference" or "native".

    Returns:
        features [B, R, K] (colours times weights, no background, in 0..1 up to 0.001), ray_distance, weight_sum and
        transmittance [B, R, 1]. Differentiable in planes and decoder. A ray with a number that is not finite is NaN.

    Raises:
        ValueError: wrong shapes, an unknown option, or a backend that is not available here.
    """
    sampling = sampling or RaySampling()
    _check(planes, decoder, rays, warp, axes, box_size, reduce)
    check_draws(draws, rays, sampling)
    if not _chosen(backend, planes, decoder, rays, warp, draws):
        return triplane_render_reference(
            planes, decoder, rays, sampling,
            axes=axes, box_size=box_size, reduce=reduce, warp=warp, draws=draws, over_batch=over_batch,
        )  # fmt: skip
    settings = make_settings(sampling, axes, box_size, reduce, warp.size if warp else 1.0, _numbers(skip))
    sums = render_op(
        planes.float(), *decoder, list(rays), _extra(warp, draws), [], settings.integers, settings.floats
    )  # fmt: skip
    return _finish(sums, rays, sampling, draws, over_batch)


@dataclasses.dataclass(frozen=True)
class PreparedTriplane:
    """Planes and decoder made ready for many pictures: see `triplane_prepare`."""

    planes: Tensor
    decoder: DecoderWeights
    axes: str
    box_size: float
    reduce: str
    skip: Skipping | None
    native: list[Tensor] = dataclasses.field(
        default_factory=list
    )  # packed texels, occupancy; empty: the reference renders

    def render(
        self,
        rays: Rays,
        sampling: RaySampling | None = None,
        *,
        warp: OffsetGrid | None = None,
        draws: Draws | None = None,
        over_batch: bool = False,
    ) -> Rendered:
        """Render as `triplane_render` does, without gradients."""
        sampling = sampling or RaySampling()
        _check(self.planes, self.decoder, rays, warp, self.axes, self.box_size, self.reduce)
        check_draws(draws, rays, sampling)
        with torch.no_grad():
            if not self.native or not _chosen("auto", self.planes, self.decoder, rays, warp, draws):
                return triplane_render_reference(
                    self.planes, self.decoder, rays, sampling, axes=self.axes, box_size=self.box_size,
                    reduce=self.reduce, warp=warp, draws=draws, over_batch=over_batch,
                )  # fmt: skip
            settings = make_settings(
                sampling, self.axes, self.box_size, self.reduce, warp.size if warp else 1.0, _numbers(self.skip)
            )
            sums = render_op(
                self.planes, *self.decoder, list(rays), _extra(warp, draws), self.native,
                settings.integers, settings.floats,
            )  # fmt: skip
            return _finish(sums, rays, sampling, draws, over_batch)


def triplane_prepare(
    planes: Tensor,
    decoder: DecoderWeights,
    *,
    axes: str = "eg3d",
    box_size: float = 1.0,
    reduce: str = "mean",
    skip: Skipping | None = None,
) -> PreparedTriplane:
    """Do once what every picture of the same planes needs: the decoder's first layer on the texels, and the occupancy.

    Arguments as in `triplane_render`; no gradients. Takes 12 H W U bytes per item (U hidden units).
    """
    _check_field(planes, decoder, axes, box_size, reduce)
    with torch.no_grad():
        weights = DecoderWeights(*(w.detach().float() for w in decoder))
        planes = planes.detach().float()
        native: list[Tensor] = []
        if kernel_there(planes.device) and planes.shape[0] > 0 and _small(planes, weights):
            settings = make_settings(RaySampling(), axes, box_size, reduce, 1.0, _numbers(skip))
            native = list(prepare_op(planes, *weights, settings.integers, settings.floats))
    return PreparedTriplane(planes, weights, axes, box_size, reduce, skip, native)


def _numbers(skip: Skipping | None) -> tuple[int, float, float]:
    return (0, 0.0, 0.0) if skip is None else (skip.cells, skip.empty_density, skip.min_transmittance)


def _extra(warp: OffsetGrid | None, draws: Draws | None) -> list[Tensor | None]:
    return [warp.offsets if warp else None, draws.coarse if draws else None, draws.fine if draws else None]


def _finish(
    sums: tuple[Tensor, Tensor, Tensor], rays: Rays, sampling: RaySampling, draws: Draws | None, over_batch: bool
) -> Rendered:
    first, last = coarse_distances(rays, sampling, draws, slice(None, None, sampling.coarse - 1)).unbind(-1)
    return finish(*sums, last, first, over_batch=over_batch)


def _small(planes: Tensor, decoder: DecoderWeights) -> bool:
    """Do the packed texels of an item fit into 32-bit indices?"""
    height, width = int(planes.shape[-2]), int(planes.shape[-1])
    return 3 * (height + 2) * (width + 2) * (int(decoder.out_weight.shape[1]) + 15) < 2**31


def _chosen(
    backend: str, planes: Tensor, decoder: DecoderWeights, rays: Rays, warp: OffsetGrid | None, draws: Draws | None
) -> bool:
    """Say whether the native kernel takes these tensors; raises ValueError where it was asked for and cannot."""
    _native.check_backend(backend, ("auto", "reference", "native"))
    if backend == "reference":
        return False
    others = [*decoder, *rays, *(t for t in _extra(warp, draws) if t is not None)]
    single = planes.dtype in (torch.float32, torch.float16, torch.bfloat16)
    single = single and all(t.dtype == torch.float32 for t in others)
    together = all(t.device == planes.device for t in others)
    fixed = [*rays, *(t for t in _extra(warp, draws) if t is not None)]
    constant = not (torch.is_grad_enabled() and any(t.requires_grad for t in fixed))
    fits = single and together and constant and _small(planes, decoder)
    if backend == "native":
        if not kernel_there(planes.device):
            _native.require_library(planes.device)
        if not fits:
            raise ValueError(
                "backend 'native' renders float32 on one device, without gradients of rays or warp: use 'auto'"
            )
    return fits and kernel_there(planes.device)


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
    _check_field(planes, decoder, axes, box_size, reduce)
    batch = int(planes.shape[0])
    check_rays(rays, batch)
    if warp is not None:
        _native.check_shape("warp offsets", warp.offsets, (batch, 3, "D", "H", "W"))
        check_box(warp.size)


def _check_field(planes: Tensor, decoder: DecoderWeights, axes: str, box_size: float, reduce: str) -> None:
    _native.check_shape("planes", planes, ("B", 3, "C", "H", "W"))
    channels = int(planes.shape[2])
    if min(planes.shape[2:]) < 1:
        raise ValueError(f"planes must have at least one channel and texel, got {list(planes.shape)}")
    _native.check_shape("decoder.hidden_weight", decoder.hidden_weight, ("H", channels))
    hidden = int(decoder.hidden_weight.shape[0])
    _native.check_shape("decoder.hidden_bias", decoder.hidden_bias, (hidden,))
    _native.check_shape("decoder.out_weight", decoder.out_weight, ("1+K", hidden))
    _native.check_shape("decoder.out_bias", decoder.out_bias, (int(decoder.out_weight.shape[0]),))
    if hidden < 1 or decoder.out_weight.shape[0] < 2:
        raise ValueError(f"the decoder needs a hidden unit and a colour, got {list(decoder.out_weight.shape)}")
    check_axes(axes)
    check_reduce(reduce)
    check_box(box_size)
