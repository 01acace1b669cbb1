"""Texture coordinates without overlaps."""

from __future__ import annotations

import numpy as np

from open_head.assemble import Head


def layout(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """uv [Vt, 2] in [0, 1] and faces_uv [F, 3]."""
    p = head.template
    uv = np.stack([0.5 + np.arctan2(p[:, 0], p[:, 2]) / (2 * np.pi), (p[:, 1] + 20) / 40], 1)
    return uv, head.faces
