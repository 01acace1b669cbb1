"""Layer 1: one Gaussian a pixel of the person, on the head's triangles or on the proxy chain."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from .scene import DETAILED, Layer, Scene, chain_level, metres_per_pixel, pixel_covariances
from .surface import Shell, blend_to_mesh

PIXEL_SIGMA = 0.5
"""Deviation of a pixel's Gaussian in pixels, before the renderer's own dilation."""
OPACITY = 0.97
MERGE_RANGE = 0.06
"""Largest difference of colour in a 2x2 cell that one Gaussian replaces."""
MERGED = 4.4
"""Variance of such a Gaussian over a pixel's: a little more than 2x2, against a lattice when it is seen from nearer."""
SEAM, SEAM_REACH = 5.0, 3
"""Variance of the pixels on both sides of the seam between neck and torso over the others', and its width in pixels."""
FALL = 4.0
"""Pixels of depth for each pixel from the face by which hair may lie behind its outline."""


def pixel_layer(scene: Scene, shell: Shell, foreground: np.ndarray) -> tuple[Layer, np.ndarray, np.ndarray, np.ndarray]:
    """Gaussians of all matte pixels, with their flat pixel index [P] and cell size [P]; also the head triangle of
    each pixel [H,W] (-1: on the chain)."""
    view = scene.view
    person = scene.matte > 0.03
    labels, direct, eyes = _bind_pixels(scene, person)
    lashes, lash_triangle = _lashes(scene, labels, eyes, foreground)
    # hair beside the face falls back to the side of the head; skin stays with the skin it hangs on
    fall = np.where(labels >= 0, 0.0, FALL * metres_per_pixel(scene))
    depth = blend_to_mesh(shell.front, scene.mesh_depth, direct, 0.05 * view.height, fall)
    lids = (labels >= 0) & scene.face_regions["eyelids"][np.maximum(labels, 0)]
    depth = np.where(lids, depth - LID_LIFT, depth)
    stretch = np.where(lashes, 1.3, np.where(lids, 1.6, 4.0))
    columns, rows = view.grid()
    points = view.unproject(columns, rows, depth.astype(np.float64))
    covariance = pixel_covariances(scene, points, depth, PIXEL_SIGMA) * _overlap(labels, shell, scene.matte)[..., None]
    triangle = np.where(labels >= 0, labels, scene.rig.proxy_triangle(chain_level(scene, points, rows)))
    triangle = np.where(lashes, lash_triangle, triangle)
    labels = np.where(lashes, -1, labels)
    merged = _mergeable(scene, foreground, depth, labels)
    index, cell = _cells(person, merged)
    four = (cell == 2)[:, None]

    def at(field: np.ndarray, channels: int) -> np.ndarray:
        flat = field.reshape(-1, channels)
        pooled = _pool(field.reshape(view.height, view.width, channels)).reshape(-1, channels)
        return np.where(four, pooled[index], flat[index])

    layer = Layer(
        at(points, 3), at(covariance, 6) * np.where(four, MERGED, 1.0), at(foreground, 3),
        np.clip(at(scene.matte, 1)[:, 0], 0, 1) * OPACITY, triangle.reshape(-1)[index],
        stretch.reshape(-1)[index],
    )  # fmt: skip
    return layer, index, cell, labels


def _overlap(labels: np.ndarray, shell: Shell, matte: np.ndarray) -> np.ndarray:
    """Factor [H,W] on the variance: where the neck's mesh (`labels` >= 0) ends on the torso, which moves by itself,
    Gaussians overlap so far that no crack opens between the two. The outline stays as sharp as it is."""
    bound = labels >= 0
    inside = ndimage.binary_erosion(bound, iterations=SEAM_REACH, border_value=1)
    seam = ndimage.binary_dilation(bound, iterations=SEAM_REACH) & ~inside
    deep = ndimage.minimum_filter(matte, 2 * SEAM_REACH + 1) > 0.9
    return np.where(seam & deep & (shell.head_share < 1), SEAM, 1.0)


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


def _mergeable(scene: Scene, foreground: np.ndarray, depth: np.ndarray, labels: np.ndarray) -> np.ndarray:
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


LID_LIFT = 0.0006
"""Metres by which the pixels of the lids lie in front of them, so that the lids' own skin shows only when stretched."""
LASH_REACH = 0.025
"""Widths of the face beyond the eye's opening within which dark pixels are lashes."""


def _bind_pixels(scene: Scene, person: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Head triangle of each pixel [H,W] (-1: proxy), whether the pixel lies on that triangle itself [H,W], and which
    pixels show an eyeball [H,W].

    Skin pixels just outside the mesh's outline hang on the nearest triangle, so that a moving jaw leaves none of
    itself behind.
    """
    drawn = np.where(person, scene.face_index, -1)
    safe = np.maximum(drawn, 0)
    scalp = scene.face_regions["scalp"][safe] & (drawn >= 0)
    skin = (drawn >= 0) & ~scalp
    eyes = (scene.face_regions["eyeball_left"] | scene.face_regions["eyeball_right"])[safe] & (drawn >= 0)
    labels = drawn.copy()
    if not skin.any():
        return labels, skin, eyes
    columns, rows_used = np.flatnonzero(skin.any(0)), np.flatnonzero(skin.any(1))
    width = np.ptp(columns) + 1
    distance, nearest = ndimage.distance_transform_edt(~skin, return_indices=True)
    rows = np.arange(scene.view.height)[:, None]
    low = rows > rows_used[0] + 0.35 * np.ptp(rows_used)
    beside = drawn[nearest[0], nearest[1]]
    # only the face: the neck's lower triangles bend, and what hung beyond them would swing about
    on_face = (scene.face_regions["face"] | scene.face_regions["ears"])[np.maximum(beside, 0)]
    near = person & (drawn < 0) & (distance < 0.035 * width) & low & on_face
    labels = np.where(near, beside, labels)
    return labels.astype(np.int32), skin, eyes


def _lashes(
    scene: Scene, labels: np.ndarray, eyes: np.ndarray, foreground: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels [H,W] are lashes, dark lines of the lids or the shadowed rim of the eyeball, and the rigid
    triangle [H,W] at the lid's margin that each hangs on."""
    lids = (labels >= 0) & scene.face_regions["eyelids"][np.maximum(labels, 0)] & ~eyes
    lashes, triangle = np.zeros_like(eyes), np.zeros(eyes.shape, np.int32)
    if not eyes.any() or not lids.any():
        return lashes, triangle
    width = float(np.ptp(np.flatnonzero((labels >= 0).any(0)))) + 1
    outside = ndimage.distance_transform_edt(~eyes)
    edge = eyes & (ndimage.distance_transform_edt(eyes) <= max(1.0, 0.006 * width))
    luminance = foreground @ np.array([0.299, 0.587, 0.114])
    around = (labels >= 0) & ~lids & ~eyes & (outside < 0.12 * width)
    usual = float(np.median(luminance[around])) if around.any() else 0.6
    dark = lids & (outside <= max(1.5, LASH_REACH * width)) & (luminance < 0.7 * usual)
    lashes = edge | dark
    margin = _margin_vertices(scene, outside)
    if not lashes.any() or not len(margin):
        return np.zeros_like(eyes), triangle
    pixels, _ = scene.view.project(scene.vertices[margin])
    rows, columns = np.nonzero(lashes)
    _, nearest = cKDTree(pixels).query(np.stack([columns + 0.5, rows + 0.5], 1))
    triangle[rows, columns] = scene.rig.lid_triangle(margin[nearest])
    return lashes, triangle


def _margin_vertices(scene: Scene, outside: np.ndarray) -> np.ndarray:
    """Lid vertices on the margin of the eyes' opening in the photo; outside [H,W]: distance to the opening, pixels."""
    lids = scene.rig.lid_vertices.numpy()
    pixels, depth = scene.view.project(scene.vertices[lids])
    row = np.clip(pixels[:, 1].astype(int), 0, scene.view.height - 1)
    column = np.clip(pixels[:, 0].astype(int), 0, scene.view.width - 1)
    seen = np.abs(depth - scene.mesh_depth[row, column]) < 0.004
    return lids[seen & (outside[row, column] <= 1.5)]
