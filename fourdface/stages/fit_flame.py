"""fit-flame: tracked landmarks -> head parameters of every frame; tracked -> motion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..artifacts import Motion, Provenance, Tracked
from ..blocks.head_fitting import FitOptions, HeadTrack, tracking_world_to_camera
from ..blocks.head_model import HeadModel
from ..errors import FourdError
from ..perception.base import Face
from ..perception.tracking import CALIBRATION_FRAMES, HeadTracker, smoothed


@dataclass(frozen=True)
class FitFlameOptions:
    """focal: pixels, None to estimate; smoothing: deviation in frames of the fixed-lag filter, 0 for none; lag: its
    latency in frames; calibration_frames: how many frames the identity is estimated from."""

    focal: float | None = None
    smoothing: float = 0.6
    lag: int = 2
    calibration_frames: int = CALIBRATION_FRAMES


def fit_flame(
    tracked: Tracked, model: HeadModel, provenance: Provenance, options: FitFlameOptions | None = None
) -> Tracked:
    """Fit the head model to every frame with a face; frames without keep the previous parameters and their status."""
    options = options or FitFlameOptions()
    faces = faces_of(tracked)
    good = [face for face in faces if face is not None]
    if not good:
        raise FourdError("the tracked artifact holds no frame with a face; run `fourd preprocess` on other material")
    tracker = HeadTracker(model, (tracked.width, tracked.height), FitOptions(), options.focal)
    tracker.calibrate(calibration_choice(good, options.calibration_frames))
    rows: Iterable[np.ndarray | None] = (None if face is None else pack(tracker.step(face)) for face in faces)
    if options.smoothing > 0 and len(faces) > 1:
        rows = smoothed(rows, options.smoothing, options.lag)
    fields: dict[str, Any] = {**unpack(_held(list(rows)))}
    calibration = tracker.calibration
    if calibration is None:
        raise ValueError("calibrate() left no calibration")
    return replace(
        tracked, provenance=provenance, head_model=model.name, shape=calibration.shape.numpy().astype(np.float32),
        neck=np.zeros((len(faces), 3), np.float32), jaw=np.zeros((len(faces), 3), np.float32),
        intrinsics=intrinsics_of(calibration.focal, tracked.width, tracked.height),
        world_to_camera=tracking_world_to_camera().astype(np.float32), **fields,
    )  # fmt: skip


def calibration_choice(faces: Sequence[Face], count: int) -> list[Face]:
    """At most `count` of the faces, evenly spread over the clip."""
    index = np.unique(np.linspace(0, len(faces) - 1, min(count, len(faces))).astype(int))
    return [faces[k] for k in index]


def faces_of(tracked: Tracked) -> list[Face | None]:
    """The tracked faces as perception gave them (rotation left out), None where missing."""
    out: list[Face | None] = []
    for k in range(len(tracked.times)):
        if tracked.status[k] == 1:
            out.append(None)
            continue
        face = Face(
            box=tracked.boxes[k], score=1.0, presence=1.0, landmarks=tracked.landmarks[k],
            coefficients=tracked.coefficients[k], rotation=np.zeros(3, np.float32),
        )  # fmt: skip
        out.append(face)
    return out


def intrinsics_of(focal: float, width: int, height: int) -> np.ndarray:
    """Pinhole matrix [3,3] with the principal point in the middle of the picture."""
    return np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], np.float32)


def pack(track: HeadTrack) -> np.ndarray:
    """One frame (T = 1) as a flat vector [65]: expression 52, rotation 3, translation 3, eyes 6, residual 1."""
    parts = (track.expression[0], track.rotation[0], track.translation[0], track.eyes[0], track.residual[:1])
    return torch.cat(parts).numpy()


def unpack(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Inverse of `pack` for rows [T,65]: arrays by the field names of the tracked artifact."""
    rows = rows.astype(np.float32)
    return {
        "expression": rows[:, :52].copy(), "rotation": rows[:, 52:55].copy(), "translation": rows[:, 55:58].copy(),
        "eyes": rows[:, 58:64].copy(), "fit_residual": rows[:, 64].copy(),
    }  # fmt: skip


def _held(rows: list[np.ndarray | None]) -> np.ndarray:
    """Rows [T,65] with gaps filled by the previous frame (the next one at the start)."""
    first = next(row for row in rows if row is not None)
    out, last = [], first
    for row in rows:
        last = last if row is None else row
        out.append(last)
    return np.stack(out)


def to_motion(tracked: Tracked, provenance: Provenance, audio: bytes | None = None) -> Motion:
    """The motion of a fitted clip, without its pictures."""
    head = tracked.head()
    calm = head.expression[tracked.status != 1]
    effort = calm.sum(1)
    neutral = np.median(calm[effort <= np.quantile(effort, 0.3)], axis=0).astype(np.float32)
    return Motion(
        provenance=provenance, rate_numerator=tracked.rate_numerator, rate_denominator=tracked.rate_denominator,
        width=tracked.width, height=tracked.height, times=tracked.times, status=tracked.status,
        expression=head.expression, rotation=head.rotation, translation=head.translation, neck=head.neck,
        jaw=head.jaw, eyes=head.eyes, intrinsics=head.intrinsics, world_to_camera=head.world_to_camera,
        neutral_expression=neutral, head_model=head.head_model, audio=audio,
    )  # fmt: skip
