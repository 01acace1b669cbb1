"""The random cameras of Portrait4D's synthetic data (section 3.2; ranges as in the released code)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .camera import WORLD_SCALE, look_at_label

__all__ = ["PITCH", "PITCH_MIDDLE", "RADIUS", "ROLL", "YAW", "random_labels"]

YAW, PITCH, PITCH_MIDDLE, ROLL = 0.78, 0.45, 0.2, 0.25
"""Radians to both sides of zero (of PITCH_MIDDLE for the pitch, which is up)."""
RADIUS = (3.65, 4.45)
"""Distance of the camera in units of the label's world, a third of a metre each."""
PIVOT, PIVOT_JITTER = (0.0, 0.0, 0.03), 0.01
"""Metres: what the camera looks at, and how far that is moved along each axis."""


def random_labels(rng: np.random.Generator, count: int) -> Tensor:
    """Labels [count, 25] (float64) of cameras drawn evenly from the ranges above."""

    def even(low: float, high: float, columns: int = 1) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (count, columns)))

    yaw, pitch, roll = even(-YAW, YAW), PITCH_MIDDLE + even(-PITCH, PITCH), even(-ROLL, ROLL)
    pivot = WORLD_SCALE * (torch.tensor(PIVOT, dtype=torch.float64) + even(-PIVOT_JITTER, PIVOT_JITTER, 3))
    return look_at_label(yaw, pitch, roll, pivot, even(*RADIUS))
