"""Gaussians that ride on the triangles of a mesh: means and covariances in each triangle's own frame.

The frame of a triangle with corners v0, v1, v2 is F = [e1, e2, h n]: e1 = v1 - v0, e2 = v2 - v0, n the unit normal and
h = sqrt(2 area), so that a Gaussian follows its triangle's position, rotation, stretch and shear, and its thickness
follows the triangle's size. (GaussianAvatars, Qian et al. 2024, uses a rotation and one scale instead; the affine
frame also carries shear.)
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

__all__ = ["BoundGaussians", "bind_gaussians", "bind_gaussians_reference", "bind_inverse", "triangle_frames"]


class BoundGaussians(NamedTuple):
    """means [N, 3] and covariances [N, 6] (xx, xy, xz, yy, yz, zz)."""

    means: Tensor
    covariances: Tensor


def bind_gaussians(
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    local_mean: Tensor,
    local_covariance: Tensor,
    *,
    max_trace: Tensor | float | None = None,
    backend: str = "auto",
) -> BoundGaussians:
    """Place Gaussians on a posed mesh.

    Args:
        vertices: [V, 3] world, metres. faces: [F, 3] integer. triangle: [N] integer, the face each Gaussian rides on.
        local_mean: [N, 3] and local_covariance: [N, 6] (xx, xy, xz, yy, yz, zz) in the triangle's frame (see above).
        max_trace: limit on the trace of the covariances (square metres), one number or [N]: a larger covariance is
            scaled down as a whole, so a torn or badly stretched triangle cannot blow a Gaussian up over the picture.
        backend: "auto" (native for float32 tensors, unless max_trace needs a gradient or one is needed on CUDA; else
            the reference), "reference" or "native".

    Returns:
        means [N, 3] = v0 + F local_mean and covariances [N, 6] = F C F^T, world.

    Raises:
        ValueError: wrong shapes, an index out of range, or a backend that is not available here.
    """
    _check(vertices, faces, triangle, local_mean, local_covariance, max_trace)
    _native.check_backend(backend, ("auto", "reference", "native"))
    floats = [vertices, local_mean, local_covariance]
    if isinstance(max_trace, Tensor):
        floats.append(max_trace)
    limited = isinstance(max_trace, Tensor) and torch.is_grad_enabled() and max_trace.requires_grad
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in floats)
    there = not limited and not (needs_gradient and vertices.is_cuda)
    there = there and all(t.device == vertices.device for t in (*floats, faces, triangle))
    if backend == "native":
        if not there:
            raise ValueError(
                "backend 'native' takes tensors on one device, without a gradient for max_trace, and on CUDA without "
                "any: use 'auto' or 'reference'"
            )
        _native.require_library(vertices.device)
    fits = there and all(t.dtype == torch.float32 for t in floats)
    if backend == "native" or (backend == "auto" and fits and _usable(vertices.device.type)):
        return _bind_native(vertices, faces, triangle, local_mean, local_covariance, max_trace)
    return bind_gaussians_reference(vertices, faces, triangle, local_mean, local_covariance, max_trace=max_trace)


def bind_gaussians_reference(
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    local_mean: Tensor,
    local_covariance: Tensor,
    *,
    max_trace: Tensor | float | None = None,
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
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    means: Tensor,
    covariances: Tensor,
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


def triangle_frames(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return origins [F, 3] (v0) and frames [F, 3, 3] with columns e1, e2, h n; a triangle without area has h n = 0."""
    v0, v1, v2 = vertices[faces.long()].unbind(1)
    e1, e2 = v1 - v0, v2 - v0
    cross = torch.linalg.cross(e1, e2)
    squared = (cross * cross).sum(dim=1, keepdim=True)
    flat = squared == 0
    fourth_root = torch.where(flat, torch.ones_like(squared), squared).sqrt().sqrt()  # sqrt(2 area)
    normal = torch.where(flat, torch.zeros_like(cross), cross / fourth_root)
    return v0, torch.stack([e1, e2, normal], dim=2)


@torch.compiler.assume_constant_result
def _usable(device_type: str) -> bool:
    return _native.usable(torch.device(device_type))


def _to_full(upper: Tensor) -> Tensor:
    return upper[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def _to_upper(full: Tensor) -> Tensor:
    return full.reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]


def _check(
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    mean: Tensor,
    covariance: Tensor,
    max_trace: Tensor | float | None,
) -> None:
    _native.check_shape("vertices", vertices, ("V", 3))
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_shape("triangle", triangle, ("N",))
    count = int(triangle.shape[0])
    _native.check_shape("means", mean, (count, 3))
    _native.check_shape("covariances", covariance, (count, 6))
    if isinstance(max_trace, Tensor) and max_trace.dim() > 0:
        _native.check_shape("max_trace", max_trace, (count,))
    _native.check_integer("triangle", triangle)
    _native.check_integer("faces", faces)


def _check_indices(vertices: Tensor, faces: Tensor, triangle: Tensor) -> None:
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


class _BackwardArguments(ctypes.Structure):
    """FourdBindBackwardArgs of cuda/bind_gaussians.h."""

    _fields_ = (
        ("forward", _Arguments),
        *((name, ctypes.c_void_p) for name in (
            "grad_means", "grad_covariances", "grad_vertices", "grad_local_mean", "grad_local_covariance",
        )),
    )  # fmt: skip


def _bind_native(
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    local_mean: Tensor,
    local_covariance: Tensor,
    max_trace: Tensor | float | None,
) -> BoundGaussians:
    limits, limit = None, math.inf
    if isinstance(max_trace, Tensor) and max_trace.dim() > 0:
        limits = max_trace.detach().float()
    elif max_trace is not None:
        limit = float(max_trace)
    indices = [_native.int32(t) for t in (faces, triangle)]
    floats = [t.float() for t in (vertices, local_mean, local_covariance)]
    return BoundGaussians(*bind_op(floats[0], *indices, *floats[1:], limits, limit))


@torch.library.custom_op("fourd::bind_gaussians", mutates_args=(), device_types=("cpu", "cuda"))
def bind_op(
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    local_mean: Tensor,
    local_covariance: Tensor,
    max_trace: Tensor | None,
    max_trace_all: float,
) -> tuple[Tensor, Tensor]:
    """The native kernel: means [N, 3] and covariances [N, 6]; float32 and int32 tensors."""
    inputs = [vertices, faces, triangle, local_mean, local_covariance]
    arguments, keep = _arguments(inputs, max_trace, max_trace_all)
    means, covariances = torch.empty_like(keep[3]), torch.empty_like(keep[4])
    arguments.means, arguments.covariances = means.data_ptr(), covariances.data_ptr()
    try:
        _native.run("bind_gaussians", arguments, vertices.device)
    except ValueError:
        _check_indices(vertices, faces, triangle)
        raise
    return means, covariances


@bind_op.register_fake
def _(
    vertices: Tensor,
    faces: Tensor,
    triangle: Tensor,
    local_mean: Tensor,
    local_covariance: Tensor,
    max_trace: Tensor | None,
    max_trace_all: float,
) -> tuple[Tensor, Tensor]:
    return local_mean.new_empty(local_mean.shape), local_covariance.new_empty(local_covariance.shape)


@torch.library.custom_op("fourd::bind_gaussians_backward", mutates_args=(), device_types=("cpu",))
def bind_backward_op(
    tensors: list[Tensor], max_trace: Tensor | None, max_trace_all: float, grad_means: Tensor, grad_covariances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of vertices [V, 3], local_mean and local_covariance; `tensors` are the op's first five."""
    arguments, keep = _arguments(tensors, max_trace, max_trace_all)
    upstream = [t.contiguous() for t in (grad_means, grad_covariances)]
    found = [torch.empty_like(keep[i]) for i in (0, 3, 4)]
    backward = _BackwardArguments(arguments, *(t.data_ptr() for t in (*upstream, *found)))
    _native.run("bind_gaussians_backward", backward, tensors[0].device)
    return found[0], found[1], found[2]


@bind_backward_op.register_fake
def _(
    tensors: list[Tensor], max_trace: Tensor | None, max_trace_all: float, grad_means: Tensor, grad_covariances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    found = [tensors[i].new_empty(tensors[i].shape) for i in (0, 3, 4)]
    return found[0], found[1], found[2]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.has_limits, ctx.limit = inputs[5] is not None, inputs[6]
    ctx.save_for_backward(*inputs[:5], *([inputs[5]] if ctx.has_limits else []))


def _backward(ctx: Any, grad_means: Tensor, grad_covariances: Tensor) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    limits = saved.pop() if ctx.has_limits else None
    vertices, mean, covariance = bind_backward_op(saved, limits, ctx.limit, grad_means, grad_covariances)
    return vertices, None, None, mean, covariance, None, None


bind_op.register_autograd(_backward, setup_context=_setup_context)


def _arguments(
    tensors: list[Tensor], max_trace: Tensor | None, max_trace_all: float
) -> tuple[_Arguments, list[Tensor]]:
    """Return the kernel's arguments without outputs, and the tensors that must live while it runs."""
    inputs = [t.contiguous() for t in tensors]
    limits = None if max_trace is None else max_trace.contiguous()
    arguments = _Arguments(
        *(t.data_ptr() for t in inputs), _native.float_pointer(limits), None, None, *(len(t) for t in inputs[:3]),
        max_trace_all, _native.thread_count(),
    )  # fmt: skip
    return arguments, inputs if limits is None else [*inputs, limits]
