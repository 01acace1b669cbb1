"""`views`: pictures of many people, motions and cameras with everything known about them (synth-data), in shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from fourdface.artifacts import _checks
from fourdface.artifacts._schema import array, blobs, integer, mapping, text
from fourdface.artifacts.base import Artifact
from fourdface.artifacts.rows import StoredRows

_RADIANS = "axis-angle radians"


@dataclasses.dataclass(frozen=True, eq=False)
class Views(Artifact):
    """N pictures; the rows are grouped: for identity, for motion, for view.

    Rows of one `identity` show one person, rows of one `identity` and `motion` one moment of that person from several
    cameras. The head stands upright in the world, turned and moved by `rotation` and `translation` (both zero in what
    synth-data renders: there the camera carries the head's pose). Pictures that nothing more is known about than what
    tracking says have no `depths` and one view each.
    """

    KIND: ClassVar[str] = "views"
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "`fourd synth-data`"

    width: int = integer("width of the pictures in pixels", check=_checks.positive)
    height: int = integer("height of the pictures in pixels", check=_checks.positive)
    head_model: str = text("id of the head model that the head parameters refer to")
    images: Sequence[bytes] = blobs("N", "the person over the background: PNG or JPEG of quality 95")
    backgrounds: Sequence[bytes] = blobs("B", "what is behind the person: PNG or JPEG of the pictures' size")
    background_index: np.ndarray = array("i8", "N", "which of the backgrounds, -1 for none that is known")
    index: np.ndarray = array("i8", "N", "number of the row in the whole set, over all shards")
    identity: np.ndarray = array("i8", "N", "number of the person in the whole set")
    motion: np.ndarray = array("i8", "N", "number of the motion of this person")
    view: np.ndarray = array("i8", "N", "number of the camera of this motion")
    identity_name: Sequence[bytes] = blobs(
        "I", "where each distinct person came from, as UTF-8, in ascending order of `identity`"
    )
    shape: np.ndarray = array("f4", "N,S", "identity coefficients")
    expression: np.ndarray = array("f4", "N,52", "expression in the order of ARKIT_NAMES", units="0..1")
    rotation: np.ndarray = array("f4", "N,3", "head rotation", units=_RADIANS, frame="world")
    translation: np.ndarray = array("f4", "N,3", "head translation", units="metres", frame="world")
    neck: np.ndarray = array("f4", "N,3", "neck rotation", units=_RADIANS, frame="head")
    jaw: np.ndarray = array("f4", "N,3", "jaw rotation", units=_RADIANS, frame="head")
    eyes: np.ndarray = array(
        "f4", "N,6", "rotation of the subject's left, then right eye", units=_RADIANS, frame="head"
    )
    coefficients: np.ndarray = array("f4", "N,52", "ARKit coefficients of the face that is seen", units="0..1")
    intrinsics: np.ndarray = array("f4", "N,3,3", "camera matrix", units="pixels", frame="camera")
    world_to_camera: np.ndarray = array(
        "f4", "N,4,4", "rigid transform, OpenCV axes", units="metres", frame="world to camera"
    )
    opacities: Sequence[bytes] | None = blobs("N", "opacity of the person as a grey PNG", optional=True)
    depths: np.ndarray | StoredRows | None = array(
        "f2", "N,H,W", "depth of the person along the camera's z axis, 0 where there is nothing; may be smaller than "
        "the picture", units="metres", optional=True, by_row=True,
    )  # fmt: skip
    latents: np.ndarray | None = array(
        "f4", "I,D", "what the generator that provenance names made each person of, in ascending order of `identity`",
        optional=True,
    )  # fmt: skip
    embeddings: Mapping[str, np.ndarray] = mapping("N,*", "motion embeddings of single methods, by name", dtype="f4")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.index)

    @property
    def names(self) -> dict[int, str]:
        """Number of each person -> where that person came from."""
        numbers = np.unique(self.identity).tolist()
        return {k: name.decode("utf-8", "replace") for k, name in zip(numbers, self.identity_name, strict=True)}

    def latent(self, row: int) -> np.ndarray | None:
        """Latent [D] of the person of a row, where `latents` are kept."""
        if self.latents is None:
            return None
        return np.asarray(self.latents[np.searchsorted(np.unique(self.identity), self.identity[row])])

    def contradictions(self) -> list[str]:
        """Numbers that point nowhere, and rows that are out of order."""
        found = []
        if ((self.background_index < -1) | (self.background_index >= len(self.backgrounds))).any():
            found.append(f"background_index points outside of the {len(self.backgrounds)} backgrounds")
        people = len(np.unique(self.identity))
        if people != len(self.identity_name):
            found.append(f"identity_name has {len(self.identity_name)} names for {people} people")
        if (np.diff(self.index) <= 0).any():
            found.append("index does not ascend")
        order = np.stack([self.identity, self.motion, self.view])
        if len(order.T) and (np.lexsort(order[::-1]) != np.arange(len(order.T))).any():
            found.append("the rows are not grouped by identity, motion and view in ascending order")
        return found
