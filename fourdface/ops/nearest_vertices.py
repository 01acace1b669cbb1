"""The k nearest vertices of a mesh, or of a part of it: `nearest_vertices`.

GenHead looks them up separately among eyes, face and lips (Portrait4D, Deng et al. 2024, section 3.1).
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

__all__ = ["NearestVertices", "nearest_vertices", "nearest_vertices_reference"]

_PAIRS = 4_000_000  # pairs of point and vertex that the reference looks at in one go
_MOST_ON_CUDA = 32


class NearestVertices(NamedTuple):
    """indices [B, N, k] int64 of the vertices, nearest first, and squared_distance [B, N, k]."""

    indices: Tensor
    squared_distance: Tensor


def nearest_vertices(
    points: Tensor, vertices: Tensor, k: int, *, subset: Tensor | None = None, backend: str = "auto"
) -> NearestVertices:
    """Find the k nearest vertices of every point.

    Args:
        points: [B, N, 3]. vertices: [B, V, 3], in the same units.
        k: how many, 1 to the number of vertices that are looked at.
        subset: [S] integer, the vertices that are looked at, each once (default all).
        backend: "auto" (native for float32 tensors), "reference" or "native".

    Returns:
        NearestVertices. Indices are those of `vertices` (not places in the subset); equally far ones come in rising
        order. Squared distances are differentiable in points and vertices. A vertex that is not finite counts as
        infinitely far; a point that is not finite gets the lowest indices and distances that are not finite.

    Raises:
        ValueError: wrong shapes, k or an index out of range, or a backend that is not available here.
    """
    size = _check(points, vertices, k, subset)
    _native.check_backend(backend, ("auto", "reference", "native"))
    fits = points.dtype == vertices.dtype == torch.float32 and (k <= _MOST_ON_CUDA or not points.is_cuda)
    if backend == "reference" or (backend == "auto" and not (fits and _native.usable(points.device))):
        return nearest_vertices_reference(points, vertices, k, subset=subset)
    indices, squared = _nearest_op(points.detach().float(), vertices.detach().float(), k, subset, size)
    if torch.is_grad_enabled() and (points.requires_grad or vertices.requires_grad):
        return NearestVertices(indices, _squared_distance(points, vertices, indices))
    return NearestVertices(indices, squared.to(points.dtype))


def nearest_vertices_reference(
    points: Tensor, vertices: Tensor, k: int, *, subset: Tensor | None = None
) -> NearestVertices:
    """Find the k nearest vertices by looking at all of them; as `nearest_vertices`, in plain torch on any device."""
    size = _check(points, vertices, k, subset)
    with torch.no_grad():
        chosen = torch.arange(size, device=vertices.device)
        if subset is not None:
            _native.check_indices("subset", subset, int(vertices.shape[1]))
            chosen = subset.long().sort().values
        found = [
            torch.cat([chosen[_lowest(part, vertices[b, chosen], k)] for part in points[b].split(_PAIRS // size + 1)])
            for b in range(len(points))
        ]
        indices = torch.stack(found) if found else chosen.new_zeros((0, points.shape[1], k))
    return NearestVertices(indices, _squared_distance(points, vertices, indices))


def _lowest(points: Tensor, vertices: Tensor, k: int) -> Tensor:
    """Places [N, k] of the nearest vertices; distances in double, so that native and torch agree about equal ones."""
    difference = points.double()[:, None] - vertices.double()[None]
    squared = torch.nan_to_num(difference.square().sum(dim=2), nan=torch.inf, posinf=torch.inf)
    if k == 1:
        return squared.argmin(dim=1, keepdim=True)  # the first of equal ones
    return squared.sort(dim=1, stable=True).indices[:, :k]


def _squared_distance(points: Tensor, vertices: Tensor, indices: Tensor) -> Tensor:
    """[B, N, k], differentiable."""
    batch = torch.arange(len(points), device=points.device)[:, None, None]
    return (points[:, :, None] - vertices[batch, indices]).square().sum(dim=3)


def _check(points: Tensor, vertices: Tensor, k: int, subset: Tensor | None) -> int:
    """Raise for what cannot be computed; returns the number of vertices that are looked at."""
    _native.check_shape("points", points, ("B", "N", 3))
    _native.check_shape("vertices", vertices, (int(points.shape[0]), "V", 3))
    size = int(vertices.shape[1])
    if subset is not None:
        _native.check_shape("subset", subset, ("S",))
        _native.check_integer("subset", subset)
        size = int(subset.shape[0])
    if not 1 <= k <= size:
        raise ValueError(f"k must be 1 to {size}, the number of vertices that are looked at, got {k}")
    return size


class _Arguments(ctypes.Structure):
    """FourdNearestVerticesArgs of cuda/nearest_vertices.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("points", "vertices", "subset", "indices", "squared_distance")),
        *((name, ctypes.c_int64) for name in ("batch", "point_count", "vertex_count", "subset_count")),
        *((name, ctypes.c_int32) for name in ("k", "threads")),
    )


@torch.library.custom_op("fourd::nearest_vertices", mutates_args=(), device_types=("cpu", "cuda"))
def _nearest_op(
    points: Tensor, vertices: Tensor, k: int, subset: Tensor | None, subset_count: int
) -> tuple[Tensor, Tensor]:
    """The native kernel: indices [B, N, k] int64, squared_distance [B, N, k] float32."""
    points, vertices = points.contiguous(), vertices.contiguous()
    chosen = None if subset is None else _native.int32(subset.to(points.device))
    if chosen is not None and points.is_cuda:
        chosen = chosen.sort().values
    indices, squared = _nearest_fake(points, vertices, k, subset, subset_count)
    arguments = _Arguments(
        points.data_ptr(), vertices.data_ptr(), None if chosen is None else chosen.data_ptr(), indices.data_ptr(),
        squared.data_ptr(), points.shape[0], points.shape[1], vertices.shape[1], subset_count, k,
        _native.thread_count(),
    )  # fmt: skip
    try:
        _native.run("nearest_vertices", arguments, points.device)
    except ValueError:
        if subset is not None:
            _native.check_indices("subset", subset, int(vertices.shape[1]))
        raise
    return indices, squared


@_nearest_op.register_fake
def _nearest_fake(
    points: Tensor, vertices: Tensor, k: int, subset: Tensor | None, subset_count: int
) -> tuple[Tensor, Tensor]:
    shape = (points.shape[0], points.shape[1], k)
    return points.new_empty(shape, dtype=torch.int64), points.new_empty(shape)
