"""Resampling of pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resize(image_u8: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [H,W,C] -> uint8 [height,width,C], Lanczos with anti-aliasing; the picture itself if the size fits."""
    if image_u8.shape[:2] == (height, width):
        return image_u8
    return np.asarray(Image.fromarray(image_u8).resize((width, height), Image.Resampling.LANCZOS))


def resize_longest(image_u8: np.ndarray, longest: int) -> np.ndarray:
    """Shrink so that the longest side is at most `longest` pixels; smaller pictures stay as they are."""
    height, width = image_u8.shape[:2]
    factor = longest / max(height, width)
    if factor >= 1:
        return image_u8
    return resize(image_u8, max(1, round(width * factor)), max(1, round(height * factor)))


def fill_frame(image_u8: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale and crop (centred) so that the picture fills width x height without distortion."""
    rows, columns = image_u8.shape[:2]
    factor = max(width / columns, height / rows)
    scaled = resize(image_u8, max(width, round(columns * factor)), max(height, round(rows * factor)))
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])
