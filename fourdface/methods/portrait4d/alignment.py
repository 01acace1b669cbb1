"""The two crops of Portrait4D: the 512-pixel portrait from five points, and the 224-pixel face for the motion encoder.

Both are least-squares fits in closed form. Points are pixels, y down, as everywhere in the project; the first pixel's
corner is (0, 0) for `PortraitCrop`, and its centre is (0, 0) for the motion crop, as in the code that the networks were
trained with.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from fourdface.errors import FourdError
from fourdface.priors.genhead.camera import FOCAL

__all__ = [
    "FIVE_DENSE_POINTS",
    "PortraitCrop",
    "fit_face",
    "five_points",
    "motion_crop",
    "motion_matrix",
    "portrait_camera",
    "portrait_crop",
]

FACE_POINTS = np.array(
    [
        [-0.31148657, 0.29036078, 0.13377953],
        [0.30979887, 0.28972036, 0.13179526],
        [0.00325953, -0.04617932, 0.55244243],
        [-0.25216928, -0.38133916, 0.22405732],
        [0.2484662, -0.38128236, 0.22235769],
    ]
)
"""Eyes, nose tip, mouth corners of a mean face (left in the picture first; y up; the unit is about 0.1 m)."""

OFFSET = np.array([0.0, -0.1, 0.4])
"""Added to the points: the crop's middle lies a little above and behind the face's."""

FACE_SCALE = 180.0
"""Pixels of the crop per unit of `FACE_POINTS`."""

FIVE_DENSE_POINTS = (468, 473, 1, 61, 291)
"""Pupils, nose tip and mouth corners in the dense landmark topology, left in the picture first."""

LARGEST_SCALE = 64.0
"""Enlargement above which a crop shows nothing but the interpolation."""


def five_points(dense: np.ndarray) -> np.ndarray:
    """Dense landmarks [478, 2] in pixels -> the five points [5, 2] of the portrait crop."""
    return np.asarray(dense, np.float64)[list(FIVE_DENSE_POINTS)]


def fit_face(points: np.ndarray) -> np.ndarray:
    """Weak-perspective pose of the mean face: five points [5, 2] -> (x, y) of its origin and pixels per unit, [3].

    The two rows of the projection are free (eight unknowns, ten equations); the size is the mean of their norms.
    """
    flipped = np.asarray(points, np.float64) * [1.0, -1.0]  # y up, as the 3D points
    basis = np.hstack([FACE_POINTS + OFFSET, np.ones((5, 1))])
    solution, *_ = np.linalg.lstsq(basis, flipped, rcond=None)
    size = 0.5 * (np.linalg.norm(solution[:3, 0]) + np.linalg.norm(solution[:3, 1]))
    return np.array([solution[3, 0], -solution[3, 1], size])


@dataclass(frozen=True)
class PortraitCrop:
    """A square window of the picture after it was scaled to `scaled` (width, height).

    `left`, `top` may be negative: what lies outside repeats the border. `source` is the picture's (width, height).
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    left: int
    top: int
    size: int = 512

    def apply(self, image_u8: np.ndarray) -> np.ndarray:
        """uint8 [H, W, 3] -> uint8 [size, size, 3]; Lanczos as trained."""
        width, height = self.scaled
        x0, x1 = (min(max(v, 0), width) for v in (self.left, self.left + self.size))
        y0, y1 = (min(max(v, 0), height) for v in (self.top, self.top + self.size))
        if x0 >= x1 or y0 >= y1:
            raise FourdError("the face lies so far outside of the picture that nothing of it is in the crop")
        fx, fy = self.source[0] / width, self.source[1] / height
        picture = Image.fromarray(image_u8)
        box = (x0 * fx, y0 * fy, min(x1 * fx, picture.width), min(y1 * fy, picture.height))
        part = np.asarray(picture.resize((x1 - x0, y1 - y0), Image.Resampling.LANCZOS, box=box))
        before_x, before_y = x0 - self.left, y0 - self.top
        after_x, after_y = self.size - before_x - (x1 - x0), self.size - before_y - (y1 - y0)
        return np.pad(part, ((before_y, after_y), (before_x, after_x), (0, 0)), mode="edge")

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] of the picture -> of the crop, both with corners at whole numbers."""
        scale = np.array([self.scaled[0] / self.source[0], self.scaled[1] / self.source[1]])
        return np.asarray(points, np.float64) * scale - [self.left, self.top]

    def matrix(self) -> np.ndarray:
        """[2, 3]: picture -> crop, the same map as `to_crop`."""
        x, y = self.scaled[0] / self.source[0], self.scaled[1] / self.source[1]
        return np.array([[x, 0.0, -self.left], [0.0, y, -self.top]])


def portrait_crop(face: np.ndarray, source: tuple[int, int], size: int = 512) -> PortraitCrop:
    """Crop for a face (see `fit_face`) in a picture of (width, height); the networks want `size` 512.

    Raises FourdError for a face that is too small, or no face at all.
    """
    x, y, fitted = (float(v) for v in face)
    scale = FACE_SCALE * size / 512 / fitted if fitted > 0 else math.inf
    if not (math.isfinite(x) and math.isfinite(y) and scale <= LARGEST_SCALE):
        raise FourdError("the face is too small for a crop; use a larger picture of it")
    width, height = source
    scaled = int(width * scale), int(height * scale)
    # The reference counts y from the last row (H - 1 - y), hence the pixel that is taken off here.
    up = height - 1 - y
    left = int(scaled[0] / 2 - size / 2 + (x - width / 2) * scale)
    top = int(scaled[1] / 2 - size / 2 + (height / 2 - up) * scale)
    return PortraitCrop(source, scaled, left, top, size)


CROP = 512
"""Size in pixels of the portrait crop that the numbers here are written for."""
DISTANCE = 1.4
"""Metres from the neck joint to the camera that a portrait crop corresponds to, about."""
SCALE_JITTER, SHIFT_JITTER = 0.02, 0.01
"""Inaccuracy of a portrait crop: of its size, and of its place in sizes of the crop."""


def portrait_camera(points: np.ndarray, rotation: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """world_to_camera [4,4] that shows the head turned by `rotation` [3,3] as the portrait crop would show it.

    points [5,3]: `five_points` in the world, metres. With `rng` the crop is as inexact as tracking is.
    """
    scale, shift = 1.0, np.zeros(2)
    if rng is not None:
        scale = float(np.exp(rng.normal(0, SCALE_JITTER)))
        shift = rng.normal(0, SHIFT_JITTER, 2) * CROP
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([1.0, -1.0, -1.0]) @ rotation
    matrix[2, 3] = DISTANCE
    target = np.array([CROP / 2, CROP / 2 - 1]) + shift  # the alignment counts rows from the last one
    focal = FOCAL * CROP
    for _ in range(4):
        seen = points @ matrix[:3, :3].T + matrix[:3, 3]
        x, y, size = fit_face(focal * seen[:, :2] / seen[:, 2:] + CROP / 2)
        matrix[2, 3] *= size / (FACE_SCALE * scale)
        matrix[:2, 3] += (target - [x, y]) / focal * matrix[2, 3]
    return matrix


MOTION_TARGET = np.array([[87.0, 59.0], [137.0, 59.0], [112.0, 120.0]])
"""Where the middles of eyes and mouth stand in the 224-pixel picture of which the motion crop is cut."""

EYE_POINTS = ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380))
MOUTH_POINTS = (78, 81, 13, 311, 308, 402, 14, 178)
"""The dense landmarks that stand for the 68-point contours of the eyes and of the inner mouth."""


def eyes_and_mouth(landmarks: np.ndarray) -> np.ndarray:
    """Middles [3, 2] of both eyes (left in the picture first) and of the inner mouth.

    From 68 or 478 landmarks, or from the three middles themselves.
    """
    points = np.asarray(landmarks, np.float64)
    if len(points) == 3:
        return points
    if len(points) == 68:
        groups = [points[36:42], points[42:48], points[60:68]]
    else:
        groups = [points[list(indices)] for indices in (*EYE_POINTS, MOUTH_POINTS)]
    return np.stack([group[:, :2].mean(0) for group in groups])


def motion_matrix(landmarks: np.ndarray) -> np.ndarray:
    """Least-squares similarity [2, 3] from the picture to the 224-pixel one. landmarks: [3, 68 or 478, 2] pixels."""
    points = eyes_and_mouth(landmarks)
    origin, target = points.mean(0), MOTION_TARGET.mean(0)
    # As complex numbers a similarity is one factor: the least-squares one of the centred points.
    here, there = (points - origin) @ [1, 1j], (MOTION_TARGET - target) @ [1, 1j]
    spread = float(np.vdot(here, here).real)
    if not np.isfinite(spread) or spread < 1e-6:
        raise FourdError("eyes and mouth lie on one point; the landmarks are no face")
    factor = np.vdot(here, there) / spread
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.hstack([linear, (target - linear @ origin)[:, None]])


def motion_crop(image_pm1: Tensor, matrix: np.ndarray) -> Tensor:
    """Picture [1, 3, H, W] in -1..1 and `motion_matrix` -> face [1, 3, 224, 224] for the motion encoder.

    The picture is warped to 224 pixels (black outside is 0, as trained), cut to its middle 192, and enlarged again.
    """
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    cols, rows = np.meshgrid(np.arange(16, 208), np.arange(0, 192))
    places = np.stack([cols, rows, np.ones_like(cols)], -1) @ inverse.T
    height, width = image_pm1.shape[-2:]
    grid = torch.from_numpy(places / [(width - 1) / 2, (height - 1) / 2] - 1).to(image_pm1)
    warped = grid_sample(image_pm1, grid[None], mode="bilinear", padding_mode="zeros", align_corners=True)
    return interpolate(warped, size=(224, 224), mode="bilinear", align_corners=False).clamp(-1, 1)
