"""Carry a picture to another camera by its depth, with a soft mask of what is seen there.

FaceCraft4D (2025), section 3.2 and its supplement: an anchor view is lifted into space by its depth and projected into
the next view, where the rendered depth says what is visible; the mask blends the result into a diffusion model's
picture. Each pixel is a small tent here, and occlusion a soft minimum of depth as in "Softmax Splatting for Video
Frame Interpolation" (Niklaus and Liu 2020).
"""

from __future__ import annotations

import ctypes
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native

__all__ = ["View", "Warped", "correspondence_warp", "correspondence_warp_reference"]

LEAST_WEIGHT = 1e-6
COVERS = 0.1  # least weight of a tent that makes a surface: a mere fringe of the nearer hides nothing


class View(NamedTuple):
    """Cameras: world_to_camera [B, 4, 4] (OpenCV axes), intrinsics [B, 3, 3] in pixels."""

    world_to_camera: Tensor
    intrinsics: Tensor


class Warped(NamedTuple):
    """image [B, C, h, w] (0 where nothing landed) and visibility [B, h, w] in 0..1."""

    image: Tensor
    visibility: Tensor


def correspondence_warp(
    image: Tensor,
    depth_z: Tensor,
    source: View,
    target: View,
    width: int,
    height: int,
    *,
    target_depth_z: Tensor | None = None,
    radius: float = 1.5,
    softness: float = 0.005,
    near: float = 0.01,
    backend: str = "auto",
) -> Warped:
    """Carry pictures from one camera to another.

    Args:
        image: [B, C, H, W], any channels. depth_z: [B, H, W] of the source, metres of z; 0 where there is nothing.
        source, target: cameras of the picture and of the result; `width` x `height`: the result's size.
        target_depth_z: [B, height, width], the depth seen by the target; what lands before or behind it fades out,
            and nothing shows where it is 0. Without it the nearest of what lands (with a weight of 0.1 or more) is
            the surface.
        radius: half-width in target pixels of the tent that each source pixel becomes, 0.5 to 4; 1 is bilinear. It
            should exceed the enlargement, or the mask gets thin between the pixels.
        softness: metres of depth behind the surface in which a contribution falls by e.
        near: what lands nearer to the target's camera is dropped, metres.
        backend: "auto" (native for float32 tensors when only the image needs a gradient), "reference", "native"
            (CPU, CUDA).

    Returns:
        image: mean of what lands on each pixel; visibility: sum of the weights, at most 1: below 1 where little
        lands, as at borders and where the surface turns away. Differentiable in image, depth and cameras.

    Raises:
        ValueError: wrong shapes or a number out of its range.
    """
    _check(image, depth_z, source, target, width, height, target_depth_z)
    if not (0.5 <= radius <= 4.0 and softness > 0 and near > 0):
        raise ValueError(f"radius must be 0.5 to 4, softness and near above 0, got {radius}, {softness}, {near}")
    _native.check_backend(backend, ("auto", "reference", "native"))
    others = [t for t in (depth_z, *source, *target, target_depth_z) if t is not None]
    deep = torch.is_grad_enabled() and any(t.requires_grad for t in others)
    together = all(t.device == image.device for t in others)
    if backend == "native":
        if deep or not together:
            raise ValueError(
                "backend 'native' takes tensors on one device and has a gradient of the image only: use 'auto' or "
                "'reference'"
            )
        _native.require_library(image.device)
    single = all(t.dtype == torch.float32 for t in (image, depth_z))
    if backend == "native" or (backend == "auto" and together and single and not deep and _usable(image.device.type)):
        floats = [None if t is None else t.float() for t in (image, depth_z, _projection(source, target))]
        behind = None if target_depth_z is None else target_depth_z.float()
        out, weight, _ = warp_op(*floats, behind, width, height, radius, softness, near)
        return Warped(out, weight.clamp_max(1.0))
    return correspondence_warp_reference(
        image, depth_z, source, target, width, height,
        target_depth_z=target_depth_z, radius=radius, softness=softness, near=near,
    )  # fmt: skip


def correspondence_warp_reference(
    image: Tensor,
    depth_z: Tensor,
    source: View,
    target: View,
    width: int,
    height: int,
    *,
    target_depth_z: Tensor | None = None,
    radius: float = 1.5,
    softness: float = 0.005,
    near: float = 0.01,
) -> Warped:
    """Carry pictures over in plain torch; arguments and result as in `correspondence_warp`. Any device."""
    drawn = []
    projection = _projection(source, target).to(image)
    for i in range(len(image)):
        surface = None if target_depth_z is None else target_depth_z[i].to(image).reshape(-1)
        landed = _land(depth_z[i].to(image), projection[i], width, height, radius, near)
        drawn.append(_blend(image[i], *landed, surface, width * height, softness))
    if not drawn:
        empty = image.new_empty((0, int(image.shape[1]), height, width))
        return Warped(empty, image.new_empty((0, height, width)))
    images, weights = (torch.stack(parts) for parts in zip(*drawn, strict=True))
    shape = (len(image), -1, height, width)
    return Warped(images.reshape(shape), weights.clamp_max(1.0).reshape(shape)[:, 0])


def _projection(source: View, target: View) -> Tensor:
    """Return [B, 3, 4]: pixel (x, y) of the source at depth z lands at z A (x, y, 1) + b, homogeneous pixels."""
    between = target.world_to_camera @ torch.linalg.inv(source.world_to_camera)
    rotation = target.intrinsics @ between[:, :3, :3] @ torch.linalg.inv(source.intrinsics)
    return torch.cat([rotation, target.intrinsics @ between[:, :3, 3:]], dim=2)


def _land(
    depth_z: Tensor, projection: Tensor, width: int, height: int, radius: float, near: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return for each pair of source pixel and target pixel it meets: both indices, the tent's weight, the depth."""
    rows, cols = (torch.arange(n, device=depth_z.device, dtype=depth_z.dtype) + 0.5 for n in depth_z.shape)
    pixels = torch.stack([*torch.meshgrid(cols, rows, indexing="xy"), torch.ones_like(depth_z)], dim=-1).reshape(-1, 3)
    depth = depth_z.reshape(-1)
    there = torch.nonzero((depth > 0) & torch.isfinite(depth)).squeeze(1)
    landed = depth[there, None] * (pixels[there] @ projection[:, :3].T) + projection[:, 3]
    kept = torch.nonzero(landed[:, 2] >= near).squeeze(1)
    there, landed = there[kept], landed[kept]
    at = landed[:, :2] / landed[:, 2:]
    within = ((at + radius > 0) & (at - radius < at.new_tensor([width, height]))).all(dim=1)
    kept = torch.nonzero(within).squeeze(1)
    there, at, z = there[kept], at[kept], landed[kept, 2]
    steps = torch.arange(math.ceil(2 * radius), device=at.device)
    index = (torch.floor(at.detach() - 0.5 - radius) + 1).long()[:, None] + steps[:, None]  # [K, steps, 2]
    weights = (1.0 - (index + 0.5 - at[:, None]).abs() / radius).clamp_min(0.0)
    x, y = index.unbind(-1)
    weight = weights[:, None, :, 0] * weights[:, :, None, 1]  # [K, rows, cols]
    inside = ((x >= 0) & (x < width))[:, None] & ((y >= 0) & (y < height))[:, :, None] & (weight > 0)
    place = (y[:, :, None] * width + x[:, None])[inside]
    pair = torch.nonzero(inside)[:, 0]
    return there[pair], place, weight[inside], z[pair]


def _blend(
    image: Tensor, index: Tensor, place: Tensor, tent: Tensor, z: Tensor, surface: Tensor | None, size: int, soft: float
) -> tuple[Tensor, Tensor]:
    """Return the mean colours [C, size] and the sums of weights [size] of what lands."""
    if surface is None:
        covers = tent >= COVERS
        surface = z.new_full((size,), math.inf).scatter_reduce(0, place[covers], z[covers], "amin")
    reached = surface[place]
    near = (reached > 0) & torch.isfinite(reached)
    weight = torch.where(near, tent * torch.exp(-(z - reached).abs() / soft), torch.zeros_like(tent))
    sums = z.new_zeros((size,)).index_add(0, place, weight)
    colors = image.reshape(image.shape[0], -1)[:, index] * weight
    total = image.new_zeros((int(image.shape[0]), size)).index_add(1, place, colors)
    seen = sums >= LEAST_WEIGHT
    return torch.where(seen, total / torch.where(seen, sums, torch.ones_like(sums)), torch.zeros_like(total)), sums


def _check(
    image: Tensor, depth_z: Tensor, source: View, target: View, width: int, height: int, target_depth_z: Tensor | None
) -> None:
    _native.check_shape("image", image, ("B", "C", "H", "W"))
    batch, channels, rows, cols = (int(s) for s in image.shape)
    _native.check_shape("depth_z", depth_z, (batch, rows, cols))
    for name, view in (("source", source), ("target", target)):
        _native.check_shape(f"{name}.world_to_camera", view[0], (batch, 4, 4))
        _native.check_shape(f"{name}.intrinsics", view[1], (batch, 3, 3))
    if min(channels, rows, cols, width, height) < 1:
        raise ValueError(f"pictures must not be empty, got {list(image.shape)} and {width} x {height}")
    if target_depth_z is not None:
        _native.check_shape("target_depth_z", target_depth_z, (batch, height, width))


@torch.compiler.assume_constant_result
def _usable(device_type: str) -> bool:
    return _native.usable(torch.device(device_type))


class _Arguments(ctypes.Structure):
    """FourdWarpArgs of cuda/correspondence_warp.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "image", "depth_z", "projection", "target_depth", "out", "weight", "surface", "grad_out", "grad_image",
        )),
        *((name, ctypes.c_int32) for name in (
            "batch", "channels", "height", "width", "out_height", "out_width", "threads",
        )),
        *((name, ctypes.c_float) for name in ("radius", "softness", "near_z")),
    )  # fmt: skip


@torch.library.custom_op("fourd::correspondence_warp", mutates_args=(), device_types=("cpu", "cuda"))
def warp_op(
    image: Tensor,
    depth_z: Tensor,
    projection: Tensor,
    target_depth_z: Tensor | None,
    width: int,
    height: int,
    radius: float,
    softness: float,
    near: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The native kernel: image [B, C, h, w], sums of weights [B, h, w], the surface's depth [B, h, w]; all float32."""
    inputs = [t.contiguous() for t in (image, depth_z, projection)]
    behind = None if target_depth_z is None else target_depth_z.contiguous()
    batch, channels, rows, cols = image.shape
    out, weight, surface = _empty(image, width, height)
    arguments = _Arguments(
        *(t.data_ptr() for t in inputs), _native.float_pointer(behind), out.data_ptr(), weight.data_ptr(),
        surface.data_ptr(), None, None, batch, channels, rows, cols, height, width, _native.thread_count(), radius,
        softness, near,
    )  # fmt: skip
    _native.run("correspondence_warp", arguments, image.device)
    return out, weight, surface


@warp_op.register_fake
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    image, _, _, _, width, height, *_ = arguments
    return _empty(image, width, height)


def _empty(image: Tensor, width: int, height: int) -> tuple[Tensor, Tensor, Tensor]:
    """Room for image, sums of weights and depth of the surface."""
    shape = (image.shape[0], height, width)
    return image.new_empty((*image.shape[:2], height, width)), image.new_empty(shape), image.new_empty(shape)


@torch.library.custom_op("fourd::correspondence_warp_backward", mutates_args=(), device_types=("cpu", "cuda"))
def warp_backward_op(
    grad_out: Tensor,
    depth_z: Tensor,
    projection: Tensor,
    weight: Tensor,
    surface: Tensor,
    radius: float,
    softness: float,
    near: float,
) -> Tensor:
    """The gradient [B, C, H, W] of the op's image."""
    tensors = [t.contiguous() for t in (grad_out, depth_z, projection, weight, surface)]
    batch, rows, cols = depth_z.shape
    channels, height, width = grad_out.shape[1:]
    found = grad_out.new_empty((batch, channels, rows, cols))
    upstream, depth, matrix, weights, depths = (t.data_ptr() for t in tensors)
    arguments = _Arguments(
        None, depth, matrix, None, None, weights, depths, upstream, found.data_ptr(), batch, channels, rows, cols,
        height, width, _native.thread_count(), radius, softness, near,
    )  # fmt: skip
    _native.run("correspondence_warp_backward", arguments, grad_out.device)
    return found


@warp_backward_op.register_fake
def _(grad_out: Tensor, depth_z: Tensor, *others: Any) -> Tensor:
    return grad_out.new_empty((*grad_out.shape[:2], *depth_z.shape[1:]))


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(inputs[1], inputs[2], output[1], output[2])
    ctx.numbers = inputs[6:]


def _backward(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Any, ...]:
    return (warp_backward_op(grad_out, *ctx.saved_tensors, *ctx.numbers), *([None] * 8))


warp_op.register_autograd(_backward, setup_context=_setup_context)
