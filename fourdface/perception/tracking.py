"""Follow one face through a clip, and the head model with it: constant memory, one frame at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch

from ..blocks.head_fitting import FitOptions, HeadFitter, HeadTrack
from ..blocks.head_model import HeadModel
from .base import Face, Perception
from .glimpse import Glimpse
from .iris import refine_irises
from .photometric import HeadAligner

CALIBRATION_FRAMES = 24
"""Frames from which a clip's identity and focal length are estimated."""
LOW_PRESENCE = 0.5
DETECT_EVERY = 25
"""Frames between detections that count the faces while one is followed."""


class FrameStatus(IntEnum):
    """What tracking saw in a frame; the numbers are the tracked artifact's."""

    OK = 0
    MISSING = 1
    MULTIPLE = 2
    LOW = 3


class FaceTracker:
    """Detection once, then crops from the previous frame's landmarks; detects again when the face is lost.

    `choice`: "largest" or the index of a face counted from the left of the picture in which it is first found.
    """

    def __init__(self, perception: Perception, choice: str | int = "largest") -> None:
        self.perception = perception
        self.choice = choice
        self.face_count = 0
        self._landmarks: np.ndarray | None = None
        self._since = 0

    def step(self, image_u8: np.ndarray) -> tuple[Face | None, FrameStatus]:
        """One frame [H,W,3] uint8 -> face (None when missing) and status."""
        face, status = self._follow(image_u8)
        if face is not None and self.perception.name == "embedded":
            face = refine_irises(image_u8, face)
        return face, status

    def _follow(self, image_u8: np.ndarray) -> tuple[Face | None, FrameStatus]:
        if self._landmarks is not None:
            face = self.perception.follow(image_u8, self._landmarks)
            if face.presence >= LOW_PRESENCE and _plausible(face.landmarks, self._landmarks):
                self._landmarks = face.landmarks
                self._since += 1
                if self._since % DETECT_EVERY == 0:
                    self.face_count = len(self.perception.detect(image_u8))
                return face, FrameStatus.MULTIPLE if self.face_count > 1 else FrameStatus.OK
        return self._find(image_u8)

    def _find(self, image_u8: np.ndarray) -> tuple[Face | None, FrameStatus]:
        detections = self.perception.detect(image_u8)
        self.face_count = len(detections)
        if not detections:
            self._landmarks = None
            return None, FrameStatus.MISSING
        if self._landmarks is not None:  # the face that was followed, not another that walked in
            centre = self._landmarks.mean(0)
            detection = min(detections, key=lambda d: float(np.hypot(*((d.box[:2] + d.box[2:]) / 2 - centre))))
        elif isinstance(self.choice, int):
            ordered = sorted(detections, key=lambda found: float(found.box[0] + found.box[2]))
            if self.choice >= len(ordered):
                return None, FrameStatus.MISSING
            detection = ordered[self.choice]
        else:
            detection = detections[0]
        face = self.perception.analyse(image_u8, detection.box)
        if face.presence < 0.5 * LOW_PRESENCE:
            self._landmarks = None
            return None, FrameStatus.MISSING
        self._landmarks = face.landmarks
        if face.presence < LOW_PRESENCE:
            return face, FrameStatus.LOW
        return face, FrameStatus.MULTIPLE if self.face_count > 1 else FrameStatus.OK


def _plausible(now: np.ndarray, before: np.ndarray) -> bool:
    """A face neither jumps by its own size nor changes size by half between two frames."""
    size_now, size_before = np.ptp(now, axis=0).max(), np.ptp(before, axis=0).max()
    moved = np.linalg.norm(now.mean(0) - before.mean(0))
    return bool(0.5 < size_now / max(size_before, 1e-6) < 2.0 and moved < size_before)


@dataclass(frozen=True)
class Calibration:
    """What a clip's frames share: identity [S], focal length in pixels, neutral coefficients [52]."""

    shape: torch.Tensor
    focal: float
    neutral: np.ndarray


class HeadTracker:
    """Head parameters of one clip: `calibrate` on some of its faces, then `step` through all of them."""

    def __init__(
        self, model: HeadModel, size: tuple[int, int], options: FitOptions | None = None, focal: float | None = None
    ) -> None:
        self.fitter = HeadFitter(model, size, options)
        self._aligner = HeadAligner(model, size)
        self.calibration: Calibration | None = None
        self._focal = focal
        self._last: HeadTrack | None = None
        self._last_landmarks: torch.Tensor | None = None

    def calibrate(self, faces: Sequence[Face]) -> HeadTrack:
        """Estimate identity, focal length and neutral expression from one or more faces; returns their fit."""
        landmarks, coefficients = stack_faces(faces)
        track = self.fitter.fit(landmarks, coefficients, focal=self._focal, iterations=14)
        effort = track.expression.sum(-1)
        calm = track.expression[effort <= effort.quantile(0.3)]
        self.calibration = Calibration(track.shape, track.focal, calm.median(0).values.numpy())
        return track

    def step(self, face: Face, glimpse: Glimpse | None = None) -> HeadTrack:
        """Parameters of one frame (T = 1), started from the previous frame's; with a `glimpse` of the frame its pose is
        aligned with the first frame's picture."""
        if self.calibration is None:
            raise ValueError("HeadTracker.step needs calibrate() first")
        landmarks, coefficients = stack_faces([face])
        track = self.fitter.fit(
            landmarks, coefficients, focal=self.calibration.focal, shape=self.calibration.shape, start=self._last,
            iterations=3 if self._last is not None else 10,
        )  # fmt: skip
        if self._last is not None and self._jumped(landmarks[0], track):  # a bad start: once more from nothing
            track = self.fitter.fit(
                landmarks, coefficients, focal=self.calibration.focal, shape=self.calibration.shape, iterations=10
            )
        self._last, self._last_landmarks = track, landmarks[0]
        if glimpse is None:
            return track
        aligned = self._aligner.refine(track, glimpse)
        return replace(aligned, eyes=self.fitter.gaze(aligned, landmarks))

    def _jumped(self, landmarks: torch.Tensor, track: HeadTrack) -> bool:
        """Whether the face moved by a tenth of its size since the last frame, or the fit is poor."""
        if self._last_landmarks is None or float(track.residual[0]) > 0.08:
            return True
        size = float((landmarks.amax(0) - landmarks.amin(0)).max())
        return float((landmarks - self._last_landmarks).norm(dim=-1).mean()) > 0.1 * size


def stack_faces(faces: Sequence[Face]) -> tuple[torch.Tensor, torch.Tensor]:
    """Landmarks [T,478,2] and coefficients [T,52] of faces, as float32 tensors."""
    landmarks = torch.from_numpy(np.stack([face.landmarks for face in faces]).astype(np.float32))
    coefficients = torch.from_numpy(np.stack([face.coefficients for face in faces]).astype(np.float32))
    return landmarks, coefficients


def smoothed(values: Iterable[np.ndarray | None], sigma: float = 0.8, lag: int = 2) -> Iterator[np.ndarray | None]:
    """Fixed-lag smoothing of a stream of parameter vectors: Gaussian over +-`lag` frames, outliers left out.

    None marks a missing frame and stays None. The output is `lag` frames late internally but complete: as many
    items come out as went in. A value far from the median of its neighbours does not enter their average.
    """
    window: list[np.ndarray | None] = []
    position = 0  # index in `window` of the next item to give out
    for value in values:
        window.append(value)
        if len(window) - position > lag:
            yield _smooth_at(window, position, sigma, lag)
            position += 1
            if position > lag:
                window.pop(0)
                position -= 1
    while position < len(window):
        yield _smooth_at(window, position, sigma, lag)
        position += 1


def _smooth_at(window: list[np.ndarray | None], at: int, sigma: float, lag: int) -> np.ndarray | None:
    centre = window[at]
    if centre is None:
        return None
    items, weights = [], []
    for k in range(max(0, at - lag), min(len(window), at + lag + 1)):
        item = window[k]
        if item is not None:
            items.append(item)
            weights.append(np.exp(-0.5 * ((k - at) / sigma) ** 2))
    stack = np.stack(items)
    weight = np.asarray(weights)
    if len(items) >= 3:
        median = np.median(stack, axis=0)
        spread = np.median(np.abs(stack - median), axis=0)
        far = (np.abs(stack - median) > 6 * spread + 0.15).any(1)
        if not far.all():
            weight = np.where(far, 0.0, weight)
    return (stack * weight[:, None]).sum(0) / weight.sum()
