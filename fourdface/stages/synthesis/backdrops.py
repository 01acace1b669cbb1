"""What stands behind a person: plain walls, gradients and blurred places, drawn at random."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ...media.resize import resize


def draw_backdrop(rng: np.random.Generator, size: int) -> np.ndarray:
    """A backdrop uint8 [size,size,3]: a wall with a fall of light, or blotches as of a room out of focus."""
    base, other = _colour(rng), _colour(rng)
    axis = (np.arange(size) + 0.5) / size - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    along = np.cos(turn) * axis[None, :] + np.sin(turn) * axis[:, None]
    mix = rng.uniform(0, 0.6) * (along + 0.5)[..., None]
    picture = base + mix * (other - base)
    if rng.random() < 0.6:
        picture = _blotches(picture, rng, size)
    centre = rng.uniform(-0.3, 0.3, 2)
    distance = np.hypot(axis[None, :] - centre[0], axis[:, None] - centre[1])
    picture = picture * (1.05 - rng.uniform(0, 0.6) * distance)[..., None]
    return np.asarray(np.round(np.clip(picture, 0, 1) * 255), np.uint8)


def blurred(plate_u8: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture uint8 [H,W,3] out of focus by a random amount, sometimes mirrored."""
    sigma = rng.uniform(0, 0.03) * len(plate_u8)
    picture = ndimage.gaussian_filter(plate_u8, (sigma, sigma, 0), mode="nearest")
    return np.ascontiguousarray(picture[:, ::-1] if rng.random() < 0.5 else picture)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """Any brightness, little saturation [3]."""
    return np.asarray(np.clip(rng.uniform(0.05, 0.95) + rng.normal(0, 0.05, 3), 0.02, 0.98))


def _blotches(picture: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """Coarse noise, enlarged smoothly: in colours near the picture's own, with some edges as of furniture."""
    cells = int(rng.integers(3, 12))
    noise = rng.normal(0, 0.2, (cells, cells, 1)) + rng.uniform(0, 0.10) * rng.normal(0, 1, (cells, cells, 3))
    noise = np.clip(0.5 + noise, 0, 1)
    smooth = resize(np.asarray(noise * 255, np.uint8), size, size) / 255.0
    picture = picture + rng.uniform(0.3, 1.0) * (smooth - 0.5)
    for _ in range(int(rng.integers(0, 4))):
        left, top = rng.uniform(-0.2, 0.9, 2) * size
        width, height = rng.uniform(0.1, 0.7, 2) * size
        rows, columns = slice(int(max(top, 0)), int(top + height)), slice(int(max(left, 0)), int(left + width))
        picture[rows, columns] = 0.5 * picture[rows, columns] + 0.5 * _colour(rng)
    sigma = rng.uniform(0.004, 0.03) * size
    return np.asarray(ndimage.gaussian_filter(picture, (sigma, sigma, 0), mode="nearest"))
