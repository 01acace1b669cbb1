"""The data contract: what commands hand to each other, each kind one frozen dataclass (docs/artifacts.md)."""

from __future__ import annotations

import os
from pathlib import Path

from fourdface.artifacts import _store
from fourdface.artifacts.avatar import Avatar
from fourdface.artifacts.base import Artifact
from fourdface.artifacts.blobs import Blobs
from fourdface.artifacts.frames import Frames
from fourdface.artifacts.motion import Motion
from fourdface.artifacts.provenance import Provenance, Source, Weights
from fourdface.artifacts.report import Report
from fourdface.artifacts.tracked import HeadTrack, Tracked
from fourdface.artifacts.views import Views

KINDS: dict[str, type[Artifact]] = {cls.KIND: cls for cls in (Tracked, Motion, Avatar, Frames, Report, Views)}
"""Kind -> class, for readers that take any artifact."""


def read_any(path: str | os.PathLike[str], *, name: str = "") -> Artifact:
    """Read an artifact of whatever kind is there; errors as in `Artifact.read`."""
    place = Path(path)
    with _store.open_file(place, name or str(place)) as (_, header):
        kind = header.kind
    return KINDS[kind].read(place, name=name)


__all__ = [
    "KINDS",
    "Artifact",
    "Avatar",
    "Blobs",
    "Frames",
    "HeadTrack",
    "Motion",
    "Provenance",
    "Report",
    "Source",
    "Tracked",
    "Views",
    "Weights",
    "read_any",
]
