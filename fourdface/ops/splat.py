"""Gaussian splatting: `splat` (image, alpha, depth) and `splat_to_u8` (finished 8-bit picture over a background).

The model is "EWA volume splatting" (Zwicker et al., 2001) as used by "3D Gaussian Splatting" (Kerbl et al., 2023),
equations 4-6 and section 6. `splat_reference` is its meaning, in plain torch; the native kernel (cuda/splat.h) and
gsplat give the same picture.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any

import numpy as np
import torch

from fourdface.ops import _native
from fourdface.ops._splat_reference import Scene, SplatOutput, splat_reference

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
        world_to_camera: [4, 4], OpenCV axes. intrinsics: [3, 3], pixels, no skew; pixel centres at (col + 0.5, row +
            0.5).
        background: [D] behind everything; None is black (the image is then premultiplied by alpha).
        eps2d: variance in square pixels added to each projected Gaussian (a pixel's own footprint).
        near: Gaussians whose centre is nearer (metres of z) are left out, > 0.
        antialiased: scale opacities so that eps2d does not make small Gaussians brighter.
        backend: "auto" (gsplat for CUDA tensors where installed; the native kernel for CPU tensors without
            gradients; else the reference), "reference", "native", "gsplat".

    Returns:
        image [H, W, D], alpha [H, W], depth_z [H, W] (expected z of what is seen, metres; 0 where nothing is).

    Raises:
        ValueError: wrong shapes, skewed intrinsics, near <= 0, or a backend that is not available here.
    """
    scene = Scene(
        means, covariances, colors, opacities, world_to_camera, intrinsics, width, height,
        background, eps2d, near, antialiased,
    )  # fmt: skip
    _check(scene)
    return _draw(scene, _choose(backend, scene))


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

    `background_u8` [H, W, 3] uint8 gives size and background; `colors` [N, 3] in 0..1 (clamped after compositing).
    The other arguments, and the errors, are those of `splat`. No gradients.
    """
    if background_u8.dtype != np.uint8 or background_u8.ndim != 3 or background_u8.shape[2] != 3:
        raise ValueError(
            f"background_u8 must be uint8 [H, W, 3], got {background_u8.dtype} {list(background_u8.shape)}"
        )
    height, width = int(background_u8.shape[0]), int(background_u8.shape[1])
    tensors = [t.detach() for t in (means, covariances, colors, opacities, world_to_camera, intrinsics)]
    scene = Scene(
        tensors[0], tensors[1], tensors[2], tensors[3], tensors[4], tensors[5], width, height,
        None, eps2d, near, antialiased,
    )  # fmt: skip
    _check(scene)
    if colors.shape[1] != 3:
        raise ValueError(f"colors must be [N, 3], got [{', '.join(str(s) for s in colors.shape)}]")
    plate = np.ascontiguousarray(background_u8)
    chosen = _choose(backend, scene)
    if chosen == "native":
        out = np.empty((height, width, 3), np.uint8)
        arguments, _keep = _native_arguments(scene)
        arguments.background_u8 = plate.ctypes.data
        arguments.image_u8 = out.ctypes.data
        _run(arguments)
        return out
    with torch.no_grad():
        drawn = _draw(scene, chosen)
        image = drawn.image + (1.0 - drawn.alpha)[..., None] * (torch.from_numpy(plate).to(drawn.image) / 255.0)
        return (image.clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).cpu().numpy()


def covariance_from_quaternion_scale(quaternions: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Return covariances [N, 6] (xx, xy, xz, yy, yz, zz) = R diag(scales^2) R^T.

    `quaternions` [N, 4] are wxyz and need not be normalised (zero gives NaN); `scales` [N, 3] are standard
    deviations, metres. Differentiable. Source: 3D Gaussian Splatting, equation 6.
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


def _check(scene: Scene) -> None:
    """Raise ValueError for shapes and numbers that no backend can draw."""
    _native.check_shape("means", scene.means, ("N", 3))
    count, channels = int(scene.means.shape[0]), int(scene.colors.shape[-1]) if scene.colors.dim() else 0
    _native.check_shape("covariances", scene.covariances, (count, 6))
    _native.check_shape("colors", scene.colors, (count, "D"))
    _native.check_shape("opacities", scene.opacities, (count,))
    _native.check_camera(scene.world_to_camera, scene.intrinsics, scene.width, scene.height, scene.near)
    if channels < 1:
        raise ValueError("colors must have at least one channel, got [N, 0]")
    if scene.background is not None:
        _native.check_shape("background", scene.background, (channels,))


def _choose(backend: str, scene: Scene) -> str:
    """Turn "auto" into a backend that works for these tensors; raises ValueError for one that cannot."""
    _native.check_backend(backend, BACKENDS)
    on_cuda = scene.means.is_cuda
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in scene.tensors)
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
    single = all(t.dtype == torch.float32 for t in scene[:4])
    if on_cuda:  # gsplat has no gradient for the intrinsics and draws at least one Gaussian
        usable = single and len(scene.means) > 0 and not (needs_gradient and scene.intrinsics.requires_grad)
        return "gsplat" if usable and _gsplat() is not None else "reference"
    return "native" if single and not needs_gradient and _native.library() is not None else "reference"


def _draw(scene: Scene, backend: str) -> SplatOutput:
    if backend == "native":
        return _splat_native(scene)
    if backend == "gsplat":
        return _splat_gsplat(scene)
    return splat_reference(
        *scene[:8], background=scene.background, eps2d=scene.eps2d, near=scene.near, antialiased=scene.antialiased
    )


class _Arguments(ctypes.Structure):
    """FourdSplatArgs of cuda/splat.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in (
            "means", "covariances", "colors", "opacities", "world_to_camera", "intrinsics", "background",
            "background_u8", "image", "alpha", "depth_z", "image_u8",
        )),
        ("count", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("channels", "width", "height", "antialiased", "threads")),
        ("eps2d", ctypes.c_float),
        ("near_z", ctypes.c_float),
    )  # fmt: skip


def _native_arguments(scene: Scene) -> tuple[_Arguments, list[torch.Tensor]]:
    """Return the kernel's arguments without outputs, and the tensors that must live while it runs."""
    inputs = [_native.contiguous_float(t) for t in scene.tensors]
    background = inputs[6].data_ptr() if scene.background is not None else None
    arguments = _Arguments(
        *(t.data_ptr() for t in inputs[:6]), background, None, None, None, None, None,
        int(scene.means.shape[0]), int(scene.colors.shape[1]), scene.width, scene.height, int(scene.antialiased),
        _native.thread_count(), scene.eps2d, scene.near,
    )  # fmt: skip
    return arguments, inputs


def _run(arguments: _Arguments) -> None:
    _native.check_status(_native.require_library().fourd_splat_forward(ctypes.byref(arguments)), "splat")


def _splat_native(scene: Scene) -> SplatOutput:
    arguments, _keep = _native_arguments(scene)
    image = torch.empty((scene.height, scene.width, scene.colors.shape[1]), dtype=torch.float32)
    alpha = torch.empty((scene.height, scene.width), dtype=torch.float32)
    depth_z = torch.empty((scene.height, scene.width), dtype=torch.float32)
    arguments.image, arguments.alpha, arguments.depth_z = image.data_ptr(), alpha.data_ptr(), depth_z.data_ptr()
    _run(arguments)
    return SplatOutput(image, alpha, depth_z)


def _gsplat() -> Any | None:
    """Return the gsplat module where it is installed, else None."""
    try:
        return importlib.import_module("gsplat")
    except ImportError:
        return None


def _splat_gsplat(scene: Scene) -> SplatOutput:
    """Draw with gsplat.rasterization from covariances; its "ED" channel is the expected depth."""
    gsplat = _gsplat()
    if gsplat is None:
        raise ValueError("backend 'gsplat' needs the package gsplat: pip install 'fourd[gpu]'")
    upper = torch.tensor([0, 1, 2, 1, 3, 4, 2, 4, 5], device=scene.covariances.device)
    drawn, alphas, _ = gsplat.rasterization(
        means=scene.means,
        quats=None,
        scales=None,
        covars=scene.covariances[:, upper].reshape(-1, 3, 3),
        opacities=scene.opacities,
        colors=scene.colors,
        viewmats=scene.world_to_camera[None],
        Ks=scene.intrinsics[None],
        width=scene.width,
        height=scene.height,
        near_plane=scene.near,
        eps2d=scene.eps2d,
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if scene.antialiased else "classic",
    )
    alpha = alphas[0, ..., 0]
    image = drawn[0, ..., :-1]
    if scene.background is not None:  # composited here: gsplat would want one for the depth channel too
        image = image + (1.0 - alpha)[..., None] * scene.background
    return SplatOutput(image, alpha, drawn[0, ..., -1])
