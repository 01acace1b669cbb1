"""Calibrated photographs of one subject: cameras from a transforms.json (as NeRF data sets have them)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from fourdface.errors import FourdError


@dataclass(frozen=True)
class CalibratedViews:
    """world_to_camera [N,4,4] (OpenCV axes), shared intrinsics [3,3] pixels; files and masks relative to the folder."""

    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    width: int
    height: int
    files: list[str]
    masks: list[str]

    def most_frontal(self) -> int:
        """The camera that looks most along the mean of all viewing directions."""
        forward = self.world_to_camera[:, 2, :3]
        return int(np.argmax(forward @ forward.mean(axis=0)))

    def relative_to(self, source: int, own: np.ndarray, scale: float) -> np.ndarray:
        """The cameras [N,4,4] in another world, in which camera `source` is `own` [4,4] and lengths are `scale` times
        as long."""
        relative = self.world_to_camera @ np.linalg.inv(self.world_to_camera[source])
        relative[:, :3, 3] *= scale
        return np.asarray(relative @ own)

    def angles_from(self, source: int) -> np.ndarray:
        """Degrees [N] between the viewing directions of each camera and of camera `source`."""
        forward = self.world_to_camera[:, 2, :3]
        return np.degrees(np.arccos(np.clip(forward @ forward[source], -1, 1)))


def read_views(path: Path) -> CalibratedViews:
    """Read transforms.json: `fl_x fl_y cx cy w h`, and for each frame `file_path`, `transform_matrix` (camera to world,
    OpenGL axes: looks along -z) and, if there is one, `fg_mask_path`.

    Raises FourdError for a file that is missing or says something else; file names must stay inside the folder.
    """
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
        frames = data["frames"]
        to_world = np.array([frame["transform_matrix"] for frame in frames], np.float64)
        intrinsics = np.array([[data["fl_x"], 0, data["cx"]], [0, data["fl_y"], data["cy"]], [0, 0, 1]], np.float64)
        size = int(data["w"]), int(data["h"])
        files = [str(frame["file_path"]) for frame in frames]
        masks = [str(frame.get("fg_mask_path") or "") for frame in frames]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FourdError(f"{path} does not hold calibrated views: {type(error).__name__} {error}") from error
    if to_world.ndim != 3 or to_world.shape[1:] != (4, 4) or len(to_world) < 2 or not np.isfinite(to_world).all():
        raise FourdError(f"{path} must hold two or more finite 4x4 matrices, got shape {list(to_world.shape)}")
    if outside := [name for name in (*files, *masks) if name and not _inside(name)]:
        raise FourdError(f"{path} names {outside[0]!r}, which lies outside of its folder")
    to_world[:, :3, 1:3] *= -1
    return CalibratedViews(np.linalg.inv(to_world), intrinsics, *size, files, masks)


def _inside(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/"))
    return not parts.is_absolute() and ".." not in parts.parts
