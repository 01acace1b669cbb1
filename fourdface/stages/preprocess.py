"""preprocess: photo, video or folder of images -> tracked faces, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..artifacts import Provenance, Tracked
from ..errors import FourdError
from ..media.image import encode_png
from ..perception.base import Face, Perception
from ..perception.tracking import FaceTracker, FrameStatus


@dataclass(frozen=True)
class PreprocessOptions:
    """face: "largest" or an index from the left; mattes: keep a person matte of every frame; keep_frames: store the
    frames themselves (always for a photo); refind: forget the face between frames (a folder of separate photos)."""

    face: str | int = "largest"
    mattes: bool = False
    keep_frames: bool = False


@dataclass(frozen=True)
class Source:
    """What is read: frames as (image_u8 [H,W,3], time in seconds), their size, rate, name and hash of the file,
    whether it is a still picture, and whether the times (and not the rate) say when a frame is shown."""

    frames: Iterable[tuple[np.ndarray, float]]
    width: int
    height: int
    rate: Fraction
    name: str
    sha256: str
    still: bool = False
    variable_rate: bool = False


def preprocess(
    source: Source, perception: Perception, provenance: Provenance, options: PreprocessOptions | None = None
) -> Tracked:
    """Find and follow one face through the frames of `source`; frames without it are recorded as missing.

    Raises FourdError when no frame shows a face.
    """
    options = options or PreprocessOptions()
    tracker = FaceTracker(perception, options.face)
    rows = _Rows()
    for image_u8, time in source.frames:
        face, status = tracker.step(image_u8)
        matte = perception.matte(image_u8, face.landmarks) if options.mattes and face is not None else None
        rows.add(time, face, status, image_u8 if options.keep_frames else None, matte)
    if not rows.times:
        raise FourdError(f"{source.name}: holds no frames; give a photo or a video with at least one")
    if all(status in (FrameStatus.MISSING,) for status in rows.status):
        raise FourdError(no_face_message(source.name, len(rows.times), tracker, options.face))
    return rows.tracked(source, provenance, options)


def no_face_message(name: str, frames: int, tracker: FaceTracker, face: str | int) -> str:
    """One sentence on why nothing was found, with the next step."""
    where = "in the picture" if frames == 1 else f"in any of {frames} frames"
    if isinstance(face, int) and tracker.face_count:
        return (
            f"{name}: --face {face} asked for, but only {tracker.face_count} found; "
            f"indices count from 0 at the left, so use --face 0..{tracker.face_count - 1}"
        )
    return f"{name}: no face found {where}; use one that shows a face at least 32 pixels wide, or crop closer to it"


class _Rows:
    """Per-frame results, gathered until the artifact is made."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.status: list[int] = []
        self.faces: list[Face | None] = []
        self.frames: list[bytes] = []
        self.mattes: list[bytes] = []

    def add(
        self, time: float, face: Face | None, status: FrameStatus, image_u8: np.ndarray | None, matte: np.ndarray | None
    ) -> None:
        self.times.append(time)
        self.status.append(int(status))
        self.faces.append(face)
        self.frames.append(b"" if image_u8 is None else encode_png(image_u8))
        self.mattes.append(b"" if matte is None else encode_png(np.round(matte * 255).astype(np.uint8)))

    def tracked(self, source: Source, provenance: Provenance, options: PreprocessOptions) -> Tracked:
        count = len(self.times)
        landmarks = np.zeros((count, 478, 2), np.float32)
        coefficients = np.zeros((count, 52), np.float32)
        boxes = np.zeros((count, 4), np.float32)
        crops = np.zeros((count, 2, 3), np.float32)
        for k, face in enumerate(self.faces):
            if face is not None:
                landmarks[k], coefficients[k], boxes[k] = face.landmarks, face.coefficients, face.box
                crops[k] = crop_transform(face.landmarks)
        return Tracked(
            provenance=provenance,
            rate_numerator=source.rate.numerator, rate_denominator=source.rate.denominator,
            width=source.width, height=source.height,
            times=np.asarray(self.times, np.float64), status=np.asarray(self.status, np.uint8),
            frame_blobs=self.frames if options.keep_frames else None,
            matte_blobs=self.mattes if options.mattes else None,
            source_path="" if options.keep_frames else source.name, source_sha256=source.sha256,
            boxes=boxes, crop_transforms=crops, landmarks=landmarks, coefficients=coefficients,
        )  # fmt: skip


def crop_transform(landmarks: np.ndarray, margin: float = 1.25) -> np.ndarray:
    """Similarity [2,3] from picture pixels to the unit square of an upright, square crop around the landmarks."""
    right, left = landmarks[33], landmarks[263]
    angle = float(np.arctan2(left[1] - right[1], left[0] - right[0]))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    upright = landmarks @ turn.T
    low, high = upright.min(0), upright.max(0)
    side = margin * float((high - low).max())
    corner = (low + high) / 2 - side / 2
    return np.concatenate([turn / side, -corner[:, None] / side], 1).astype(np.float32)
