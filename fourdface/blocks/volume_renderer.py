"""Volume rendering of any field along rays; a tri-plane field with its own decoder goes through the fused kernel.

Emission and absorption with EG3D's sampling and midpoint rule (Chan et al., 2022); see `ops/triplane_render.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..ops._ray_marching import (
    Draws,
    Field,
    Rays,
    RaySampling,
    Rendered,
    Samples,
    check_draws,
    check_rays,
    render_field,
)
from ..ops.triplane_render import OffsetGrid, Skipping, triplane_render, warp_by_grid
from .triplane import TriplaneField, decoder_weights

__all__ = [
    "Draws",
    "Field",
    "OffsetGrid",
    "RaySampling",
    "Rays",
    "Rendered",
    "Samples",
    "Skipping",
    "as_image",
    "over_background",
    "over_white",
    "render_samples",
    "render_volume",
]

Warp = Callable[[Tensor], Tensor]
"""Points [B, R, S, 3] -> where to look the field up, [B, R, S, 3]."""


def render_volume(
    field: Field | TriplaneField,
    rays: Rays,
    sampling: RaySampling | None = None,
    *,
    warp: Warp | OffsetGrid | None = None,
    draws: Draws | None = None,
    over_batch: bool = False,
    skip: Skipping | None = None,
    backend: str = "auto",
) -> Rendered:
    """Render rays through a field.

    Args:
        field: a `TriplaneField` (fused where it can be), or any function of points [B, R, S, 3] that returns raw
            density [B, R, S] (before softplus(s - 1)) and features [B, R, S, K]; what is per ray broadcasts over S.
        rays: origins and unit directions [B, R, 3], near and far [B, R].
        sampling: numbers and places of the samples; None is 48 + 48 without chance.
        warp: moves the samples before the field sees them: an `OffsetGrid` (fused too) or any function of points.
        draws: given numbers in place of the sampling's own.
        over_batch: rays that meet nothing get the farthest distance of all rays (as EG3D's and Portrait4D's renderers)
            instead of their own last one.
        skip: what a fused picture may leave out (see `Skipping`), or None: exact. Fields without a kernel are rendered
            exactly.
        backend: "auto", "reference" (plain torch) or "native" (fused).

    Returns:
        features [B, R, K] without background, ray_distance, weight_sum and transmittance [B, R, 1].

    Raises:
        ValueError: wrong shapes, or backend "native" for a field or warp that has no kernel.
    """
    if isinstance(field, TriplaneField) and field.planes.dim() == 5 and (warp is None or isinstance(warp, OffsetGrid)):
        return triplane_render(
            field.planes, decoder_weights(field.decoder), rays, sampling,
            axes=field.axes, box_size=field.box_size, warp=warp, draws=draws, over_batch=over_batch, skip=skip,
            backend=backend,
        )  # fmt: skip
    if backend == "native":
        raise ValueError("backend 'native' renders a TriplaneField, warped by an OffsetGrid at most: use 'auto'")
    return render_samples(field, rays, sampling, warp=warp, draws=draws, over_batch=over_batch)[0]


def render_samples(
    field: Field | TriplaneField,
    rays: Rays,
    sampling: RaySampling | None = None,
    *,
    warp: Warp | OffsetGrid | None = None,
    draws: Draws | None = None,
    over_batch: bool = False,
) -> tuple[Rendered, Samples]:
    """Render as `render_volume` does, in plain torch, and return the samples and weights too (for losses on them)."""
    sampling = sampling or RaySampling()
    check_rays(rays)
    check_draws(draws, rays, sampling)

    def warped(points: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(warp, OffsetGrid):
            return field(warp_by_grid(points, warp))
        return field(points if warp is None else warp(points))

    return render_field(warped, rays, sampling, draws, over_batch=over_batch)


def over_white(rendered: Rendered) -> Tensor:
    """Return the features [B, R, K] in front of a background of ones (EG3D's white_back)."""
    return rendered.features + rendered.transmittance


def over_background(rendered: Rendered, background: Tensor) -> Tensor:
    """Return the features [B, R, K] in front of `background` (the same shape, or one that broadcasts to it)."""
    return rendered.features + rendered.transmittance * background


def as_image(values: Tensor, height: int, width: int) -> Tensor:
    """Turn values of rays [B, height * width, K] into a picture [B, K, height, width]."""
    if values.shape[1] != height * width:
        raise ValueError(f"{values.shape[1]} rays make no picture of {width} x {height}")
    return values.transpose(1, 2).reshape(values.shape[0], values.shape[2], height, width)
