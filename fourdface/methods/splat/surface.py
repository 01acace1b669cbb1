"""Depth behind every pixel of the person: the head mesh where it is seen, a smooth inflated proxy elsewhere.

Hair, hats and shoulders have no model. Their front is that of an ellipsoid over the outline and of the `torso`; the
inflated skull (`hull`) closes the back. Close to the skin it blends into the mesh, so that a turn opens no gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage


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


def build_shell(hair: np.ndarray, torso: np.ndarray, chin_row: float) -> Shell:
    """Join the fronts of hair (`hair_front`) and torso, depth_z [H,W], below the chin."""
    rows = np.arange(hair.shape[0])[:, None] + 0.5
    share = np.clip((chin_row + 0.04 * hair.shape[0] - rows) / (0.12 * hair.shape[0]), 0, 1) * np.ones(hair.shape)
    return Shell((share * hair + (1 - share) * torso).astype(np.float32), share.astype(np.float32))


def hair_front(matte: np.ndarray, view: View, skull: np.ndarray) -> np.ndarray:
    """Depth_z [H,W] of the hair: an ellipsoid over the person's outline about the skull's points [K,3].

    Seen from aside, hair that curves back to the middle of the head looks like hair; on the tighter inflated skull
    (which closes the back) the photo's strands would hang before it as a curtain.
    """
    columns, rows = view.grid()
    centre = 0.5 * (skull.min(0) + skull.max(0))
    pixel, centre_depth = view.project(centre)
    pixels, depth = view.project(skull)
    offset = pixels - pixel
    bins = 360
    outline = np.zeros(bins)
    polar = (np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) * bins).astype(int) % bins
    np.maximum.at(outline, polar, np.hypot(*offset.T))
    outline = ndimage.maximum_filter1d(outline, 21, mode="wrap")
    typical = np.median(outline)
    extent = radial_extent(matte, pixel, bins)
    extent = np.clip(extent, 0.7 * np.maximum(outline, 0.6 * typical), 2.4 * typical)
    # downwards the ray runs into the neck; the skull's own size is all that is meant there
    angles = np.arange(bins) * 2 * np.pi / bins
    downward = np.clip((np.sin(angles) - 0.3) / 0.4, 0, 1)
    extent = (1 - downward) * extent + downward * np.minimum(extent, 1.25 * typical)
    extent = ndimage.gaussian_filter1d(extent, 3, mode="wrap")
    thickness = np.clip(np.median((extent - outline)[np.sin(angles) < 0]), 0, None)
    front_half = centre_depth - np.percentile(depth, 2) + 0.5 * thickness * centre_depth / view.intrinsics[0, 0]
    dx, dy = columns - pixel[0], rows - pixel[1]
    index = (np.arctan2(dy, dx) / (2 * np.pi) * bins).astype(int) % bins
    rho = np.clip(np.hypot(dx, dy) / extent[index], 0, 1)
    return np.asarray(centre_depth - front_half * np.sqrt(1 - rho**2), np.float32)


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
