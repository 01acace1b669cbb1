"""Rotations in torch: axis-angle (radians), matrices and wxyz quaternions; batched, differentiable, safe at zero."""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-8
"""Squared angle below which the series is used: the next term is then below the rounding of float32 and float64."""


def _sinc_terms(angle_squared: Tensor) -> tuple[Tensor, Tensor]:
    """sin(a)/a and (1-cos(a))/a^2 of a^2, with finite gradients of every order at zero."""
    small = angle_squared < _SMALL
    safe = torch.where(small, torch.ones_like(angle_squared), angle_squared)
    angle = safe.sqrt()
    half = torch.sin(0.5 * angle)
    first = torch.where(small, 1 - angle_squared / 6, torch.sin(angle) / angle)
    second = torch.where(small, 0.5 - angle_squared / 24, 2 * half * half / safe)
    return first, second


def skew(vector: Tensor) -> Tensor:
    """Cross-product matrices [..., 3, 3] of vectors [..., 3]: skew(v) @ x = v x x."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vector.shape[:-1], 3, 3)


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of axis-angle vectors [..., 3] in radians (Rodrigues' formula)."""
    first, second = _sinc_terms((axis_angle * axis_angle).sum(-1))
    cross = skew(axis_angle)
    eye = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)
    return eye + first[..., None, None] * cross + second[..., None, None] * (cross @ cross)


def axis_angle_to_quaternion(axis_angle: Tensor) -> Tensor:
    """Unit quaternions wxyz [..., 4] of axis-angle vectors [..., 3] in radians."""
    squared = (axis_angle * axis_angle).sum(-1, keepdim=True)
    small = squared < _SMALL
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    real = torch.where(small, 1 - squared / 8, torch.cos(0.5 * angle))
    scale = torch.where(small, 0.5 - squared / 48, torch.sin(0.5 * angle) / angle)
    return torch.cat([real, scale * axis_angle], -1)


def quaternion_to_axis_angle(quaternion: Tensor) -> Tensor:
    """Axis-angle [..., 3] in radians, angle in [0, pi], of quaternions wxyz [..., 4] of any length but zero."""
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared = (imaginary * imaginary).sum(-1, keepdim=True)
    small = squared < _SMALL * real * real
    safe = torch.where(small, torch.ones_like(squared), squared).sqrt()
    real_safe = torch.where(real == 0, torch.ones_like(real), real)
    near = 2 / real_safe - 2 * squared / (3 * real_safe**3)
    return torch.where(small, near, 2 * torch.atan2(safe, real) / safe) * imaginary


def quaternion_to_matrix(quaternion: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] of quaternions wxyz [..., 4] of any length but zero."""
    w, x, y, z = (quaternion / quaternion.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    ]
    return torch.stack(rows, -1).reshape(*quaternion.shape[:-1], 3, 3)


def matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """Unit quaternions wxyz [..., 4], w >= 0, of rotation matrices [..., 3, 3].

    The largest of the four squared components is the pivot, so no division is by a number below 1/2.
    """
    m = matrix.reshape(*matrix.shape[:-2], 9)
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m.unbind(-1)
    columns = [
        torch.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
        torch.stack([m21 - m12, 1 + m00 - m11 - m22, m10 + m01, m02 + m20], -1),
        torch.stack([m02 - m20, m10 + m01, 1 - m00 + m11 - m22, m12 + m21], -1),
        torch.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], -1),
    ]
    candidates = torch.stack(columns, -2)
    pivot = torch.diagonal(candidates, dim1=-2, dim2=-1).argmax(-1)
    index = pivot[..., None, None].expand(*pivot.shape, 1, 4)
    quaternion = torch.gather(candidates, -2, index).squeeze(-2)
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Axis-angle [..., 3] in radians, angle in [0, pi], of rotation matrices [..., 3, 3]."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def quaternion_multiply(first: Tensor, second: Tensor) -> Tensor:
    """Product [..., 4] of quaternions wxyz: the rotation `second` followed by `first`."""
    a, b, c, d = first.unbind(-1)
    e, f, g, h = second.unbind(-1)
    return torch.stack(
        [
            a * e - b * f - c * g - d * h,
            a * f + b * e + c * h - d * g,
            a * g - b * h + c * e + d * f,
            a * h + b * g - c * f + d * e,
        ],
        -1,
    )
