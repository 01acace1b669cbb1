"""`motion`: how a driver moves, free of who the driver is, with the driver's sound."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

import numpy as np

from fourdface.artifacts import _checks
from fourdface.artifacts._schema import array, blob, integer, mapping, text
from fourdface.artifacts.base import Artifact


@dataclasses.dataclass(frozen=True, eq=False)
class Motion(Artifact):
    """T time steps of expression and pose; `status` as in `Tracked`."""

    KIND: ClassVar[str] = "motion"
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "`fourd fit-flame --motion`"

    rate_numerator: int = integer("frame rate in frames per second, as a fraction", check=_checks.positive)
    rate_denominator: int = integer("denominator of the frame rate", check=_checks.positive)
    width: int = integer("width of the driver's frames in pixels", check=_checks.positive)
    height: int = integer("height of the driver's frames in pixels", check=_checks.positive)
    times: np.ndarray = array("f8", "T", "presentation time of each frame", units="seconds", check=_checks.ascending)
    status: np.ndarray = array("u1", "T", "0 ok, 1 missing, 2 multiple, 3 low confidence", check=_checks.status)
    expression: np.ndarray = array("f4", "T,52", "expression in the order of ARKIT_NAMES", units="0..1")
    rotation: np.ndarray = array("f4", "T,3", "head rotation", units="axis-angle radians", frame="world")
    translation: np.ndarray = array("f4", "T,3", "head translation", units="metres", frame="world")
    neck: np.ndarray = array("f4", "T,3", "neck rotation", units="axis-angle radians", frame="head")
    jaw: np.ndarray = array("f4", "T,3", "jaw rotation", units="axis-angle radians", frame="head")
    eyes: np.ndarray = array(
        "f4", "T,6", "rotation of the subject's left, then right eye", units="axis-angle radians", frame="head"
    )
    intrinsics: np.ndarray = array("f4", "3,3", "camera matrix of the driver", units="pixels", frame="camera")
    world_to_camera: np.ndarray = array(
        "f4", "4,4", "rigid transform, OpenCV axes", units="metres", frame="world to camera"
    )
    neutral_expression: np.ndarray = array("f4", "52", "the driver's expression at rest", units="0..1")
    head_model: str = text("id of the head model that the pose refers to")
    audio: bytes | None = blob("the driver's sound as a complete audio-only Matroska or MP4 file", optional=True)
    embeddings: Mapping[str, np.ndarray] = mapping("T,*", "motion embeddings of single methods, by name", dtype="f4")

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.rate_numerator, self.rate_denominator)
