"""Spherical harmonics against scipy and on the sphere, view-dependent colours, normals, drawing with features."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fourdface.blocks.gaussians import (
    camera_centers,
    colors_to_sh,
    draw_gaussians,
    gaussian_normals,
    sh_to_colors,
    spherical_harmonics,
    view_colors,
)
from fourdface.ops.splat import covariance_from_quaternion_scale


def directions(count=50):
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)).double())


def test_harmonics_equal_scipys():
    special = pytest.importorskip("scipy.special")
    if not hasattr(special, "sph_harm_y"):
        pytest.skip("scipy is older than 1.15")
    d = directions().numpy()
    polar, azimuth = np.arccos(d[:, 2]), np.arctan2(d[:, 1], d[:, 0])
    want = []
    for degree in range(4):
        for m in range(-degree, degree + 1):
            value = special.sph_harm_y(degree, abs(m), polar, azimuth)  # with the Condon-Shortley phase
            part = value.real if m >= 0 else value.imag
            want.append(part * (math.sqrt(2) if m else 1.0))
    np.testing.assert_allclose(spherical_harmonics(directions(), 3).numpy(), np.stack(want, axis=1), atol=1e-12)


def test_harmonics_are_orthonormal():
    nodes, weights = np.polynomial.legendre.leggauss(8)  # exact for degree 6 in z, and 16 steps around for the rest
    z, phi = np.meshgrid(nodes, 2 * np.pi * np.arange(16) / 16, indexing="ij")
    ring = np.sqrt(1 - z**2)
    points = torch.from_numpy(np.stack([ring * np.cos(phi), ring * np.sin(phi), z], axis=-1).reshape(-1, 3))
    area = torch.from_numpy(np.repeat(weights, 16) * 2 * np.pi / 16)
    values = spherical_harmonics(points, 3)
    torch.testing.assert_close(values.T @ (values * area[:, None]), torch.eye(16).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_degrees_begin_alike(degree):
    values = spherical_harmonics(directions(), degree)
    assert values.shape == (50, (degree + 1) ** 2)
    assert torch.equal(values, spherical_harmonics(directions(), 3)[:, : values.shape[1]])


def test_colors_go_there_and_back():
    colors = torch.rand(20, 3)
    for degree in range(4):
        got = sh_to_colors(colors_to_sh(colors, degree), torch.randn(5, 20, 3))
        torch.testing.assert_close(got, colors.expand(5, 20, 3), atol=1e-6, rtol=0)
    assert float(sh_to_colors(colors_to_sh(-colors), torch.randn(20, 3)).abs().max()) == 0.0  # never below zero


def test_view_colors_look_from_the_camera():
    camera = torch.eye(4)
    camera[:3, 3] = torch.tensor([0.0, 0.0, 2.0])  # stands at z = -2
    assert torch.equal(camera_centers(camera), torch.tensor([0.0, 0.0, -2.0]))
    sh = torch.zeros(1, 4, 1)
    sh[0, 2, 0] = 1.0  # grows with z of the direction
    want = 0.5 + math.sqrt(3 / (4 * math.pi))
    assert float(view_colors(sh, torch.zeros(1, 3), camera)[0, 0]) == pytest.approx(want)
    behind = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0])) @ camera
    behind[:3, 3] = torch.tensor([0.0, 0.0, 2.0])  # at z = +2, looking back
    both = view_colors(sh, torch.zeros(1, 3), torch.stack([camera, behind]))
    assert both.shape == (2, 1, 1) and float(both[1, 0, 0]) == pytest.approx(max(0.0, 1 - want))


def test_gradients():
    sh = torch.randn(6, 16, 2).double().requires_grad_()
    means = torch.randn(6, 3).double().requires_grad_()
    camera = torch.eye(4).double()
    camera[2, 3] = 5.0
    assert torch.autograd.gradcheck(lambda s, m: view_colors(s * 0.05, m, camera), (sh, means))


def test_normals_are_the_shortest_axes():
    half = math.sqrt(0.5)
    quaternions = torch.tensor([[1.0, 0, 0, 0], [half, half, 0, 0], [1.0, 0, 0, 0]])  # the second: y to z
    scales = torch.tensor([[1.0, 1.0, 0.1], [1.0, 0.1, 1.0], [0.1, 1.0, 1.0]])
    toward = torch.tensor([[0.0, 0, 1.0], [0, 0, -1.0], [-1.0, 0, 0]])
    torch.testing.assert_close(gaussian_normals(quaternions, scales, toward), toward, atol=1e-6, rtol=0)


def test_drawing_with_normals_and_several_cameras():
    draw = torch.Generator().manual_seed(0)
    quaternions = torch.randn(40, 4, generator=draw)
    scales = torch.rand(40, 3, generator=draw) * 0.1
    means = torch.randn(40, 3, generator=draw) * 0.2
    camera = torch.eye(4)
    camera[2, 3] = 2.0
    cameras = torch.stack([camera, camera.clone()])
    cameras[1, 0, 3] = 0.1
    lens = torch.tensor([[30.0, 0, 8], [0, 30.0, 8], [0, 0, 1]]).repeat(2, 1, 1)
    normals = gaussian_normals(quaternions, scales, camera_centers(cameras)[:, None] - means)
    sh = torch.randn(40, 9, 3, generator=draw)
    covariances = covariance_from_quaternion_scale(quaternions, scales)
    arguments = (means, covariances, sh, torch.full((40,), 0.9))
    out = draw_gaussians(*arguments, cameras, lens, 16, 16, features=normals, background=torch.ones(3))
    assert out.image.shape == (2, 16, 16, 6)
    one = draw_gaussians(*arguments, cameras[1], lens[1], 16, 16, features=normals[1], background=torch.ones(3))
    assert torch.equal(one.image, out.image[1]) and torch.equal(one.depth_z, out.depth_z[1])
    assert float(out.image[..., 5].max()) <= 0 and float(out.image[..., 5].min()) < -0.3  # they face the camera
    plain = draw_gaussians(*arguments, cameras, lens, 16, 16, background=torch.ones(3))
    torch.testing.assert_close(plain.image, out.image[..., :3], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spherical_harmonics(torch.zeros(2, 3), 4), "degree must be 0 to 3, got 4"),
        (lambda: spherical_harmonics(torch.zeros(2, 4), 1), r"directions must be \[\.\.\., 3\]"),
        (lambda: sh_to_colors(torch.zeros(2, 5, 3), torch.zeros(2, 3)), "1, 4, 9 or 16 coefficients, got 5"),
        (lambda: sh_to_colors(torch.zeros(2, 4, 3), torch.zeros(3, 3)), r"directions must be \[\.\.\., 2, 3\]"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
