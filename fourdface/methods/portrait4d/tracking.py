"""The crops of a driver, frame by frame: steady where the face is still, and without lag where it moves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fourdface.methods.portrait4d.alignment import (
    PortraitCrop,
    eyes_and_mouth,
    fit_face,
    five_points,
    motion_matrix,
    portrait_crop,
)
from fourdface.perception.smoothing import OneEuroFilter

__all__ = ["CropTracker", "Crops", "crops_of"]


@dataclass(frozen=True)
class Crops:
    """portrait: the crop of a frame; motion: `motion_matrix` [2, 3] of the face within that crop."""

    portrait: PortraitCrop
    motion: np.ndarray


class CropTracker:
    """One-Euro smoothing of the face's place and size, and of eyes and mouth: what both crops are made of.

    Without it the crop changes size when the eyes blink, because pupils and lids are among its five points.
    """

    def __init__(self, size: int = 512, smooth: bool = True) -> None:
        self.size = size
        self._filter = OneEuroFilter() if smooth else None

    def step(self, landmarks: np.ndarray, source: tuple[int, int], time: float) -> Crops:
        """Crops of one frame. landmarks: [478, 2] pixels; source: (width, height) of the frame; time in seconds."""
        face, features = fit_face(five_points(landmarks)), eyes_and_mouth(landmarks)
        if self._filter is not None:
            across = max(float(np.linalg.norm(features[0] - features[1])), 1.0)
            steady = self._filter(np.concatenate([face, features.ravel()]), time, across).astype(np.float64)
            face, features = steady[:3], steady[3:].reshape(3, 2)
        crop = portrait_crop(face, source, self.size)
        return Crops(crop, motion_matrix(crop.to_crop(features)))

    def reset(self) -> None:
        """Forget the past, where the face was lost."""
        if self._filter is not None:
            self._filter.reset()


def crops_of(landmarks: np.ndarray, source: tuple[int, int], size: int = 512) -> Crops:
    """Crops of a single picture, without smoothing."""
    return CropTracker(size, smooth=False).step(landmarks, source, 0.0)
