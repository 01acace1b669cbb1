"""`tracked`: a photo or clip with what was found in every frame (preprocess), and the fitted head (fit-flame)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from typing import ClassVar

import numpy as np

from fourdface.artifacts import _checks
from fourdface.artifacts._schema import array, blobs, integer, text
from fourdface.artifacts.base import Artifact
from fourdface.errors import UsageError

STATUS_OK, STATUS_MISSING, STATUS_MULTIPLE, STATUS_LOW = range(4)
STATUS_NAMES = ("ok", "missing", "multiple", "low")
"""Meaning of `status`: a face, none, several (one was picked), one of low confidence."""

_RADIANS = "axis-angle radians"


@dataclasses.dataclass(frozen=True, eq=False)
class HeadTrack:
    """The head that was fitted to T frames; shapes and units as the fields of the same names in `Tracked`."""

    head_model: str
    shape: np.ndarray
    expression: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    neck: np.ndarray
    jaw: np.ndarray
    eyes: np.ndarray
    intrinsics: np.ndarray
    world_to_camera: np.ndarray
    fit_residual: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Tracked(Artifact):
    """T frames of one person. Rows of frames without a face hold zeros; only `status` says that a face is missing.

    The frames themselves are either in `frame_blobs` or in the file that `source_path` names. That path is a note for
    people: no command opens it unless the user passes it.
    """

    KIND: ClassVar[str] = "tracked"
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "`fourd preprocess PHOTO_OR_VIDEO`"

    rate_numerator: int = integer("frame rate in frames per second, as a fraction", check=_checks.positive)
    rate_denominator: int = integer("denominator of the frame rate", check=_checks.positive)
    width: int = integer("width of the frames in pixels", check=_checks.positive)
    height: int = integer("height of the frames in pixels", check=_checks.positive)
    times: np.ndarray = array("f8", "T", "presentation time of each frame", units="seconds", check=_checks.ascending)
    status: np.ndarray = array(
        "u1", "T", "0 ok, 1 missing (no face), 2 multiple (one was picked), 3 low confidence", check=_checks.status
    )
    boxes: np.ndarray = array("f4", "T,4", "face box: x0, y0, x1, y1", units="pixels", frame="image")
    crop_transforms: np.ndarray = array(
        "f4", "T,2,3", "affine map from image to face crop coordinates", units="pixels", frame="image to crop"
    )
    landmarks: np.ndarray = array(
        "f4", "T,478,2", "dense landmarks (x, y) in MediaPipe's topology", units="pixels", frame="image"
    )
    coefficients: np.ndarray = array("f4", "T,52", "ARKit coefficients in the order of ARKIT_NAMES", units="0..1")
    frame_blobs: Sequence[bytes] | None = blobs(
        "T", "one encoded picture a frame (PNG or JPEG); empty where it was dropped", optional=True
    )
    source_path: str = text("where the frames came from, when they are not held here", optional=True)
    source_sha256: str = text("SHA-256 of that file", optional=True)
    matte_blobs: Sequence[bytes] | None = blobs(
        "T", "person alpha of each frame as a grey PNG; empty where there is none", optional=True
    )
    head_model: str = text("id of the head model that was fitted", group="head")
    shape: np.ndarray | None = array("f4", "S", "identity coefficients, shared by all frames", group="head")
    expression: np.ndarray | None = array("f4", "T,52", "expression in the order of ARKIT_NAMES", group="head")
    rotation: np.ndarray | None = array("f4", "T,3", "head rotation", units=_RADIANS, frame="world", group="head")
    translation: np.ndarray | None = array("f4", "T,3", "head translation", units="metres", frame="world", group="head")
    neck: np.ndarray | None = array("f4", "T,3", "neck rotation", units=_RADIANS, frame="head", group="head")
    jaw: np.ndarray | None = array("f4", "T,3", "jaw rotation", units=_RADIANS, frame="head", group="head")
    eyes: np.ndarray | None = array(
        "f4", "T,6", "rotation of the subject's left, then right eye", units=_RADIANS, frame="head", group="head"
    )
    intrinsics: np.ndarray | None = array("f4", "3,3", "camera matrix", units="pixels", frame="camera", group="head")
    world_to_camera: np.ndarray | None = array(
        "f4", "4,4", "rigid transform, OpenCV axes", units="metres", frame="world to camera", group="head"
    )
    fit_residual: np.ndarray | None = array(
        "f4", "T", "root mean square distance of the landmarks", units="face sizes", group="head"
    )

    @property
    def rate(self) -> Fraction:
        """Frames per second."""
        return Fraction(self.rate_numerator, self.rate_denominator)

    @property
    def has_head(self) -> bool:
        """Whether a head model was fitted (`fourd fit-flame`)."""
        return self.shape is not None

    def head(self) -> HeadTrack:
        """The fitted head, all of it; raises UsageError where there is none."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(HeadTrack)}
        if any(value is None for value in values.values()):
            raise UsageError("the tracked artifact holds no fitted head; run `fourd fit-flame` on it first")
        return HeadTrack(**values)
