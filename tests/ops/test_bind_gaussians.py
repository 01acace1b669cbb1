"""bind_gaussians: closed forms, equivariance, the inverse, native against reference, refusals."""

from __future__ import annotations

import math

import pytest
import torch

from fourdface.ops.bind_gaussians import (
    bind_gaussians,
    bind_gaussians_reference,
    bind_inverse,
    bind_op,
    triangle_frames,
)


def to_full(upper):
    return upper[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)


def make_mesh(vertices=40, faces=60, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    points = torch.randn(vertices, 3, generator=draw, dtype=torch.float64) * 0.1
    corners = torch.stack([torch.randperm(vertices, generator=draw)[:3] for _ in range(faces)])
    return points.to(dtype), corners.to(torch.int32)


def make_local(count, faces=60, seed=1, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    half = torch.randn(count, 3, 3, generator=draw, dtype=torch.float64) * 0.3
    covariance = (half @ half.transpose(1, 2)).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    triangle = torch.randint(0, faces, (count,), generator=draw, dtype=torch.int32)
    return triangle, torch.rand(count, 3, generator=draw, dtype=torch.float64).to(dtype), covariance.to(dtype)


def test_right_angled_triangle_has_the_closed_form(backend):
    vertices = torch.tensor([[1.0, 1.0, 1.0], [3.0, 1.0, 1.0], [1.0, 5.0, 1.0]])  # e1 = 2x, e2 = 4y, n = z, h = sqrt(8)
    out = bind_gaussians(
        vertices, torch.tensor([[0, 1, 2]]), torch.tensor([0]), torch.tensor([[0.25, 0.5, 0.1]]),
        torch.tensor([[1.0, 0.5, 0.0, 1.0, 0.25, 1.0]]), backend=backend,
    )  # fmt: skip
    h = math.sqrt(8.0)
    torch.testing.assert_close(out.means, torch.tensor([[1.5, 3.0, 1.0 + 0.1 * h]]))
    torch.testing.assert_close(out.covariances, torch.tensor([[4.0, 4.0, 0.0, 16.0, h, 8.0]]))


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257, 10000])
@pytest.mark.parametrize("limit", [None, 0.002, "each"])
def test_native_equals_reference(native, count, limit):
    vertices, faces = make_mesh()
    triangle, mean, covariance = make_local(count)
    limit = torch.rand(count, generator=torch.Generator().manual_seed(2)) * 0.01 if limit == "each" else limit
    got = bind_gaussians(vertices, faces, triangle, mean, covariance, max_trace=limit, backend="native")
    want = bind_gaussians_reference(vertices, faces, triangle, mean, covariance, max_trace=limit)
    # float32: a few roundings relative to the frame (0.3 m) and to the largest covariance
    torch.testing.assert_close(got.means, want.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(got.covariances, want.covariances, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257, 3000])
@pytest.mark.parametrize("limit", [None, 0.002, "each"])
def test_gradients_equal_the_references(needs_native, threads, count, limit):
    vertices, faces = make_mesh()
    vertices[faces[3].long()] = vertices[0].clone()  # a triangle without area
    triangle, mean, covariance = make_local(count)
    draw = torch.Generator().manual_seed(2)
    limit = torch.rand(count, generator=draw) * 0.01 if limit == "each" else limit
    upstream = torch.randn(count, 3, generator=draw), torch.randn(count, 6, generator=draw) * 10
    results = []
    for backend, number, dtype in (("native", 1, torch.float32), ("native", 3, torch.float32), ("reference", 1, None)):
        threads(number)
        leaves = [t.to(dtype or torch.float64).requires_grad_() for t in (vertices, mean, covariance)]
        most = limit.to(leaves[0].dtype) if isinstance(limit, torch.Tensor) else limit
        out = bind_gaussians(leaves[0], faces, triangle, *leaves[1:], max_trace=most, backend=backend)
        total = sum((t * g.to(t.dtype)).sum() for t, g in zip(out, upstream, strict=True))
        results.append(torch.autograd.grad(total, leaves))
    for one, three, want in zip(*results, strict=True):
        assert torch.equal(one, three)
        scale = float(want.abs().max()) if want.numel() else 1.0
        torch.testing.assert_close(one.double(), want, atol=1e-5 * scale, rtol=0)


def test_operator_is_well_formed(needs_native):
    vertices, faces = make_mesh()
    triangle, mean, covariance = make_local(20)
    for leaf in (vertices, mean, covariance):
        leaf.requires_grad_()
    for limits in (None, torch.rand(20)):
        torch.library.opcheck(bind_op, (vertices, faces, triangle, mean, covariance, limits, 0.01))


def test_same_bits_for_any_number_of_threads(needs_native, threads):
    mesh, local = make_mesh(), make_local(20001)
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(bind_gaussians(*mesh, *local, backend="native"))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_gaussians_follow_a_rigid_motion(backend):
    vertices, faces = make_mesh()
    triangle, mean, covariance = make_local(200)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(4)))[0]
    rotation = rotation * torch.sign(torch.linalg.det(rotation))
    shift = torch.tensor([0.1, -0.3, 0.2])
    still = bind_gaussians(vertices, faces, triangle, mean, covariance, backend=backend)
    moved = bind_gaussians(vertices @ rotation.T + shift, faces, triangle, mean, covariance, backend=backend)
    torch.testing.assert_close(moved.means, still.means @ rotation.T + shift, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        to_full(moved.covariances), rotation @ to_full(still.covariances) @ rotation.T, atol=1e-6, rtol=1e-4
    )


def test_twice_the_mesh_is_twice_the_gaussians():
    vertices, faces = make_mesh()
    local = make_local(50)
    once, twice = (bind_gaussians(vertices * s, faces, *local) for s in (1.0, 2.0))
    torch.testing.assert_close(twice.means, 2 * once.means, atol=1e-6, rtol=0)
    torch.testing.assert_close(twice.covariances, 4 * once.covariances, atol=1e-7, rtol=1e-4)


def test_inverse_gives_the_local_ones_back():
    vertices, faces = make_mesh(dtype=torch.float64)
    triangle, mean, covariance = make_local(300, dtype=torch.float64)
    world = bind_gaussians(vertices, faces, triangle, mean, covariance)
    local = bind_inverse(vertices, faces, triangle, *world)
    torch.testing.assert_close(local.means, mean, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(local.covariances, covariance, atol=1e-7, rtol=1e-7)


def test_limit_keeps_shape_and_lowers_only_what_is_above_it():
    vertices, faces = make_mesh()
    triangle, mean, covariance = make_local(500)
    free = bind_gaussians(vertices, faces, triangle, mean, covariance).covariances
    limited = bind_gaussians(vertices, faces, triangle, mean, covariance, max_trace=0.003).covariances
    trace, after = (c[:, [0, 3, 5]].sum(1) for c in (free, limited))
    above = trace > 0.003
    assert 10 < int(above.sum()) < 490
    assert torch.equal(free[~above], limited[~above])
    torch.testing.assert_close(after[above], torch.full_like(after[above], 0.003), rtol=1e-5, atol=0)
    torch.testing.assert_close(limited[above] / after[above, None], free[above] / trace[above, None])


def test_triangle_without_area_stays_finite(backend):
    vertices = torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0], [0.0, 1, 0]])
    faces = torch.tensor([[0, 1, 2], [1, 1, 1], [0, 1, 3]])
    _, mean, covariance = make_local(3)
    out = bind_gaussians(vertices, faces, torch.tensor([0, 1, 2]), mean, covariance, max_trace=1.0, backend=backend)
    assert bool(torch.isfinite(out.means).all() and torch.isfinite(out.covariances).all())
    assert torch.equal(out.covariances[1], torch.zeros(6))
    with pytest.raises(ValueError, match="triangle 0 has no area"):
        bind_inverse(vertices, faces, torch.tensor([2, 0, 1]), mean, covariance)


def test_frame_has_the_stated_columns():
    vertices, faces = make_mesh(dtype=torch.float64)
    origin, frames = triangle_frames(vertices, faces)
    corners = vertices[faces.long()]
    assert torch.equal(origin, corners[:, 0])
    area = 0.5 * torch.linalg.cross(frames[:, :, 0], frames[:, :, 1]).norm(dim=1)
    torch.testing.assert_close(frames[:, :, 2].norm(dim=1), (2 * area).sqrt())
    assert float((frames[:, :, 2] * frames[:, :, 0]).sum(1).abs().max()) < 1e-12


@pytest.mark.parametrize("limit", [None, 0.02])
def test_gradients_of_the_reference(limit):
    vertices, faces = make_mesh(6, 4, dtype=torch.float64)
    triangle, mean, covariance = make_local(5, faces=4, dtype=torch.float64)

    def bind(*tensors):
        return tuple(bind_gaussians_reference(tensors[0], faces, triangle, *tensors[1:], max_trace=limit))

    assert torch.autograd.gradcheck(bind, [t.clone().requires_grad_() for t in (vertices, mean, covariance)])


def test_auto_gives_gradients_and_keeps_precision():
    vertices, faces = make_mesh()
    local = make_local(10)
    out = bind_gaussians(vertices.requires_grad_(), faces, *local)
    out.means.sum().backward()
    assert float(vertices.grad.abs().sum()) > 0
    assert (
        bind_gaussians(*make_mesh(dtype=torch.float64), *make_local(10, dtype=torch.float64)).means.dtype
        == torch.float64
    )


def test_views(needs_native):
    vertices, faces = make_mesh()
    triangle, mean, covariance = make_local(77)
    views = (
        vertices.T.contiguous().T, faces.T.contiguous().T, torch.stack([triangle, triangle], 1)[:, 0],
        mean.T.contiguous().T, torch.cat([covariance, covariance], 1)[:, :6],
    )  # fmt: skip
    got = bind_gaussians(*views, backend="native")
    want = bind_gaussians(vertices, faces.long(), triangle.long(), mean, covariance, backend="native")
    assert torch.equal(got.means, want.means) and torch.equal(got.covariances, want.covariances)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(40, 2)}, r"vertices must be \[V, 3\], got \[40, 2\]"),
        ({"faces": torch.zeros(60, 4, dtype=torch.int32)}, r"faces must be \[F, 3\]"),
        ({"triangle": torch.zeros(10)}, "triangle must be int32 or int64, got float32"),
        ({"local_mean": torch.zeros(9, 3)}, r"means must be \[10, 3\], got \[9, 3\]"),
        ({"local_covariance": torch.zeros(10, 9)}, r"covariances must be \[10, 6\], got \[10, 9\]"),
        ({"max_trace": torch.zeros(9)}, r"max_trace must be \[10\], got \[9\]"),
        ({"triangle": torch.full((10,), 60)}, r"triangle must hold indices 0..59, got 60..60"),
        ({"triangle": torch.full((10,), -1)}, r"triangle must hold indices 0..59, got -1..-1"),
        ({"faces": torch.full((60, 3), 40)}, r"faces must hold indices 0..39, got 40..40"),
    ],
)
def test_refusals(backend, change, message):
    vertices, faces = make_mesh()
    triangle, mean, covariance = make_local(10)
    arguments = {
        "vertices": vertices, "faces": faces, "triangle": triangle, "local_mean": mean, "local_covariance": covariance,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        bind_gaussians(**(arguments | change), backend=backend)
