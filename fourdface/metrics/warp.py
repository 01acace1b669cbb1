"""Crops as the judges' networks were trained with: bilinear, pixel centres at whole numbers, black outside."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

ARCFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose tip and mouth corners in the 112-pixel crop of the ArcFace family (x, y)."""


def box_to_crop(box: np.ndarray, scale: float, size: int) -> np.ndarray:
    """Matrix [2,3] from picture to a `size` crop of the square around `box` (x0 y0 x1 y1), `scale` times as large."""
    centre = (box[:2] + box[2:]) / 2
    half = max(float((box[2:] - box[:2]).max()) * scale / 2, 1e-3)
    factor = size / (2 * half)
    return np.array([[factor, 0, -(centre[0] - half) * factor], [0, factor, -(centre[1] - half) * factor]])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Matrix [2,3] of the rotation, scale and shift that take points [N,2] nearest to others (Umeyama, 1991)."""
    mean_source, mean_target = source.mean(0), target.mean(0)
    a, b = source - mean_source, target - mean_target
    u, singular, vt = np.linalg.svd(b.T @ a / len(a))
    sign = np.array([1.0, np.sign(np.linalg.det(u @ vt))])
    rotation = u @ np.diag(sign) @ vt
    spread = (a**2).sum() / len(a)
    scale = (singular * sign).sum() / spread if spread > 0 else 1.0
    return np.hstack([scale * rotation, (mean_target - scale * rotation @ mean_source)[:, None]])


def warp(image_u8: np.ndarray, to_crop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Crop float32 [h,w,3] in 0..255 of uint8 [H,W,3]; `to_crop` [2,3] maps picture to crop, `size` is (h, w)."""
    height, width = image_u8.shape[:2]
    full = np.vstack([to_crop, [0, 0, 1]])
    back = torch.from_numpy(np.linalg.inv(full)[:2])
    rows, columns = torch.meshgrid(
        torch.arange(size[0], dtype=torch.float64), torch.arange(size[1], dtype=torch.float64), indexing="ij"
    )
    points = torch.stack([columns, rows, torch.ones_like(rows)], -1) @ back.T
    extent = torch.tensor([width, height], dtype=torch.float64)
    grid = ((2 * points + 1) / extent - 1).float()
    image = torch.from_numpy(image_u8.astype(np.float32)).permute(2, 0, 1)[None]
    crop = functional.grid_sample(image, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return crop[0].permute(1, 2, 0).numpy()


def stretched(image_u8: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 [H,W,3] -> float32 [h,w,3] in 0..255, bilinear without filtering, half-pixel centres."""
    image = torch.from_numpy(image_u8.astype(np.float32)).permute(2, 0, 1)[None]
    out = functional.interpolate(image, size=size, mode="bilinear", align_corners=False)
    return out[0].permute(1, 2, 0).numpy()
