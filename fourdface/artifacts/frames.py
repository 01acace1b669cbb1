"""`frames`: rendered pictures without loss, with depth and cameras."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from fourdface.artifacts import _checks
from fourdface.artifacts._schema import array, blobs, integer
from fourdface.artifacts.base import Artifact


@dataclasses.dataclass(frozen=True, eq=False)
class Frames(Artifact):
    """T rendered frames; append to a `Blobs` while rendering, so that a long clip needs no memory."""

    KIND: ClassVar[str] = "frames"
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "`fourd render` or `fourd reenact`"

    rate_numerator: int = integer("frame rate in frames per second, as a fraction", check=_checks.positive)
    rate_denominator: int = integer("denominator of the frame rate", check=_checks.positive)
    times: np.ndarray = array("f8", "T", "presentation time of each frame", units="seconds", check=_checks.ascending)
    frame_blobs: Sequence[bytes] = blobs("T", "one PNG a frame, RGB or RGBA (straight alpha)")
    intrinsics: np.ndarray = array("f4", "T,3,3", "camera matrix", units="pixels", frame="camera")
    world_to_camera: np.ndarray = array(
        "f4", "T,4,4", "rigid transform, OpenCV axes", units="metres", frame="world to camera"
    )
    depth: np.ndarray | None = array(
        "f2", "T,H,W", "depth along the camera's z axis, 0 where there is nothing", units="metres", optional=True
    )

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.rate_numerator, self.rate_denominator)
