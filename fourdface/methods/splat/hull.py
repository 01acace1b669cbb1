"""The head with its hair as a closed surface: the model's skull, moved outward until it fills the silhouette.

The photo tells how thick the hair is all round the outline; behind and above, where it says nothing, hair is as thick
as the outline's median and a little more (it lies on the back of the head, and the model's skull is a bald one).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage, sparse

from ...ops.rasterize_mesh import rasterize_mesh
from .appearance import graph_laplacian
from .scene import Scene, vertex_normals
from .surface import radial_extent

BINS = 360
BACK_GAIN, BACK_EXTRA = 1.3, 0.006
"""Thickness of the hair at the back of the head: gain times that of the outline, plus metres."""
FRONT_GAIN = 0.6
"""Thickness of the hair that faces the camera, over that of the outline."""
LEAST = 0.5
"""Least thickness of hair anywhere on the upper outline, over the typical one."""
LARGEST = 1.4
"""Largest thickness of hair over the skull's median radius: beyond it is hair that hangs, or a hat's brim."""
SMOOTHING = 8
"""Rounds of averaging over neighbours on the skull; it also tapers the hair at the hairline."""

THIN_HAIR = 0.003
"""Thickness of hair in metres below which the scalp is seen."""
NAPE = 0.035
"""Height over the neck joint, metres, below which the scalp is the nape."""


@dataclass(frozen=True)
class Hull:
    """Inflated skull: vertices [V,3] (world; all of the head's, of which only the scalp's are moved), its triangles
    [K] (ids into the head's faces), and the thickness [V] of what lies on the skull, metres."""

    vertices: np.ndarray
    triangles: np.ndarray
    thickness: np.ndarray


def inflate_skull(scene: Scene) -> Hull:
    """The skull of a posed scene, moved outward to the silhouette."""
    model = scene.model
    count = len(model.template)
    vertices = scene.vertices[:count].astype(np.float64)
    scalp = model.regions["scalp"].numpy()
    solid = scalp | model.regions["face"].numpy() | model.regions["ears"].numpy()
    normal = vertex_normals(vertices, model.faces.numpy())
    centre = 0.5 * (vertices[scalp].min(0) + vertices[scalp].max(0))
    smooth = _averaging(scene)
    thickness = np.zeros(count)
    moved = vertices
    for _ in range(2):
        gap = _outline_gap(scene, moved[solid], centre)
        thickness = thickness + _spread_gap(scene, vertices, scalp, centre, gap, first=not thickness.any())
        thickness = np.where(scalp, np.clip(thickness, 0, None), 0)
        for _ in range(SMOOTHING):
            thickness = np.where(scalp, smooth @ thickness, 0)
        moved = vertices + thickness[:, None] * normal
    triangles = np.flatnonzero(scene.face_regions["scalp"])
    return Hull(moved, triangles, thickness)


def _averaging(scene: Scene) -> sparse.csr_matrix:
    """Matrix [V,V] that takes half of each vertex' value and half of its neighbours' mean."""
    laplacian = graph_laplacian(scene.model.faces.numpy(), len(scene.model.template))
    half = sparse.diags(0.5 / np.maximum(laplacian.diagonal(), 1))
    return (sparse.identity(laplacian.shape[0]) - half @ laplacian).tocsr()


def _outline_gap(scene: Scene, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Metres [BINS] by which the person's silhouette reaches beyond that of `points` [K,3], by image direction."""
    pixel, depth = scene.view.project(centre)
    pixels, _ = scene.view.project(points)
    offset = pixels - pixel
    polar = (np.arctan2(offset[:, 1], offset[:, 0]) / (2 * np.pi) * BINS).astype(int) % BINS
    outline = np.zeros(BINS)
    np.maximum.at(outline, polar, np.hypot(*offset.T))
    outline = ndimage.maximum_filter1d(outline, 9, mode="wrap")
    typical = float(np.median(outline))
    extent = radial_extent(scene.matte, pixel, BINS)
    # downwards the ray runs into neck and torso: no more than a little hair beside the jaw is meant there
    downward = np.clip((np.sin(np.arange(BINS) * 2 * np.pi / BINS) - 0.2) / 0.4, 0, 1)
    most = outline + typical * ((1 - downward) * LARGEST + downward * 0.1)
    gap = np.clip(extent, 0.7 * outline, most) - outline
    return ndimage.gaussian_filter1d(gap, 3, mode="wrap") * float(depth) / scene.view.intrinsics[0, 0]


def _spread_gap(
    scene: Scene, vertices: np.ndarray, scalp: np.ndarray, centre: np.ndarray, gap: np.ndarray, first: bool
) -> np.ndarray:
    """Thickness [V] to add: the outline's own near the outline, the typical one (in the `first` round) elsewhere."""
    direction = (vertices - centre) @ scene.view.world_to_camera[:3, :3].T
    direction /= np.maximum(np.linalg.norm(direction, axis=-1, keepdims=True), 1e-9)
    angle = np.arctan2(direction[:, 1], direction[:, 0]) / (2 * np.pi) * BINS
    own = gap[angle.astype(int) % BINS]
    upper = np.sin(np.arange(BINS) * 2 * np.pi / BINS) < -0.1
    typical = max(float(np.median(gap[upper])), 0.0) if first else 0.0
    # hair does not end on one side: there the matte has missed it
    own = np.where(direction[:, 1] < 0, np.maximum(own, LEAST * typical), own) if first else own
    elsewhere = np.where(direction[:, 2] > 0, BACK_GAIN * typical + BACK_EXTRA * first, FRONT_GAIN * typical)
    t = np.clip((np.hypot(direction[:, 0], direction[:, 1]) - 0.6) / 0.3, 0, 1)
    share = t * t * (3 - 2 * t)
    return share * own + (1 - share) * elsewhere


def hull_depth(scene: Scene, hull: Hull) -> np.ndarray:
    """Depth_z [H,W] of the hull's front in the photo, NaN where it is not."""
    # the nape belongs to the back: beside a neck that is wider than the model's it would be seen far behind it
    nape = scene.rig.neutral.numpy()[scene.model.faces.numpy()[hull.triangles], 1].min(1) < NAPE
    faces = scene.model.faces[torch.from_numpy(hull.triangles[~nape])].int()
    raster = rasterize_mesh(
        torch.from_numpy(hull.vertices.astype(np.float32)), faces,
        torch.from_numpy(scene.view.world_to_camera).float(), torch.from_numpy(scene.view.intrinsics).float(),
        scene.view.width, scene.view.height, cull_back=True,
    )  # fmt: skip
    return np.where(raster.face_index.numpy() >= 0, raster.depth_z.numpy(), np.nan)
