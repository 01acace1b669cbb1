"""The native kernels of `splat` as the torch operator `fourd::splat`: arguments, gradient, fake kernels."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from fourdface.ops import _native


class SplatArguments(ctypes.Structure):
    """FourdSplatArgs of cuda/splat.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "means", "covariances", "colors", "opacities", "world_to_camera", "intrinsics", "background",
            "background_u8", "image", "alpha", "depth_z", "image_u8", "scratch",
        )),
        *((name, ctypes.c_int64) for name in ("scratch_bytes", "count", "color_stride")),
        *((name, ctypes.c_int32) for name in ("cameras", "channels", "width", "height", "antialiased", "threads")),
        ("eps2d", ctypes.c_float),
        ("near_z", ctypes.c_float),
    )  # fmt: skip


class SplatBackwardArguments(ctypes.Structure):
    """FourdSplatBackwardArgs of cuda/splat.h."""

    _fields_ = (
        ("scene", SplatArguments),
        *((name, ctypes.c_void_p) for name in (
            "grad_image", "grad_alpha", "grad_depth_z", "grad_means", "grad_covariances", "grad_colors",
            "grad_opacities", "grad_world_to_camera", "grad_background",
        )),
    )  # fmt: skip


def arguments_of(
    inputs: tuple[Tensor, ...],
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> SplatArguments:
    """Return the kernel's arguments without outputs; `inputs` (contiguous float32) must live while it runs.

    inputs: means [N, 3], covariances [N, 6], colors [N, D] or [C, N, D], opacities [N], world_to_camera [C, 4, 4],
    intrinsics [C, 3, 3].
    """
    means, _, colors, _, cameras, _ = inputs
    count, channels = int(means.shape[0]), int(colors.shape[-1])
    return SplatArguments(
        *(t.data_ptr() for t in inputs), _native.float_pointer(background), None, None, None, None, None, None,
        0, count, count * channels if colors.dim() == 3 else 0, int(cameras.shape[0]), channels, width, height,
        int(antialiased), _native.thread_count(), eps2d, near,
    )  # fmt: skip


@torch.library.custom_op("fourd::splat", mutates_args=(), device_types=("cpu",))
def splat_op(
    means: Tensor,
    covariances: Tensor,
    colors: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw for cameras [C, 4, 4]: image [C, H, W, D], alpha [C, H, W], depth_z [C, H, W]; all tensors float32."""
    inputs = _contiguous(means, covariances, colors, opacities, world_to_camera, intrinsics)
    behind = None if background is None else background.contiguous()
    image, alpha, depth_z = _empty(colors, world_to_camera, width, height)
    arguments = arguments_of(inputs, behind, width, height, eps2d, near, antialiased)
    arguments.image, arguments.alpha, arguments.depth_z = image.data_ptr(), alpha.data_ptr(), depth_z.data_ptr()
    _native.run("splat", arguments, means.device)
    return image, alpha, depth_z


@splat_op.register_fake
def _(
    means: Tensor,
    covariances: Tensor,
    colors: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _empty(colors, world_to_camera, width, height)


@torch.library.custom_op("fourd::splat_backward", mutates_args=(), device_types=("cpu",))
def splat_backward_op(
    tensors: list[Tensor],
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
    grad_image: Tensor,
    grad_alpha: Tensor,
    grad_depth_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of means, covariances, colors, opacities, world_to_camera and background.

    tensors: the six inputs of `splat_op`, then its alpha and depth_z. Without a background its gradient is empty.
    """
    inputs, behind = _contiguous(*tensors[:6]), None if background is None else background.contiguous()
    forward = [t.contiguous() for t in tensors[6:]]
    upstream = [t.contiguous() for t in (grad_image, grad_alpha, grad_depth_z)]
    found = tuple(torch.zeros_like(t) for t in (*inputs[:5], _background_like(background, inputs[0])))
    scene = arguments_of(inputs, behind, width, height, eps2d, near, antialiased)
    scene.alpha, scene.depth_z = (t.data_ptr() for t in forward)
    arguments = SplatBackwardArguments(
        scene, *(t.data_ptr() for t in upstream), *(t.data_ptr() for t in found[:5]),
        None if background is None else found[5].data_ptr(),
    )  # fmt: skip
    _native.run("splat_backward", arguments, inputs[0].device)
    return found  # type: ignore[return-value]  # six of them


@splat_backward_op.register_fake
def _(
    tensors: list[Tensor],
    background: Tensor | None,
    width: int,
    height: int,
    eps2d: float,
    near: float,
    antialiased: bool,
    grad_image: Tensor,
    grad_alpha: Tensor,
    grad_depth_z: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    like = (*tensors[:5], _background_like(background, tensors[0]))
    return tuple(torch.zeros_like(t, memory_format=torch.contiguous_format) for t in like)  # type: ignore[return-value]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.numbers = inputs[7:]
    ctx.has_background = inputs[6] is not None
    ctx.save_for_backward(*inputs[:6], output[1], output[2], *([inputs[6]] if ctx.has_background else []))


def _backward(ctx: Any, grad_image: Tensor, grad_alpha: Tensor, grad_depth_z: Tensor) -> tuple[Any, ...]:
    saved = list(ctx.saved_tensors)
    background = saved.pop() if ctx.has_background else None
    means, covariances, colors, opacities, cameras, behind = splat_backward_op(
        saved, background, *ctx.numbers, grad_image, grad_alpha, grad_depth_z
    )
    behind = behind if ctx.has_background else None
    return (means, covariances, colors, opacities, cameras, None, behind, *([None] * len(ctx.numbers)))


splat_op.register_autograd(_backward, setup_context=_setup_context)


def _contiguous(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.contiguous() for t in tensors)


def _empty(colors: Tensor, cameras: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    shape = (cameras.shape[0], height, width)
    return colors.new_empty((*shape, colors.shape[-1])), colors.new_empty(shape), colors.new_empty(shape)


def _background_like(background: Tensor | None, means: Tensor) -> Tensor:
    return means.new_empty(0) if background is None else background
