"""A handful of made-up training pictures over the open head, for tests of the recipe."""

from __future__ import annotations

import math

import numpy as np
import torch

from fourdface.priors.genhead.camera import look_at_label
from fourdface.priors.genhead.training_data import PictureRow

SHAPES, EXPRESSIONS = 70, 52


class MadePictures:
    """N rows of `size` pixels: a coloured disc, cameras around the head, small random poses. A `PictureSource`."""

    def __init__(self, count: int = 6, size: int = 64) -> None:
        self.size = size
        yaw = torch.linspace(-math.radians(50), math.radians(50), count)[:, None]
        zero = torch.zeros_like(yaw)
        pivot = torch.tensor([[0.0, 0.2, 0.0]]).expand(count, -1)
        self.labels = look_at_label(yaw, zero + 0.05, zero, pivot, zero + 4.5).numpy()

    def __len__(self) -> int:
        return len(self.labels)

    def row(self, index: int) -> PictureRow:
        """Row `index`, always the same."""
        rng = np.random.default_rng(index)
        y, x = np.mgrid[: self.size, : self.size] / self.size - 0.5
        disc = (x**2 + y**2 < 0.15).astype(np.uint8)
        image = np.where(disc[..., None] > 0, rng.integers(100, 255, 3), rng.integers(0, 100, 3)).astype(np.uint8)
        numbers = (rng.normal(size=n).astype(np.float32) * 0.1 for n in (SHAPES, 3, 6))
        shape, jaw, eyes = numbers
        expression = rng.random(EXPRESSIONS).astype(np.float32) * 0.3
        return PictureRow(image, 255 * disc, self.labels[index], shape, expression, jaw, eyes)
