"""Nearest vertices and the surface field in plain torch, with the signatures of the ops of these names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_CHUNK = 2048  # points that are compared with everything at once


class SurfaceField(NamedTuple):
    """face_index [B, N], barycentrics [B, N, 3] (unclamped), signed_distance and squared_distance [B, N]."""

    face_index: Tensor
    barycentrics: Tensor
    signed_distance: Tensor
    squared_distance: Tensor


def nearest_vertices(
    points: Tensor, vertices: Tensor, k: int, *, subset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Indices [B, N, k] into vertices [B, V, 3] (of those in `subset`) and squared distances, nearest first."""
    candidates = vertices if subset is None else vertices[:, subset]
    exact = "donot_use_mm_for_euclid_dist"
    indices, squared = [], []
    for cloud, mesh in zip(points, candidates, strict=True):
        parts = [
            torch.cdist(part, mesh, compute_mode=exact).topk(k, dim=1, largest=False) for part in cloud.split(_CHUNK)
        ]
        squared.append(torch.cat([part.values for part in parts]).square())
        indices.append(torch.cat([part.indices for part in parts]))
    found = torch.stack(indices)
    return (found if subset is None else subset[found]), torch.stack(squared)


def surface_field(points: Tensor, vertices: Tensor, faces: Tensor, *, min_triangle_area: float = 0.0) -> SurfaceField:
    """The nearest triangle of points [B, N, 3] with its barycentric coordinates and the height above it.

    Triangles below `min_triangle_area` count as their three edges.
    """
    fields = []
    for cloud, mesh in zip(points, vertices, strict=True):
        triangles = mesh[faces]
        nearest = [_nearest_triangle(part, triangles, min_triangle_area) for part in cloud.split(_CHUNK)]
        index = torch.cat([part[0] for part in nearest])
        chosen = triangles[index]
        weights = _barycentric(cloud, chosen)
        height = ((cloud - (chosen * weights[..., None]).sum(1)) * _normals(chosen)[0]).sum(-1)
        fields.append((index, weights, height, torch.cat([part[1] for part in nearest])))
    index, weights, height, squared = (torch.stack(part) for part in zip(*fields, strict=True))
    return SurfaceField(index, weights, height, squared)


def _normals(triangles: Tensor) -> tuple[Tensor, Tensor]:
    """Unit normals [F, 3] and areas [F]."""
    cross = torch.linalg.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    length = cross.norm(dim=1)
    return cross / length.clamp_min(1e-12)[:, None], length / 2


def _nearest_triangle(points: Tensor, triangles: Tensor, min_area: float) -> tuple[Tensor, Tensor]:
    normals, areas = _normals(triangles)
    a, b, c = triangles.unbind(1)
    p = points[:, None]
    edges = torch.stack([_segment(p, a, b), _segment(p, a, c), _segment(p, b, c)]).amin(0)
    height = ((p - a) * normals).sum(-1)
    weights = _barycentric(p - height[..., None] * normals, triangles)
    inside = ((weights >= 0) & (weights <= 1)).all(-1) & (areas >= min_area)
    squared, index = torch.where(inside, height.square(), edges).min(dim=1)
    return index, squared


def _segment(points: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Squared distance of points to segments."""
    along = b - a
    t = ((points - a) * along).sum(-1) / along.square().sum(-1).clamp_min(1e-8)
    return (points - a - t.clamp(0, 1)[..., None] * along).square().sum(-1)


def _barycentric(points: Tensor, triangles: Tensor) -> Tensor:
    a, b, c = triangles.unbind(-2)
    u, v, w = b - a, c - a, points - a
    uu, uv, vv, uw, vw = ((x * y).sum(-1) for x, y in ((u, u), (u, v), (v, v), (u, w), (v, w)))
    scale = 1 / (uu * vv - uv * uv).clamp_min(1e-12)
    second, third = (vv * uw - uv * vw) * scale, (uu * vw - uv * uw) * scale
    return torch.stack([1 - second - third, second, third], dim=-1)
