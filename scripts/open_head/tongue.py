"""The tongueOut mode, which the source does not have."""

from __future__ import annotations

import numpy as np

from open_head.skeleton import smoothstep


def tongue_out(points: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Displacement [V, 3] that puts the tongue out: the tip forward, over the lower teeth, then down."""
    x, y, z = points.T
    w = np.where(mask, smoothstep((z - 4.4) / 5.4), 0.0)
    move = np.zeros_like(points)
    move[:, 0] = -0.30 * x * w
    move[:, 1] = 0.75 * w - 0.9 * w**4 - 0.35 * (y + 3.8) * w
    move[:, 2] = 3.6 * w
    return move
