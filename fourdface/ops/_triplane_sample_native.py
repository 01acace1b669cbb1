"""The tri-plane lookup as torch custom ops (`fourd::triplane_sample` and its backward), over cuda/triplane_sample.h."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from fourdface.ops import _native
from fourdface.ops._triplane_axes import AXES


class _Arguments(ctypes.Structure):
    """FourdTriplaneSampleArgs of cuda/triplane_sample.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "planes", "points", "grad_features", "features", "grad_planes", "grad_points",
        )),
        ("count", ctypes.c_int64),
        ("strides", ctypes.c_int64 * 6),
        *((name, ctypes.c_int32) for name in ("batch", "channels", "depth", "height", "width", "layered")),
        ("axes", ctypes.c_int32 * 9),
        ("threads", ctypes.c_int32),
        ("box_size", ctypes.c_float),
        ("plane_scale", ctypes.c_float),
    )  # fmt: skip


def _layered(planes: Tensor) -> Tensor:
    """Return the planes as [B, 3, C, D, H, W], a view."""
    return planes if planes.dim() == 6 else planes.unsqueeze(3)


def _arguments(planes: Tensor, points: Tensor, axes: str, box_size: float, scale: float) -> _Arguments:
    view = _layered(planes)
    arguments = _Arguments(planes=view.data_ptr(), points=points.data_ptr())
    arguments.count = int(points.shape[1])
    arguments.strides = (ctypes.c_int64 * 6)(*view.stride())
    arguments.batch, _, arguments.channels, arguments.depth, arguments.height, arguments.width = view.shape
    arguments.layered = int(planes.dim() == 6)
    arguments.axes = (ctypes.c_int32 * 9)(*(coordinate for order in AXES[axes] for coordinate in order))
    arguments.threads = _native.thread_count()
    arguments.box_size, arguments.plane_scale = box_size, scale
    return arguments


def _for_lookup(planes: Tensor, points: Tensor) -> Tensor:
    """Return the planes with their channels together, where there are points enough to pay for the copy."""
    texels = planes[0, 0, 0].numel() if planes.numel() else 0
    if 8 * points.shape[1] < texels:
        return planes
    return planes.movedim(2, -1).contiguous().movedim(-1, 2)


@torch.library.custom_op("fourd::triplane_sample", mutates_args=(), device_types=("cpu", "cuda"))
def sample_op(planes: Tensor, points: Tensor, axes: str, box_size: float, scale: float) -> Tensor:
    """Return features [B, N, C]: the sum over the planes times `scale`."""
    planes, points = _for_lookup(planes.detach(), points), points.detach().contiguous()
    features = points.new_empty((*points.shape[:2], planes.shape[2]))
    arguments = _arguments(planes, points, axes, box_size, scale)
    arguments.features = features.data_ptr()
    _native.run("triplane_sample", arguments, points.device)
    return features


@sample_op.register_fake
def _(planes: Tensor, points: Tensor, axes: str, box_size: float, scale: float) -> Tensor:
    return points.new_empty((*points.shape[:2], planes.shape[2]))


@torch.library.custom_op("fourd::triplane_sample_backward", mutates_args=(), device_types=("cpu", "cuda"))
def sample_backward_op(
    gradient: Tensor,
    planes: Tensor,
    points: Tensor,
    axes: str,
    box_size: float,
    scale: float,
    of_planes: bool,
    of_points: bool,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of planes and points; one that is not asked for is empty."""
    gradient, points = gradient.contiguous(), points.detach().contiguous()
    looked_up = _for_lookup(planes.detach(), points) if of_points else planes.detach()
    arguments = _arguments(looked_up, points, axes, box_size, scale)
    last = planes.movedim(2, -1).shape
    grad_planes = planes.new_empty(last if of_planes else (0,))
    grad_points = points.new_empty(points.shape if of_points else (0,))
    arguments.grad_features = gradient.data_ptr()
    arguments.grad_planes = grad_planes.data_ptr() if of_planes else None
    arguments.grad_points = grad_points.data_ptr() if of_points else None
    _native.run("triplane_sample_backward", arguments, points.device)
    return grad_planes.movedim(-1, 2).contiguous() if of_planes else grad_planes, grad_points


@sample_backward_op.register_fake
def _(
    gradient: Tensor, planes: Tensor, points: Tensor, axes: str, box_size: float, scale: float,
    of_planes: bool, of_points: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    return planes.new_empty(planes.shape if of_planes else (0,)), points.new_empty(points.shape if of_points else (0,))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    planes, points, ctx.axes, ctx.box_size, ctx.scale = inputs
    ctx.save_for_backward(planes, points)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    planes, points = ctx.saved_tensors
    needed = ctx.needs_input_grad
    found = sample_backward_op(gradient, planes, points, ctx.axes, ctx.box_size, ctx.scale, needed[0], needed[1])
    return *(g if n else None for g, n in zip(found, needed, strict=False)), None, None, None


sample_op.register_autograd(_backward, setup_context=_save)
