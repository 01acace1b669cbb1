"""Losses of Portrait4D's training (v1 equation 4, v2 equations 2, 4 and 5): each is a scalar before its weight.

Pictures are in -1..1 as in the official program, so that the weights mean the same; the perceptual networks see 0..1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fourdface.blocks.perceptual import load_lpips
from fourdface.blocks.rays import camera_from_label, camera_rays
from fourdface.blocks.triplane import TriplaneField
from fourdface.errors import FourdError
from fourdface.methods.portrait4d.network import Picture, Reconstructor
from fourdface.methods.portrait4d.training_config import LossConfig
from fourdface.perception.features import load_face_features
from fourdface.priors.genhead.camera import WORLD_SCALE
from fourdface.priors.genhead.generator import GenHeadPictures

__all__ = ["Perceptual", "Truth", "choose_perceptual", "density_variation", "foreground", "picture_losses", "resized",
           "truth_of"]  # fmt: skip

log = logging.getLogger(__name__)
Perceptual = Callable[[Tensor, Tensor], Tensor]
"""Distance [B] of pictures [B, 3, H, W] in 0..1."""
DENSITY_POINTS = 1000
"""Points in which the density is compared with its neighbourhood (EG3D)."""


@dataclass(frozen=True)
class Truth:
    """What a picture is compared with, B times: image [B,3,S,S] (the result's size), render [B,3,s,s], foreground
    [B,3,s,s] (before black), background [B,3,s,s], all in -1..1; opacity [B,1,s,s] in 0..1; distance [B,1,s,s] along
    the ray in the labels' units, 0 for nothing; known [B,3]: 1 where background, opacity and distance are known."""

    image: Tensor
    render: Tensor
    foreground: Tensor
    background: Tensor
    opacity: Tensor
    distance: Tensor
    known: Tensor


def truth_of(batch: dict[str, Tensor], size: int) -> Truth:
    """The targets of a batch (see `PortraitViews.draw`) [B * V, ...] for renders of `size` pixels."""
    views = batch["targets"].shape[1]
    image = batch["targets"].flatten(0, 1).float() / 127.5 - 1
    render = resized(image, size)
    background = resized(batch["background"].float() / 127.5 - 1, size).repeat_interleave(views, 0)
    opacity = resized(batch["opacities"].flatten(0, 1).float() / 255, size)
    known = batch["known"].repeat_interleave(views, 0)
    both = known[:, :2].amin(1)[:, None, None, None]
    cut = (render - (1 - opacity) * (background + 1) + 1) * both - 1  # colour times opacity, before black
    distance = ray_distance(batch["depths"].flatten(0, 1), batch["labels"].flatten(0, 1), size)
    return Truth(image, render, cut.clamp(-1, 1), background, opacity, distance, known)


def ray_distance(depth_z: Tensor, label: Tensor, size: int) -> Tensor:
    """Depths along the camera's axis [B,h,w] in metres -> distances along the rays [B,1,s,s] in the labels' units."""
    nearest = interpolate(depth_z[:, None], size=(size, size), mode="nearest")
    world_to_camera, intrinsics = camera_from_label(label, size, axes="opengl")
    _, directions = camera_rays(world_to_camera, intrinsics, size, size)
    along = (directions @ world_to_camera[:, 2, :3, None])[..., 0].abs().reshape(-1, 1, size, size)
    return nearest * WORLD_SCALE / along


def foreground(out: Picture | GenHeadPictures, channels: int | None = 3) -> Tensor:
    """The render's first channels (None: all) before black [B, C, s, s] in -1..1: `features` without the background."""
    return out.features[:, :channels] - out.transmittance * (out.background[:, :channels] + 1)


def picture_losses(out: Picture, truth: Truth, perceptual: Perceptual | None, weights: LossConfig) -> dict[str, Tensor]:
    """Weighted L1 and perceptual distance of the four pictures, of opacity and of the distance along the rays."""
    known_background, known_opacity, known_depth = (truth.known[:, k] for k in range(3))
    both = known_background * known_opacity
    pairs = [
        (out.picture.float(), truth.image, torch.ones_like(both)),
        (out.features[:, :3], truth.render, torch.ones_like(both)),
        (foreground(out), truth.foreground, both),
        (out.background[:, :3], truth.background, known_background),
    ]
    losses = {"l1": weights.l1 * sum(_mean((a - b).abs(), known) for a, b, known in pairs)}
    if perceptual is not None and weights.perceptual:
        distances = [(perceptual((a + 1) / 2, (b + 1) / 2) * known).mean() for a, b, known in pairs]
        losses["perceptual"] = weights.perceptual * torch.stack(distances).sum()
    opacity = 1 - out.transmittance
    losses["segmentation"] = weights.segmentation * _mean(2 * (opacity - truth.opacity).abs(), known_opacity)
    inside = (truth.distance > 0) * (truth.opacity > 0.5) * known_depth[:, None, None, None]
    difference = (out.ray_distance - truth.distance).abs() * inside
    # picture by picture, so that the loss does not depend on how a batch is split over processes
    count = inside.flatten(1).sum(1).clamp_min(1)
    losses["depth"] = weights.depth * (difference.flatten(1).sum(1) / count).mean()
    return losses  # type: ignore[return-value]


def density_variation(network: Reconstructor, planes: Tensor, step: float, generator: torch.Generator) -> Tensor:
    """L1 between the densities (after softplus) of random points and of points beside them (EG3D's TV). Scalar.

    planes [B, 3, C, R, R]; step: standard deviation of the move, as part of the cube's side.
    """
    box = network.config.box_size
    points = (torch.rand(len(planes), DENSITY_POINTS, 3, generator=generator) - 0.5) * box
    beside = points + torch.randn(points.shape, generator=generator) * step * box
    field = TriplaneField(planes, network.decoder, axes="portrait4d", box_size=box)
    raw, _ = field(torch.cat([points, beside], 1).to(planes.device))
    here, there = torch.nn.functional.softplus(raw - 1).chunk(2, 1)
    return (here - there).abs().mean()


def choose_perceptual(weights: LossConfig, device: torch.device) -> tuple[Perceptual | None, str]:
    """The perceptual distance of the configuration, or its named fallback (with a warning), and its name."""
    name = weights.perceptual_network
    try:
        return _perceptual(name, device), name
    except FourdError as error:
        if weights.perceptual_fallback == name:
            raise
        log.warning(
            "loss.perceptual_network %s is not here (%s); loss.perceptual_fallback is taken: %s",
            name, str(error).splitlines()[0], weights.perceptual_fallback,
        )  # fmt: skip
        return _perceptual(weights.perceptual_fallback, device), weights.perceptual_fallback


def _perceptual(name: str, device: torch.device) -> Perceptual | None:
    if name == "none":
        return None
    return (load_face_features() if name == "features" else load_lpips(name.removeprefix("lpips-"))).to(device)


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of values [B, C, H, W] with weights [B], over the whole batch: what is unknown counts as right."""
    return (values.mean((1, 2, 3)) * weight).mean()


def resized(image: Tensor, size: int) -> Tensor:
    """[B, C, h, w] -> [B, C, size, size], bilinear without aliasing; the same where it has that size."""
    if image.shape[-1] == size:
        return image
    return interpolate(image, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
