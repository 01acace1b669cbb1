"""Layer 3: a coarse back of hair and torso, so that a turned head is closed."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .hull import THIN_HAIR, Hull, hull_depth
from .plate import fill_smoothly
from .scene import Layer, Scene, chain_level, facing, metres_per_pixel, pixel_of, triangle_points
from .surface import Shell
from .torso import Torso

HEAD_SPACING, TORSO_SPACING = 3.2, 4.5
"""Spacing of the samples in pixels of the photo."""
FLAKE = 0.72
"""Deviation of a sample's Gaussian over the spacing."""
GRAZING = 0.3
"""Cosine below which the photo shows a surface too obliquely for its pixels alone to cover it from the side."""
SINK = 1.5
"""Pixels of the photo by which samples lie inside the surface."""
STEEP = 3.0
"""Pixels of depth from one pixel to the next beyond which the photo's pixels leave gaps when seen from aside."""
REACH = 8.0
"""Pixels of depth by which a sample may lie before the photo's pixels and still be moved behind them."""
RIM = 5
"""Size in pixels of the window that must be inside the matte, so that a sample does not show beside the person."""
STRANDS = 0.06
"""Largest difference of colour of single strands from the smooth colour of the hair."""
TUCK = 0.012
"""How far, over the picture's height, a sample may stand out beside the person and still be moved into it."""


def back_layer(
    scene: Scene, shell: Shell, hull: Hull, torso: Torso, foreground: np.ndarray, front: np.ndarray
) -> Layer:  # fmt: skip
    """Samples of the inflated skull and of the torso that the photo's pixels, at depth_z `front` [H,W] (infinite
    where there are none), do not stand for."""
    unit = metres_per_pixel(scene)
    solid = _solid(scene)
    near = ndimage.binary_dilation(np.isfinite(hull_depth(scene, hull)), iterations=max(1, scene.view.height // 50))
    hair = _back_colours(scene, shell, foreground, solid, near)
    skin = fill_smoothly(foreground, solid)
    known = np.isfinite(front)
    steep = ndimage.maximum_filter(np.where(known, front, np.inf), 3) - np.where(known, front, 0) > STEEP * unit
    head = hull.vertices, scene.model.faces.numpy()[hull.triangles]
    body = torso.mesh(scene.view, max(1, round(0.004 * scene.view.height)))
    parts = []
    for (vertices, faces), spacing, of_torso in ((head, HEAD_SPACING, False), (body, TORSO_SPACING, True)):
        triangle, weights = sample_mesh(vertices, faces, spacing * unit)
        if not of_torso:
            thick = (weights * hull.thickness[faces[triangle]]).sum(1) > THIN_HAIR
            triangle, weights = triangle[thick], weights[thick]
        corners = vertices[faces[triangle]]
        points = (weights[..., None] * corners).sum(1)
        normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
        cosine = facing(scene, points, normal)
        needed = (cosine < 0) | ((cosine < GRAZING) & _at(scene, steep, points))
        points, normal, cosine = points[needed], normal[needed], cosine[needed]
        points, kept = _tucked(scene, front, points - SINK * unit * normal)
        points, normal, cosine = points[kept], normal[kept], cosine[kept]
        colours = _at(scene, hair, points)
        if of_torso:
            hanging = torso.hair * np.clip((_at(scene, shell.head_share, points) - 0.3) / 0.4, 0, 1)[:, None]
            colours = hanging * colours + (1 - hanging) * _torso_colours(scene, torso, skin, points, cosine)
        parts.append((points, normal, colours, np.full(len(points), FLAKE * spacing * unit)))
    points, normal, colours, size = (np.concatenate(field) for field in zip(*parts, strict=True))
    rows = scene.view.project(points)[0][:, 1]
    triangle = scene.rig.proxy_triangle(chain_level(scene, points, rows))
    return Layer(
        points, flat_covariances(normal, size), colours, np.full(len(points), 0.95),
        triangle.astype(np.int32), np.full(len(points), 3.0),
    )  # fmt: skip


def sample_mesh(vertices: np.ndarray, faces: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples spread evenly over a mesh (vertices [V,3], faces [F,3]), about one for each `spacing`^2 of its area:
    their triangles [N] and barycentric coordinates [N,3]."""
    corners = vertices[faces]
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1)
    # rounding the running total gives small triangles their fair share too
    total = np.concatenate([[0], np.floor(np.cumsum(area) / spacing**2 + 0.5)]).astype(int)
    number = np.diff(total)
    triangle = np.repeat(np.arange(len(faces)), number)
    within = np.arange(len(triangle)) - np.repeat(total[:-1], number)
    return triangle, triangle_points(within, triangle)


def flat_covariances(normal: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Covariances [N,6] of round flakes of deviation `size` [N] across `normal` [N,3], a quarter as thick."""
    outer = np.stack([normal[:, i] * normal[:, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], -1)
    identity = np.array([1.0, 0, 0, 1, 0, 1])
    return (size**2)[:, None] * (identity - (1 - 0.25**2) * outer)


def _tucked(scene: Scene, front: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [N,3] moved until they are hidden in the photo: into the matte where they stand out by little, and
    behind the pixels' depth_z `front` [H,W]; and which of them [N] needed no more than a little of both."""
    view, unit = scene.view, metres_per_pixel(scene)
    pixels, depth = view.project(points)
    row, column, inside, _ = pixel_of(scene, points)
    person = ndimage.minimum_filter((scene.matte > 0.5) & np.isfinite(front), RIM)
    distance, nearest = ndimage.distance_transform_edt(~person, return_indices=True)
    shift = np.stack([nearest[1][row, column] - column, nearest[0][row, column] - row], -1)
    behind = front[nearest[0][row, column], nearest[1][row, column]] + 0.5 * unit
    kept = ~inside | ((distance[row, column] <= TUCK * view.height) & (depth > behind - REACH * unit))
    pixels = pixels + np.where(inside[:, None], shift, 0)
    return view.unproject(pixels[:, 0], pixels[:, 1], np.where(inside, np.maximum(depth, behind), depth)), kept


def _at(scene: Scene, image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values [N,...] of an image [H,W,...] where points [N,3] are in the photo, clamped to it."""
    row, column, _, _ = pixel_of(scene, points)
    return image[row, column]


def _solid(scene: Scene) -> np.ndarray:
    """Pixels [H,W] well inside the person: the rim's own colours hold some of the background."""
    margin = max(2, round(0.006 * max(scene.matte.shape)))
    return ndimage.minimum_filter(scene.matte, 2 * margin + 1) > 0.9


def _torso_colours(scene: Scene, torso: Torso, skin: np.ndarray, points: np.ndarray, cosine: np.ndarray) -> np.ndarray:
    """Colours [N,3] of samples of neck and torso: the photo's own `skin` [H,W,3] in front; the back is as the sides,
    without what is printed on the front."""
    pixels, _ = scene.view.project(points)
    row = np.clip(pixels[:, 1].astype(int), 0, len(torso.middle) - 1)
    rho = np.clip((pixels[:, 0] - torso.middle[row]) / torso.half_width[row], -1, 1)
    row_in = np.clip(row + round(0.03 * scene.view.height), 0, scene.view.height - 1)
    sides = []
    for side in (-1, 1):
        reach = side * (0.75 + 0.25 * np.abs(rho))
        column = np.clip(torso.middle[row] + reach * torso.half_width[row], 0, scene.view.width - 1).astype(int)
        sides.append(skin[row_in, column])
    right = (0.5 + 0.5 * np.sin(0.5 * np.pi * rho))[:, None]
    back = (1 - right) * sides[0] + right * sides[1]
    share = np.clip(-cosine / 0.2, 0, 1)[:, None]
    return (1 - share) * _at(scene, skin, points) + share * back


def _back_colours(
    scene: Scene, shell: Shell, foreground: np.ndarray, solid: np.ndarray, near: np.ndarray
) -> np.ndarray:
    """Colours [H,W,3] of the back: where the front shows the face, the hair above it goes on downwards, mirrored."""
    drawn = scene.face_index >= 0
    skin = drawn & ~scene.face_regions["scalp"][np.maximum(scene.face_index, 0)]
    skin = ndimage.binary_dilation(skin, iterations=max(3, round(0.012 * scene.view.height)))
    upper = shell.head_share > 0.3
    hair = _hair_pixels(foreground, solid & upper & near & ~skin, skin & solid & upper)
    torso = solid & ~upper & ~skin
    share = np.clip((shell.head_share - 0.3) / 0.4, 0, 1)[..., None]
    smooth = share * fill_smoothly(foreground, hair if hair.sum() >= 50 else solid & upper)
    smooth = smooth + (1 - share) * fill_smoothly(foreground, torso if torso.sum() >= 50 else solid)
    strands = _mirrored_down(np.clip(foreground - smooth, -STRANDS, STRANDS), hair)
    return np.clip(smooth + np.nan_to_num(strands), 0, 1)


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
