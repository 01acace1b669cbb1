"""A picture under evaluation, with what the judges read from it: computed once, shared by all metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch


class Judges(Protocol):
    """What reads faces for metrics (`judges.JudgeSet`)."""

    def read(self, role: str, picture: Picture) -> Any:
        """The reading of one role (`box`, `landmarks`, `pose`, `identity`, `coefficients`, ...), None for no face."""


@dataclass(eq=False)
class Picture:
    """One picture: `image_u8` uint8 [H,W,3] sRGB, with optional alpha [H,W] 0..1 and depth_z [H,W] metres."""

    image_u8: np.ndarray
    judges: Judges | None = None
    alpha: np.ndarray | None = None
    depth_z: np.ndarray | None = None
    _readings: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def image(self) -> torch.Tensor:
        """[3,H,W] float32 in 0..1."""
        return torch.from_numpy(self.image_u8.astype(np.float32)).permute(2, 0, 1) / 255

    def read(self, role: str) -> Any:
        """What the judge of a role sees here, None where there is no face or no such judge; read once."""
        if role not in self._readings:
            self._readings[role] = None if self.judges is None else self.judges.read(role, self)
        return self._readings[role]


@dataclass(eq=False)
class Sample:
    """One frame of one sequence: the picture to judge, the truth (if there is one) and the source photo."""

    sequence: str
    frame: int
    prediction: Picture
    reference: Picture | None = None
    source: Picture | None = None
    seconds: float | None = None
    """Time that it took to make the prediction."""


def face_window(picture: Picture) -> tuple[slice, slice] | None:
    """Rows and columns of the face's box with a third of its height added on every side; None for no face."""
    box = picture.read("box")
    if box is None:
        return None
    height, width = picture.image_u8.shape[:2]
    left, top, right, bottom = (int(value) for value in box)
    margin = (bottom - top) // 3
    rows = slice(max(0, top - margin), min(height, bottom + margin))
    columns = slice(max(0, left - margin), min(width, right + margin))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return None
    return rows, columns
