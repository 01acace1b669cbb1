"""The random cameras of Portrait4D's synthetic data (section 3.2; ranges as in the released code)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .camera import WORLD_SCALE, look_at_label

__all__ = ["PITCH", "PITCH_MIDDLE", "RADIUS", "ROLL", "YAW", "labels_in_ranges", "random_labels"]

YAW, PITCH, PITCH_MIDDLE, ROLL = 0.78, 0.45, 0.2, 0.25
"""Radians to both sides of zero (of PITCH_MIDDLE for the pitch, which is up)."""
RADIUS = (3.65, 4.45)
"""Distance of the camera in units of the label's world, a third of a metre each."""
PIVOT, PIVOT_JITTER = (0.0, 0.0, 0.03), 0.01
"""Metres: what the camera looks at, and how far that is moved along each axis."""


def random_labels(rng: np.random.Generator, count: int) -> Tensor:
    """Labels [count, 25] (float64) of cameras drawn evenly from the ranges above."""
    return labels_in_ranges(torch.from_numpy(rng.random((count, 7))))


def labels_in_ranges(uniform: Tensor) -> Tensor:
    """Labels [B, 25] of the cameras at places [B, 7] in 0..1 of the ranges: yaw, pitch, roll, pivot 3, radius."""
    spread = 2 * uniform - 1
    yaw, pitch, roll = YAW * spread[:, :1], PITCH_MIDDLE + PITCH * spread[:, 1:2], ROLL * spread[:, 2:3]
    pivot = WORLD_SCALE * (spread.new_tensor(PIVOT) + PIVOT_JITTER * spread[:, 3:6])
    return look_at_label(yaw, pitch, roll, pivot, RADIUS[0] + (RADIUS[1] - RADIUS[0]) * uniform[:, 6:7])
