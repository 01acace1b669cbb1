"""Which of several equally near triangles is "the nearest": the choice of the code that published networks know.

With heads of Portrait4D's size nearly every triangle counts as its edges, and every edge belongs to two: what is
nearest is always a tie, and the surface field of the two triangles differs by centimetres. The published code decides
it by the rounding of float32 and, among equal bits, for the last triangle. This repeats its arithmetic on the few
candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["around_faces", "settle_ties"]

_EPSILON = 1e-8
_CHUNK = 1024  # points at a time, so that what is worked out stays in the cache


def around_faces(faces: Tensor) -> Tensor:
    """Each triangle and those that share a vertex with it, [F, K]; short lists repeat one of theirs."""
    count, vertices = len(faces), int(faces.max()) + 1
    member = torch.zeros(count, vertices, dtype=torch.float32, device=faces.device)
    member.scatter_(1, faces, 1.0)
    touches = member @ member.T > 0
    width = int(touches.sum(dim=1).max())
    index = torch.arange(count, device=faces.device).expand(count, -1)
    listed = torch.where(touches, index, -1).sort(dim=1, descending=True).values[:, :width]
    return torch.where(listed < 0, listed.amax(dim=1, keepdim=True), listed)


def settle_ties(
    points: Tensor, vertices: Tensor, faces: Tensor, found: Tensor, around: Tensor, min_triangle_area: float
) -> Tensor:
    """The published choice [B, N] among the triangles around those found.

    points [B, N, 3], vertices [B, V, 3], float32; faces [F, 3]; found [B, N]: any of the nearest triangles; around:
    `around_faces(faces)`.
    """
    chosen = []
    for cloud, mesh, index in zip(points, vertices, found, strict=True):
        triangles = mesh[faces].flatten(1).T.contiguous()
        parts = zip(cloud.split(_CHUNK), index.split(_CHUNK), strict=True)
        chosen.append(torch.cat([_settled(some, triangles, around[of], min_triangle_area) for some, of in parts]))
    return torch.stack(chosen)


def _settled(points: Tensor, triangles: Tensor, candidates: Tensor, min_triangle_area: float) -> Tensor:
    """For points [N, 3] and candidates [N, K] of triangles [9, F] (coordinates apart): the choice [N]."""
    rows = triangles[:, candidates]  # [9, N, K]
    a, b, c = (rows[3 * i : 3 * i + 3].unbind(0) for i in range(3))
    distance = _triangle_distance(points[:, None].unbind(-1), a, b, c, min_triangle_area)
    nearest = distance == distance.amin(dim=-1, keepdim=True)
    return torch.where(nearest, candidates, -1).amax(dim=-1)


Vector = tuple[Tensor, ...]
"""Three coordinates, apart: sums of products then have a fixed order and no fused operation."""


def _minus(a: Vector, b: Vector) -> Vector:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def _plus(a: Vector, scale: Tensor, b: Vector) -> Vector:
    return tuple(x + scale * y for x, y in zip(a, b, strict=True))


def _dot(a: Vector, b: Vector) -> Tensor:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _cross(a: Vector, b: Vector) -> Vector:
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def _segment_distance(p: Vector, a: Vector, b: Vector) -> Tensor:
    """Squared distance to a segment; to its end `b` where it has no length."""
    along = _minus(b, a)
    length = _dot(along, along)
    where = (_dot(along, _minus(p, a)) / length).clamp(0, 1)
    offset = _minus(p, _plus(a, where, along))
    end = _minus(p, b)
    return torch.where(length <= _EPSILON, _dot(end, end), _dot(offset, offset))


def _triangle_distance(p: Vector, a: Vector, b: Vector, c: Vector, min_area: float) -> Tensor:
    """Squared distance to a triangle: to its plane over its inside, to its edges elsewhere or where it is small."""
    normal = _cross(_minus(c, a), _minus(b, a))
    length = _dot(normal, normal).sqrt()
    unit = tuple(x / (length + _EPSILON) for x in normal)
    height = _dot(_minus(a, p), unit)
    weights = _barycentric(_plus(p, height, unit), a, b, c)
    inside = (0.5 * length >= min_area) & (length > _EPSILON)
    for weight in weights:
        inside = inside & (weight >= 0) & (weight <= 1)
    edges = torch.minimum(_segment_distance(p, a, b), _segment_distance(p, a, c))
    edges = torch.minimum(edges, _segment_distance(p, b, c))
    return torch.where(inside, height * height, edges)


def _barycentric(p: Vector, a: Vector, b: Vector, c: Vector) -> Vector:
    u, v, w = _minus(b, a), _minus(c, a), _minus(p, a)
    uu, uv, vv, wu, wv = _dot(u, u), _dot(u, v), _dot(v, v), _dot(w, u), _dot(w, v)
    scale = uu * vv - uv * uv + _EPSILON
    second, third = (vv * wu - uv * wv) / scale, (uu * wv - uv * wu) / scale
    return (1 - second - third, second, third)
