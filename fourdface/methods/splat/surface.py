"""Depth behind every pixel of the person: the head mesh where it is seen, a smooth inflated proxy elsewhere.

Hair, hats and shoulders have no model. Their front is that of the inflated skull (`hull`) and of the `torso`. Close to
the skin it blends into the mesh, so that a turn opens no gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .plate import fill_smoothly


@dataclass(frozen=True)
class View:
    """The photo's camera: world_to_camera [4,4] (OpenCV axes), intrinsics [3,3], width, height in pixels."""

    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    width: int
    height: int

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points [...,3] -> pixels [...,2] and depth_z [...]."""
        camera = points @ self.world_to_camera[:3, :3].T + self.world_to_camera[:3, 3]
        depth = camera[..., 2]
        safe = np.maximum(depth, 1e-4)[..., None]
        focal = np.array([self.intrinsics[0, 0], self.intrinsics[1, 1]])
        return camera[..., :2] / safe * focal + self.intrinsics[:2, 2], depth

    def unproject(self, columns: np.ndarray, rows: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Pixel positions and depth_z -> world points [...,3]."""
        x = (columns - self.intrinsics[0, 2]) / self.intrinsics[0, 0] * depth
        y = (rows - self.intrinsics[1, 2]) / self.intrinsics[1, 1] * depth
        camera = np.stack([x, y, depth], -1)
        return (camera - self.world_to_camera[:3, 3]) @ self.world_to_camera[:3, :3]

    def grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixel-centre columns and rows, both [H,W]."""
        rows, columns = np.mgrid[: self.height, : self.width]
        return columns + 0.5, rows + 0.5


@dataclass(frozen=True)
class Shell:
    """Front depth_z [H,W] of the proxy, and the share of the head (against torso) [H,W]."""

    front: np.ndarray
    head_share: np.ndarray


def radial_extent(matte: np.ndarray, centre: np.ndarray, bins: int = 360) -> np.ndarray:
    """Distance [bins] in pixels from `centre` to the outline of the person along each angle (0 = right, clockwise)."""
    height, width = matte.shape
    longest = int(np.hypot(height, width))
    radius = np.arange(1, longest, 1.0)
    angle = np.arange(bins) * 2 * np.pi / bins
    columns = np.clip(centre[0] + np.cos(angle)[:, None] * radius, 0, width - 1).astype(int)
    rows = np.clip(centre[1] + np.sin(angle)[:, None] * radius, 0, height - 1).astype(int)
    inside = matte[rows, columns] > 0.5
    # the outline is where the person ends for good: gaps of a few pixels (between curls) do not count
    gap = max(4, int(0.03 * longest))
    outside_run = ndimage.minimum_filter1d(~inside, gap, axis=1, origin=-(gap // 2), mode="nearest")
    first = np.where(outside_run.any(1), outside_run.argmax(1), longest - 2)
    return radius[np.maximum(first, 1)]


def build_shell(hull: np.ndarray, torso: np.ndarray, chin_row: float) -> Shell:
    """Join the fronts of the inflated skull (NaN where it is not) and of the torso, depth_z [H,W], below the chin.

    What stands out from the skull (curls, buns, brims, long hair) goes on smoothly from its outline.
    """
    height = hull.shape[0]
    known = ~np.isnan(hull)
    if not known.any():
        return Shell(torso.astype(np.float32), np.zeros(hull.shape, np.float32))
    rim = known & (ndimage.minimum_filter(known, 5) == 0)
    beyond = fill_smoothly(np.where(rim, hull, 0)[..., None], rim)[..., 0]
    front = np.where(known, hull, beyond)
    rows = np.arange(height)[:, None] + 0.5
    share = np.clip((chin_row + 0.04 * height - rows) / (0.12 * height), 0, 1) * np.ones(hull.shape)
    front = share * front + (1 - share) * torso
    return Shell(front.astype(np.float32), share.astype(np.float32))


def blend_to_mesh(
    shell: np.ndarray, mesh: np.ndarray, covered: np.ndarray, reach: float, steep: np.ndarray | float = 0.0
) -> np.ndarray:
    """Depth [H,W]: the mesh where `covered`, the shell elsewhere, blended over `reach` pixels outside the mesh; where
    the shell lies behind, sooner if `steep` allows (metres of depth for each pixel from the mesh)."""
    if not covered.any():
        return shell
    distance, nearest = ndimage.distance_transform_edt(~covered, return_indices=True)
    rim = mesh[nearest[0], nearest[1]]
    t = np.clip(distance / max(reach, 1.0), 0, 1)
    t = t * t * (3 - 2 * t)
    blended = np.maximum((1 - t) * rim + t * shell, np.minimum(rim + steep * distance, shell))
    return np.where(covered, mesh, np.where(shell > rim, blended, (1 - t) * rim + t * shell)).astype(np.float32)
