"""`avatar`: one person's head, ready to be moved, with the camera and background of the photo it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from fourdface.artifacts import _checks
from fourdface.artifacts._schema import array, blob, integer, mapping, note, text
from fourdface.artifacts.base import Artifact

REPRESENTATIONS = ("gaussians", "triplane", "portrait4d", "views", "mesh")


@dataclasses.dataclass(frozen=True, eq=False)
class Avatar(Artifact):
    """An animatable head. `tensors` belong to the representation; everything else is common to all of them."""

    KIND: ClassVar[str] = "avatar"
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "`fourd lift PHOTO`"

    representation: str = text(
        f"how the head is held: {', '.join(REPRESENTATIONS)}", check=_checks.one_of(REPRESENTATIONS)
    )
    head_model: str = text("id of the head model")
    width: int = integer("width of the photo (or its crop) in pixels", check=_checks.positive)
    height: int = integer("height of the photo (or its crop) in pixels", check=_checks.positive)
    shape: np.ndarray = array("f4", "S", "identity coefficients of the head model")
    expression: np.ndarray = array("f4", "52", "expression in the photo, order of ARKIT_NAMES", units="0..1")
    rotation: np.ndarray = array("f4", "3", "head rotation in the photo", units="axis-angle radians", frame="world")
    translation: np.ndarray = array("f4", "3", "head translation in the photo", units="metres", frame="world")
    neck: np.ndarray = array("f4", "3", "neck rotation in the photo", units="axis-angle radians", frame="head")
    jaw: np.ndarray = array("f4", "3", "jaw rotation in the photo", units="axis-angle radians", frame="head")
    eyes: np.ndarray = array(
        "f4", "6", "rotation of the subject's left, then right eye", units="axis-angle radians", frame="head"
    )
    intrinsics: np.ndarray = array("f4", "3,3", "camera matrix of the photo", units="pixels", frame="camera")
    world_to_camera: np.ndarray = array(
        "f4", "4,4", "rigid transform, OpenCV axes", units="metres", frame="world to camera"
    )
    coefficients: np.ndarray = array("f4", "52", "ARKit coefficients that perception saw in the photo", units="0..1")
    background_blob: bytes | None = blob("the inpainted background as a PNG", optional=True)
    source_blob: bytes | None = blob("the photo (or its crop) as a PNG", optional=True)
    tensors: Mapping[str, np.ndarray] = mapping(
        "...", "the representation's arrays, by name", notes=("tensor_axes", "tensor_units")
    )
    tensor_axes: Mapping[str, str] = note("axes of a tensor, by its name, as in `N,3`")
    tensor_units: Mapping[str, str] = note("units of a tensor, by its name")
