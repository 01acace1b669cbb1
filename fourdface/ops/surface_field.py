"""The nearest triangle of every point, and where the point lies relative to it: `surface_field`.

The surface field of GNARF (Bergman et al. 2022, equation 3) carries points along with a moving mesh by these numbers:
barycentric coordinates on the nearest triangle and the height above it.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

__all__ = ["SurfaceField", "surface_field", "surface_field_reference", "surface_numbers"]

_PAIRS = 1_000_000  # pairs of point and triangle that the reference looks at in one go


class SurfaceField(NamedTuple):
    """face_index [B, N] int64; barycentrics [B, N, 3] of the projection onto the face's plane, not clamped;
    signed_distance [B, N] along the normal (v1 - v0) x (v2 - v0); squared_distance [B, N] to the triangle.
    """

    face_index: Tensor
    barycentrics: Tensor
    signed_distance: Tensor
    squared_distance: Tensor


def surface_field(
    points: Tensor, vertices: Tensor, faces: Tensor, *, min_triangle_area: float = 0.0, backend: str = "auto"
) -> SurfaceField:
    """Find the nearest triangle of every point.

    Args:
        points: [B, N, 3]. vertices: [B, V, 3], in the same units. faces: [F, 3] integer, at least one.
        min_triangle_area: triangles of a smaller area count as their three edges, in the search and in
            squared_distance (GenHead was trained so, with 5e-3).
        backend: "auto" (native for float32 tensors), "reference" or "native".

    Returns:
        SurfaceField. Of equally near triangles (such as those that share the nearest edge) the lower index is found.
        Barycentrics and distances are differentiable in points and vertices. A triangle without area gives
        barycentrics of 1/3 and signed distance 0. Triangles with corners that are not finite are infinitely far; a
        point that is not finite gets face 0 and numbers that are not finite.

    Raises:
        ValueError: wrong shapes, no faces, an index out of range, or a backend that is not available here.
    """
    _check(points, vertices, faces, min_triangle_area)
    _native.check_backend(backend, ("auto", "reference", "native"))
    fits = points.dtype == vertices.dtype == torch.float32
    if backend == "reference" or (backend == "auto" and not (fits and _native.usable(points.device))):
        return surface_field_reference(points, vertices, faces, min_triangle_area=min_triangle_area)
    found = SurfaceField(*_surface_op(points.detach().float(), vertices.detach().float(), faces, min_triangle_area))
    if torch.is_grad_enabled() and (points.requires_grad or vertices.requires_grad):
        return surface_numbers(points, vertices, faces, found.face_index, min_triangle_area=min_triangle_area)
    return SurfaceField(found.face_index, *(number.to(points.dtype) for number in found[1:]))


def surface_field_reference(
    points: Tensor, vertices: Tensor, faces: Tensor, *, min_triangle_area: float = 0.0
) -> SurfaceField:
    """Find the nearest triangle by looking at all of them; as `surface_field`, in plain torch on any device."""
    _check(points, vertices, faces, min_triangle_area)
    _native.check_indices("faces", faces, int(vertices.shape[1]))
    with torch.no_grad():
        found = []
        for cloud, mesh in zip(points.double(), vertices.double(), strict=True):
            corners = mesh[_ordered(faces)]
            parts = cloud.split(_PAIRS // len(faces) + 1)
            found.append(torch.cat([_nearest(part, corners, min_triangle_area) for part in parts]))
        face_index = torch.stack(found) if found else faces.new_zeros(points.shape[:2], dtype=torch.int64)
    return surface_numbers(points, vertices, faces, face_index, min_triangle_area=min_triangle_area)


def surface_numbers(
    points: Tensor, vertices: Tensor, faces: Tensor, face_index: Tensor, *, min_triangle_area: float = 0.0
) -> SurfaceField:
    """Where points [B, N, 3] lie relative to given faces [B, N]; differentiable in points and vertices.

    Worked out in double and returned in the precision of the points.
    """
    batch = torch.arange(len(points), device=points.device)[:, None, None]
    p, mesh = points.double(), vertices.double()
    v0, v1, v2 = mesh[batch, faces.long()[face_index]].unbind(2)
    e1, e2, offset = v1 - v0, v2 - v0, p - v0
    normal = torch.linalg.cross(e1, e2)
    squared = _dot(normal, normal)
    flat = squared == 0
    safe = torch.where(flat, 1.0, squared)
    b1 = torch.where(flat, 1 / 3, _dot(offset, torch.linalg.cross(e2, normal)) / safe)
    b2 = torch.where(flat, 1 / 3, _dot(offset, torch.linalg.cross(normal, e1)) / safe)
    height = _dot(offset, normal) / safe.sqrt()
    distance = _squared_distance(p, mesh[batch, _ordered(faces)[face_index]], min_triangle_area)
    numbers = (torch.stack([1 - b1 - b2, b1, b2], dim=2), height, distance)
    return SurfaceField(face_index, *(number.to(points.dtype) for number in numbers))


def _ordered(faces: Tensor) -> Tensor:
    """Corners in the order of their indices: an edge then gives the same bits in both of its triangles."""
    return faces.long().sort(dim=1).values


def _nearest(points: Tensor, corners: Tensor, min_triangle_area: float) -> Tensor:
    """Index [N] of the nearest triangle, the first of equal ones."""
    squared = _squared_distance(points[:, None], corners[None], min_triangle_area)
    return torch.nan_to_num(squared, nan=torch.inf, posinf=torch.inf).argmin(dim=1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(dim=-1)


def _squared_distance(points: Tensor, corners: Tensor, min_triangle_area: float) -> Tensor:
    """From points [..., 3] to triangles [..., 3, 3]: to the plane above the inside, else to the nearest edge."""
    a, b, c = corners.unbind(-2)
    ab, ac, offset = b - a, c - a, points - a
    normal = torch.linalg.cross(ab, ac)
    squared = _dot(normal, normal)
    flat = squared == 0
    safe = torch.where(flat, 1.0, squared)
    weight_b = _dot(offset, torch.linalg.cross(ac, normal) / safe[..., None])
    weight_c = _dot(offset, torch.linalg.cross(normal, ab) / safe[..., None])
    solid = ~flat & (0.5 * squared.sqrt() >= min_triangle_area)
    above = solid & (weight_b >= 0) & (weight_c >= 0) & (1 - weight_b - weight_c >= 0)
    edges = torch.minimum(_to_edge(points, a, b), torch.minimum(_to_edge(points, a, c), _to_edge(points, b, c)))
    return torch.where(above, _dot(offset, normal).square() / safe, edges)


def _to_edge(points: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared distance to a segment; a point nearest to an end has exactly its distance to that end."""
    edge, offset = b - a, points - a
    length = _dot(edge, edge)
    along = _dot(offset, edge) / torch.where(length == 0, 1.0, length)
    between = offset - along.clamp(0, 1)[..., None] * edge
    beyond = points - b
    return torch.where(along >= 1, _dot(beyond, beyond), _dot(between, between))


def _check(points: Tensor, vertices: Tensor, faces: Tensor, min_triangle_area: float) -> None:
    _native.check_shape("points", points, ("B", "N", 3))
    _native.check_shape("vertices", vertices, (int(points.shape[0]), "V", 3))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_integer("faces", faces)
    if faces.shape[0] == 0:
        raise ValueError("faces must hold at least one triangle, got none")
    if not min_triangle_area >= 0:
        raise ValueError(f"min_triangle_area must be at least 0, got {min_triangle_area}")


class _Arguments(ctypes.Structure):
    """FourdSurfaceFieldArgs of cuda/surface_field.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "points", "vertices", "faces", "face_index", "barycentrics", "signed_distance", "squared_distance",
        )),
        *((name, ctypes.c_int64) for name in ("batch", "point_count", "vertex_count", "face_count")),
        ("min_triangle_area", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )  # fmt: skip


@torch.library.custom_op("fourd::surface_field", mutates_args=(), device_types=("cpu", "cuda"))
def _surface_op(
    points: Tensor, vertices: Tensor, faces: Tensor, min_triangle_area: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The native kernel: the fields of SurfaceField, float32."""
    points, vertices = points.contiguous(), vertices.contiguous()
    triangles = _native.int32(faces.to(points.device))
    out = _surface_fake(points, vertices, faces, min_triangle_area)
    arguments = _Arguments(
        points.data_ptr(), vertices.data_ptr(), triangles.data_ptr(), *(t.data_ptr() for t in out), points.shape[0],
        points.shape[1], vertices.shape[1], faces.shape[0], min_triangle_area, _native.thread_count(),
    )  # fmt: skip
    try:
        _native.run("surface_field", arguments, points.device)
    except ValueError:
        _native.check_indices("faces", faces, int(vertices.shape[1]))
        raise
    return out


@_surface_op.register_fake
def _surface_fake(
    points: Tensor, vertices: Tensor, faces: Tensor, min_triangle_area: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    shape = (points.shape[0], points.shape[1])
    index = points.new_empty(shape, dtype=torch.int64)
    return index, points.new_empty((*shape, 3)), points.new_empty(shape), points.new_empty(shape)
