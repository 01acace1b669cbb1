"""GenHead's own losses: on the density of eyes and mouth, and on how density varies (Portrait4D, supplement)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from fourdface.blocks.volume_renderer import Rays
from fourdface.ops.triplane_sample import triplane_sample
from fourdface.priors.genhead.generator import GenHead, GenHeadPictures
from fourdface.priors.genhead.training_config import GenHeadLosses

__all__ = ["density_variation", "distortion", "part_losses"]


def distortion(distances: Tensor, weights: Tensor) -> Tensor:
    """How far the weights of a ray are spread (mip-NeRF 360, Barron et al., CVPR 2022, equation 15).

    sum over i, j of w_i w_j |m_i - m_j| + 1/3 sum w_i² d_i, with middles m and lengths d of the intervals.

    Args:
        distances: [..., S] of the samples in rising order. weights: [..., S - 1] of the intervals between them.

    Returns:
        [...], in the unit of the distances.
    """
    middle = (distances[..., 1:] + distances[..., :-1]) / 2
    length = distances[..., 1:] - distances[..., :-1]
    # sorted, so each pair is w_i w_j (m_i - m_j) for j < i, twice: running sums instead of all pairs
    before, moment = weights.cumsum(-1) - weights, (weights * middle).cumsum(-1) - weights * middle
    pairs = 2 * (weights * (middle * before - moment)).sum(-1)
    return pairs + (weights.square() * length).sum(-1) / 3


def part_losses(pictures: GenHeadPictures, loss: GenHeadLosses) -> dict[str, Tensor]:
    """Losses of eyes and of mouth, with their weights; `pictures` rendered with `keep_samples`.

    For each part with its mask m over the rays: mean of softplus(density of the head's planes) m over all samples (for
    eyes only those in an eyeball's box), mean of the distortion times m and mean of the transmittance times m over all
    rays. Distances are in units of near..far.
    """
    kept = pictures.samples
    if kept is None:
        raise ValueError("part_losses needs pictures that were rendered with keep_samples=True")
    masks = {"eyes": kept.field.eyes, "mouth": kept.field.mouth}  # [B, R]
    shown, rays = _masked_rays(masks["eyes"] + masks["mouth"])
    near, far = (limit.gather(1, shown) for limit in kept.rays[2:])
    distances = _chosen(kept.samples.distances, shown)
    density, in_eyes = kept.field.head_density(_points(kept.rays, shown, distances))
    spread = distortion(
        (distances - near[..., None]) / (far - near)[..., None], _chosen(kept.samples.weights, shown)
    )  # [B, M]
    hole = pictures.transmittance.flatten(1).gather(1, shown)
    out: dict[str, Tensor] = {}
    for name, mask in masks.items():
        weight = mask.gather(1, shown) * rays
        where = weight[..., None] * (in_eyes if name == "eyes" else 1.0)
        out[f"{name}_head_density"] = loss.head_density * (softplus(density) * where).sum() / _numel(mask, density)
        out[f"{name}_distortion"] = loss.distortion * (spread * weight).sum() / mask.numel()
        out[f"{name}_transmittance"] = loss.transmittance * (hole * weight).sum() / mask.numel()
    return out


def _masked_rays(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Rays with a mask [B, R] above zero: their indices [B, M] (M of the head that has most) and which count [B, M]."""
    positive = mask > 0
    most = max(1, int(positive.sum(dim=1).max()))
    shown = positive.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return shown, positive.gather(1, shown).to(mask.dtype)


def _chosen(values: Tensor, shown: Tensor) -> Tensor:
    """[B, R, S] -> [B, M, S] of the rays [B, M]."""
    return values.gather(1, shown[..., None].expand(-1, -1, values.shape[2]))


def _points(rays: Rays, shown: Tensor, distances: Tensor) -> Tensor:
    """Points [B, M, S, 3] at distances [B, M, S] along the chosen rays."""
    origins, directions = _chosen(rays.origins, shown), _chosen(rays.directions, shown)
    return (origins[:, :, None] + distances[..., None] * directions[:, :, None]).detach()


def _numel(mask: Tensor, density: Tensor) -> int:
    return mask.numel() * density.shape[-1]


def density_variation(network: GenHead, planes: Tensor, points: Tensor, steps: Tensor) -> Tensor:
    """Mean of |density(x) - density(x + step)| of both tri-planes at canonical points.

    Args:
        planes: [B, 6, C, H, W]. points, steps: [B, N, 3] in half sides of the planes' cube (-1..1).
    """
    half = network.config.box_size / 2
    both = torch.cat([points, points + steps], dim=1) * half
    parts = []
    for part in (planes[:, :3], planes[:, 3:]):
        features = triplane_sample(part, both, axes="portrait4d", box_size=network.config.box_size)
        density = network.decoder.decode(features)[1]
        here, there = density.chunk(2, dim=1)
        parts.append((here - there).abs().mean())
    return torch.stack(parts).mean()
