"""A look at tracking: landmarks and the fitted head drawn over a frame."""

from __future__ import annotations

import numpy as np
import torch

from ..artifacts import Tracked
from ..blocks.head_model import HeadModel
from ..ops.rasterize_mesh import rasterize_mesh

_LIGHT = np.array([0.3, 0.4, 0.85])


def draw_overlay(image_u8: np.ndarray, tracked: Tracked, frame: int, model: HeadModel) -> np.ndarray:
    """Frame [H,W,3] uint8 with the shaded fitted head at half strength and the landmarks as dots; a frame without a
    face gets a red border."""
    out = image_u8.copy()
    if tracked.status[frame] == 1:
        out[:4], out[-4:], out[:, :4], out[:, -4:] = ([220, 30, 30],) * 4
        return out
    if tracked.expression is not None and tracked.shape is not None:
        shade, covered = _shaded_head(tracked, frame, model)
        tint = np.stack([0.75 * shade, 0.9 * shade, shade], -1) * 255
        out[covered] = (0.5 * out[covered] + 0.5 * tint[covered]).astype(np.uint8)
    columns, rows = np.floor(tracked.landmarks[frame]).astype(int).T
    inside = (columns >= 0) & (rows >= 0) & (columns < out.shape[1]) & (rows < out.shape[0])
    out[rows[inside], columns[inside]] = (255, 220, 0)
    return out


def _shaded_head(tracked: Tracked, frame: int, model: HeadModel) -> tuple[np.ndarray, np.ndarray]:
    """Lambert shading [H,W] of the fitted head and the pixels [H,W] that it covers."""
    row = lambda name: torch.from_numpy(np.asarray(getattr(tracked, name)[frame]))[None]  # noqa: E731
    shape = torch.from_numpy(np.asarray(tracked.shape))[None]
    pose = [row(name) for name in ("expression", "rotation", "translation", "neck", "jaw", "eyes")]
    vertices = model(shape, *pose)
    corners = vertices[0][model.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = torch.nn.functional.normalize(normal, dim=-1).numpy()
    raster = rasterize_mesh(
        vertices[0], model.faces.int(), torch.from_numpy(np.asarray(tracked.world_to_camera)).float(),
        torch.from_numpy(np.asarray(tracked.intrinsics)).float(), tracked.width, tracked.height, cull_back=True,
    )  # fmt: skip
    index = raster.face_index.numpy()
    shade = np.clip(normal @ (_LIGHT / np.linalg.norm(_LIGHT)), 0.15, 1)
    return shade[np.maximum(index, 0)], index >= 0
