"""A frame reduced to what motion needs: one small grey picture, kept where the frame itself is let go."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FACE_PIXELS = 120.0
"""Size that a face is reduced to, about: motion is found to a tenth of a pixel, so more would be wasted."""


@dataclass(frozen=True)
class Samples:
    """Values and slopes (per pixel of the frame) [h,w,3] around `origin`, a corner in pixels of the glimpse."""

    field: np.ndarray
    origin: np.ndarray
    factor: int

    def at(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bilinear values [N], slopes [N,2] and which lie inside [N], at pixels [N,2] of the frame."""
        place = pixels / self.factor - 0.5 - self.origin
        height, width = self.field.shape[:2]
        inside = (place >= 0).all(1) & (place[:, 0] < width - 1) & (place[:, 1] < height - 1)
        x = np.clip(place[:, 0], 0, width - 1.001)
        y = np.clip(place[:, 1], 0, height - 1.001)
        column, row = x.astype(np.int64), y.astype(np.int64)
        u, v = (x - column)[:, None], (y - row)[:, None]
        flat = self.field.reshape(-1, 3)
        corner = row * width + column
        upper = flat[corner] * (1 - u) + flat[corner + 1] * u
        lower = flat[corner + width] * (1 - u) + flat[corner + width + 1] * u
        value = upper * (1 - v) + lower * v
        return value[:, 0], value[:, 1:], inside


@dataclass(frozen=True)
class Glimpse:
    """Grey values [h,w] uint8 of a frame; pixel (x, y) of the frame is (x / factor, y / factor) here."""

    grey_u8: np.ndarray
    factor: int

    def blurred(self, low: np.ndarray, high: np.ndarray, sigma: float) -> Samples:
        """Smoothed values and slopes of the box low..high (x, y), in the frame's pixels."""
        height, width = self.grey_u8.shape
        pad = 3 * sigma + 2
        x0, y0 = np.clip(np.floor(low / self.factor - pad), 0, [width - 2, height - 2]).astype(int)
        x1, y1 = np.clip(np.ceil(high / self.factor + pad), [x0 + 2, y0 + 2], [width, height]).astype(int)
        grey = ndimage.gaussian_filter(self.grey_u8[y0:y1, x0:x1].astype(np.float32), sigma, truncate=2.5)
        down, across = np.gradient(grey)
        field = np.stack([grey, across / self.factor, down / self.factor], -1)
        return Samples(field, np.array([x0, y0], np.float64), self.factor)


def glimpse_of(image_u8: np.ndarray, face_pixels: float) -> Glimpse:
    """Reduce a frame [H,W,3] in which the face is `face_pixels` across; green stands for grey."""
    factor = int(np.clip(round(face_pixels / FACE_PIXELS), 1, max(1, min(image_u8.shape[:2]) // 8)))
    height, width = (side // factor * factor for side in image_u8.shape[:2])
    green = image_u8[:height, :width, 1]
    if factor == 1:
        return Glimpse(np.ascontiguousarray(green), 1)
    total = np.zeros((height // factor, width // factor), np.uint32)
    for row in range(factor):
        for column in range(factor):
            total += green[row::factor, column::factor]
    return Glimpse((total // (factor * factor)).astype(np.uint8), factor)
