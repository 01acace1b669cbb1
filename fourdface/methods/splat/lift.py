"""Lift one photo to Gaussians on the rig: every pixel of the person, then what the photo does not show.

Three layers: (1) one Gaussian a pixel of the matte, on the head's triangles or on the proxy chain; (2) samples of the
mesh that the photo hides (far side, lids, mouth, eyeballs); (3) a coarse back of hair and torso, so that a turned
head is closed. Frames, units and regions are those of `blocks.head_model`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from ...blocks.arkit import ARKIT_INDEX
from ...blocks.head_model import HeadModel
from ...ops.bind_gaussians import bind_inverse
from ...ops.rasterize_mesh import rasterize_mesh
from . import appearance
from .contour import fit_contour
from .plate import background_plate, fill_smoothly, foreground_colours, sharpen_matte
from .rig import HeadState, Rig
from .surface import Shell, View, blend_to_mesh, build_shell

PIXEL_SIGMA = 0.45
"""Deviation of a pixel's Gaussian in pixels, before the renderer's own dilation."""
SAMPLE_SPREAD = 0.62
"""Deviation of a mesh sample's Gaussian over its spacing."""
OPACITY = 0.97
HIDDEN_SPACING = 2.2
"""Spacing of mesh samples in pixels of the photo."""
GRAZING = 0.45
"""Cosine below which a surface is seen too obliquely for its pixels alone to cover it from the side."""
INNER = (
    "mouth_bag", "tongue", "gums", "teeth_upper", "teeth_lower", "eyeball_left", "eyeball_right", "eye_sockets",
)  # fmt: skip
DETAILED = (*INNER, "lips", "eyelids")
"""Regions whose pixels are never merged."""


@dataclass(frozen=True)
class Layer:
    """Gaussians in the photo's pose: means [N,3], covariances [N,6], colours [N,3], opacity [N], triangle [N]."""

    means: np.ndarray
    covariances: np.ndarray
    colours: np.ndarray
    opacity: np.ndarray
    triangle: np.ndarray


@dataclass(frozen=True)
class Bound:
    """Gaussians in triangle coordinates (see `ops.bind_gaussians`): what an avatar stores."""

    triangle: np.ndarray
    local_mean: np.ndarray
    local_covariance: np.ndarray
    colours: np.ndarray
    opacity: np.ndarray


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


@dataclass
class _Scene:
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


def lift_photo(image: np.ndarray, matte: np.ndarray, view: View, rig: Rig) -> Lifted:
    """Photo [H,W,3] in [0,1] and matte [H,W] with a fitted `rig` -> Gaussians and plate."""
    matte = sharpen_matte(image, matte)
    rig = fit_contour(rig, matte, view)
    scene = _make_scene(image, matte, view, rig.model, rig)
    plate = background_plate(image, matte)
    foreground = foreground_colours(image, matte, plate)
    shell = _shell_of(scene)
    pixels, pixel_index, cell, labels = _pixel_layer(scene, shell, foreground)
    hidden = _hidden_layer(scene, labels, foreground)
    back = _back_layer(scene, shell, foreground)
    bound = [_bind_world(rig, scene, pixels), hidden, _bind_world(rig, scene, back)]
    joined = Bound(*(np.concatenate([getattr(b, name) for b in bound]) for name in Bound.__dataclass_fields__))
    return Lifted(rig, joined, pixel_index, cell, plate, matte)


def _make_scene(image: np.ndarray, matte: np.ndarray, view: View, model: HeadModel, rig: Rig) -> _Scene:
    vertices = rig.pose(rig.source)
    head = vertices[: model.template.shape[0]]
    raster = rasterize_mesh(
        head, model.faces.int(), torch.from_numpy(view.world_to_camera).float(),
        torch.from_numpy(view.intrinsics).float(), view.width, view.height, cull_back=True,
    )  # fmt: skip
    faces = model.faces.numpy()
    regions = {name: mask.numpy()[faces].mean(1) > 0.5 for name, mask in model.regions.items()}
    return _Scene(
        image, matte, view, model, rig, vertices.numpy(), rig.faces.numpy(), raster.face_index.numpy(),
        raster.depth_z.numpy(), regions,
    )  # fmt: skip


def _shell_of(scene: _Scene) -> Shell:
    skull = scene.vertices[: len(scene.model.template)][scene.model.regions["scalp"].numpy()]
    state = scene.rig.source
    neck = scene.rig.source_rotation.numpy() @ scene.rig.joints[1].numpy() + state.translation.numpy()
    chin = scene.model.landmarks(torch.from_numpy(scene.vertices[None, : len(scene.model.template)]), "68")[0, 8]
    chin_row = float(scene.view.project(chin.numpy())[0][1])
    return build_shell(scene.matte, scene.view, skull, neck, chin_row)


# --- layer 1: pixels ------------------------------------------------------------------------------------------------


def _pixel_layer(
    scene: _Scene, shell: Shell, foreground: np.ndarray
) -> tuple[Layer, np.ndarray, np.ndarray, np.ndarray]:
    """Gaussians of all matte pixels, with their flat pixel index [P] and cell size [P]; also the head triangle of
    each pixel [H,W] (-1: on the chain)."""
    view = scene.view
    person = scene.matte > 0.03
    labels, direct = _bind_pixels(scene, person)
    depth = blend_to_mesh(shell.front, scene.mesh_depth, direct, 0.05 * view.height)
    columns, rows = view.grid()
    points = view.unproject(columns, rows, depth.astype(np.float64))
    covariance = _pixel_covariances(scene, points, depth, PIXEL_SIGMA)
    triangle = np.where(labels >= 0, labels, scene.rig.proxy_triangle(_chain_level(scene, points, rows)))
    merged = _mergeable(scene, foreground, depth, labels)
    index, cell = _cells(person, merged)
    four = (cell == 2)[:, None]

    def at(field: np.ndarray, channels: int) -> np.ndarray:
        flat = field.reshape(-1, channels)
        pooled = _pool(field.reshape(view.height, view.width, channels)).reshape(-1, channels)
        return np.where(four, pooled[index], flat[index])

    layer = Layer(
        at(points, 3), at(covariance, 6) * np.where(four, 4.0, 1.0), at(foreground, 3),
        np.clip(at(scene.matte, 1)[:, 0], 0, 1) * OPACITY, triangle.reshape(-1)[index],
    )  # fmt: skip
    return layer, index, cell, labels


def _pool(field: np.ndarray) -> np.ndarray:
    """Mean over the 2x2 cell that starts at each pixel [H,W,C] (repeating the last row and column)."""
    padded = np.pad(field, ((0, 1), (0, 1), (0, 0)), mode="edge")
    return 0.25 * (padded[:-1, :-1] + padded[1:, :-1] + padded[:-1, 1:] + padded[1:, 1:])


def _cells(person: np.ndarray, merged: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat index and size of every Gaussian's cell: 2x2 where `merged` [H/2,W/2], single pixels elsewhere."""
    big = np.zeros_like(person)
    big[: merged.shape[0] * 2, : merged.shape[1] * 2] = np.repeat(np.repeat(merged, 2, 0), 2, 1)
    corner = np.zeros_like(person)
    corner[: merged.shape[0] * 2 : 2, : merged.shape[1] * 2 : 2] = merged
    single = np.flatnonzero(person & ~big)
    four = np.flatnonzero(corner)
    index = np.concatenate([single, four])
    return index, np.concatenate([np.ones(len(single), np.int64), np.full(len(four), 2, np.int64)])


def _mergeable(scene: _Scene, foreground: np.ndarray, depth: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """2x2 cells [H/2,W/2] that one Gaussian can stand for: calm colour, no edge, outside eyes and mouth."""
    rows, columns = scene.matte.shape[0] // 2, scene.matte.shape[1] // 2

    def blocks(field: np.ndarray) -> np.ndarray:
        cut = field[: 2 * rows, : 2 * columns]
        return cut.reshape(rows, 2, columns, 2, *field.shape[2:]).swapaxes(1, 2).reshape(rows, columns, 4, -1)

    calm = np.ptp(blocks(foreground), axis=2).max(-1) < MERGE_RANGE
    solid = blocks(scene.matte[..., None]).min((2, 3)) > 0.97
    unit = float(np.median(depth)) / scene.view.intrinsics[0, 0]
    smooth = np.ptp(blocks(depth[..., None]), axis=2)[..., 0] < 4 * unit
    detailed = np.any([scene.face_regions[name] for name in DETAILED], axis=0)
    fine = blocks((detailed[np.maximum(labels, 0)] & (labels >= 0))[..., None]).any((2, 3))
    on_mesh = blocks((labels >= 0)[..., None])
    pure = on_mesh.all((2, 3)) | ~on_mesh.any((2, 3))
    return calm & solid & smooth & pure & ~fine


MERGE_RANGE = 0.06
"""Largest difference of colour in a 2x2 cell that one Gaussian replaces."""


def _bind_pixels(scene: _Scene, person: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Head triangle of each pixel [H,W] (-1: proxy) and whether the pixel lies on that triangle itself [H,W].

    Skin pixels just outside the mesh's outline hang on the nearest triangle, so that a moving jaw leaves none of
    itself behind; pixels on an eyeball's rim (lashes, lid shadow) hang on the lid and not on the eyeball.
    """
    drawn = np.where(person, scene.face_index, -1)
    safe = np.maximum(drawn, 0)
    scalp = scene.face_regions["scalp"][safe] & (drawn >= 0)
    skin = (drawn >= 0) & ~scalp
    eyes = (scene.face_regions["eyeball_left"] | scene.face_regions["eyeball_right"])[safe] & (drawn >= 0)
    labels = drawn.copy()
    if not skin.any():
        return labels, skin
    columns, rows_used = np.flatnonzero(skin.any(0)), np.flatnonzero(skin.any(1))
    width = np.ptp(columns) + 1
    distance, nearest = ndimage.distance_transform_edt(~skin, return_indices=True)
    rows = np.arange(scene.view.height)[:, None]
    low = rows > rows_used[0] + 0.35 * np.ptp(rows_used)
    near = person & (drawn < 0) & (distance < 0.035 * width) & low
    labels = np.where(near, drawn[nearest[0], nearest[1]], labels)
    if eyes.any():
        rim = max(1.0, 0.006 * width)
        inside = ndimage.distance_transform_edt(eyes)
        edge = eyes & (inside <= rim)
        _, at = ndimage.distance_transform_edt(~(skin & ~eyes), return_indices=True)
        labels = np.where(edge, drawn[at[0], at[1]], labels)
    return labels.astype(np.int32), skin


def _chain_level(scene: _Scene, points: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Position on the rig's chain of every pixel [H,W]: 1 skull, 0 torso, towards -1 at the picture's lower edge.

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
    local = (points - rig.source.translation.numpy()) @ rig.source_rotation.numpy()
    level = np.interp(local[..., 1], middle, profile, left=0.0, right=1.0)
    lowest = rows[level > 0.02].max() if (level > 0.02).any() else 0.0
    fall = np.clip((rows - lowest) / max(scene.view.height - lowest, 1.0), 0, 1)
    return np.where(level > 0.02, level, -TORSO_PIN * fall)


TORSO_PIN = 0.6
"""How far the torso is held by the picture's lower edge: 1 would nail the edge, 0 lets the whole torso follow."""


def _pixel_covariances(scene: _Scene, points: np.ndarray, depth: np.ndarray, sigma: float) -> np.ndarray:
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


STEEPEST = 6.0
"""Pixels of depth that one pixel's footprint may span; beyond this it is an edge and no slope."""


def _outer_sum(vectors: list[np.ndarray]) -> np.ndarray:
    """Sum of outer products as xx,xy,xz,yy,yz,zz [...,6]."""
    out = np.zeros((*vectors[0].shape[:-1], 6))
    for w in vectors:
        x, y, z = w[..., 0], w[..., 1], w[..., 2]
        out += np.stack([x * x, x * y, x * z, y * y, y * z, z * z], -1)
    return out


# --- layer 2: what the mesh shows and the photo does not ------------------------------------------------------------


def _hidden_layer(scene: _Scene, labels: np.ndarray, foreground: np.ndarray) -> Bound:
    """Samples of the head mesh that the photo's pixels do not cover, in triangle coordinates."""
    model = scene.model
    number = _sample_counts(scene)
    triangle = np.repeat(np.arange(len(model.faces)), number)
    within = np.arange(len(triangle)) - np.repeat(np.cumsum(number) - number, number)
    barycentric = _triangle_points(within, triangle)
    corners = scene.vertices[scene.faces[triangle]]
    points = (barycentric[..., None] * corners).sum(1)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    covered = _frontmost(scene, points, normal, labels, triangle, GRAZING)
    scalp = scene.face_regions["scalp"][triangle]
    chosen = ~covered & ~(scalp & (_facing(scene, points, normal) < -0.2)) & ~_beside_person(scene, points)
    triangle, barycentric, points = triangle[chosen], barycentric[chosen], points[chosen]
    colours = _hidden_colours(scene, foreground, triangle, barycentric, points, labels)
    share = SAMPLE_SPREAD**2 / (np.sqrt(3) * number[triangle])
    local_covariance = np.zeros((len(triangle), 6), np.float32)
    local_covariance[:, 0] = local_covariance[:, 3] = share
    local_covariance[:, 1] = -0.5 * share
    local_covariance[:, 5] = 0.02 * share
    local_mean = np.concatenate([barycentric[:, 1:], np.zeros((len(triangle), 1))], 1)
    return Bound(
        triangle.astype(np.int32), local_mean.astype(np.float32), local_covariance, colours.astype(np.float32),
        np.full(len(triangle), 0.95, np.float32),
    )  # fmt: skip


def _sample_counts(scene: _Scene) -> np.ndarray:
    """Samples [F] for each triangle, from the largest area it takes in the photo or with lids and mouth moved."""
    rig, source = scene.rig, scene.rig.source
    spacing = HIDDEN_SPACING * _metres_per_pixel(scene)
    largest = np.zeros(len(scene.model.faces))
    moved = source.expression.clone()
    for name in ("eyeBlinkLeft", "eyeBlinkRight", "jawOpen"):
        moved[ARKIT_INDEX[name]] = 1.0
    for expression in (source.expression, torch.zeros(52), moved):
        state = HeadState(expression, source.rotation, source.translation, source.eyes, source.jaw)
        corners = rig.pose(state).numpy()[scene.model.faces.numpy()]
        area = 0.5 * np.linalg.norm(
            np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1
        )
        largest = np.maximum(largest, area)
    return np.clip(np.ceil(largest / spacing**2), 1, 40).astype(int)


def _metres_per_pixel(scene: _Scene) -> float:
    _, depth = scene.view.project(scene.rig.source.translation.numpy().astype(np.float64))
    return float(depth / scene.view.intrinsics[0, 0])


def _triangle_points(index: np.ndarray, triangle: np.ndarray) -> np.ndarray:
    """Evenly spread barycentric coordinates [N,3]: the R2 sequence, shifted by triangle, folded into the triangle."""
    a = (0.5 + 0.7548776662466927 * (index + 1) + 0.37 * triangle) % 1
    b = (0.5 + 0.5698402909980532 * (index + 1) + 0.61 * triangle) % 1
    flip = a + b > 1
    a, b = np.where(flip, 1 - a, a), np.where(flip, 1 - b, b)
    return np.stack([1 - a - b, a, b], -1)


def _facing(scene: _Scene, points: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Cosine [N] between surface normals and the direction to the photo's camera."""
    matrix = scene.view.world_to_camera
    to_camera = -matrix[:3, :3].T @ matrix[:3, 3] - points
    to_camera /= np.linalg.norm(to_camera, axis=-1, keepdims=True)
    return (normal * to_camera).sum(-1)


def _pixel_of(scene: _Scene, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column (clamped into the picture), whether they are inside, and depth_z of world points [N,3]."""
    pixels, depth = scene.view.project(points)
    column, row = np.floor(pixels[:, 0]).astype(int), np.floor(pixels[:, 1]).astype(int)
    inside = (column >= 0) & (row >= 0) & (column < scene.view.width) & (row < scene.view.height)
    return np.clip(row, 0, scene.view.height - 1), np.clip(column, 0, scene.view.width - 1), inside, depth


def _shown(scene: _Scene, points: np.ndarray) -> np.ndarray:
    """Which points [N] of the mesh are its front in the photo, whatever the photo shows there."""
    row, column, inside, depth = _pixel_of(scene, points)
    drawn = scene.face_index[row, column] >= 0
    return inside & drawn & (np.abs(depth - scene.mesh_depth[row, column]) < 0.004)


def _beside_person(scene: _Scene, points: np.ndarray) -> np.ndarray:
    """Which points [N] would stand in front of what the photo shows to be background: the person is slimmer there."""
    row, column, inside, _ = _pixel_of(scene, points)
    return inside & (scene.matte[row, column] < 0.5)


def _frontmost(
    scene: _Scene, points: np.ndarray, normal: np.ndarray, labels: np.ndarray, triangle: np.ndarray, steepest: float
) -> np.ndarray:
    """Which mesh points [N] the photo shows well (cosine above `steepest`), so that pixels stand for them."""
    row, column, _, _ = _pixel_of(scene, points)
    seen = _shown(scene, points) & (_facing(scene, points, normal) > steepest)
    # an eyeball's rim belongs to the lid now: the eyeball under it needs samples of its own
    eyes = scene.face_regions["eyeball_left"] | scene.face_regions["eyeball_right"]
    label = np.maximum(labels[row, column], 0)
    return seen & ~(eyes[triangle] & ~eyes[label])


def _hidden_colours(
    scene: _Scene, foreground: np.ndarray, triangle: np.ndarray, barycentric: np.ndarray, points: np.ndarray,
    labels: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Colours [N,3] of mesh samples: mirror image and harmonic fill for skin, own colours inside mouth and eyes."""
    base, seen = _vertex_colours(scene, foreground, labels)
    faces = scene.model.faces.numpy()
    blend = lambda field: (barycentric[..., None] * field[faces[triangle]]).sum(1)  # noqa: E731
    colours = blend(base)
    mirror = scene.model.mirror_vertices.numpy()
    mirrored_points = (barycentric[..., None] * scene.vertices[mirror[faces[triangle]]]).sum(1)
    pixels, _ = scene.view.project(mirrored_points)
    mirrored_seen = seen[mirror[faces[triangle]]].min(1) > 0.5
    skin = _skin_faces(scene)[triangle]
    use = mirrored_seen & skin
    if use.any():
        # the mirror image gives the detail, the harmonic field its colour
        smooth = foreground_smooth(foreground, scene.matte)
        detail = appearance.sample_image(foreground, pixels[use]) - appearance.sample_image(smooth, pixels[use])
        colours[use] = colours[use] + detail
    inner = np.any([scene.face_regions[name] for name in INNER], axis=0)[triangle]
    direct = _shown(scene, points) & ~inner
    if direct.any():
        colours[direct] = appearance.sample_image(foreground, scene.view.project(points[direct])[0])
    for side in ("left", "right"):
        mask = scene.face_regions[f"eyeball_{side}"][triangle]
        if mask.any():
            colours[mask] = _eyeball_colours(scene, foreground, labels, side, points[mask])
    return np.clip(colours, 0, 1)


def foreground_smooth(foreground: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Low-pass of the person's colours [H,W,3] that does not mix in the background."""
    sigma = 0.012 * max(matte.shape)
    weight = ndimage.gaussian_filter(matte.astype(np.float32), sigma)[..., None]
    mixed = np.stack([ndimage.gaussian_filter(foreground[..., c] * matte, sigma) for c in range(3)], -1)
    return mixed / np.maximum(weight, 1e-3)


def _skin_faces(scene: _Scene) -> np.ndarray:
    return ~np.any([scene.face_regions[name] for name in INNER], axis=0)


def _vertex_colours(scene: _Scene, foreground: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low-frequency colours [V,3] of the head mesh, and which vertices the photo shows [V] (0 or 1)."""
    model = scene.model
    count = len(model.template)
    vertices, faces = scene.vertices[:count], model.faces.numpy()
    corners = vertices[faces]
    weighted = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = np.zeros((count, 3))
    for k in range(3):
        np.add.at(normal, faces[:, k], weighted)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    any_face = np.zeros(count, int)
    any_face[faces.reshape(-1)] = np.repeat(np.arange(len(faces)), 3)
    seen = _frontmost(scene, vertices, normal, labels, any_face, 0.3)
    pixels, _ = scene.view.project(vertices)
    row, column, _, _ = _pixel_of(scene, vertices)
    seen &= scene.matte[row, column] > 0.9
    inner = np.any([model.regions[name].numpy() for name in INNER], axis=0)
    smooth = foreground_smooth(foreground, scene.matte)
    colours = appearance.sample_image(smooth, pixels)
    known = seen & ~inner
    mirror = model.mirror_vertices.numpy()
    laplacian = appearance.graph_laplacian(faces, count)
    mirrored = ~known & known[mirror] & ~inner
    offset = np.zeros((count, 3))
    both = known & known[mirror]
    offset[both] = colours[both] - colours[mirror][both]
    offset = appearance.harmonic_fill(laplacian, offset, both) if both.any() else offset
    colours[mirrored] = colours[mirror][mirrored] + offset[mirrored]
    colours = appearance.harmonic_fill(laplacian, colours, known | mirrored)
    light = float(np.mean(colours[known] @ [0.299, 0.587, 0.114])) if known.any() else appearance.FAIR_FACE
    lips = model.regions["lips"].numpy()
    rest = scene.rig.neutral.numpy()
    depth_inside = np.percentile(rest[lips, 2], 80) - 0.012 - rest[:, 2]
    teeth = _visible_teeth(scene, foreground, labels)
    interior = appearance.interior_colours(
        {k: v.numpy() for k, v in model.regions.items()}, light, depth_inside, normal @ _head_forward(scene), teeth
    )
    own = ~np.isnan(interior[:, 0])
    colours[own] = interior[own]
    return np.clip(colours, 0, 1), seen.astype(float)


def _head_forward(scene: _Scene) -> np.ndarray:
    """Where the head looks in the photo's pose, world [3]."""
    return scene.rig.source_rotation.numpy()[:, 2]


def _visible_teeth(scene: _Scene, foreground: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Typical colour [3] of teeth that the photo shows, None where it shows (almost) none."""
    teeth = scene.face_regions["teeth_upper"] | scene.face_regions["teeth_lower"]
    mask = (labels >= 0) & teeth[np.maximum(labels, 0)]
    if mask.sum() < 40:
        return None
    colours = foreground[mask]
    bright = colours.sum(1)
    return np.median(colours[bright >= np.quantile(bright, 0.6)], axis=0)


def _eyeball_colours(
    scene: _Scene, foreground: np.ndarray, labels: np.ndarray, side: str, points: np.ndarray
) -> np.ndarray:
    """Colours of eyeball points from the photo's own iris and sclera, by angle from the gaze axis."""
    on = (labels >= 0) & scene.face_regions[f"eyeball_{side}"][np.maximum(labels, 0)]
    centre, axis = _eye_axis(scene, side)
    light = appearance.FAIR_FACE
    default = np.array([[0.06, 0.05, 0.05]] * 4 + [[0.25, 0.18, 0.13]] * 6 + [[0.78, 0.74, 0.72]] * 14) * light
    rows, columns = np.nonzero(on)
    profile = default.copy()
    bins = np.linspace(0, np.radians(72), 25)
    if len(rows) > 12:
        seen = scene.view.unproject(columns + 0.5, rows + 0.5, scene.mesh_depth[rows, columns].astype(float))
        which = np.digitize(_angle(seen - centre, axis), bins) - 1
        known = np.zeros(24, bool)
        for k in range(24):
            if (which == k).sum() >= 3:
                profile[k] = np.median(foreground[rows[which == k], columns[which == k]], 0)
                known[k] = True
        index = np.arange(24)
        for c in range(3):
            profile[:, c] = np.interp(index, index[known], profile[known, c]) if known.any() else profile[:, c]
    where = np.clip(_angle(points - centre, axis), 0, bins[-1] - 1e-3)
    middle = 0.5 * (bins[1:] + bins[:-1])
    return np.stack([np.interp(where, middle, profile[:, c]) for c in range(3)], -1)


def _eye_axis(scene: _Scene, side: str) -> tuple[np.ndarray, np.ndarray]:
    count = len(scene.model.template)
    iris = scene.vertices[:count][scene.model.regions[f"iris_{side}"].numpy()].mean(0)
    joint = scene.rig.joints[3 if side == "left" else 4].numpy()
    centre = scene.rig.source_rotation.numpy() @ joint + scene.rig.source.translation.numpy()
    axis = iris - centre
    return centre, axis / np.linalg.norm(axis)


def _angle(directions: np.ndarray, axis: np.ndarray) -> np.ndarray:
    unit = directions / np.maximum(np.linalg.norm(directions, axis=-1, keepdims=True), 1e-9)
    return np.arccos(np.clip(unit @ axis, -1, 1))


# --- layer 3: the back ----------------------------------------------------------------------------------------------


def _back_layer(scene: _Scene, shell: Shell, foreground: np.ndarray) -> Layer:
    """Coarse back of hair and torso: every third pixel of the matte, in a calm version of the front's colours."""
    step = 4
    view = scene.view
    columns, rows = view.grid()
    solid = ndimage.minimum_filter(scene.matte, 5) > 0.6
    pick = np.zeros_like(solid)
    pick[::step, ::step] = True
    # below the skull the mesh has a nape of its own
    drawn = scene.face_index >= 0
    skin = drawn & ~scene.face_regions["scalp"][np.maximum(scene.face_index, 0)]
    pick &= solid & ~(skin & (shell.rho > 0.92) & (shell.head_share > 0.2))
    depth = shell.back.astype(np.float64)
    points = view.unproject(columns, rows, depth)
    colours = _back_colours(scene, shell, foreground)
    triangle = scene.rig.proxy_triangle(_chain_level(scene, points, rows))
    covariance = _pixel_covariances(scene, points, depth, 0.75 * step)
    return Layer(
        points[pick], covariance[pick], colours[pick], np.full(int(pick.sum()), 0.95), triangle[pick].astype(np.int32)
    )


def _back_colours(scene: _Scene, shell: Shell, foreground: np.ndarray) -> np.ndarray:
    """Colours [H,W,3] of the back: where the front shows the face, the hair above it goes on downwards, mirrored."""
    drawn = scene.face_index >= 0
    skin = drawn & ~scene.face_regions["scalp"][np.maximum(scene.face_index, 0)]
    skin = ndimage.binary_dilation(skin, iterations=max(3, round(0.012 * scene.view.height)))
    upper, solid = shell.head_share > 0.3, scene.matte > 0.9
    hair = _hair_pixels(foreground, solid & upper & ~skin, skin & solid & upper)
    source = hair | (solid & ~upper & ~skin)
    if hair.sum() < 50:
        source = solid & ~(skin & ~upper)
    smooth = fill_smoothly(foreground, source)
    streaks = _mirrored_down(foreground, hair)
    colours = np.where(np.isnan(streaks), smooth, 0.5 * smooth + 0.5 * streaks)
    return np.stack([ndimage.gaussian_filter(colours[..., c], (2.5, 1.2)) for c in range(3)], -1)


def _hair_pixels(colours: np.ndarray, candidates: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Those of the candidate pixels [H,W] that look like hair and not like the face's skin."""
    if candidates.sum() < 50 or face.sum() < 50:
        return candidates
    skin_colour = np.median(colours[face], axis=0)
    distance = np.linalg.norm(colours - skin_colour, axis=-1)
    hair_colour = np.median(colours[candidates & (distance >= np.median(distance[candidates]))], axis=0)
    return candidates & (np.linalg.norm(colours - hair_colour, axis=-1) < distance)


def _mirrored_down(colours: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Colours [H,W,3] of each column's topmost run of hair, continued downwards by reflection; NaN without hair."""
    height, width = hair.shape
    any_hair = hair.any(0)
    top = np.where(any_hair, hair.argmax(0), 0)
    rows = np.arange(height)[:, None]
    run = np.cumsum(~hair & (rows >= top), axis=0) == 0
    length = np.maximum((run & (rows >= top)).sum(0), 1)
    offset = np.maximum(rows - top, 0) % (2 * length)
    source = top + np.where(offset < length, offset, 2 * length - 1 - offset)
    out = colours[np.minimum(source, height - 1), np.arange(width)]
    usable = ndimage.minimum_filter1d(np.where(any_hair, length, 0), 5) >= 8
    return np.where(usable[None, :, None], out, np.nan)


def _bind_world(rig: Rig, scene: _Scene, layer: Layer) -> Bound:
    vertices = torch.from_numpy(scene.vertices)
    triangle = layer.triangle.astype(np.int32)
    mean, covariance = bind_inverse(
        vertices, rig.faces, torch.from_numpy(triangle), torch.from_numpy(layer.means.astype(np.float32)),
        torch.from_numpy(layer.covariances.astype(np.float32)),
    )  # fmt: skip
    return Bound(
        triangle, mean.numpy(), covariance.numpy(), layer.colours.astype(np.float32), layer.opacity.astype(np.float32)
    )
