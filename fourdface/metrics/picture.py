"""A picture under evaluation, with what the judges read from it: computed once, shared by all metrics."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch


class Judges(Protocol):
    """What reads faces for metrics (`judges.JudgeSet`)."""

    def read(self, role: str, picture: Picture) -> Any:
        """The reading of one role (`box`, `landmarks`, `pose`, `identity`, `coefficients`, ...), None for no face."""


class _Memory:
    """Something that keeps what was computed for it."""

    _kept: dict[Hashable, Any]

    def once(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, computed at the first call with this key and kept."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


@dataclass(eq=False)
class Picture(_Memory):
    """One picture: `image_u8` uint8 [H,W,3] sRGB, with optional alpha [H,W] 0..1 and depth_z [H,W] metres."""

    image_u8: np.ndarray
    judges: Judges | None = None
    alpha: np.ndarray | None = None
    depth_z: np.ndarray | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def image(self) -> torch.Tensor:
        """[3,H,W] float32 in 0..1."""
        return torch.from_numpy(self.image_u8.astype(np.float32)).permute(2, 0, 1) / 255

    def read(self, role: str) -> Any:
        """What the judge of a role sees here, None where there is no face or no such judge; read once."""
        judges = self.judges
        return self.once(role, lambda: None if judges is None else judges.read(role, self))


@dataclass(frozen=True, eq=False)
class Sound:
    """A sequence's sound from its first frame on: mono samples [n] at 16 kHz in 16-bit units; and its frame rate."""

    samples: np.ndarray
    frame_rate: Fraction


@dataclass(frozen=True)
class Cost:
    """What making a result took: seconds a frame, and the largest resident memory of the process in MiB."""

    seconds: float | None = None
    memory: float | None = None


@dataclass(eq=False)
class Sample(_Memory):
    """One frame of one sequence: the picture to judge, the truth (if there is one) and the source photo."""

    sequence: str
    frame: int
    prediction: Picture
    reference: Picture | None = None
    source: Picture | None = None
    cost: Cost | None = None
    angle: float | None = None
    """Degrees between the views of source and reference, where they are known without looking."""
    system: str = ""
    sound: Sound | None = None
    _kept: dict[Hashable, Any] = field(default_factory=dict, repr=False)


def face_window(picture: Picture) -> tuple[slice, slice] | None:
    """Rows and columns of the face's box with a third of its height added on every side; None for no face."""
    return _window(picture, 1 / 3, 1 / 3, 1 / 3)


def head_window(picture: Picture) -> tuple[slice, slice] | None:
    """Rows and columns of the head: the face's box, 0.7 of its height above, 0.5 at the sides, 0.3 below."""
    return _window(picture, 0.7, 0.5, 0.3)


def _window(picture: Picture, above: float, beside: float, below: float) -> tuple[slice, slice] | None:
    box = picture.read("box")
    if box is None:
        return None
    height, width = picture.image_u8.shape[:2]
    left, top, right, bottom = (int(value) for value in box)
    up, side, down = (int((bottom - top) * part) for part in (above, beside, below))
    rows = slice(max(0, top - up), min(height, bottom + down))
    columns = slice(max(0, left - side), min(width, right + side))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return None
    return rows, columns
