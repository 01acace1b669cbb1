"""Random changes of pictures: colour, light, noise, blur, occluders, drawing and painting styles (batched)."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


def uniform(count: int, low: float, high: float) -> Tensor:
    """[count] numbers from low..high."""
    return torch.rand(count) * (high - low) + low


def chance(count: int, probability: float) -> Tensor:
    """[count] bool."""
    return torch.rand(count) < probability


def colour(image: Tensor) -> Tensor:
    """[B,3,H,W] in 0..1 -> the same with random gain, contrast, gamma, saturation, tint; some grey, some swapped."""
    count = len(image)
    grey = (image * torch.tensor([0.3, 0.59, 0.11])[:, None, None]).sum(1, keepdim=True)
    saturation = torch.where(chance(count, 0.14), torch.zeros(count), uniform(count, 0.4, 1.6))[:, None, None, None]
    out = torch.lerp(grey.expand_as(image), image, saturation)
    for row in torch.nonzero(chance(count, 0.05)).flatten().tolist():
        out[row] = out[row, torch.randperm(3)]
    gain = uniform(count, -0.45, 0.35).exp()[:, None, None, None] * (1 + 0.08 * torch.randn(count, 3, 1, 1))
    pivot = out.mean(dim=(1, 2, 3), keepdim=True)
    out = ((out - pivot) * uniform(count, 0.6, 1.45)[:, None, None, None] + pivot) * gain
    out = out + 0.05 * torch.randn(count, 1, 1, 1)
    return out.clamp(0, 1) ** uniform(count, -0.5, 0.5).exp()[:, None, None, None]


def light(image: Tensor) -> Tensor:
    """Multiply by a linear ramp of brightness in a random direction (side light)."""
    count, _, height, width = image.shape
    angle, strength = uniform(count, 0, 2 * math.pi), uniform(count, 0, 0.7) * chance(count, 0.4)
    y = torch.linspace(-1, 1, height)[None, :, None]
    x = torch.linspace(-1, 1, width)[None, None, :]
    ramp = x * torch.cos(angle)[:, None, None] + y * torch.sin(angle)[:, None, None]
    return image * (1 + strength[:, None, None] * ramp)[:, None].clamp(0.1, 2)


def resample_blur(image: Tensor, smallest: float = 0.22) -> Tensor:
    """Shrink and enlarge: one random size for the whole batch given."""
    size = image.shape[-2:]
    scale = float(torch.empty(1).uniform_(smallest, 0.8))
    small = functional.interpolate(image, scale_factor=scale, mode="bilinear", antialias=True, align_corners=False)
    return functional.interpolate(small, size=size, mode="bilinear", align_corners=False)


def motion_blur(image: Tensor) -> Tensor:
    """Box blur along a row or a column, 3 to 9 pixels."""
    length = int(torch.randint(1, 5, (1,))) * 2 + 1
    shape = (1, length) if torch.rand(1) < 0.5 else (length, 1)
    return functional.avg_pool2d(image, shape, 1, (shape[0] // 2, shape[1] // 2), count_include_pad=False)


def line_drawing(image: Tensor) -> Tensor:
    """Dark lines on a light ground where the brightness changes."""
    grey = image.mean(1, keepdim=True)
    soft = functional.avg_pool2d(grey, 3, 1, 1)
    wide = functional.avg_pool2d(soft, 9, 1, 4, count_include_pad=False)
    ink = ((wide - soft) * float(torch.empty(1).uniform_(6, 16))).clamp(0, 1)
    paper = 0.75 + 0.25 * torch.rand(len(image), 3, 1, 1)
    tone = (grey > float(torch.empty(1).uniform_(0.05, 0.3))).float()
    return paper * (1 - ink) * (0.15 + 0.85 * tone)


def painting(image: Tensor) -> Tensor:
    """Flat patches of few colours with stronger edges and saturation."""
    soft = functional.max_pool2d(functional.avg_pool2d(image, 3, 1, 1), 3, 1, 1)
    soft = -functional.max_pool2d(-soft, 3, 1, 1)
    levels = float(torch.randint(4, 9, (1,)))
    flat = torch.round(soft * levels) / levels
    mixed = torch.lerp(soft, flat, float(torch.rand(1)))
    grey = mixed.mean(1, keepdim=True)
    return torch.lerp(grey, mixed, float(torch.empty(1).uniform_(0.7, 2.0))).clamp(0, 1)


def stone(image: Tensor) -> Tensor:
    """Grey or brown, contrast raised locally, no colour of eyes or lips: like a statue."""
    grey = image.mean(1, keepdim=True)
    local = grey - functional.avg_pool2d(grey, 15, 1, 7, count_include_pad=False)
    tint = 1 + 0.25 * torch.rand(len(image), 3, 1, 1) - 0.12
    return ((0.35 + 0.3 * torch.rand(1) + local * 1.6 + 0.25 * (grey - 0.5)) * tint).clamp(0, 1)


def jpeg(image: Tensor, quality: int) -> Tensor:
    """One picture [3,H,W] through a JPEG of the given quality."""
    buffer = io.BytesIO()
    array = (image.permute(1, 2, 0).clamp(0, 1).numpy() * 255).astype(np.uint8)
    Image.fromarray(array).save(buffer, "JPEG", quality=quality)
    decoded = np.asarray(Image.open(buffer), dtype=np.float32) / 255
    return torch.from_numpy(decoded).permute(2, 0, 1)


def occlude(image: Tensor, donors: Tensor) -> Tensor:
    """Cover part of some pictures by a rotated box or an ellipse: plain colour or a piece of another picture."""
    count, _, height, width = image.shape
    y = torch.linspace(-1, 1, height)[None, :, None]
    x = torch.linspace(-1, 1, width)[None, None, :]
    place = uniform(count * 2, -1.0, 1.0).view(2, count)
    low = chance(count, 0.35)  # hands, microphones and beards cover mouth and chin
    place = torch.where(low, torch.stack([place[0] * 0.35, 0.45 + place[1] * 0.3]), place)
    away = place * torch.where(~low & (place.norm(dim=0) < 0.35), 1.8, 1.0)
    angle, radius = uniform(count, 0, math.pi), uniform(count * 2, 0.07, 0.42).view(2, count)
    dx, dy = x - away[0, :, None, None], y - away[1, :, None, None]
    u = (dx * torch.cos(angle)[:, None, None] + dy * torch.sin(angle)[:, None, None]) / radius[0, :, None, None]
    v = (dy * torch.cos(angle)[:, None, None] - dx * torch.sin(angle)[:, None, None]) / radius[1, :, None, None]
    round_shape = chance(count, 0.5)[:, None, None]
    distance = torch.where(round_shape, (u.square() + v.square()).sqrt(), torch.maximum(u.abs(), v.abs()))
    mask = ((1 - distance) * 12).clamp(0, 1)[:, None] * chance(count, 0.28)[:, None, None, None]
    plain = torch.rand(count, 3, 1, 1) + 0.06 * torch.randn(count, 3, height, width)
    filling = torch.where(chance(count, 0.5)[:, None, None, None], plain, donors)
    return image * (1 - mask) + filling * mask


def without_person(image: Tensor, alpha: Tensor) -> Tensor:
    """Fill the person of [B,3,H,W] (alpha [B,1,H,W], grown) from its surroundings (sides 5 * 2^k)."""
    return fill_holes(image, 1 - functional.max_pool2d((alpha > 0.05).float(), 9, 1, 4))


def fill_holes(image: Tensor, known: Tensor) -> Tensor:
    """Fill [B,3,H,W] where `known` [B,1,H,W] is 0 from where it is 1, coarse to fine (sides 5 * 2^k)."""

    def pull(colour: Tensor, weight: Tensor) -> Tensor:
        if min(colour.shape[-2:]) <= 5:
            mean = colour.sum((2, 3), keepdim=True) / weight.sum((2, 3), keepdim=True).clamp_min(1e-3)
            return mean.expand_as(colour)
        coarse = pull(functional.avg_pool2d(colour, 2), functional.avg_pool2d(weight, 2))
        coarse = functional.interpolate(coarse, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        solid = weight.clamp(0, 1)
        return torch.where(solid > 0.999, colour, colour + (1 - solid) * coarse)

    return pull(image * known, known)


STYLES = (line_drawing, painting, stone)


def degrade(image: Tensor, styled: float = 0.14) -> Tensor:
    """All changes that move nothing: [B,3,H,W] in 0..1 -> the same shape."""
    count = len(image)
    image = light(image)
    choice = torch.rand(count)
    for index, style in enumerate(STYLES):
        rows = (choice >= index * styled / 3) & (choice < (index + 1) * styled / 3)
        if rows.any():
            image[rows] = style(image[rows].clamp(0, 1))
    image = colour(image.clamp(0, 1))
    order = torch.randperm(count)
    blurred, moved = order[: count // 6], order[count // 6 : count // 6 + count // 16]
    for part in blurred.chunk(3):
        if len(part):
            image[part] = resample_blur(image[part])
    if len(moved):
        image[moved] = motion_blur(image[moved])
    noise = uniform(count, 0, 0.09).square() * 8 * chance(count, 0.45)
    image = image + torch.randn_like(image[:, :1]) * noise[:, None, None, None] * 0.9
    image = image.clamp(0, 1)
    for row in torch.nonzero(chance(count, 0.15)).flatten().tolist():
        image[row] = jpeg(image[row], int(torch.randint(12, 70, (1,))))
    return image
