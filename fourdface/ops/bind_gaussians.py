"""Gaussians that ride on the triangles of a mesh: means and covariances in each triangle's own frame.

The frame of a triangle with corners v0, v1, v2 is F = [e1, e2, h n]: e1 = v1 - v0, e2 = v2 - v0, n the unit normal and
h = sqrt(2 area), so that a Gaussian follows its triangle's position, rotation, stretch and shear, and its thickness
follows the triangle's size. (GaussianAvatars, Qian et al. 2024, uses a rotation and one scale instead; the affine
frame also carries shear.)
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from fourdface.ops import _native

__all__ = ["BoundGaussians", "bind_gaussians", "bind_gaussians_reference", "bind_inverse", "triangle_frames"]


class BoundGaussians(NamedTuple):
    """means [N, 3] and covariances [N, 6] (xx, xy, xz, yy, yz, zz)."""

    means: torch.Tensor
    covariances: torch.Tensor


def bind_gaussians(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    triangle: torch.Tensor,
    local_mean: torch.Tensor,
    local_covariance: torch.Tensor,
    *,
    max_trace: torch.Tensor | float | None = None,
    backend: str = "auto",
) -> BoundGaussians:
    """Place Gaussians on a posed mesh.

    Args:
        vertices: [V, 3] world, metres. faces: [F, 3] integer. triangle: [N] integer, the face each Gaussian rides on.
        local_mean: [N, 3] and local_covariance: [N, 6] (xx, xy, xz, yy, yz, zz) in the triangle's frame (see above).
        max_trace: limit on the trace of the covariances (square metres), one number or [N]: a larger covariance is
            scaled down as a whole, so a torn or badly stretched triangle cannot blow a Gaussian up over the picture.
        backend: "auto" (native for float32 tensors without gradients, else the reference), "reference" or "native".

    Returns:
        means [N, 3] = v0 + F local_mean and covariances [N, 6] = F C F^T, world.

    Raises:
        ValueError: wrong shapes, an index out of range, or a backend that is not available here.
    """
    _check(vertices, faces, triangle, local_mean, local_covariance, max_trace)
    _native.check_backend(backend, ("auto", "reference", "native"))
    floats = [vertices, local_mean, local_covariance]
    if isinstance(max_trace, torch.Tensor):
        floats.append(max_trace)
    forward_only = not (torch.is_grad_enabled() and any(t.requires_grad for t in floats))
    together = all(t.device == vertices.device for t in (*floats, faces, triangle))
    if backend == "native" and not (forward_only and together):
        raise ValueError(
            "backend 'native' has only the forward pass, for tensors on one device: use 'auto' or 'reference'"
        )
    fits = forward_only and together and all(t.dtype == torch.float32 for t in floats)
    if backend == "native" or (backend == "auto" and fits and _native.usable(vertices.device)):
        return _bind_native(vertices, faces, triangle, local_mean, local_covariance, max_trace)
    return bind_gaussians_reference(vertices, faces, triangle, local_mean, local_covariance, max_trace=max_trace)


def bind_gaussians_reference(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    triangle: torch.Tensor,
    local_mean: torch.Tensor,
    local_covariance: torch.Tensor,
    *,
    max_trace: torch.Tensor | float | None = None,
) -> BoundGaussians:
    """Place Gaussians on a posed mesh; arguments and result as in `bind_gaussians`. Differentiable, any device."""
    _check_indices(vertices, faces, triangle)
    origins, frames = triangle_frames(vertices, faces)
    origin, frame = origins[triangle.long()], frames[triangle.long()]
    means = origin + (frame @ local_mean[:, :, None])[:, :, 0]
    covariances = _to_upper(frame @ _to_full(local_covariance) @ frame.transpose(1, 2))
    if max_trace is not None:
        trace = covariances[:, 0] + covariances[:, 3] + covariances[:, 5]
        limit = torch.as_tensor(max_trace, dtype=trace.dtype, device=trace.device).expand_as(trace)
        too_large = trace > limit
        scale = torch.where(
            too_large, limit / torch.where(too_large, trace, torch.ones_like(trace)), torch.ones_like(trace)
        )
        covariances = covariances * scale[:, None]
    return BoundGaussians(means, covariances)


def bind_inverse(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    triangle: torch.Tensor,
    means: torch.Tensor,
    covariances: torch.Tensor,
) -> BoundGaussians:
    """Return the local means [N, 3] and covariances [N, 6] that `bind_gaussians` turns into the given world ones.

    Shapes as in `bind_gaussians`. Solved in double precision and returned in the precision of `means`. Raises
    ValueError for a Gaussian on a triangle without area, whose frame has no inverse.
    """
    _check(vertices, faces, triangle, means, covariances, None)
    _check_indices(vertices, faces, triangle)
    origins, frames = triangle_frames(vertices.double(), faces)
    origin, frame = origins[triangle.long()], frames[triangle.long()]
    singular = torch.linalg.det(frame) == 0
    if bool(singular.any()):
        bad = int(triangle[singular][0])
        raise ValueError(f"triangle {bad} has no area, so Gaussians cannot be expressed in its frame")
    inverse = torch.linalg.inv(frame)
    local_mean = (inverse @ (means.double() - origin)[:, :, None])[:, :, 0]
    local = _to_upper(inverse @ _to_full(covariances.double()) @ inverse.transpose(1, 2))
    return BoundGaussians(local_mean.to(means.dtype), local.to(covariances.dtype))


def triangle_frames(vertices: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return origins [F, 3] (v0) and frames [F, 3, 3] with columns e1, e2, h n; a triangle without area has h n = 0."""
    v0, v1, v2 = vertices[faces.long()].unbind(1)
    e1, e2 = v1 - v0, v2 - v0
    cross = torch.linalg.cross(e1, e2)
    squared = (cross * cross).sum(dim=1, keepdim=True)
    flat = squared == 0
    fourth_root = torch.where(flat, torch.ones_like(squared), squared).sqrt().sqrt()  # sqrt(2 area)
    normal = torch.where(flat, torch.zeros_like(cross), cross / fourth_root)
    return v0, torch.stack([e1, e2, normal], dim=2)


def _to_full(upper: torch.Tensor) -> torch.Tensor:
    return upper[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def _to_upper(full: torch.Tensor) -> torch.Tensor:
    return full.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]


def _check(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    triangle: torch.Tensor,
    mean: torch.Tensor,
    covariance: torch.Tensor,
    max_trace: torch.Tensor | float | None,
) -> None:
    _native.check_shape("vertices", vertices, ("V", 3))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_shape("triangle", triangle, ("N",))
    count = int(triangle.shape[0])
    _native.check_shape("means", mean, (count, 3))
    _native.check_shape("covariances", covariance, (count, 6))
    if isinstance(max_trace, torch.Tensor) and max_trace.dim() > 0:
        _native.check_shape("max_trace", max_trace, (count,))
    _native.check_integer("triangle", triangle)
    _native.check_integer("faces", faces)


def _check_indices(vertices: torch.Tensor, faces: torch.Tensor, triangle: torch.Tensor) -> None:
    """The native kernel does this itself, at no cost; here it is for the reference and for the text of the error."""
    _native.check_indices("faces", faces, int(vertices.shape[0]))
    _native.check_indices("triangle", triangle, int(faces.shape[0]))


class _Arguments(ctypes.Structure):
    """FourdBindArgs of cuda/bind_gaussians.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "vertices", "faces", "triangle", "local_mean", "local_covariance", "max_trace", "means", "covariances",
        )),
        ("vertex_count", ctypes.c_int64),
        ("face_count", ctypes.c_int64),
        ("count", ctypes.c_int64),
        ("max_trace_all", ctypes.c_float),
        ("threads", ctypes.c_int32),
    )  # fmt: skip


def _bind_native(
    vertices: torch.Tensor,
    faces: torch.Tensor,
    triangle: torch.Tensor,
    local_mean: torch.Tensor,
    local_covariance: torch.Tensor,
    max_trace: torch.Tensor | float | None,
) -> BoundGaussians:
    count = int(triangle.shape[0])
    floats = [t.detach().float().contiguous() for t in (vertices, local_mean, local_covariance)]
    face_list, triangle_list = _native.int32(faces), _native.int32(triangle)
    limits, limit = None, float("inf")
    if isinstance(max_trace, torch.Tensor) and max_trace.dim() > 0:
        limits = max_trace.detach().float().contiguous()
    elif max_trace is not None:
        limit = float(max_trace)
    means, covariances = floats[0].new_empty((count, 3)), floats[0].new_empty((count, 6))
    arguments = _Arguments(
        floats[0].data_ptr(), face_list.data_ptr(), triangle_list.data_ptr(), floats[1].data_ptr(),
        floats[2].data_ptr(), _native.float_pointer(limits), means.data_ptr(), covariances.data_ptr(),
        int(vertices.shape[0]), int(faces.shape[0]), count, limit, _native.thread_count(),
    )  # fmt: skip
    try:
        _native.run("bind_gaussians", arguments, vertices.device)
    except ValueError:
        _check_indices(vertices, faces, triangle)
        raise
    return BoundGaussians(means, covariances)
