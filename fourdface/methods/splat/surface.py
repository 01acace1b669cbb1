"""Depth behind every pixel of the person: the head mesh where it is seen, a smooth inflated proxy elsewhere.

Hair, hats and shoulders have no model. Their front is an ellipsoidal shell that meets the matte's outline at the
depth of the skull's or the torso's centre and bulges towards the viewer; their back is its mirror image, flatter or
deeper as the skull is. Close to the skin the shell blends into the mesh, so that a turn opens no gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

TORSO_HALF_DEPTH = 0.11
"""Metres from the torso's middle to its front: a medium chest."""


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
    """Front and back depth_z [H,W] of the proxy, the share of the head (against torso) [H,W], and rho [H,W]: 0 in
    the middle of the silhouette, 1 on its outline."""

    front: np.ndarray
    back: np.ndarray
    head_share: np.ndarray
    rho: np.ndarray


def _radial_extent(matte: np.ndarray, centre: np.ndarray, bins: int = 360) -> np.ndarray:
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


def build_shell(matte: np.ndarray, view: View, skull: np.ndarray, neck_point: np.ndarray, chin_row: float) -> Shell:
    """Shell of everything in the matte.

    skull [K,3]: world points of the cranium; neck_point [3]: world position of the neck joint; chin_row: image row
    of the chin, below which the torso takes over.
    """
    columns, rows = view.grid()
    centre = 0.5 * (skull.min(0) + skull.max(0))
    pixel, centre_depth = view.project(centre)
    skull_pixels, skull_depth = view.project(skull)
    offset = skull_pixels - pixel
    polar = np.arctan2(offset[:, 1], offset[:, 0])
    bins = 360
    extent = _radial_extent(matte, pixel, bins)
    outline = np.zeros(bins)
    np.maximum.at(outline, (polar / (2 * np.pi) * bins).astype(int) % bins, np.hypot(*offset.T))
    outline = ndimage.maximum_filter1d(outline, 21, mode="wrap")
    typical = np.median(outline)
    extent = np.clip(extent, 0.7 * np.maximum(outline, 0.6 * typical), 2.4 * typical)
    # downwards the ray runs into the neck; the skull's own size is all that is meant there
    angles = np.arange(bins) * 2 * np.pi / bins
    downward = np.clip((np.sin(angles) - 0.3) / 0.4, 0, 1)
    extent = (1 - downward) * extent + downward * np.minimum(extent, 1.25 * typical)
    extent = ndimage.gaussian_filter1d(extent, 3, mode="wrap")
    metres = centre_depth / view.intrinsics[0, 0]
    thickness = float(np.clip(np.median((extent - outline)[np.sin(angles) < 0]), 0, None) * metres)
    front_half = float(centre_depth - np.percentile(skull_depth, 2)) + 0.5 * thickness
    back_half = float(np.percentile(skull_depth, 98) - centre_depth) + 0.7 * thickness

    dx, dy = columns - pixel[0], rows - pixel[1]
    index = (np.arctan2(dy, dx) / (2 * np.pi) * bins).astype(int) % bins
    rho_head = np.clip(np.hypot(dx, dy) / extent[index], 0, 1)
    rho_torso, torso_depth = _torso_profile(matte, view, neck_point)
    head_share = np.clip((chin_row + 0.04 * view.height - rows) / (0.12 * view.height), 0, 1)
    dome_head, dome_torso = np.sqrt(1 - rho_head**2), np.sqrt(1 - rho_torso**2)
    front = head_share * (centre_depth - front_half * dome_head) + (1 - head_share) * (
        torso_depth - TORSO_HALF_DEPTH * dome_torso
    )
    back = head_share * (centre_depth + back_half * dome_head) + (1 - head_share) * (
        torso_depth + TORSO_HALF_DEPTH * dome_torso
    )
    rho = head_share * rho_head + (1 - head_share) * rho_torso
    return Shell(*(field.astype(np.float32) for field in (front, back, head_share, rho)))


def _torso_profile(matte: np.ndarray, view: View, neck_point: np.ndarray) -> tuple[np.ndarray, float]:
    """Normalised distance [H,W] from each row's middle, and the depth of the torso's middle."""
    width = matte.shape[1]
    inside = matte > 0.5
    any_row = inside.any(1)
    left = np.where(any_row, inside.argmax(1), width / 2)
    right = np.where(any_row, width - 1 - inside[:, ::-1].argmax(1), width / 2)
    # a torso cut by the picture's edge goes on beyond it
    span = np.maximum(right - left, 1.0)
    left = np.where(left <= 1, left - 0.15 * span, left)
    right = np.where(right >= width - 2, right + 0.15 * span, right)
    half = ndimage.gaussian_filter1d(np.maximum((right - left) / 2, 2.0), 6, mode="nearest")
    middle = ndimage.gaussian_filter1d((left + right) / 2, 6, mode="nearest")
    columns, _ = view.grid()
    rho = np.clip(np.abs(columns - middle[:, None]) / half[:, None], 0, 1)
    _, depth = view.project(neck_point)
    return rho, float(depth) + 0.01


def blend_to_mesh(shell: np.ndarray, mesh: np.ndarray, covered: np.ndarray, reach: float) -> np.ndarray:
    """Depth [H,W]: the mesh where `covered`, the shell elsewhere, blended over `reach` pixels outside the mesh."""
    if not covered.any():
        return shell
    distance, nearest = ndimage.distance_transform_edt(~covered, return_indices=True)
    rim = mesh[nearest[0], nearest[1]]
    t = np.clip(distance / max(reach, 1.0), 0, 1)
    t = t * t * (3 - 2 * t)
    return np.where(covered, mesh, (1 - t) * rim + t * shell).astype(np.float32)
