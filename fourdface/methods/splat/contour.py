"""Fit the head's outline to the photo's: where the model is fatter than the person, it is drawn in, smoothly."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

from .appearance import graph_laplacian
from .rig import Rig
from .surface import View

LARGEST_SHIFT = 0.015
"""Metres that a vertex may be moved at most."""
CONTOUR_REGIONS = ("face", "neck", "ears")


def fit_contour(rig: Rig, matte: np.ndarray, view: View, rounds: int = 2) -> Rig:
    """A rig whose head does not stand out beyond the person's matte [H,W] in the photo's view.

    Vertices that project outside are targets for a displacement towards the person, parallel to the picture; the
    rest of the head follows by a biharmonic (thin-plate) interpolation on the mesh.
    """
    for _ in range(rounds):
        shift, targeted = _wanted_shift(rig, matte, view)
        if targeted.sum() < 3:
            break
        field = _spread(rig, shift, targeted)
        local = field @ rig.source_rotation.numpy()
        offset = rig.offset + torch.from_numpy(local.astype(np.float32))
        rig = Rig(rig.base, rig.shape, rig.source, offset)
    return rig


def _wanted_shift(rig: Rig, matte: np.ndarray, view: View) -> tuple[np.ndarray, np.ndarray]:
    """World displacement [V,3] of the vertices that lie outside the matte, and which they are [V]."""
    vertices = rig.pose(rig.source).numpy()[: rig.model.template.shape[0]]
    pixels, depth = view.project(vertices)
    outside = matte < 0.5
    distance, nearest = ndimage.distance_transform_edt(outside, return_indices=True)
    column = np.clip(pixels[:, 0].astype(int), 0, view.width - 1)
    row = np.clip(pixels[:, 1].astype(int), 0, view.height - 1)
    inside_picture = ((pixels >= 0) & (pixels < [view.width, view.height])).all(1)
    regions = np.any([rig.model.regions[name].numpy() for name in CONTOUR_REGIONS], axis=0)
    targeted = inside_picture & regions & (distance[row, column] > 0.5)
    step = np.stack([nearest[1][row, column] - column, nearest[0][row, column] - row], -1).astype(np.float64)
    metres = depth / view.intrinsics[0, 0]
    world = metres[:, None] * (step[:, :1] * view.world_to_camera[0, :3] + step[:, 1:] * view.world_to_camera[1, :3])
    length = np.linalg.norm(world, axis=-1, keepdims=True)
    world *= np.minimum(1, LARGEST_SHIFT / np.maximum(length, 1e-9))
    return world, targeted


def _spread(rig: Rig, shift: np.ndarray, targeted: np.ndarray) -> np.ndarray:
    """Smooth displacement field [V,3] that follows the targets and fades away from them."""
    count = len(shift)
    laplacian = graph_laplacian(rig.model.faces.numpy(), count)
    degree = sparse.diags(1 / np.maximum(laplacian.diagonal(), 1))
    smooth = degree @ laplacian
    weight = np.where(targeted, 1.0, 0.0)
    for name in ("eyeball_left", "eyeball_right", "teeth_upper", "teeth_lower", "lips", "eyelids", "nose"):
        weight[rig.model.regions[name].numpy()] = 10.0  # features stay where the landmarks put them
        shift = np.where((rig.model.regions[name].numpy())[:, None], 0.0, shift)
    system = smooth.T @ smooth * 4.0 + sparse.diags(weight + 0.004)
    return spsolve(system.tocsc(), weight[:, None] * shift)
