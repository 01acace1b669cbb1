"""Crops and dense-landmark topology of the perception networks (numpy only).

Pixel coordinates are continuous: the centre of pixel (col, row) is (col + 0.5, row + 0.5).
"Crop coordinates" u lie in [-1, 1]^2 inside the crop, x right and y down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

LANDMARK_COUNT = 478
COEFFICIENT_COUNT = 52
CROP_MARGIN = 1.25
"""Side of the nominal crop over the longer side of the landmarks' box."""

EYE_OUTER_RIGHT, EYE_OUTER_LEFT = 33, 263
FOREHEAD, CHIN = 10, 152
UPRIGHT_WEIGHT = 0.35
"""Weight of the forehead-chin line beside the eye line in the roll: in profile the eye line shrinks to noise."""

EYE_RIGHT = (33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7)
EYE_LEFT = (263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249)
LIPS_OUTER = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
LIPS_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
IRIS_RIGHT = (468, 469, 470, 471, 472)
IRIS_LEFT = (473, 474, 475, 476, 477)
BROW_RIGHT = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
BROW_LEFT = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
LANDMARK68 = (
    127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
"""The dense landmark nearest to each of the 68 classic points (iBUG order)."""


@dataclass(frozen=True)
class CropFrame:
    """A rotated square in an image.

    `center` [2] pixels (x, y); `half` half the side in pixels; `angle` radians by which the crop's x axis is turned
    clockwise (as seen, y down) from the image's x axis.
    """

    center: FloatArray
    half: float
    angle: float

    def axes(self) -> FloatArray:
        """Matrix [2,2] that maps crop coordinates to pixel offsets from the centre."""
        cosine, sine = np.cos(self.angle) * self.half, np.sin(self.angle) * self.half
        return np.array([[cosine, -sine], [sine, cosine]], dtype=np.float32)

    def to_image(self, points: npt.ArrayLike) -> FloatArray:
        """Crop coordinates [..,2] -> pixels [..,2]."""
        return np.asarray(points, dtype=np.float32) @ self.axes().T + self.center

    def to_crop(self, points: npt.ArrayLike) -> FloatArray:
        """Pixels [..,2] -> crop coordinates [..,2]."""
        offset = np.asarray(points, dtype=np.float32) - self.center
        return (offset @ self.axes() / np.float32(self.half**2)).astype(np.float32)


def head_roll(landmarks: FloatArray) -> float:
    """Angle (radians, clockwise as seen) of the head's left-right axis in the picture, from landmarks [478,2]."""
    eyes = landmarks[EYE_OUTER_LEFT] - landmarks[EYE_OUTER_RIGHT]
    down = landmarks[CHIN] - landmarks[FOREHEAD]
    direction = eyes + UPRIGHT_WEIGHT * np.array([down[1], -down[0]], dtype=np.float32)
    return float(np.arctan2(direction[1], direction[0]))


def crop_from_landmarks(landmarks: FloatArray, margin: float = CROP_MARGIN) -> CropFrame:
    """The roll-normalised square around landmarks [478,2] (pixels) with `margin`.

    Raises ValueError where the landmarks are not finite or have no extent.
    """
    points = np.asarray(landmarks, dtype=np.float32)
    if points.shape != (LANDMARK_COUNT, 2) or not np.isfinite(points).all():
        raise ValueError(f"landmarks must be finite [{LANDMARK_COUNT},2], got shape {points.shape}")
    angle = head_roll(points)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=np.float32)
    upright = points @ turn  # pixels turned so that the eyes are level
    low, high = upright.min(axis=0), upright.max(axis=0)
    half = float((high - low).max()) * 0.5 * margin
    if half < 1e-3:
        raise ValueError("landmarks have no extent")
    return CropFrame(((low + high) * 0.5 @ turn.T).astype(np.float32), half, angle)


def crop_from_box(box: npt.ArrayLike, angle: float = 0.0, margin: float = CROP_MARGIN) -> CropFrame:
    """The square around a face box (x0, y0, x1, y1 pixels, of the landmarks) with `margin`, turned by `angle`."""
    x0, y0, x1, y1 = (float(v) for v in np.asarray(box, dtype=np.float64).reshape(4))
    half = max(x1 - x0, y1 - y0, 2e-3) * 0.5 * margin
    return CropFrame(np.array([(x0 + x1) * 0.5, (y0 + y1) * 0.5], dtype=np.float32), half, angle)


def landmark_box(landmarks: FloatArray) -> FloatArray:
    """Axis-aligned box [4] (x0, y0, x1, y1) of landmarks [..,2] in their own units."""
    points = np.asarray(landmarks, dtype=np.float32)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def rotation_about_view(angle: float) -> FloatArray:
    """Rotation [3,3] in camera-aligned axes (x right, y up, z to the viewer) that a clockwise picture roll means."""
    cosine, sine = np.cos(-angle), np.sin(-angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=np.float32)


def outer_eye_distance(landmarks: FloatArray) -> float:
    """Distance of the outer eye corners in landmarks [478,2]: the unit of landmark errors."""
    return float(np.linalg.norm(landmarks[EYE_OUTER_LEFT] - landmarks[EYE_OUTER_RIGHT]))
