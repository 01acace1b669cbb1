"""Bilinear crops out of large uint8 pictures: only the region that is needed is ever converted to float."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from fourdface.perception.geometry import CropFrame


def sample_crop(image_u8: npt.NDArray[np.uint8], frame: CropFrame, size: int) -> Tensor:
    """The square `frame` of `image_u8` [H,W,3] as float32 [1,3,size,size] in 0..1; its edge is repeated beyond.

    Where the crop shrinks the picture the region is averaged by a whole factor first, so that it does not alias.
    """
    height, width = image_u8.shape[:2]
    reach = frame.half * (abs(np.cos(frame.angle)) + abs(np.sin(frame.angle))) + 2
    x0, x1 = _span(frame.center[0], reach, width)
    y0, y1 = _span(frame.center[1], reach, height)
    region = _planes(image_u8[y0:y1, x0:x1])
    factor = max(1, min(int(frame.half * 2 / size + 0.25), (x1 - x0), (y1 - y0)))
    if factor > 1:
        region = functional.avg_pool2d(region, factor, ceil_mode=True, count_include_pad=False)
    covered = np.array([region.shape[3], region.shape[2]], dtype=np.float32) * (factor / 2)
    axes = frame.axes() / covered[:, None]
    offset = (frame.center - np.array([x0, y0], dtype=np.float32)) / covered - 1
    affine = torch.from_numpy(np.concatenate([axes, offset[:, None]], axis=1)[None].astype(np.float32))
    grid = functional.affine_grid(affine, [1, 3, size, size], align_corners=False)
    return functional.grid_sample(region, grid, padding_mode="border", align_corners=False) / 255


def _span(center: float, reach: float, limit: int) -> tuple[int, int]:
    """First and last pixel (exclusive) of center-reach..center+reach inside 0..limit; never empty."""
    first = int(np.clip(np.floor(center - reach), 0, limit - 1))
    return first, int(np.clip(np.ceil(center + reach), first + 1, limit))


def _planes(pixels_u8: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 [H,W,3] (a view, perhaps read-only) -> float32 [1,3,H,W] in 0..255."""
    return torch.from_numpy(np.array(pixels_u8, order="C")).permute(2, 0, 1)[None].float()


def letterbox(image_u8: npt.NDArray[np.uint8], size: int) -> tuple[Tensor, float]:
    """The whole picture [H,W,3] inside [1,3,size,size] in 0..1, top left, rest grey; and its pixels per pixel."""
    height, width = image_u8.shape[:2]
    scale = max(height, width) / size
    step = max(1, int(scale / 2))  # every step-th pixel is enough: the rest of the reduction is averaged
    small = _planes(image_u8[::step, ::step]) / 255
    inside = (max(1, round(height / scale)), max(1, round(width / scale)))
    resized = functional.interpolate(small, size=inside, mode="bilinear", antialias=True, align_corners=False)
    out = torch.full((1, 3, size, size), 0.5)
    out[:, :, : inside[0], : inside[1]] = resized
    return out, scale
