"""Everything known about the photo while lifting, and the geometry that all layers share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...blocks.head_model import HeadModel
from ...ops.rasterize_mesh import rasterize_mesh
from .rig import Rig
from .surface import View

INNER = (
    "mouth_bag", "tongue", "gums", "teeth_upper", "teeth_lower", "eyeball_left", "eyeball_right", "eye_sockets",
)  # fmt: skip
DETAILED = (*INNER, "lips", "eyelids")
"""Regions whose pixels are never merged."""
TORSO_PIN = 1.0
"""How far the torso is held by the picture's lower edge: 1 would nail the edge, 0 lets the whole torso follow."""
STEEPEST = 6.0
"""Pixels of depth that one pixel's footprint may span; beyond this it is an edge and no slope."""


@dataclass(frozen=True)
class Layer:
    """Gaussians in the photo's pose: means [N,3], covariances [N,6], colours [N,3], opacity [N], triangle [N], and
    stretch [N]: how far a deviation may grow when its triangle does."""

    means: np.ndarray
    covariances: np.ndarray
    colours: np.ndarray
    opacity: np.ndarray
    triangle: np.ndarray
    stretch: np.ndarray


@dataclass(frozen=True)
class Bound:
    """Gaussians in triangle coordinates (see `ops.bind_gaussians`): what an avatar stores. max_trace [N]: largest
    trace of a covariance in square metres."""

    triangle: np.ndarray
    local_mean: np.ndarray
    local_covariance: np.ndarray
    colours: np.ndarray
    opacity: np.ndarray
    max_trace: np.ndarray


@dataclass
class Scene:
    """Everything known about the photo while lifting."""

    image: np.ndarray
    matte: np.ndarray
    view: View
    model: HeadModel
    rig: Rig
    vertices: np.ndarray
    faces: np.ndarray
    face_index: np.ndarray
    mesh_depth: np.ndarray
    face_regions: dict[str, np.ndarray]


def make_scene(image: np.ndarray, matte: np.ndarray, view: View, model: HeadModel, rig: Rig) -> Scene:
    """Pose the rig as in the photo and draw its mesh: which triangle and depth every pixel shows."""
    vertices = rig.pose(rig.source)
    head = vertices[: model.template.shape[0]]
    raster = rasterize_mesh(
        head, model.faces.int(), torch.from_numpy(view.world_to_camera).float(),
        torch.from_numpy(view.intrinsics).float(), view.width, view.height, cull_back=True,
    )  # fmt: skip
    faces = model.faces.numpy()
    regions = {name: mask.numpy()[faces].mean(1) > 0.5 for name, mask in model.regions.items()}
    # where the neck hangs more on the torso than on the skull the photo shows collars and hair: the chain's business
    regions["collar"] = model.skinning_weights.numpy()[faces, 0].mean(1) > 0.5
    index = raster.face_index.numpy()
    index = np.where((index >= 0) & regions["collar"][np.maximum(index, 0)], -1, index)
    return Scene(
        image, matte, view, model, rig, vertices.numpy(), rig.faces.numpy(), index,
        raster.depth_z.numpy(), regions,
    )  # fmt: skip


def metres_per_pixel(scene: Scene) -> float:
    """Size of the photo's pixel at the head, metres."""
    _, depth = scene.view.project(scene.rig.source.translation.numpy().astype(np.float64))
    return float(depth / scene.view.intrinsics[0, 0])


def facing(scene: Scene, points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Cosine [N] between surface normals and the direction to the photo's camera."""
    matrix = scene.view.world_to_camera
    to_camera = -matrix[:3, :3].T @ matrix[:3, 3] - points
    to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
    return (normal * to_camera).sum(-1)


def pixel_of(scene: Scene, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column (clamped into the picture), whether they are inside, and depth_z of world points [N,3]."""
    pixels, depth = scene.view.project(points)
    column, row = np.floor(pixels[:, 0]).astype(int), np.floor(pixels[:, 1]).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < scene.view.width) & (row < scene.view.height)
    return np.clip(row, 0, scene.view.height - 1), np.clip(column, 0, scene.view.width - 1), inside, depth


def shown(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Which points [N] of the mesh are its front in the photo, whatever the photo shows there."""
    row, column, inside, depth = pixel_of(scene, points)
    drawn = scene.face_index[row, column] >= 0
    return inside & drawn & (np.abs(depth - scene.mesh_depth[row, column]) < 0.004)


def beside_person(scene: Scene, points: np.ndarray) -> np.ndarray:
    """Which points [N] would stand in front of what the photo shows to be background: the person is slimmer there."""
    row, column, inside, _ = pixel_of(scene, points)
    return inside & (scene.matte[row, column] < 0.5)


def frontmost(
    scene: Scene, points: np.ndarray, normal: np.ndarray, labels: np.ndarray, triangle: np.ndarray, steepest: float
) -> np.ndarray:
    """Which mesh points [N] the photo shows well (cosine above `steepest`), so that pixels stand for them."""
    row, column, _, _ = pixel_of(scene, points)
    seen = shown(scene, points) & (facing(scene, points, normal) > steepest)
    # an eyeball's rim belongs to the lid now: the eyeball under it needs samples of its own
    eyes = scene.face_regions["eyeball_left"] | scene.face_regions["eyeball_right"]
    label = np.maximum(labels[row, column], 0)
    return seen & ~(eyes[triangle] & ~eyes[label])


def triangle_points(index: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Evenly spread barycentric coordinates [N,3]: the R2 sequence, shifted by triangle, folded into the triangle."""
    a = (0.5 + 0.7548776662466927 * (index + 1) + 0.37 * triangle) % 1
    b = (0.5 + 0.5698402909980532 * (index + 1) + 0.61 * triangle) % 1
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    return np.stack([1 - a - b, a, b], -1)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals [V,3] of a mesh (vertices [V,3], faces [F,3]), weighted by area."""
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = np.zeros((len(vertices), 3))
    for k in range(3):
        np.add.at(normal, faces[:, k], weighted)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)


def head_forward(scene: Scene) -> np.ndarray:
    """Where the head looks in the photo's pose, world [3]."""
    return scene.rig.source_rotation.numpy()[:, 2]


def chain_level(scene: Scene, points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Position on the rig's chain of world points [...,3] at image rows [...]: 1 skull, 0 torso, towards -1 at the
    picture's lower edge.

    Between skull and torso it follows the neck's own skinning weights by height, so that skin and hair move alike.
    """
    model, rig = scene.model, scene.rig
    neck = model.regions["neck"].numpy()
    height = rig.neutral.numpy()[neck, 1]
    weight = 1 - model.skinning_weights.numpy()[neck, 0]
    bins = np.linspace(height.min(), height.max(), 24)
    middle = 0.5 * (bins[1:] + bins[:-1])
    which = np.clip(np.digitize(height, bins) - 1, 0, 22)
    count = np.bincount(which, minlength=23)
    profile = np.bincount(which, weight, minlength=23) / np.maximum(count, 1)
    profile = np.maximum.accumulate(profile)
    rotation, translation = rig.source_rotation.numpy(), rig.source.translation.numpy()
    local = (points - translation) @ rotation
    level = np.interp(local[..., 1], middle, profile, left=0.0, right=1.0)
    # the torso begins where the neck's axis no longer moves with the skull
    foot = np.array([0.0, middle[np.argmax(profile > 0.02)], 0.0]) @ rotation.T + translation
    lowest = float(scene.view.project(foot)[0][1])
    fall = np.clip((rows - lowest) / max(scene.view.height - lowest, 1.0), 0, 1)
    return np.where(level > 0.02, level, -TORSO_PIN * fall)


def pixel_covariances(scene: Scene, points: np.ndarray, depth: np.ndarray, sigma: float) -> np.ndarray:
    """Covariances [H,W,6]: each pixel's footprint on the surface, flat along the surface's normal."""
    unit = depth / scene.view.intrinsics[0, 0]
    tangents = []
    for axis in (1, 0):
        step = np.gradient(points, axis=axis)
        jump = np.abs(np.gradient(depth, axis=axis)) > STEEPEST * unit
        # at a jump of depth the footprint stays parallel to the picture
        flat = unit[..., None] * scene.view.world_to_camera[1 - axis, :3]
        tangents.append(np.where(jump[..., None], flat, step))
    u, v = tangents
    normal = np.cross(u, v)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    return _outer_sum([sigma * u, sigma * v, 0.25 * sigma * unit[..., None] * normal])


def _outer_sum(vectors: list[np.ndarray]) -> np.ndarray:
    """Sum of outer products as xx,xy,xz,yy,yz,zz [...,6]."""
    out = np.zeros((*vectors[0].shape[:-1], 6))
    for w in vectors:
        x, y, z = w[..., 0], w[..., 1], w[..., 2]
        out += np.stack([x * x, x * y, x * z, y * y, y * z, z * z], -1)
    return out
