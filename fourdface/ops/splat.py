"""Gaussian splatting: `splat` (image, alpha, depth) and `splat_to_u8` (finished 8-bit picture over a background).

The model is "EWA volume splatting" (Zwicker et al., 2001) as used by "3D Gaussian Splatting" (Kerbl et al., 2023), equations 4-6
and section 6. `splat_reference` is its meaning, in plain torch; the native kernel (cuda/splat.h) and gsplat give the same picture.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, NamedTuple

import numpy as np
import torch

from fourdface.ops import _native
from fourdface.ops._splat_reference import SplatOutput, splat_reference

__all__ = ["SplatOutput", "covariance_from_quaternion_scale", "splat", "splat_reference", "splat_to_u8"]

BACKENDS = ("auto", "reference", "native", "gsplat")


def splat(
    means: torch.Tensor,
    covariances: torch.Tensor,
    colors: torch.Tensor,
    opacities: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    *,
    background: torch.Tensor | None = None,
    eps2d: float = 0.3,
    near: float = 0.01,
    antialiased: bool = False,
    backend: str = "auto",
) -> SplatOutput:
    """Draw Gaussians into a picture of `width` x `height` pixels.

    Args:
        means: [N, 3] centres, world, metres.
        covariances: [N, 6] world covariances, square metres, as xx, xy, xz, yy, yz, zz.
        colors: [N, D] colours (any D >= 1; features are drawn the same way).
        opacities: [N] in 0..1.
        world_to_camera: [4, 4], OpenCV axes. intrinsics: [3, 3], pixels, no skew; pixel centres at (col + 0.5, row + 0.5).
        background: [D] behind everything; None is black (the image is then premultiplied by alpha).
        eps2d: variance in square pixels added to each projected Gaussian (a pixel's own footprint).
        near: Gaussians whose centre is nearer (metres of z) are left out, > 0.
        antialiased: scale opacities so that eps2d does not make small Gaussians brighter.
        backend: "auto" (gsplat for CUDA tensors where installed; the native kernel for CPU tensors without gradients; else
            the reference), "reference", "native", "gsplat".

    Returns:
        image [H, W, D], alpha [H, W], depth_z [H, W] (expected z of what is seen, metres; 0 where nothing is).

    Raises:
        ValueError: wrong shapes, skewed intrinsics, near <= 0, or a backend that is not available here.
    """
    tensors = (means, covariances, colors, opacities, world_to_camera, intrinsics)
    _check(*tensors, width, height, background, near)
    chosen = _choose(backend, tensors if background is None else (*tensors, background))
    if chosen == "native":
        return _splat_native(*tensors, width, height, background, eps2d, near, antialiased)
    if chosen == "gsplat":
        return _splat_gsplat(*tensors, width, height, background, eps2d, near, antialiased)
    return splat_reference(
        *tensors, width, height, background=background, eps2d=eps2d, near=near, antialiased=antialiased
    )


def splat_to_u8(
    means: torch.Tensor,
    covariances: torch.Tensor,
    colors: torch.Tensor,
    opacities: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    background_u8: np.ndarray,
    *,
    eps2d: float = 0.3,
    near: float = 0.01,
    antialiased: bool = False,
    backend: str = "auto",
) -> np.ndarray:
    """Draw RGB Gaussians over a picture and return the 8-bit result [H, W, 3] uint8, in one pass.

    `background_u8` [H, W, 3] uint8 gives size and background; `colors` [N, 3] in 0..1 (clamped after compositing). The other
    arguments, and the errors, are those of `splat`. No gradients.
    """
    if background_u8.dtype != np.uint8 or background_u8.ndim != 3 or background_u8.shape[2] != 3:
        raise ValueError(f"background_u8 must be uint8 [H, W, 3], got {background_u8.dtype} {list(background_u8.shape)}")
    height, width = int(background_u8.shape[0]), int(background_u8.shape[1])
    tensors = tuple(t.detach() for t in (means, covariances, colors, opacities, world_to_camera, intrinsics))
    _check(*tensors, width, height, None, near)
    if colors.shape[1] != 3:
        raise ValueError(f"colors must be [N, 3], got [{', '.join(str(s) for s in colors.shape)}]")
    if _choose(backend, tensors) == "native":
        out = np.empty((height, width, 3), np.uint8)
        plate = np.ascontiguousarray(background_u8)
        arguments, _keep = _native_arguments(tensors, width, height, None, eps2d, near, antialiased)
        arguments.background_u8 = plate.ctypes.data
        arguments.image_u8 = out.ctypes.data
        _run(arguments)
        return out
    drawn = splat(*tensors, width, height, eps2d=eps2d, near=near, antialiased=antialiased, backend=backend)
    plate_float = torch.from_numpy(np.ascontiguousarray(background_u8)).to(drawn.image) / 255.0
    image = drawn.image + (1.0 - drawn.alpha)[..., None] * plate_float
    return (image.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).cpu().numpy()


def covariance_from_quaternion_scale(quaternions: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return covariances [N, 6] (xx, xy, xz, yy, yz, zz) = R diag(scales^2) R^T.

    `quaternions` [N, 4] are wxyz and need not be normalised (zero gives NaN); `scales` [N, 3] are standard deviations, metres.
    Differentiable. Source: 3D Gaussian Splatting, equation 6.
    """
    _native.check_shape("quaternions", quaternions, ("N", 4))
    _native.check_shape("scales", scales, ("N", 3))
    w, x, y, z = (quaternions / quaternions.norm(dim=-1, keepdim=True)).unbind(-1)
    rotation = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
            2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
            2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
        ],
        dim=-1,
    ).reshape(-1, 3, 3)  # fmt: skip
    half = rotation * scales[:, None, :]
    full = half @ half.transpose(1, 2)
    rows, cols = torch.triu_indices(3, 3, device=full.device)
    return full[:, rows, cols]


def _check(
    means: torch.Tensor,
    covariances: torch.Tensor,
    colors: torch.Tensor,
    opacities: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    background: torch.Tensor | None,
    near: float,
) -> None:
    _native.check_shape("means", means, ("N", 3))
    count = int(means.shape[0])
    _native.check_shape("covariances", covariances, (count, 6))
    _native.check_shape("colors", colors, (count, "D"))
    _native.check_shape("opacities", opacities, (count,))
    _native.check_shape("world_to_camera", world_to_camera, (4, 4))
    _native.check_shape("intrinsics", intrinsics, (3, 3))
    if colors.shape[1] < 1:
        raise ValueError("colors must have at least one channel, got [N, 0]")
    if background is not None:
        _native.check_shape("background", background, (int(colors.shape[1]),))
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1, got {width} x {height}")
    if not near > 0:
        raise ValueError(f"near must be above 0, got {near}")
    if not intrinsics.is_cuda and float(intrinsics[0, 1]) != 0.0:  # on a GPU the look would cost a synchronisation
        raise ValueError(f"intrinsics must have no skew, got {float(intrinsics[0, 1])} at [0, 1]")


def _choose(backend: str, tensors: tuple[torch.Tensor, ...]) -> str:
    """Turn "auto" into a backend that works for these tensors; raises ValueError for one that cannot."""
    _native.check_backend(backend, BACKENDS)
    on_cuda = tensors[0].is_cuda
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    if backend == "gsplat":
        if not on_cuda:
            raise ValueError("backend 'gsplat' needs CUDA tensors, got tensors on the CPU")
        if _gsplat() is None:
            raise ValueError("backend 'gsplat' needs the package gsplat: pip install 'fourd[gpu]'")
        return backend
    if backend == "native":
        if on_cuda or needs_gradient:
            raise ValueError("backend 'native' has only the forward pass on the CPU: use 'auto' or 'reference'")
        _native.require_library()
        return backend
    if backend == "reference":
        return backend
    if on_cuda:
        return "gsplat" if _gsplat() is not None else "reference"
    usable = all(t.dtype == torch.float32 for t in tensors[:4]) and not needs_gradient
    return "native" if usable and _native.library() is not None else "reference"


class _Arguments(ctypes.Structure):
    """FourdSplatArgs of cuda/splat.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "means", "covariances", "colors", "opacities", "world_to_camera", "intrinsics", "background", "background_u8",
            "image", "alpha", "depth_z", "image_u8",
        )),
        ("count", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("channels", "width", "height", "antialiased", "threads")),
        ("eps2d", ctypes.c_float),
        ("near_z", ctypes.c_float),
    )  # fmt: skip


class _Inputs(NamedTuple):
    """Contiguous copies that must live while the kernel runs."""

    tensors: list[torch.Tensor]
    background: torch.Tensor | None


def _native_arguments(
    tensors: tuple[torch.Tensor, ...],
    width: int,
    height: int,
    background: torch.Tensor | None,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> tuple[Any, _Inputs]:
    inputs = [_native.contiguous_float(t) for t in tensors]
    back = None if background is None else _native.contiguous_float(background)
    arguments = _Arguments(
        *(t.data_ptr() for t in inputs), _native.float_pointer(back), None, None, None, None, None,
        int(tensors[0].shape[0]), int(tensors[2].shape[1]), width, height, int(antialiased), _native.thread_count(),
        eps2d, near,
    )  # fmt: skip
    return arguments, _Inputs(inputs, back)


def _run(arguments: _Arguments) -> None:
    _native.check_status(_native.require_library().fourd_splat_forward(ctypes.byref(arguments)), "splat")


def _splat_native(
    means: torch.Tensor,
    covariances: torch.Tensor,
    colors: torch.Tensor,
    opacities: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    background: torch.Tensor | None,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> SplatOutput:
    tensors = (means, covariances, colors, opacities, world_to_camera, intrinsics)
    arguments, _keep = _native_arguments(tensors, width, height, background, eps2d, near, antialiased)
    image = torch.empty((height, width, colors.shape[1]), dtype=torch.float32)
    alpha = torch.empty((height, width), dtype=torch.float32)
    depth_z = torch.empty((height, width), dtype=torch.float32)
    arguments.image, arguments.alpha, arguments.depth_z = image.data_ptr(), alpha.data_ptr(), depth_z.data_ptr()
    _run(arguments)
    return SplatOutput(image, alpha, depth_z)


def _gsplat() -> Any | None:
    """Return the gsplat module where it is installed, else None."""
    try:
        return importlib.import_module("gsplat")
    except ImportError:
        return None


def _splat_gsplat(
    means: torch.Tensor,
    covariances: torch.Tensor,
    colors: torch.Tensor,
    opacities: torch.Tensor,
    world_to_camera: torch.Tensor,
    intrinsics: torch.Tensor,
    width: int,
    height: int,
    background: torch.Tensor | None,
    eps2d: float,
    near: float,
    antialiased: bool,
) -> SplatOutput:
    """gsplat.rasterization with covariances; its "ED" channel is the expected depth."""
    gsplat = _gsplat()
    if gsplat is None:
        raise ValueError("backend 'gsplat' needs the package gsplat: pip install 'fourd[gpu]'")
    full = covariances[:, torch.tensor([0, 1, 2, 1, 3, 4, 2, 4, 5], device=covariances.device)].reshape(-1, 3, 3)
    drawn, alphas, _ = gsplat.rasterization(
        means=means,
        quats=None,
        scales=None,
        covars=full,
        opacities=opacities,
        colors=colors,
        viewmats=world_to_camera[None],
        Ks=intrinsics[None],
        width=width,
        height=height,
        near_plane=near,
        eps2d=eps2d,
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if antialiased else "classic",
    )
    alpha = alphas[0, ..., 0]
    image = drawn[0, ..., :-1]
    if background is not None:  # composited here: gsplat would want a background for the depth channel too
        image = image + (1.0 - alpha)[..., None] * background
    return SplatOutput(image, alpha, drawn[0, ..., -1])
