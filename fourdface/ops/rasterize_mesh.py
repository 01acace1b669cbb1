"""Which triangle does each pixel see, where on it, and how far: `rasterize_mesh`; attributes over the picture:
`interpolate`.

With the camera points p0, p1, p2 of a triangle and the ray r = K^-1 (x, y, 1) of a pixel, the hit z r = b0 p0 + b1
p1 + b2 p2 gives b_i / z = n_i . r / det, n_0 = p1 x p2 (cyclic), det = p0 . n_0 ("Triangle Scan Conversion using 2D
Homogeneous Coordinates", Olano and Greer, 1997): perspective-correct, and valid for triangles that cross the camera
plane.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from fourdface.ops import _native

__all__ = ["MeshRaster", "barycentrics_at", "interpolate", "rasterize_mesh", "rasterize_mesh_reference"]

_EDGE = 1e-9  # a hit this far outside of an edge still counts, so that no pixel falls between two neighbours
_PAIRS = 4_000_000  # face-pixel pairs that the reference looks at in one go


class MeshRaster(NamedTuple):
    """face_index [H, W] int32 (-1 none); barycentrics [H, W, 3] and depth_z [H, W] metres (0 where none)."""

    face_index: torch.Tensor
    barycentrics: torch.Tensor
    depth_z: torch.Tensor


def rasterize_mesh(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    *,
    cull_back: bool = False,
    near: float = 0.01,
    backend: str = "auto",
) -> MeshRaster:
    """Find the nearest triangle at the centre of each pixel.

    Args:
        vertices: [V, 3] world, metres. faces: [F, 3] integer. world_to_camera: [4, 4], OpenCV axes.
        intrinsics: [3, 3] pixels, no skew; pixel centres at (col + 0.5, row + 0.5).
        cull_back: leave out triangles seen from behind (normal (v1 - v0) x (v2 - v0) pointing away).
        near: hits nearer than this z are left out, > 0.
        backend: "auto" (native on the CPU, else the reference), "reference" or "native".

    Returns:
        MeshRaster. Barycentrics and depth are differentiable in vertices and camera when one of them needs a
        gradient (they are then computed in torch from the face index, which has none).

    Raises:
        ValueError: wrong shapes, an index out of range, skewed intrinsics, near <= 0, or an unavailable backend.
    """
    _check(vertices, faces, world_to_camera, intrinsics, width, height, near)
    _native.check_backend(backend, ("auto", "reference", "native"))
    tensors = (vertices, world_to_camera, intrinsics)
    on_cpu = all(t.device.type == "cpu" for t in (*tensors, faces))
    if backend == "native" and not on_cpu:
        raise ValueError("backend 'native' works on CPU tensors: use 'auto' or 'reference'")
    if backend == "reference" or (backend == "auto" and not (on_cpu and _native.library() is not None)):
        return rasterize_mesh_reference(
            vertices, faces, world_to_camera, intrinsics, width, height, cull_back=cull_back, near=near
        )
    raster = _rasterize_native(vertices, faces, world_to_camera, intrinsics, width, height, cull_back, near)
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        barycentrics, depth_z = barycentrics_at(vertices, faces, raster.face_index, world_to_camera, intrinsics)
        return MeshRaster(raster.face_index, barycentrics, depth_z)
    if vertices.dtype == torch.float32:
        return raster
    return MeshRaster(raster.face_index, raster.barycentrics.to(vertices.dtype), raster.depth_z.to(vertices.dtype))


def interpolate(
    attributes: torch.Tensor, faces: torch.Tensor, face_index: torch.Tensor, barycentrics: torch.Tensor
) -> torch.Tensor:
    """Spread attributes of the vertices over the picture: [V, C] -> [H, W, C], 0 where no triangle is seen.

    `faces` may be another index list of the same triangles (such as faces_uv with uv coordinates as attributes).
    Differentiable in attributes and barycentrics. `face_index` [H, W] and `barycentrics` [H, W, 3] come from
    `rasterize_mesh`.
    """
    _native.check_shape("attributes", attributes, ("V", "C"))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_shape("barycentrics", barycentrics, (*(int(s) for s in face_index.shape), 3))
    seen = face_index >= 0
    corners = attributes[faces.long()[face_index[seen].long()]]  # [P, 3, C]
    values = (corners * barycentrics[seen][:, :, None].to(attributes.dtype)).sum(dim=1)
    out = attributes.new_zeros((*face_index.shape, attributes.shape[1]))
    return out.index_put((seen,), values)


def barycentrics_at(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    face_index: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return barycentrics [H, W, 3] and depth_z [H, W] of the hits on the given faces, differentiable in all floats."""
    height, width = face_index.shape
    seen = face_index >= 0
    index = face_index[seen].long()
    rows, cols = torch.nonzero(seen, as_tuple=True)
    normals, det = _edge_normals(_camera_points(vertices, world_to_camera), faces.long()[index])
    edges = _edge_values(normals, det, cols, rows, intrinsics)
    total = edges.sum(dim=1)
    inside = edges.clamp_min(0)
    barycentrics = vertices.new_zeros((height, width, 3))
    depth_z = vertices.new_zeros((height, width))
    return (
        barycentrics.index_put((seen,), (inside / inside.sum(dim=1, keepdim=True)).to(vertices.dtype)),
        depth_z.index_put((seen,), (1.0 / total).to(vertices.dtype)),
    )


def rasterize_mesh_reference(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    *,
    cull_back: bool = False,
    near: float = 0.01,
) -> MeshRaster:
    """Find the nearest triangle at the centre of each pixel; arguments and result as in `rasterize_mesh`.

    Every pixel in the box of every face is tested. The nearest hit wins, compared as float32 of 1/z; among equals,
    the lower index.
    """
    _native.check_indices("faces", faces, int(vertices.shape[0]))
    with torch.no_grad():
        points = _camera_points(vertices, world_to_camera)
        normals, det = _edge_normals(points, faces.long())
        boxes = _boxes(points[faces.long()], intrinsics, width, height, near)
        usable = torch.isfinite(det) & (det != 0) & (boxes[:, 0] <= boxes[:, 2]) & (boxes[:, 1] <= boxes[:, 3])
        if cull_back:
            usable &= det < 0
        chosen = torch.nonzero(usable).squeeze(1)
        nearest = torch.zeros(height * width, dtype=torch.float32, device=vertices.device)  # largest 1/z so far
        winner = torch.full((height * width,), -1, dtype=torch.int64, device=vertices.device)
        for group in _groups(boxes[chosen]):
            face = chosen[group]
            owner, cols, rows = _pixels_of_boxes(boxes[face])
            edges = _edge_values(normals[face][owner], det[face][owner], cols, rows, intrinsics)
            inverse_z = edges.sum(dim=1)
            hit = (
                (edges >= -_EDGE * inverse_z[:, None]).all(dim=1) & (inverse_z > 0) & (inverse_z.float() <= 1.0 / near)
            )
            pixel, depth, index = (rows * width + cols)[hit], inverse_z[hit].float(), face[owner[hit]]
            before = nearest.clone()
            nearest.scatter_reduce_(0, pixel, depth, "amax")
            best = (depth == nearest[pixel]) & (depth > before[pixel])  # an earlier face keeps an equal depth
            lowest = torch.full_like(winner, faces.shape[0])
            lowest.scatter_reduce_(0, pixel[best], index[best], "amin")
            winner = torch.where(lowest < faces.shape[0], lowest, winner)
        face_index = winner.reshape(height, width).to(torch.int32)
    barycentrics, depth_z = barycentrics_at(vertices, faces, face_index, world_to_camera, intrinsics)
    return MeshRaster(face_index, barycentrics, depth_z)


def _camera_points(vertices: torch.Tensor, world_to_camera: torch.Tensor) -> torch.Tensor:
    """[V, 3] in double: the cross products of nearly parallel rays cancel, and float32 would leave 1 % errors."""
    camera = world_to_camera.double()
    return vertices.double() @ camera[:3, :3].T + camera[:3, 3]


def _edge_normals(points: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return n_i [F, 3, 3] and det [F] of the module's equation."""
    p0, p1, p2 = points[faces].unbind(1)
    normals = torch.stack([torch.linalg.cross(p1, p2), torch.linalg.cross(p2, p0), torch.linalg.cross(p0, p1)], dim=1)
    return normals, (p0 * normals[:, 0]).sum(dim=1)


def _edge_values(
    normals: torch.Tensor, det: torch.Tensor, cols: torch.Tensor, rows: torch.Tensor, intrinsics: torch.Tensor
) -> torch.Tensor:
    """Return b_i / z [P, 3] for one pixel per row."""
    camera = intrinsics.double()
    x = (cols.double() + 0.5 - camera[0, 2]) / camera[0, 0]
    y = (rows.double() + 0.5 - camera[1, 2]) / camera[1, 1]
    rays = torch.stack([x, y, torch.ones_like(x)], dim=1)
    return (normals @ rays[:, :, None])[:, :, 0] / det[:, None]


def _boxes(corners: torch.Tensor, intrinsics: torch.Tensor, width: int, height: int, near: float) -> torch.Tensor:
    """First col, row, last col, row [F, 4] that may be hit; the whole picture where a face crosses the near plane."""
    camera = intrinsics.double()
    z = corners[:, :, 2]
    safe = torch.where(z >= near, z, torch.ones_like(z))
    x = camera[0, 0] * corners[:, :, 0] / safe + camera[0, 2]
    y = camera[1, 1] * corners[:, :, 1] / safe + camera[1, 2]
    first_col = (x.amin(1) - 0.5 - 1e-6).ceil().clamp(0, width)
    last_col = (x.amax(1) - 0.5 + 1e-6).floor().clamp(-1, width - 1)
    first_row = (y.amin(1) - 0.5 - 1e-6).ceil().clamp(0, height)
    last_row = (y.amax(1) - 0.5 + 1e-6).floor().clamp(-1, height - 1)
    boxes = torch.nan_to_num(torch.stack([first_col, first_row, last_col, last_row], dim=1)).long()
    crossing = (z < near).any(dim=1)
    boxes[crossing] = torch.tensor([0, 0, width - 1, height - 1], device=boxes.device)
    boxes[(z < near).all(dim=1)] = torch.tensor([0, 0, -1, -1], device=boxes.device)
    return boxes


def _groups(boxes: torch.Tensor) -> list[slice]:
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


def _pixels_of_boxes(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """List every pixel of every box: owner [P], cols [P], rows [P]."""
    wide = boxes[:, 2] - boxes[:, 0] + 1
    area = wide * (boxes[:, 3] - boxes[:, 1] + 1)
    owner = torch.repeat_interleave(torch.arange(len(boxes), device=boxes.device), area)
    place = torch.arange(len(owner), device=boxes.device) - (area.cumsum(0) - area)[owner]
    return owner, boxes[owner, 0] + place % wide[owner], boxes[owner, 1] + place // wide[owner]


def _check(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    near: float,
) -> None:
    _native.check_shape("vertices", vertices, ("V", 3))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_integer("faces", faces)
    _native.check_camera(world_to_camera, intrinsics, width, height, near)


class _Arguments(ctypes.Structure):
    """FourdRasterArgs of cuda/rasterize_mesh.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "vertices", "faces", "world_to_camera", "intrinsics", "face_index", "barycentrics", "depth_z",
        )),
        ("vertex_count", ctypes.c_int64),
        ("face_count", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("width", "height", "cull_back", "threads")),
        ("near_z", ctypes.c_float),
    )  # fmt: skip


def _rasterize_native(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    cull_back: bool,
    near: float,
) -> MeshRaster:
    library = _native.require_library()
    floats = [_native.contiguous_float(t) for t in (vertices, world_to_camera, intrinsics)]
    face_list = _native.contiguous_int(faces)
    face_index = torch.empty((height, width), dtype=torch.int32)
    barycentrics = torch.empty((height, width, 3), dtype=torch.float32)
    depth_z = torch.empty((height, width), dtype=torch.float32)
    arguments = _Arguments(
        floats[0].data_ptr(), face_list.data_ptr(), floats[1].data_ptr(), floats[2].data_ptr(), face_index.data_ptr(),
        barycentrics.data_ptr(), depth_z.data_ptr(), int(vertices.shape[0]), int(faces.shape[0]), width, height,
        int(cull_back), _native.thread_count(), near,
    )  # fmt: skip
    code = library.fourd_rasterize_mesh(ctypes.byref(arguments))
    if code == _native.BAD_INDEX:
        _native.check_indices("faces", faces, int(vertices.shape[0]))
    _native.check_status(code, "rasterize_mesh")
    return MeshRaster(face_index, barycentrics, depth_z)
