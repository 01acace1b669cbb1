"""Lift one photo to Gaussians on the rig: every pixel of the person, then what the photo does not show.

Layers: (1) `pixels`, (2) `hidden` samples of the mesh, (3) the `back`, (4) the person beyond the picture's `edge`.
Frames, units and regions are those of `blocks.head_model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...ops.bind_gaussians import bind_inverse
from .back import back_layer
from .contour import fit_contour
from .edge import edge_layer
from .hidden import hidden_layer
from .hull import Hull, inflate_skull
from .pixels import pixel_layer
from .plate import background_plate, foreground_colours, sharpen_matte
from .rig import Rig
from .scene import Bound, Layer, Scene, make_scene
from .surface import Shell, View, build_shell, hair_front
from .torso import Torso, fit_torso

__all__ = ["Bound", "Lifted", "lift_photo"]


@dataclass(frozen=True)
class Lifted:
    """Result of `lift_photo`: the Gaussians, of which the first P stand for pixels of the photo; their flat pixel
    index [P] (upper left of the cell) and cell size [P] (1, or 2 for four pixels in one); the background plate
    [H,W,3]; the rig with the person's own contour, which replaces the given one; the matte [H,W] as used."""

    rig: Rig
    gaussians: Bound
    pixel_index: np.ndarray
    cell: np.ndarray
    plate: np.ndarray
    matte: np.ndarray


def lift_photo(image: np.ndarray, matte: np.ndarray, view: View, rig: Rig) -> Lifted:
    """Photo [H,W,3] in [0,1] and matte [H,W] with a fitted `rig` -> Gaussians and plate."""
    matte = sharpen_matte(image, matte)
    rig = fit_contour(rig, matte, view)
    scene = make_scene(image, matte, view, rig.model, rig)
    plate = background_plate(image, matte)
    foreground = foreground_colours(image, matte, plate)
    shell, hull, torso = body_of(scene)
    pixels, pixel_index, cell, labels = pixel_layer(scene, shell, foreground)
    hidden = hidden_layer(scene, labels, foreground, hull.thickness)
    back = back_layer(scene, shell, hull, torso, foreground, _pixel_depth(view, pixels, pixel_index, cell))
    edge = edge_layer(scene, shell, foreground)
    bound = [_bind_world(rig, scene, pixels), hidden, _bind_world(rig, scene, back)]
    if edge is not None:
        bound.append(_bind_world(rig, scene, edge))
    joined = Bound(*(np.concatenate([getattr(b, name) for b in bound]) for name in Bound.__dataclass_fields__))
    return Lifted(rig, joined, pixel_index, cell, plate, matte)


def body_of(scene: Scene) -> tuple[Shell, Hull, Torso]:
    """The proxy around the posed skull, neck and torso of a scene."""
    count = len(scene.model.template)
    chin = scene.model.landmarks(torch.from_numpy(scene.vertices[None, :count]), "68")[0, 8]
    chin_row = float(scene.view.project(chin.numpy())[0][1])
    hull, torso = inflate_skull(scene), fit_torso(scene, chin_row)
    skull = scene.vertices[:count][scene.model.regions["scalp"].numpy()]
    hair = hair_front(scene.matte, scene.view, skull)
    return build_shell(hair, torso.front(scene.view), chin_row), hull, torso


def _pixel_depth(view: View, pixels: Layer, index: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Depth_z [H,W] at which the pixel layer stands, infinite where it has no Gaussian."""
    depth = np.full((view.height, view.width), np.inf)
    row, column = np.divmod(index, view.width)
    own = view.project(pixels.means)[1]
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        covers = (cell == 2) | (down + across == 0)
        depth[row[covers] + down, column[covers] + across] = own[covers]
    return depth


def _bind_world(rig: Rig, scene: Scene, layer: Layer) -> Bound:
    vertices = torch.from_numpy(scene.vertices)
    triangle = layer.triangle.astype(np.int32)
    mean, covariance = bind_inverse(
        vertices, rig.faces, torch.from_numpy(triangle), torch.from_numpy(layer.means.astype(np.float32)),
        torch.from_numpy(layer.covariances.astype(np.float32)),
    )  # fmt: skip
    return Bound(
        triangle, mean.numpy(), covariance.numpy(), layer.colours.astype(np.float32), layer.opacity.astype(np.float32),
        (layer.covariances[:, [0, 3, 5]].sum(1) * layer.stretch**2).astype(np.float32),
    )  # fmt: skip
