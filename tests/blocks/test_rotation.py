"""Rotations against scipy, round trips, and gradients at the places where formulas divide by zero."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from fourdface.blocks import rotation as r


def vectors(count: int = 200, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    angle = torch.linspace(0, math.pi - 1e-6, count, dtype=torch.float64)
    return axis / axis.norm(dim=1, keepdim=True) * angle[:, None]


def test_matrix_equals_scipy() -> None:
    v = vectors()
    np.testing.assert_allclose(r.axis_angle_to_matrix(v), Rotation.from_rotvec(v.numpy()).as_matrix(), atol=1e-12)


def test_quaternion_equals_scipy() -> None:
    v = vectors()
    expected = Rotation.from_rotvec(v.numpy()).as_quat(canonical=True)[:, [3, 0, 1, 2]]
    np.testing.assert_allclose(r.axis_angle_to_quaternion(v), expected, atol=1e-12)
    matrix = r.quaternion_to_matrix(r.axis_angle_to_quaternion(v))
    np.testing.assert_allclose(matrix, r.axis_angle_to_matrix(v), atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-12, 1e-6, 1e-4, 1e-2, 1.0, 3.1])
def test_round_trip(scale: float) -> None:
    v = torch.tensor([[0.3, -0.5, 0.8124038405]], dtype=torch.float64)
    v = v / v.norm() * scale
    torch.testing.assert_close(r.matrix_to_axis_angle(r.axis_angle_to_matrix(v)), v, atol=1e-9, rtol=1e-9)


def test_half_turns_come_back_as_half_turns() -> None:
    v = torch.eye(3, dtype=torch.float64) * math.pi
    back = r.matrix_to_axis_angle(r.axis_angle_to_matrix(v))
    torch.testing.assert_close(r.axis_angle_to_matrix(back), r.axis_angle_to_matrix(v), atol=1e-9, rtol=0)
    torch.testing.assert_close(back.norm(dim=1), torch.full((3,), math.pi, dtype=torch.float64))


def test_quaternion_product_is_composition() -> None:
    a, b = vectors(50, 1), vectors(50, 2)
    product = r.quaternion_multiply(r.axis_angle_to_quaternion(a), r.axis_angle_to_quaternion(b))
    expected = r.axis_angle_to_matrix(a) @ r.axis_angle_to_matrix(b)
    torch.testing.assert_close(r.quaternion_to_matrix(product), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("function", [r.axis_angle_to_matrix, r.axis_angle_to_quaternion])
@pytest.mark.parametrize("scale", [0.0, 1e-5, 1e-3, 1.0, 3.0])
def test_gradients(function, scale: float) -> None:
    v = (torch.tensor([[0.6, 0.0, -0.8]], dtype=torch.float64) * scale).requires_grad_()
    assert torch.autograd.gradcheck(function, (v,))


def test_gradient_through_the_logarithm_at_zero_is_finite() -> None:
    v = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    r.matrix_to_axis_angle(r.axis_angle_to_matrix(v)).sum().backward()
    torch.testing.assert_close(v.grad, torch.ones(2, 3, dtype=torch.float64))


def test_float32_small_angles_keep_their_direction() -> None:
    v = torch.tensor([[1e-4, 2e-4, -1e-4], [3e-3, 0.0, 1e-3]])
    torch.testing.assert_close(r.matrix_to_axis_angle(r.axis_angle_to_matrix(v)), v, atol=1e-7, rtol=1e-3)


def test_any_batch_shape() -> None:
    v = vectors(24).reshape(2, 3, 4, 3)
    assert r.axis_angle_to_matrix(v).shape == (2, 3, 4, 3, 3)
    assert r.matrix_to_quaternion(r.axis_angle_to_matrix(v)).shape == (2, 3, 4, 4)
