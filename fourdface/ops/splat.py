"""Gaussian splatting: `splat` (image, alpha, depth) and `splat_to_u8` (finished 8-bit picture over a background).

The model is "EWA volume splatting" (Zwicker et al., 2001) as used by "3D Gaussian Splatting" (Kerbl et al., 2023),
equations 4-6 and section 6. `splat_reference` is its meaning, in plain torch; the native kernel (cuda/splat.h) and
gsplat give the same picture.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from fourdface.ops import _native
from fourdface.ops._splat_native import arguments_of, splat_op
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
        colors: [N, D] colours (any D >= 1; features and normals are drawn the same way), or [C, N, D]: one set for
            each camera (`blocks.gaussians.view_colors` makes them from spherical harmonics).
        opacities: [N] in 0..1.
        world_to_camera: [4, 4], OpenCV axes. intrinsics: [3, 3], pixels, no skew; pixel centres at (col + 0.5, row +
            0.5). Or [C, 4, 4] and [C, 3, 3]: several cameras at once.
        background: [D] behind everything; None is black (the image is then premultiplied by alpha).
        eps2d: variance in square pixels added to each projected Gaussian (a pixel's own footprint).
        near: Gaussians whose centre is nearer (metres of z) are left out, > 0.
        antialiased: scale opacities so that eps2d does not make small Gaussians brighter.
        backend: "auto" (for float32: gsplat for CUDA tensors where installed, else the native kernel; the reference
            where neither is there, for other precisions, and where the intrinsics need a gradient), "reference",
            "native", "gsplat".

    Returns:
        image [H, W, D], alpha [H, W], depth_z [H, W] (expected z of what is seen, metres; 0 where nothing is); with
        [C, ...] cameras each has the axis C in front. Differentiable in all tensors, save for order and cut-offs.

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
        inputs = tuple(_native.contiguous_float(t) for t in scene.batched().tensors)
        arguments = arguments_of(inputs, None, width, height, eps2d, near, antialiased)
        arguments.background_u8 = plate.ctypes.data
        arguments.image_u8 = out.ctypes.data
        _native.run("splat", arguments, inputs[0].device)
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
    many = scene.world_to_camera.dim() == 3
    _native.check_shape("covariances", scene.covariances, (count, 6))
    if many and scene.colors.dim() == 3:
        _native.check_shape("colors", scene.colors, (int(scene.world_to_camera.shape[0]), count, "D"))
    else:
        _native.check_shape("colors", scene.colors, (count, "D"))
    _native.check_shape("opacities", scene.opacities, (count,))
    if many:
        _native.check_shape("world_to_camera", scene.world_to_camera, ("C", 4, 4))
        _native.check_shape("intrinsics", scene.intrinsics, (int(scene.world_to_camera.shape[0]), 3, 3))
    if not torch.compiler.is_compiling():  # a look at values would end the graph
        pairs = zip(scene.world_to_camera, scene.intrinsics, strict=True) if many else [scene[4:6]]
        for camera, intrinsics in pairs:
            _native.check_camera(camera, intrinsics, scene.width, scene.height, scene.near)
    if channels < 1:
        raise ValueError("colors must have at least one channel, got [N, 0]")
    if scene.background is not None:
        _native.check_shape("background", scene.background, (channels,))


def _choose(backend: str, scene: Scene) -> str:
    """Turn "auto" into a backend that works for these tensors; raises ValueError for one that cannot."""
    _native.check_backend(backend, BACKENDS)
    on_cuda = scene.means.is_cuda
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in scene.tensors)
    intrinsics_too = needs_gradient and scene.intrinsics.requires_grad
    if backend == "gsplat":
        if not on_cuda:
            raise ValueError("backend 'gsplat' needs CUDA tensors, got tensors on the CPU")
        if _gsplat() is None:
            raise ValueError("backend 'gsplat' needs the package gsplat: pip install 'fourd[gpu]'")
        return backend
    if backend == "native":
        if intrinsics_too:
            raise ValueError("backend 'native' has no gradient for the intrinsics: use 'auto' or 'reference'")
        _native.require_library(scene.means.device)
        return backend
    if backend == "reference":
        return backend
    single = all(t.dtype == torch.float32 for t in scene[:4])
    if on_cuda:  # gsplat has no gradient for the intrinsics and draws at least one Gaussian
        usable = single and len(scene.means) > 0 and not intrinsics_too
        if usable and _gsplat() is not None:
            return "gsplat"
    return "native" if single and not intrinsics_too and _usable("cuda" if on_cuda else "cpu") else "reference"


@torch.compiler.assume_constant_result
def _usable(device_type: str) -> bool:
    return _native.usable(torch.device(device_type))


def _draw(scene: Scene, backend: str) -> SplatOutput:
    if backend == "native":
        many, batched = scene.world_to_camera.dim() == 3, scene.batched()
        here = scene.means.device
        floats = [t.to(here, torch.float32) for t in batched[:6]]
        behind = None if scene.background is None else scene.background.to(here, torch.float32)
        drawn = splat_op(*floats, behind, *batched[6:8], *batched[9:])
        return SplatOutput(*(drawn if many else (t[0] for t in drawn)))
    if backend == "gsplat":
        return _splat_gsplat(scene)
    return splat_reference(
        *scene[:8], background=scene.background, eps2d=scene.eps2d, near=scene.near, antialiased=scene.antialiased
    )


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
    batched = scene.batched()
    upper = torch.tensor([0, 1, 2, 1, 3, 4, 2, 4, 5], device=scene.covariances.device)
    drawn, alphas, _ = gsplat.rasterization(
        means=scene.means,
        quats=None,
        scales=None,
        covars=scene.covariances[:, upper].reshape(-1, 3, 3),
        opacities=scene.opacities,
        colors=scene.colors,
        viewmats=batched.world_to_camera,
        Ks=batched.intrinsics,
        width=scene.width,
        height=scene.height,
        near_plane=scene.near,
        eps2d=scene.eps2d,
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if scene.antialiased else "classic",
    )
    alpha = alphas[..., 0]
    image = drawn[..., :-1]
    if scene.background is not None:  # composited here: gsplat would want one for the depth channel too
        image = image + (1.0 - alpha)[..., None] * scene.background
    out = (image, alpha, drawn[..., -1])
    return SplatOutput(*(out if scene.world_to_camera.dim() == 3 else (t[0] for t in out)))
