"""Plain colours for pictures of the head."""

from __future__ import annotations

import numpy as np

PALETTE = {
    "lips": (0.74, 0.43, 0.41),
    "gums": (0.70, 0.33, 0.34),
    "tongue": (0.76, 0.37, 0.38),
    "mouth_bag": (0.42, 0.16, 0.16),
    "teeth_upper": (0.95, 0.93, 0.86),
    "teeth_lower": (0.95, 0.93, 0.86),
    "eye_sockets": (0.70, 0.40, 0.38),
    "eyeball_left": (0.95, 0.95, 0.95),
    "eyeball_right": (0.95, 0.95, 0.95),
    "iris_left": (0.36, 0.26, 0.17),
    "iris_right": (0.36, 0.26, 0.17),
    "pupil_left": (0.05, 0.05, 0.05),
    "pupil_right": (0.05, 0.05, 0.05),
}
SKIN = (0.86, 0.68, 0.58)
BROW = (0.26, 0.18, 0.13)


def vertex_colors(regions: dict[str, np.ndarray], count: int) -> np.ndarray:
    """Colours [V, 3] in [0, 1] by region masks [V]."""
    colors = np.tile(SKIN, (count, 1))
    for name, color in PALETTE.items():
        colors[regions[name]] = color
    return colors


def face_colors(regions: dict[str, np.ndarray], faces: np.ndarray, count: int) -> np.ndarray:
    """Colours [F, 3] with hard borders: a face has a region's colour when all of its corners do."""
    colors = np.tile(SKIN, (len(faces), 1))
    for name, color in PALETTE.items():
        inner = regions[name][faces]
        colors[inner.all(1) if name.startswith(("lips", "iris", "pupil")) else inner.any(1)] = color
    return colors


def add_brows(colors: np.ndarray, points: np.ndarray, landmarks68: np.ndarray, scale: float) -> np.ndarray:
    """Paint eyebrows along landmarks 17-21 and 22-26 on vertex colours [V, 3]; `scale`: units in a metre."""
    colors = colors.copy()
    for first in (17, 22):
        line = landmarks68[first : first + 5]
        t = np.linspace(0, 4, 41)
        dense = np.stack([np.interp(t, np.arange(5), line[:, k]) for k in range(3)], 1)
        distance = np.linalg.norm(points[:, None] - dense[None], axis=2).min(1)
        strength = np.clip(1.6 - distance / (0.0035 * scale), 0, 1)[:, None]
        colors = colors * (1 - strength) + strength * np.array(BROW)
    return colors
