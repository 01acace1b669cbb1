"""The person beyond the picture's edges, so that shoulders that rise or lean leave no gap: the edge's mirror image."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .scene import Layer, Scene, chain_level, pixel_covariances
from .surface import Shell

REACH = 0.16
"""Depth of the continuation over the picture's longest side; hair that the upper edge cuts ends soon in truth."""
REACH_ABOVE = 0.04
STEP = 3
"""Spacing of its Gaussians in pixels."""


def edge_layer(scene: Scene, shell: Shell, foreground: np.ndarray) -> Layer | None:
    """Gaussians of what an edge of the picture cuts off; None where the person touches no edge."""
    height, width = scene.matte.shape
    if max(scene.matte[-1].max(), scene.matte[:, 0].max(), scene.matte[:, -1].max(), scene.matte[0].max()) < 0.5:
        return None
    longest = max(height, width)
    side, above = max(STEP, round(REACH * longest)), max(STEP, round(REACH_ABOVE * longest))
    side, above = min(side, width - 1, height - 1), min(above, height - 1)
    border = ((above, side), (side, side))
    skin = (scene.face_index >= 0) & ~scene.face_regions["scalp"][np.maximum(scene.face_index, 0)]
    depth = np.pad(np.where(skin, scene.mesh_depth, shell.front), border, mode="edge").astype(np.float64)
    matte = np.pad(ndimage.minimum_filter(scene.matte, 3), border, mode="edge")
    colours = np.pad(ndimage.gaussian_filter(foreground, (1.0, 1.0, 0)), (*border, (0, 0)), mode="symmetric")
    rows, columns = np.mgrid[-above : height + side, -side : width + side] + 0.5
    points = scene.view.unproject(columns, rows, depth)
    triangle = scene.rig.proxy_triangle(chain_level(scene, points, rows))
    outside = (rows < 0) | (rows > height) | (columns < 0) | (columns > width)
    pick = np.zeros_like(outside)
    pick[::STEP, ::STEP] = True
    pick &= outside & (matte > 0.5)
    if not pick.any():
        return None
    covariance = pixel_covariances(scene, points, depth, 0.75 * STEP)
    count = int(pick.sum())
    return Layer(
        points[pick], covariance[pick], colours[pick], np.full(count, 0.95), triangle[pick].astype(np.int32),
        np.full(count, 3.0),
    )  # fmt: skip
