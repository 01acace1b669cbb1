"""Which triangle does each pixel see, where on it, and how far: `rasterize_mesh`; attributes over the picture:
`interpolate`.

With the camera points p0, p1, p2 of a triangle and the ray r = K^-1 (x, y, 1) of a pixel, the hit z r = b0 p0 + b1
p1 + b2 p2 gives b_i / z = n_i . r / det, n_0 = p1 x p2 (cyclic), det = p0 . n_0 ("Triangle Scan Conversion using 2D
Homogeneous Coordinates", Olano and Greer, 1997): perspective-correct, and valid for triangles that cross the camera
plane. With the z of the points set to 1 the same formula gives the barycentrics of an orthographic camera.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

__all__ = ["PROJECTIONS", "MeshRaster", "barycentrics_at", "interpolate", "rasterize_mesh", "rasterize_mesh_reference"]

PROJECTIONS = ("perspective", "orthographic")
_EDGE = 1e-9  # a hit this far outside of an edge still counts, so that no pixel falls between two neighbours
_PAIRS = 4_000_000  # face-pixel pairs that the reference looks at in one go


class MeshRaster(NamedTuple):
    """face_index [H, W] int32 (-1 none); barycentrics [H, W, 3] and depth_z [H, W] metres (0 where none)."""

    face_index: Tensor
    barycentrics: Tensor
    depth_z: Tensor


def rasterize_mesh(
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    *,
    cull_back: bool = False,
    near: float = 0.01,
    projection: str = "perspective",
    backend: str = "auto",
) -> MeshRaster:
    """Find the nearest triangle at the centre of each pixel.

    Args:
        vertices: [V, 3] world, metres. faces: [F, 3] integer. world_to_camera: [4, 4], OpenCV axes.
        intrinsics: [3, 3] pixels, no skew; pixel centres at (col + 0.5, row + 0.5).
        cull_back: leave out triangles seen from behind (normal (v1 - v0) x (v2 - v0) pointing away).
        near: hits nearer than this z are left out, > 0 (any number when orthographic).
        projection: "perspective", or "orthographic": parallel rays, focal lengths in pixels per metre.
        backend: "auto" (native where it is there, else the reference), "reference" or "native".

    Returns:
        MeshRaster. Barycentrics and depth are differentiable in vertices and camera; the face index has no gradient
        (see `antialias` for outlines that have one).

    Raises:
        ValueError: wrong shapes, an index out of range, skewed intrinsics, near <= 0, or an unavailable backend.
    """
    _check(vertices, faces, world_to_camera, intrinsics, width, height, near, projection)
    _native.check_backend(backend, ("auto", "reference", "native"))
    tensors = (vertices, world_to_camera, intrinsics)
    together = all(t.device == vertices.device for t in (*tensors, faces))
    if backend == "native" and not together:
        raise ValueError("backend 'native' needs all tensors on one device: use 'auto' or 'reference'")
    if backend == "reference" or (backend == "auto" and not (together and _native.usable(vertices.device))):
        return rasterize_mesh_reference(
            vertices, faces, world_to_camera, intrinsics, width, height,
            cull_back=cull_back, near=near, projection=projection,
        )  # fmt: skip
    flags = (width, height, near, cull_back, projection == "orthographic")
    if all(t.dtype == torch.float32 for t in tensors):
        return MeshRaster(*_raster_op(vertices, faces, world_to_camera, intrinsics, *flags))
    index, barycentrics, depth_z = _raster_op(
        vertices.detach().float(), faces, world_to_camera.detach().float(), intrinsics.detach().float(), *flags
    )
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return MeshRaster(index, *barycentrics_at(vertices, faces, index, *tensors[1:], projection=projection))
    return MeshRaster(index, barycentrics.to(vertices.dtype), depth_z.to(vertices.dtype))


def interpolate(attributes: Tensor, faces: Tensor, face_index: Tensor, barycentrics: Tensor) -> Tensor:
    """Spread attributes of the vertices over the picture: [V, C] -> [H, W, C], 0 where no triangle is seen.

    `faces` may be another index list of the same triangles (such as faces_uv with uv coordinates as attributes).
    Differentiable in attributes and barycentrics. `face_index` [H, W] and `barycentrics` [H, W, 3] come from
    `rasterize_mesh`.
    """
    _native.check_shape("attributes", attributes, ("V", "C"))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_shape("barycentrics", barycentrics, (*(int(s) for s in face_index.shape), 3))
    if faces.shape[0] == 0:
        return attributes.new_zeros((*face_index.shape, attributes.shape[1]))
    corners = faces.long()[face_index.long().clamp_min(0)]  # [H, W, 3]
    weights = torch.where(face_index[:, :, None] >= 0, barycentrics, 0.0).to(attributes.dtype)
    parts = [weights[:, :, i : i + 1] * attributes[corners[:, :, i]] for i in range(3)]
    return parts[0] + parts[1] + parts[2]


def barycentrics_at(
    vertices: Tensor,
    faces: Tensor,
    face_index: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    *,
    projection: str = "perspective",
) -> tuple[Tensor, Tensor]:
    """Return barycentrics [H, W, 3] and depth_z [H, W] of the hits on the given faces, differentiable in all floats."""
    height, width = face_index.shape
    seen = face_index >= 0
    points = _camera_points(vertices, world_to_camera)
    corners = faces.long()[face_index[seen].long()]
    rows, cols = torch.nonzero(seen, as_tuple=True)
    normals, det = _edge_normals(_flattened(points, projection), corners)
    edges = _edge_values(normals, det, _rays(cols, rows, intrinsics))
    inside = edges.clamp_min(0)
    depth = (edges * points[corners][:, :, 2]).sum(dim=1) if projection == "orthographic" else 1 / edges.sum(dim=1)
    barycentrics = vertices.new_zeros((height, width, 3))
    depth_z = vertices.new_zeros((height, width))
    return (
        barycentrics.index_put((seen,), (inside / inside.sum(dim=1, keepdim=True)).to(vertices.dtype)),
        depth_z.index_put((seen,), depth.to(vertices.dtype)),
    )


def rasterize_mesh_reference(
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    *,
    cull_back: bool = False,
    near: float = 0.01,
    projection: str = "perspective",
) -> MeshRaster:
    """Find the nearest triangle at the centre of each pixel; arguments and result as in `rasterize_mesh`.

    Every pixel in the box of every face is tested. The nearest hit wins, compared as float32 of 1/z (of z when
    orthographic); among equals, the lower index.
    """
    _native.check_indices("faces", faces, int(vertices.shape[0]))
    with torch.no_grad():
        points = _camera_points(vertices, world_to_camera)
        normals, det = _edge_normals(_flattened(points, projection), faces.long())
        weights = -points[faces.long()][:, :, 2] if projection == "orthographic" else torch.ones_like(normals[:, :, 0])
        boxes = _boxes(points[faces.long()], intrinsics, width, height, near, projection)
        usable = torch.isfinite(det) & (det != 0) & torch.isfinite(weights).all(dim=1)
        usable &= (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
        if cull_back:
            usable &= det < 0
        chosen = torch.nonzero(usable).squeeze(1)
        largest = -near if projection == "orthographic" else 1.0 / near
        nearest = torch.full((height * width,), -torch.inf, dtype=torch.float32, device=vertices.device)
        winner = torch.full((height * width,), -1, dtype=torch.int64, device=vertices.device)
        for group in _groups(boxes[chosen]):
            face = chosen[group]
            owner, cols, rows = _pixels_of_boxes(boxes[face])
            edges = _edge_values(normals[face][owner], det[face][owner], _rays(cols, rows, intrinsics))
            total = edges.sum(dim=1)
            nearness = (edges * weights[face][owner]).sum(dim=1).float()
            hit = (edges >= -_EDGE * total[:, None]).all(dim=1) & (total > 0) & (nearness <= largest)
            pixel, depth, index = (rows * width + cols)[hit], nearness[hit], face[owner[hit]]
            before = nearest.clone()
            nearest.scatter_reduce_(0, pixel, depth, "amax")
            best = (depth == nearest[pixel]) & (depth > before[pixel])  # an earlier face keeps an equal depth
            lowest = torch.full_like(winner, faces.shape[0])
            lowest.scatter_reduce_(0, pixel[best], index[best], "amin")
            winner = torch.where(lowest < faces.shape[0], lowest, winner)
        face_index = winner.reshape(height, width).to(torch.int32)
    barycentrics, depth_z = barycentrics_at(
        vertices, faces, face_index, world_to_camera, intrinsics, projection=projection
    )
    return MeshRaster(face_index, barycentrics, depth_z)


def _camera_points(vertices: Tensor, world_to_camera: Tensor) -> Tensor:
    """[V, 3] in double: the cross products of nearly parallel rays cancel, and float32 would leave 1 % errors."""
    camera = world_to_camera.double()
    return vertices.double() @ camera[:3, :3].T + camera[:3, 3]


def _flattened(points: Tensor, projection: str) -> Tensor:
    """Camera points [V, 3] as the formula takes them: with z = 1 when orthographic."""
    if projection == "perspective":
        return points
    return torch.cat([points[:, :2], torch.ones_like(points[:, 2:])], dim=1)


def _edge_normals(points: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return n_i [F, 3, 3] and det [F] of the module's equation."""
    p0, p1, p2 = points[faces].unbind(1)
    normals = torch.stack([torch.linalg.cross(p1, p2), torch.linalg.cross(p2, p0), torch.linalg.cross(p0, p1)], dim=1)
    return normals, (p0 * normals[:, 0]).sum(dim=1)


def _rays(cols: Tensor, rows: Tensor, intrinsics: Tensor) -> Tensor:
    """r [P, 3] of one pixel per row."""
    camera = intrinsics.double()
    x = (cols.double() + 0.5 - camera[0, 2]) / camera[0, 0]
    y = (rows.double() + 0.5 - camera[1, 2]) / camera[1, 1]
    return torch.stack([x, y, torch.ones_like(x)], dim=1)


def _edge_values(normals: Tensor, det: Tensor, rays: Tensor) -> Tensor:
    """Return b_i / z [P, 3] (b_i when orthographic) for one ray per row."""
    return (normals @ rays[:, :, None])[:, :, 0] / det[:, None]


def _boxes(corners: Tensor, intrinsics: Tensor, width: int, height: int, near: float, projection: str) -> Tensor:
    """First col, row, last col, row [F, 4] that may be hit; the whole picture where a face crosses the near plane."""
    camera = intrinsics.double()
    behind = corners[:, :, 2] < near
    crossing = behind if projection == "perspective" else torch.zeros_like(behind)
    z = torch.ones_like(corners[:, :, 2])
    if projection == "perspective":
        z = torch.where(behind, z, corners[:, :, 2])
    x = camera[0, 0] * corners[:, :, 0] / z + camera[0, 2]
    y = camera[1, 1] * corners[:, :, 1] / z + camera[1, 2]
    first_col = (x.amin(1) - 0.5 - 1e-6).ceil().clamp(0, width)
    last_col = (x.amax(1) - 0.5 + 1e-6).floor().clamp(-1, width - 1)
    first_row = (y.amin(1) - 0.5 - 1e-6).ceil().clamp(0, height)
    last_row = (y.amax(1) - 0.5 + 1e-6).floor().clamp(-1, height - 1)
    boxes = torch.nan_to_num(torch.stack([first_col, first_row, last_col, last_row], dim=1)).long()
    boxes[crossing.any(dim=1)] = torch.tensor([0, 0, width - 1, height - 1], device=boxes.device)
    boxes[behind.all(dim=1)] = torch.tensor([0, 0, -1, -1], device=boxes.device)
    return boxes


def _groups(boxes: Tensor) -> list[slice]:
    """Split faces into runs whose boxes hold at most about _PAIRS pixels together."""
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    groups, start, pixels = [], 0, 0
    for i, size in enumerate(area.tolist()):
        if pixels and pixels + size > _PAIRS:
            groups.append(slice(start, i))
            start, pixels = i, 0
        pixels += size
    if pixels:
        groups.append(slice(start, len(boxes)))
    return groups


def _pixels_of_boxes(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """List every pixel of every box: owner [P], cols [P], rows [P]."""
    wide = boxes[:, 2] - boxes[:, 0] + 1
    area = wide * (boxes[:, 3] - boxes[:, 1] + 1)
    owner = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), area)
    place = torch.arange(len(owner), device=boxes.device) - (area.cumsum(0) - area)[owner]
    return owner, boxes[owner, 0] + place % wide[owner], boxes[owner, 1] + place // wide[owner]


def _check(
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
    projection: str,
) -> None:
    _native.check_shape("vertices", vertices, ("V", 3))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_integer("faces", faces)
    if projection not in PROJECTIONS:
        raise ValueError(f"projection must be one of {', '.join(PROJECTIONS)}, got {projection!r}")
    if projection == "orthographic" and not math.isfinite(near):
        raise ValueError(f"near must be finite, got {near}")
    free = projection == "orthographic"
    _native.check_camera(world_to_camera, intrinsics, width, height, 1.0 if free else near)


class _Arguments(ctypes.Structure):
    """FourdRasterArgs of cuda/rasterize_mesh.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "vertices", "faces", "world_to_camera", "intrinsics", "face_index", "barycentrics", "depth_z", "keys",
        )),
        ("vertex_count", ctypes.c_int64),
        ("face_count", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("width", "height", "cull_back", "orthographic", "threads")),
        ("near_z", ctypes.c_float),
    )  # fmt: skip


@torch.library.custom_op("fourd::rasterize_mesh", mutates_args=(), device_types=("cpu", "cuda"))
def _raster_op(
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
    cull_back: bool,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The native kernel: the fields of MeshRaster, from float32."""
    floats = [t.contiguous() for t in (vertices, world_to_camera, intrinsics)]
    triangles = _native.int32(faces)
    out = _empty(vertices, width, height)
    keys = vertices.new_empty((height, width), dtype=torch.int64) if vertices.is_cuda else None
    arguments = _Arguments(
        floats[0].data_ptr(), triangles.data_ptr(), floats[1].data_ptr(), floats[2].data_ptr(),
        *(t.data_ptr() for t in out), None if keys is None else keys.data_ptr(), vertices.shape[0], faces.shape[0],
        width, height, cull_back, orthographic, _native.thread_count(), near,
    )  # fmt: skip
    try:
        _native.run("rasterize_mesh", arguments, vertices.device)
    except ValueError:
        _native.check_indices("faces", faces, int(vertices.shape[0]))
        raise
    return out


@_raster_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    vertices, _, _, _, width, height, *_ = arguments
    return _empty(vertices, width, height)


def _empty(vertices: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for face index, barycentrics and depth_z."""
    index = vertices.new_empty((height, width), dtype=torch.int32)
    return index, vertices.new_empty((height, width, 3)), vertices.new_empty((height, width))


@torch.library.custom_op("fourd::rasterize_mesh_backward", mutates_args=())
def _raster_backward_op(
    grad_barycentrics: Tensor,
    grad_depth: Tensor,
    face_index: Tensor,
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of vertices [V, 3], world_to_camera [4, 4] and intrinsics [3, 3].

    With M = [p0 p1 p2] the values of the module's equation are E = M^-1 r, so dE = M^-1 (dr - dM E): for q = M^-T dL/dE
    = sum of n_i dL/dE_i / det the gradient of r is q, and that of p_i is -E_i q. When perspective, b = E / sum(E) and
    z = 1 / sum(E); when orthographic, b = E, z = sum of E_i z_i, and the z of M is not the points'.
    """
    seen = face_index >= 0
    corners = faces.long()[face_index[seen].long()]
    rows, cols = torch.nonzero(seen, as_tuple=True)
    points = _camera_points(vertices, world_to_camera)
    normals, det = _edge_normals(_flattened(points, PROJECTIONS[orthographic]), corners)
    rays = _rays(cols, rows, intrinsics)
    edges = _edge_values(normals, det, rays)
    to_weights, to_depth = grad_barycentrics[seen].double(), grad_depth[seen].double()[:, None]
    if orthographic:
        to_edges = to_weights + to_depth * points[corners][:, :, 2]
    else:
        total = edges.sum(dim=1, keepdim=True)
        along = (to_weights * edges).sum(dim=1, keepdim=True) / total
        to_edges = (to_weights - along) / total - to_depth / total.square()
    to_ray = (normals * (to_edges / det[:, None])[:, :, None]).sum(dim=1)
    to_corners = -edges[:, :, None] * to_ray[:, None]
    if orthographic:
        to_corners[:, :, 2] = edges * to_depth
    to_points = torch.zeros_like(points).index_add_(0, corners.flatten(), to_corners.flatten(0, 1))
    to_vertices = to_points @ world_to_camera[:3, :3].double()
    to_camera = torch.zeros_like(world_to_camera)
    to_camera[:3, :3] = to_points.T @ vertices.double()
    to_camera[:3, 3] = to_points.sum(dim=0)
    to_intrinsics = torch.zeros_like(intrinsics)
    for axis in (0, 1):
        slope = to_ray[:, axis] / intrinsics[axis, axis].double()
        to_intrinsics[axis, axis] = -(slope * rays[:, axis]).sum()
        to_intrinsics[axis, 2] = -slope.sum()
    return to_vertices.to(vertices.dtype), to_camera, to_intrinsics


@_raster_backward_op.register_fake
def _raster_backward_fake(
    grad_barycentrics: Tensor,
    grad_depth: Tensor,
    face_index: Tensor,
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(vertices), torch.empty_like(world_to_camera), torch.empty_like(intrinsics)


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    vertices, faces, world_to_camera, intrinsics, *_, orthographic = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.save_for_backward(output[0], vertices, faces, world_to_camera, intrinsics)
    ctx.orthographic = orthographic


def _raster_backward(ctx: Any, _: Tensor, grad_barycentrics: Tensor, grad_depth: Tensor) -> tuple[Tensor | None, ...]:
    face_index, vertices, faces, world_to_camera, intrinsics = ctx.saved_tensors
    to_vertices, to_camera, to_intrinsics = _raster_backward_op(
        grad_barycentrics, grad_depth, face_index, vertices, faces, world_to_camera, intrinsics, ctx.orthographic
    )
    return to_vertices, None, to_camera, to_intrinsics, None, None, None, None, None


_raster_op.register_autograd(_raster_backward, setup_context=_keep_for_backward)
