"""`report`: what an evaluation measured, frame by frame, with everything needed to repeat and to merge it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from fourdface.artifacts._schema import array, blobs, mapping, text
from fourdface.artifacts.base import Artifact


@dataclasses.dataclass(frozen=True, eq=False)
class Report(Artifact):
    """F rows (one judged frame of one system each), M metrics; names stand in `manifest_json`.

    The manifest holds `protocol`, `settings`, `metrics` (name, unit, direction, formula, network, ...), `systems`,
    `sequences` (name and hashes of inputs), `left_out` (metric -> reason) and `captions` of the pictures.
    """

    KIND: ClassVar[str] = "report"
    SCHEMA_VERSION: ClassVar[int] = 1
    MADE_BY: ClassVar[str] = "`fourd eval`"

    manifest_json: str = text("settings, metrics, systems, sequences and hashes as JSON")
    row_system: np.ndarray = array("i4", "F", "index of the system (method or baseline) of each row")
    row_sequence: np.ndarray = array("i4", "F", "index of the sequence of each row")
    row_frame: np.ndarray = array("i8", "F", "index of the frame in its sequence")
    values: np.ndarray = array("f8", "F,M", "value of each metric, 0 where it was not measured", units="see manifest")
    measured: np.ndarray = array("u1", "F,M", "1 where a value was measured")
    picture_blobs: Sequence[bytes] = blobs("P", "PNG of a worst frame: source, truth and result side by side")
    states: Mapping[str, np.ndarray] = mapping("...", "sums of metrics over whole sets, SYSTEM.METRIC.KEY")
    row_angle: np.ndarray | None = array(
        "f8", "F", "angle between the views of photo and truth, -1 where unknown", units="degrees", optional=True
    )
