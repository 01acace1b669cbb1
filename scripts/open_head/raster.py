"""A small z-buffer rasteriser in numpy, good enough for the sheets in docs and for landmark detection on renders."""

from __future__ import annotations

import numpy as np


def rasterize(
    points: np.ndarray, faces: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterise triangles given in pixels.

    Args:
        points: [V, 3] x, y in pixels (y down) and depth (smaller = nearer).
        faces: [F, 3] vertex indices.
        width, height: size of the picture in pixels.

    Returns:
        face [H, W] int (-1 = background), barycentric [H, W, 3], depth [H, W].
    """
    corners = points[faces]
    low = np.floor(corners[..., :2].min(1) - 0.5).astype(np.int64).clip(0, [width, height])
    high = np.ceil(corners[..., :2].max(1) + 0.5).astype(np.int64).clip(0, [width, height])
    size = np.maximum(high - low, 0)
    count = size[:, 0] * size[:, 1]
    owner = np.repeat(np.arange(len(faces)), count)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    column = low[owner, 0] + offset % np.maximum(size[owner, 0], 1)
    row = low[owner, 1] + offset // np.maximum(size[owner, 0], 1)
    a, b, c = (corners[owner, k] for k in range(3))
    px, py = column + 0.5, row + 0.5
    area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    safe = np.where(np.abs(area) < 1e-12, 1.0, area)
    w1 = ((px - a[:, 0]) * (c[:, 1] - a[:, 1]) - (py - a[:, 1]) * (c[:, 0] - a[:, 0])) / safe
    w2 = ((b[:, 0] - a[:, 0]) * (py - a[:, 1]) - (b[:, 1] - a[:, 1]) * (px - a[:, 0])) / safe
    w0 = 1.0 - w1 - w2
    inside = (np.abs(area) > 1e-12) & (w0 >= 0) & (w1 >= 0) & (w2 >= 0)
    owner, row, column = owner[inside], row[inside], column[inside]
    weights = np.stack([w0, w1, w2], 1)[inside]
    z = (weights * corners[owner, :, 2]).sum(1)
    order = np.argsort(-z, kind="stable")  # later writes win: the nearest is written last
    flat = (row * width + column)[order]
    face = np.full(height * width, -1, np.int64)
    barycentric = np.zeros((height * width, 3))
    depth = np.full(height * width, np.inf)
    face[flat] = owner[order]
    barycentric[flat] = weights[order]
    depth[flat] = z[order]
    return face.reshape(height, width), barycentric.reshape(height, width, 3), depth.reshape(height, width)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit vertex normals [V, 3] of a triangle mesh."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def rotation_yaw_pitch(yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Rotation [3, 3] about y by `yaw`, then about x by `pitch` (radians)."""
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    around_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    around_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    return around_x @ around_y


def render(
    vertices: np.ndarray,
    faces: np.ndarray,
    colors: np.ndarray,
    *,
    size: int = 256,
    yaw: float = 0.0,
    pitch: float = 0.0,
    center: tuple[float, float, float] = (0.0, 0.07, 0.05),
    extent: float = 0.30,
    distance: float = 1.0,
    background: float = 1.0,
    supersample: int = 2,
    flat: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lambert picture of a mesh from a pinhole camera on the +z side.

    Args:
        vertices: [V, 3] metres. faces: [F, 3]. colors: [V, 3] or, by corner, [F, 3, 3] in [0, 1].
        size: width = height of the picture in pixels. yaw, pitch: rotation of the head in radians.
        center: the point that the camera looks at, metres. extent: metres seen across at that point.
        distance: of the camera from `center`, metres. background: grey. flat: shade by face normals.

    Returns:
        image_u8 [size, size, 3]; face [s*size, s*size] and barycentric [.., 3] at the supersampled size.
    """
    rotation = rotation_yaw_pitch(yaw, pitch)
    points = (vertices - np.asarray(center)) @ rotation.T
    side = size * supersample
    scale = side / extent * distance
    z = distance - points[:, 2]
    screen = np.stack([points[:, 0] / z * scale + side / 2, -points[:, 1] / z * scale + side / 2, z], 1)
    face, barycentric, _ = rasterize(screen, faces, side, side)
    if flat:
        a, b, c = (points[faces[:, k]] for k in range(3))
        normal = np.cross(b - a, c - a)
        normal = (normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12))[face]
    else:
        normal = (vertex_normals(points, faces)[faces[face]] * barycentric[..., None]).sum(-2)
        normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    if colors.ndim == 2:
        colors = colors[faces]
    albedo = (colors[face] * barycentric[..., None]).sum(-2)
    lights = (((0.25, 0.45, 0.85), 0.62), ((-0.75, 0.1, 0.6), 0.22), ((0.0, -0.6, 0.8), 0.10))
    shade = np.full(face.shape, 0.16)
    for direction, power in lights:
        unit = np.asarray(direction) / np.linalg.norm(direction)
        shade += power * np.clip(normal @ unit, 0, None)
    image = np.where((face >= 0)[..., None], albedo * shade[..., None], background)
    image = image.reshape(size, supersample, size, supersample, 3).mean((1, 3))
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), face, barycentric
