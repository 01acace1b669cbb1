"""Irises found in the picture itself, at its own resolution.

A network that sees the whole face in a small crop draws every gaze towards the middle. Here each eye is cut out along
its corners and the iris is where a dark disc has bright sides, between the lids, not far from the network's guess.
The two eyes vote together, because they turn together.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage

from .base import Face

EYE = 24
"""Pixels of the cut-out across an eye's opening, corner to corner."""
WIDTH, HEIGHT = 36, 20
IRIS_RADIUS = 0.195
"""Radius of the iris over the eye's width: 11.7 mm across against 30 mm."""
REACH_ACROSS, REACH_ALONG = 0.28, 0.10
"""Deviation from the network's guess, in eye widths, that is as unlikely as one unit of contrast."""
LARGEST_DISAGREEMENT = 0.14
"""Eye widths by which the two eyes may differ in what they say of the network's error."""
TRUST = 0.85

# corner, corner, lid contour from the first corner over the upper lid to the second and back below, iris points
_EYES = (
    (33, 133, (33, 246, 161, 160, 159, 158, 157, 173, 133), (133, 155, 154, 153, 145, 144, 163, 7, 33), (468, 473)),
    (
        362, 263, (362, 398, 384, 385, 386, 387, 388, 466, 263), (263, 249, 390, 373, 374, 380, 381, 382, 362),
        (473, 478),
    ),
)  # fmt: skip


@lru_cache(maxsize=1)
def _kernels() -> torch.Tensor:
    """Mean over the iris' disc, and over the band on its left and right: [2,1,15,23]."""
    y, x = np.mgrid[-7:8, -11:12]
    radius = IRIS_RADIUS * EYE
    distance = np.hypot(x, y)
    disc = (distance <= radius * 0.95).astype(np.float32)
    sides = ((distance > radius * 1.15) & (distance < radius * 2) & (np.abs(y) < radius * 0.6)).astype(np.float32)
    return torch.from_numpy(np.stack([disc / disc.sum(), sides / sides.sum()])[:, None])


def refine_irises(image_u8: np.ndarray, face: Face) -> Face:
    """The face with its ten iris points moved to where the picture [H,W,3] shows the irises; unchanged where lids,
    glasses or size leave nothing to see."""
    shifts = [_shift(image_u8, face.landmarks, eye) for eye in _EYES]
    seen = [shift for shift in shifts if shift is not None]
    if not seen:
        return face
    if len(seen) == 2:
        apart = float(np.abs(seen[0] - seen[1])[0])
        common = 0.5 * (seen[0] + seen[1]) * float(np.clip(2 - apart / LARGEST_DISAGREEMENT, 0, 1))
    else:
        common = 0.5 * seen[0]
    landmarks = face.landmarks.copy()
    for first, second, _, _, (start, end) in _EYES:
        across = face.landmarks[second] - face.landmarks[first]
        along = np.array([-across[1], across[0]])
        landmarks[start:end] += TRUST * (common[0] * across + common[1] * along)
    return replace(face, landmarks=landmarks.astype(np.float32))


def _shift(image_u8: np.ndarray, landmarks: np.ndarray, eye: tuple) -> np.ndarray | None:
    """How far the iris lies from the network's guess, in eye widths (across, along); None where it is not seen."""
    first, second, upper, lower, (guess, _) = eye
    origin = (landmarks[first] + landmarks[second]) / 2
    across = landmarks[second] - landmarks[first]
    size = float(np.linalg.norm(across))
    if size < 6:
        return None
    axes = np.stack([across, [-across[1], across[0]]]) / size**2

    def local(index: tuple[int, ...] | int) -> np.ndarray:
        return (landmarks[list(index) if isinstance(index, tuple) else index] - origin) @ axes.T * EYE + np.array(
            [WIDTH / 2, HEIGHT / 2]
        )

    opening = _opening(local(upper), local(lower))
    patch = _cut(image_u8, origin, across, size)
    if patch is None or opening.sum() < 16 or opening.sum(0).max() < 0.12 * EYE:
        return None
    score = _score(patch, opening, local(guess))
    best = int(score.argmax())
    if score.flat[best] < 0.2:
        return None
    row, column = divmod(best, WIDTH)
    return (np.array([column + 0.5, row + 0.5]) - local(guess)) / EYE


def _opening(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Pixels [HEIGHT,WIDTH] of the cut-out between the lids."""
    columns, rows = np.arange(WIDTH) + 0.5, np.arange(HEIGHT)[:, None] + 0.5
    top = np.interp(columns, upper[:, 0], upper[:, 1])
    bottom = np.interp(columns, lower[::-1, 0], lower[::-1, 1])
    between = (rows > top - 0.5) & (rows < bottom + 0.5)
    return between & (columns > upper[0, 0]) & (columns < upper[-1, 0])


def _cut(image_u8: np.ndarray, origin: np.ndarray, across: np.ndarray, size: float) -> np.ndarray | None:
    """Luminance [HEIGHT,WIDTH] of the eye, its corners level; None at the picture's border."""
    x, y = np.meshgrid((np.arange(WIDTH) + 0.5 - WIDTH / 2) / EYE, (np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / EYE)
    columns = origin[0] + x * across[0] - y * across[1]
    rows = origin[1] + x * across[1] + y * across[0]
    left, top = int(columns.min()) - 2, int(rows.min()) - 2
    right, bottom = int(columns.max()) + 3, int(rows.max()) + 3
    if left < 0 or top < 0 or right > image_u8.shape[1] or bottom > image_u8.shape[0]:
        return None
    grey = image_u8[top:bottom, left:right].astype(np.float32) @ np.array([0.4, 0.4, 0.2], np.float32)
    blur = size / EYE / 2.5
    if blur > 0.6:
        grey = ndimage.gaussian_filter(grey, blur)
    return ndimage.map_coordinates(grey, [rows - top - 0.5, columns - left - 0.5], order=1, mode="nearest")


def _score(patch: np.ndarray, opening: np.ndarray, guess: np.ndarray) -> np.ndarray:
    """Contrast of disc against sides [HEIGHT,WIDTH], in deviations of the eye's luminance, less the distance from
    the guess."""
    mask = opening.astype(np.float32)
    planes = torch.from_numpy(np.stack([patch * mask, mask])[:, None].astype(np.float32))
    sums = torch.nn.functional.conv2d(planes, _kernels(), padding=(7, 11)).numpy()
    disc, sides = (sums[0, k] / np.maximum(sums[1, k], 1e-6) for k in range(2))
    contrast = (sides - disc) / (patch[opening].std() + 2)
    x = (np.arange(WIDTH)[None] + 0.5 - guess[0]) / EYE
    y = (np.arange(HEIGHT)[:, None] + 0.5 - guess[1]) / EYE
    far = (x / REACH_ACROSS) ** 2 + (y / REACH_ALONG) ** 2
    usable = (sums[1, 0] > 0.35) & (sums[1, 1] > 0.15)
    return np.where(usable, contrast - 0.5 * far, -9.0)
