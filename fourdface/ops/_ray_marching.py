"""Samples along rays and their composition, in plain torch: what a volume renderer is, whatever the field.

As in EG3D (Chan et al., 2022): stratified coarse samples, importance samples from the coarse weights (NeRF, Mildenhall
et al. 2020, section 5.2, after mip-NeRF's smoothing), midpoint rule. The native kernels (cuda/triplane_render.h) repeat
every step of this file with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

Field = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Points [B, R, S, 3] -> raw density [B, R, S] (before softplus(s - 1)) and features [B, R, S, K]."""

SPACINGS = ("linear", "disparity")
PLACEMENTS = ("ends", "centres", "jitter")
PDF_FLOOR = 0.01
PDF_EPSILON = 1e-5
MASK32 = 0xFFFFFFFF


class Rays(NamedTuple):
    """origins [B, R, 3], unit directions [B, R, 3], near and far [B, R]: ray distances of the first and last sample."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor


class Draws(NamedTuple):
    """Numbers in 0..1 in place of the placement's own: coarse offsets [B, R, S] and fine quantiles [B, R, F]."""

    coarse: Tensor
    fine: Tensor


class Rendered(NamedTuple):
    """features [B, R, K]; ray_distance, weight_sum, transmittance (what the background keeps) [B, R, 1]."""

    features: Tensor
    ray_distance: Tensor
    weight_sum: Tensor
    transmittance: Tensor


@dataclass(frozen=True)
class RaySampling:
    """Where the samples of a ray lie.

    coarse, fine: numbers of samples (coarse >= 2, and >= 4 with importance samples; fine >= 0).
    spacing: "linear" in distance, or in "disparity" (1/distance; near must be above 0).
    placement: "ends" puts coarse sample i at i/(S-1) of near..far and fine quantiles evenly on 0..1 with both ends;
        "centres" moves coarse samples on by half a step (the last lies beyond far) and takes the quantiles
        (i + 0.5)/F; "jitter" draws both within their step, from a counter: equal seeds give equal numbers everywhere.
    seed: of "jitter", 0 <= seed < 2^64.
    """

    coarse: int = 48
    fine: int = 48
    spacing: str = "linear"
    placement: str = "ends"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for numbers and names that mean nothing."""
        if self.fine < 0 or self.coarse < (4 if self.fine else 2):
            raise ValueError(
                f"a ray needs 2 coarse samples, or 4 with fine ones, got {self.coarse} coarse and {self.fine} fine"
            )
        if self.spacing not in SPACINGS:
            raise ValueError(f"spacing must be one of {', '.join(SPACINGS)}, got {self.spacing!r}")
        if self.placement not in PLACEMENTS:
            raise ValueError(f"placement must be one of {', '.join(PLACEMENTS)}, got {self.placement!r}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be in 0..2^64-1, got {self.seed}")


def _mix(x: Tensor) -> Tensor:
    """Scramble 32-bit integers (held in int64): xor-shift and multiply, twice."""
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK32
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK32
    return x ^ (x >> 16)


def seed_key(seed: int) -> int:
    """Return the 32-bit key that stands for a 64-bit seed."""

    def mix(x: int) -> int:
        x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK32
        x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK32
        return x ^ (x >> 16)

    return mix(mix(seed & MASK32) ^ (seed >> 32))


def counted_uniform(seed: int, rays: Tensor, samples: Tensor) -> Tensor:
    """Return float32 numbers in [0, 1), a function of (seed, ray index [R], sample index [S]) alone: [R, S]."""
    per_ray = _mix((rays & MASK32) ^ seed_key(seed))
    mixed = _mix((per_ray[:, None] + samples[None] * 0x9E3779B9) & MASK32)
    return (mixed >> 8).to(torch.float32) * 2.0**-24


def coarse_distances(rays: Rays, sampling: RaySampling, draws: Draws | None, which: slice = slice(None)) -> Tensor:
    """Return the distances [B, R, S] of the coarse samples, or of those in `which` alone."""
    index = torch.arange(sampling.coarse, device=rays.near.device)[which]
    offset: Tensor | float = 0.0
    if draws is not None:
        offset = draws.coarse[..., which].to(rays.near)
    elif sampling.placement == "jitter":
        offset = _jitter(rays.near, index, sampling)
    elif sampling.placement == "centres":
        offset = 0.5
    part = (index.to(rays.near.dtype) + offset) / (sampling.coarse - 1)
    near, far = rays.near[..., None], rays.far[..., None]
    if sampling.spacing == "disparity":
        return 1.0 / ((1.0 - part) / near + part / far)
    return near + (far - near) * part


def _jitter(like: Tensor, index: Tensor, sampling: RaySampling) -> Tensor:
    rays = torch.arange(like.numel(), device=like.device)
    return counted_uniform(sampling.seed, rays, index).reshape(*like.shape, len(index)).to(like.dtype)


def _quantiles(rays: Rays, sampling: RaySampling, draws: Draws | None) -> Tensor:
    """Return the quantiles [B, R, F] (or a shape that expands to it) of the importance samples."""
    if draws is not None:
        return draws.fine.to(rays.near)
    count, like = sampling.fine, rays.near
    index = torch.arange(count, device=like.device)
    if sampling.placement == "jitter":  # one draw in each of F equal parts: less noise than F independent ones
        return (index + _jitter(like, index + sampling.coarse, sampling)) / count
    if sampling.placement == "centres":
        return ((index.to(like.dtype) + 0.5) / count).expand(*like.shape, count)
    return (index.to(like.dtype) / max(count - 1, 1)).expand(*like.shape, count)


def importance_distances(
    rays: Rays, distances: Tensor, weights: Tensor, sampling: RaySampling, draws: Draws | None
) -> Tensor:
    """Return distances [B, R, F] drawn from the weights [B, R, S-1] between the coarse `distances` [B, R, S].

    The weights are widened (each sample the larger of its two neighbours, then the mean of two) and raised by 0.01.
    The inner S-3 of them are a histogram over the first S-2 midpoints, which sets it half a step towards the camera:
    EG3D's rule, kept because networks are trained with it. No gradients.
    """
    with torch.no_grad():
        low = torch.full_like(weights[..., :1], -float("inf"))
        padded = torch.cat([low, weights, low], dim=-1)
        widest = torch.maximum(padded[..., :-1], padded[..., 1:])
        histogram = (0.5 * (widest[..., :-1] + widest[..., 1:]) + PDF_FLOOR)[..., 1:-1] + PDF_EPSILON
        cumulative = torch.cumsum(histogram / histogram.sum(dim=-1, keepdim=True), dim=-1)
        cumulative = torch.cat([torch.zeros_like(cumulative[..., :1]), cumulative], dim=-1)  # [B, R, S-2]
        edges = 0.5 * (distances[..., :-1] + distances[..., 1:])
        quantiles = _quantiles(rays, sampling, draws).contiguous()
        after = torch.searchsorted(cumulative, quantiles, right=True)
        below, above = (after - 1).clamp_min(0), after.clamp_max(sampling.coarse - 3)
        start, end = (cumulative.gather(-1, i) for i in (below, above))
        width = end - start
        width = torch.where(width < PDF_EPSILON, torch.ones_like(width), width)
        from_, to = (edges.gather(-1, i) for i in (below, above))
        return from_ + (quantiles - start) / width * (to - from_)


def march_weights(distances: Tensor, density: Tensor) -> Tensor:
    """Return the weights [B, R, S-1] of the intervals between samples at `distances` with raw `density` [B, R, S].

    Midpoint rule: sigma = softplus((s_i + s_{i+1})/2 - 1), alpha = 1 - exp(-sigma length), weight = alpha times the
    transmittance in front.
    """
    middle = 0.5 * (density[..., :-1] + density[..., 1:])
    alpha = 1.0 - torch.exp(-torch.nn.functional.softplus(middle - 1.0) * (distances[..., 1:] - distances[..., :-1]))
    passed = torch.cumprod(torch.cat([torch.ones_like(alpha[..., :1]), 1.0 - alpha + 1e-10], dim=-1), dim=-1)
    return alpha * passed[..., :-1]


def compose(distances: Tensor, weights: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sum interval weights [B, R, S-1] against midpoints of features [B, R, S, K] and distances [B, R, S].

    Returns features [B, R, K], the sum of weight times distance [B, R] and the sum of weights [B, R].
    """
    middle = 0.5 * (features[..., :-1, :] + features[..., 1:, :])
    distance_middle = 0.5 * (distances[..., :-1] + distances[..., 1:])
    return (
        (weights[..., None] * middle).sum(dim=-2),
        (weights * distance_middle).sum(dim=-1),
        weights.sum(dim=-1),
    )


def finish(
    features: Tensor, distance_sum: Tensor, weight_sum: Tensor, last: Tensor, first: Tensor, *, over_batch: bool
) -> Rendered:
    """Turn sums into the result: expected distances, and where a ray has met nothing its last sample's distance.

    `first` and `last` [B, R] are the distances of a ray's outermost samples. `over_batch` takes the limits of all rays
    together instead of each ray's own, as EG3D does.
    """
    if over_batch and last.numel():
        last, first = last.amax().expand_as(last), first.amin().expand_as(first)
    met = weight_sum != 0  # NaN counts as met, and stays
    distance = distance_sum / torch.where(met, weight_sum, torch.ones_like(weight_sum))
    distance = torch.where(met, torch.minimum(torch.maximum(distance, first), last), last)
    return Rendered(features, distance[..., None], weight_sum[..., None], (1.0 - weight_sum)[..., None])


def check_rays(rays: Rays, batch: int | None = None) -> None:
    """Raise ValueError unless the rays are [B, R, 3], [B, R, 3], [B, R], [B, R] (B = `batch` where given)."""
    _native.check_shape("ray origins", rays.origins, ("B" if batch is None else batch, "R", 3))
    batch, count = int(rays.origins.shape[0]), int(rays.origins.shape[1])
    _native.check_shape("ray directions", rays.directions, (batch, count, 3))
    _native.check_shape("near", rays.near, (batch, count))
    _native.check_shape("far", rays.far, (batch, count))


def check_draws(draws: Draws | None, rays: Rays, sampling: RaySampling) -> None:
    """Raise ValueError unless the draws are [B, R, S] and [B, R, F]."""
    if draws is not None:
        batch, count = int(rays.origins.shape[0]), int(rays.origins.shape[1])
        _native.check_shape("draws.coarse", draws.coarse, (batch, count, sampling.coarse))
        _native.check_shape("draws.fine", draws.fine, (batch, count, sampling.fine))


class Samples(NamedTuple):
    """All samples of every ray in order: distances [B, R, S+F]; weights of the intervals between them [B, R, S+F-1]."""

    distances: Tensor
    weights: Tensor


def render_field(
    field: Field, rays: Rays, sampling: RaySampling, draws: Draws | None = None, *, over_batch: bool = False
) -> tuple[Rendered, Samples]:
    """Render any field: coarse samples, importance samples, both sorted and composed. Differentiable in the field.

    A ray with a number that is not finite becomes NaN, and no other does.
    """

    def at(distances: Tensor) -> Tensor:
        return rays.origins[:, :, None] + distances[..., None] * rays.directions[:, :, None]

    distances = coarse_distances(rays, sampling, draws)
    first, last = distances[..., 0], distances[..., -1]
    density, features = field(at(distances))
    if sampling.fine:
        weights = march_weights(distances, density)
        fine = importance_distances(rays, distances, weights, sampling, draws)
        fine_density, fine_features = field(at(fine))
        distances, order = torch.sort(torch.cat([distances, fine], dim=-1), dim=-1, stable=True)
        density = torch.cat([density, fine_density], dim=-1).gather(-1, order)
        features = torch.cat([features, fine_features], dim=-2)
        features = features.gather(-2, order[..., None].expand_as(features))
    weights = march_weights(distances, density)
    finite = torch.isfinite(rays.origins).all(-1) & torch.isfinite(rays.directions).all(-1)
    finite = finite & torch.isfinite(rays.near) & torch.isfinite(rays.far)
    sums = compose(distances, weights, features)
    feature_sum, distance_sum, weight_sum = (
        torch.where(finite[..., None] if s.dim() == 3 else finite, s, torch.full_like(s, float("nan"))) for s in sums
    )
    rendered = finish(feature_sum, distance_sum, weight_sum, last, first, over_batch=over_batch)
    return rendered, Samples(distances, weights)
