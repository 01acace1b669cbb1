"""The surface in a tri-plane's density, by marching cubes (Lorensen and Cline, 1987), with the field's own colours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fourdface.blocks.triplane import TriplaneField
from fourdface.errors import FourdError
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.priors.genhead.camera import WORLD_SCALE

__all__ = ["DENSITY_LEVEL", "extract_surface"]

DENSITY_LEVEL = 25.0
"""Raw density that counts as the surface (Portrait4D's own)."""
RESOLUTION = 128
"""Samples of the density along each side of the cube, unless said otherwise."""
_PIECE = 1 << 18


@torch.inference_mode()
def extract_surface(
    network: Reconstructor, planes: Tensor, resolution: int | None = None, level: float = DENSITY_LEVEL
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [N, 3] in metres (neck straight, origin at its joint), faces [M, 3] and colours [N, 3] in 0..1.

    Args:
        planes: [1, 3, C, R, R]. resolution: None is `RESOLUTION`. level: raw density of the surface.

    Raises:
        FourdError: the density nowhere crosses the level.
    """
    from skimage.measure import marching_cubes

    resolution = resolution or RESOLUTION
    box = network.config.box_size
    field = TriplaneField(planes, network.decoder, axes="portrait4d", box_size=box)
    line = torch.linspace(-box / 2, box / 2, resolution, device=planes.device)
    grid = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(1, -1, 3)
    density = torch.cat([field(piece)[0][0] for piece in grid.split(_PIECE, 1)])
    volume = density.reshape(resolution, resolution, resolution).float().cpu().numpy()
    if not volume.min() < level < volume.max():
        raise FourdError(
            f"there is no surface: the density goes from {volume.min():.1f} to {volume.max():.1f} and {level:g} is "
            "wanted; the weights do not hold a trained head"
        )
    spacing = box / (resolution - 1)
    vertices, faces, _, _ = marching_cubes(volume, level, spacing=(spacing,) * 3, gradient_direction="ascent")
    points = torch.from_numpy(vertices.astype(np.float32) - box / 2).to(planes.device)
    colours = torch.cat([field(piece)[1][0, :, :3] for piece in points[None].split(_PIECE, 1)])
    metres = points.cpu().numpy() / WORLD_SCALE
    return metres, faces.astype(np.int64), colours.float().clamp(0, 1).cpu().numpy()
