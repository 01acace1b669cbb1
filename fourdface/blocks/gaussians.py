"""Gaussians as a scene: colours that depend on the direction (spherical harmonics), normals, and drawing with both.

Colours follow 3D Gaussian Splatting (Kerbl et al. 2023, section 4): real spherical harmonics of degree 0 to 3 of the
direction from the camera to the Gaussian, in the world's frame, plus one half, cut off below zero. The order of the
coefficients and their signs are those of its files: band by band, m from -l to l, with the Condon-Shortley phase.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..ops import _native
from ..ops.splat import SplatOutput, splat
from .rotation import quaternion_to_matrix

__all__ = [
    "camera_centers",
    "colors_to_sh",
    "draw_gaussians",
    "gaussian_normals",
    "sh_to_colors",
    "spherical_harmonics",
    "view_colors",
]

MAX_DEGREE = 3
DC = math.sqrt(1 / (4 * math.pi))  # the constant function of degree 0


def spherical_harmonics(directions: Tensor, degree: int) -> Tensor:
    """Return the real spherical harmonics [..., (degree + 1)^2] of unit directions [..., 3]; degree 0 to 3.

    They are orthonormal on the sphere. Source: Wikipedia, "Table of spherical harmonics" (real, Cartesian), times
    (-1)^m. Raises ValueError for another degree or shape.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree must be 0 to {MAX_DEGREE}, got {degree}")
    if directions.dim() < 1 or directions.shape[-1] != 3:
        raise ValueError(f"directions must be [..., 3], got {list(directions.shape)}")
    x, y, z = directions.unbind(-1)
    bands = [torch.full_like(x, DC)]
    if degree >= 1:
        c = math.sqrt(3 / (4 * math.pi))
        bands += [-c * y, c * z, -c * x]
    xx, yy, zz = x * x, y * y, z * z
    if degree >= 2:
        c = math.sqrt(15 / (4 * math.pi))
        bands += [c * x * y, -c * y * z, math.sqrt(5 / (16 * math.pi)) * (2 * zz - xx - yy), -c * x * z]
        bands += [0.5 * c * (xx - yy)]
    if degree >= 3:
        outer, inner, c = (math.sqrt(n / math.pi) for n in (35 / 32, 21 / 32, 105 / 4))
        bands += [-outer * y * (3 * xx - yy), c * x * y * z, -inner * y * (4 * zz - xx - yy)]
        bands += [math.sqrt(7 / (16 * math.pi)) * z * (2 * zz - 3 * xx - 3 * yy), -inner * x * (4 * zz - xx - yy)]
        bands += [0.5 * c * z * (xx - yy), -outer * x * (xx - 3 * yy)]
    return torch.stack(bands, dim=-1)


def sh_to_colors(sh: Tensor, directions: Tensor) -> Tensor:
    """Return colours [..., N, D] >= 0 of coefficients sh [N, K, D] (K = 1, 4, 9, 16) seen along directions [..., N, 3].

    `directions` point from the camera to the Gaussian and need not be unit vectors. Raises ValueError for another K.
    """
    _native.check_shape("sh", sh, ("N", "K", "D"))
    count, coefficients = int(sh.shape[0]), int(sh.shape[1])
    degree = math.isqrt(coefficients) - 1
    if coefficients not in (1, 4, 9, 16):
        raise ValueError(f"sh must have 1, 4, 9 or 16 coefficients, got {coefficients}")
    if directions.dim() < 2 or tuple(directions.shape[-2:]) != (count, 3):
        raise ValueError(f"directions must be [..., {count}, 3], got {list(directions.shape)}")
    unit = torch.nn.functional.normalize(directions, dim=-1)
    values = torch.einsum("...nk,nkd->...nd", spherical_harmonics(unit, degree), sh)
    return (values + 0.5).clamp_min(0.0)


def colors_to_sh(colors: Tensor, degree: int = 0) -> Tensor:
    """Return coefficients [N, (degree + 1)^2, D] that show the colours [N, D] in every direction."""
    _native.check_shape("colors", colors, ("N", "D"))
    sh = colors.new_zeros((int(colors.shape[0]), (degree + 1) ** 2, int(colors.shape[1])))
    sh[:, 0] = (colors - 0.5) / DC
    return sh


def camera_centers(world_to_camera: Tensor) -> Tensor:
    """Return the centres [..., 3] of cameras [..., 4, 4], world, metres."""
    rotation, translation = world_to_camera[..., :3, :3], world_to_camera[..., :3, 3]
    return -(rotation.transpose(-1, -2) @ translation[..., None])[..., 0]


def view_colors(sh: Tensor, means: Tensor, world_to_camera: Tensor) -> Tensor:
    """Return the colours [N, D] of Gaussians (sh [N, K, D]) for a camera [4, 4]; [C, N, D] for cameras [C, 4, 4]."""
    _native.check_shape("means", means, (int(sh.shape[0]), 3))
    return sh_to_colors(sh, means - camera_centers(world_to_camera)[..., None, :])


def gaussian_normals(quaternions: Tensor, scales: Tensor, toward: Tensor) -> Tensor:
    """Return the unit normals [..., N, 3] of flat Gaussians: their shortest axis, turned to the side of `toward`.

    quaternions [N, 4] wxyz, scales [N, 3], toward [..., N, 3] (camera's centre minus mean), all in the world's frame.
    """
    _native.check_shape("quaternions", quaternions, ("N", 4))
    _native.check_shape("scales", scales, (int(quaternions.shape[0]), 3))
    rotation = quaternion_to_matrix(quaternions)
    shortest = scales.detach().argmin(dim=-1)
    axis = rotation.gather(2, shortest[:, None, None].expand(-1, 3, 1))[..., 0]
    return torch.where((axis * toward).sum(dim=-1, keepdim=True) < 0, -axis, axis)


def draw_gaussians(
    means: Tensor,
    covariances: Tensor,
    sh: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    *,
    features: Tensor | None = None,
    background: Tensor | None = None,
    antialiased: bool = False,
    backend: str = "auto",
) -> SplatOutput:
    """Draw Gaussians with colours from spherical harmonics and further features in one pass.

    Args:
        means: [N, 3]. covariances: [N, 6]. sh: [N, K, D] with K = 1, 4, 9 or 16. opacities: [N].
        world_to_camera: [4, 4] or [C, 4, 4]. intrinsics: [3, 3] or [C, 3, 3], pixels.
        features: [N, F] or [C, N, F], such as normals; drawn after the colours, as they are.
        background: [D], behind the colours only (features have zero behind them).
        antialiased, backend: as in `ops.splat.splat`.

    Returns:
        image [(C,) H, W, D + F], alpha [(C,) H, W], depth_z [(C,) H, W]. Features divided by alpha are their mean.
    """
    colors = view_colors(sh, means, world_to_camera)
    if features is not None:
        if features.dim() == 2 and colors.dim() == 3:
            features = features.expand(len(colors), -1, -1)
        if features.shape[:-1] != colors.shape[:-1]:
            wanted = ", ".join(str(s) for s in colors.shape[:-1])
            raise ValueError(f"features must be [{wanted}, F], got {list(features.shape)}")
        colors = torch.cat([colors, features], dim=-1)
        if background is not None:
            background = torch.cat([background, background.new_zeros(int(features.shape[-1]))])
    return splat(
        means, covariances, colors, opacities, world_to_camera, intrinsics, width, height,
        background=background, antialiased=antialiased, backend=backend,
    )  # fmt: skip
