"""nearest_vertices: all distances in numpy as the truth, ties, subsets, broken numbers, gradients, both backends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from parity.rule import parity_arrays

from fourdface.ops.nearest_vertices import nearest_vertices, nearest_vertices_reference
from support.heads import parity_pose, synthetic_flame


def cloud(batch, count, seed, dtype=torch.float32):
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("k", [1, 3, 10])
def test_against_all_distances(backend, k):
    points, vertices = cloud(2, 60, 0), cloud(2, 40, 1)
    subset = torch.arange(3, 40, 2)
    got = nearest_vertices(points, vertices, k, subset=subset, backend=backend)
    all_squared = ((points[:, :, None].numpy() - vertices[:, None, subset].numpy()) ** 2).sum(-1)
    order = np.argsort(all_squared, axis=2)[:, :, :k]
    assert np.array_equal(got.indices.numpy(), subset.numpy()[order])
    np.testing.assert_allclose(got.squared_distance.numpy(), np.take_along_axis(all_squared, order, 2), rtol=2e-6)


def test_distances_of_the_paper_s_code(backend):
    """Portrait4D's distances to the nearest vertex of eyes, face and lips, at points that its neck field has moved."""
    numbers, points = parity_arrays("genhead_part_deformation.npz"), parity_arrays("neck_deformation.npz")["canonical"]
    head, pose = synthetic_flame(), parity_pose().without_neck()
    posed, speaking = head.vertices(pose), head.vertices(pose.without_expression().without_eyes())
    parts = {"eye": (posed, head.eye_idxs), "face": (posed, head.face_idxs), "mouth": (speaking, head.lips_idxs)}
    for name, (vertices, subset) in parts.items():
        found = nearest_vertices(points, vertices, 1, subset=subset, backend=backend)
        difference = found.squared_distance[..., 0].sqrt() - numbers[f"dist_to_{name}_surface"]
        assert float((difference.abs() < 1e-4).float().mean()) >= 0.995


@pytest.mark.parametrize("points_count", [0, 1, 31, 32, 33, 257])
@pytest.mark.parametrize(("vertex_count", "k"), [(1, 1), (7, 7), (8, 2), (9, 1), (257, 4), (2000, 1)])
def test_native_equals_reference(needs_native, points_count, vertex_count, k):
    points, vertices = cloud(3, points_count, 2), cloud(3, vertex_count, 3)
    got = nearest_vertices(points, vertices, k, backend="native")
    want = nearest_vertices(points, vertices, k, backend="reference")
    assert got.indices.dtype == torch.int64
    assert torch.equal(got.indices, want.indices)
    torch.testing.assert_close(got.squared_distance, want.squared_distance, rtol=1e-6, atol=1e-12)


def test_equally_far_vertices_come_in_rising_order(backend):
    grid = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 3, indexing="ij"), -1).reshape(1, -1, 3)
    vertices = torch.cat([grid, grid], dim=1)  # every vertex twice
    points = grid + 0.5  # and every point between eight of them
    got = nearest_vertices(points, vertices, 16, backend=backend)
    all_squared = (points[0, :, None] - vertices[0]).square().sum(-1).numpy()
    order = np.argsort(all_squared, axis=1, kind="stable")[:, :16]
    assert np.array_equal(got.indices[0].numpy(), order)


def test_order_of_the_subset_does_not_matter(backend):
    points, vertices = cloud(1, 20, 4), cloud(1, 30, 5).repeat(1, 2, 1)  # the second half equals the first
    subset = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    got = nearest_vertices(points, vertices, 2, subset=subset.int(), backend=backend)
    assert torch.equal(got.indices[..., 1], got.indices[..., 0] + 30)


def test_gradients(backend):
    points, vertices = cloud(2, 5, 6, torch.float64), cloud(2, 9, 7, torch.float64)
    inputs = [points.requires_grad_(), vertices.requires_grad_()]
    index = nearest_vertices(*inputs, 3, backend=backend).indices

    def distances(p, v):
        found = nearest_vertices(p, v, 3, backend=backend)
        assert torch.equal(found.indices, index)
        return found.squared_distance

    assert torch.autograd.gradcheck(distances, inputs)


def test_numbers_that_are_not_finite(backend):
    vertices = cloud(1, 12, 8)
    vertices[0, [2, 5]] = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0]])
    points = cloud(1, 4, 9)
    points[0, 1] = math.nan
    got = nearest_vertices(points, vertices, 12, backend=backend)
    assert got.indices[0, 1].tolist() == list(range(12))
    for row in (0, 2, 3):
        assert got.indices[0, row, 10:].tolist() == [2, 5]  # the broken ones last, in their order
    assert bool(torch.isfinite(got.squared_distance[0, [0, 2, 3], :10]).all())
    assert not bool(torch.isfinite(got.squared_distance[0, 1]).any())


def test_views(needs_native):
    points, vertices = cloud(2, 30, 10), cloud(2, 50, 11)
    want = nearest_vertices(points, vertices, 2, backend="native")
    turned = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in (points, vertices)]
    assert all(torch.equal(a, b) for a, b in zip(nearest_vertices(*turned, 2, backend="native"), want, strict=True))


def test_same_bits_for_any_number_of_threads(needs_native, threads):
    points, vertices = cloud(2, 3000, 12), cloud(2, 700, 13)
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(nearest_vertices(points, vertices, 3, backend="native"))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_double_keeps_its_precision():
    points, vertices = cloud(1, 5, 14, torch.float64), cloud(1, 9, 15, torch.float64)
    got = nearest_vertices(points, vertices, 2)
    assert got.squared_distance.dtype == torch.float64
    assert torch.equal(got.squared_distance, nearest_vertices_reference(points, vertices, 2).squared_distance)


def test_as_a_part_of_torch(needs_native):
    points, vertices, subset = cloud(2, 6, 16), cloud(2, 9, 17), torch.tensor([1, 4, 6])
    for chosen, size in ((subset, 3), (None, 9)):
        torch.library.opcheck(torch.ops.fourd.nearest_vertices.default, (points, vertices, 2, chosen, size))

    @torch.compile(fullgraph=True, backend="eager")
    def inside(p, v):
        return nearest_vertices(p, v, 2, subset=subset).squared_distance.sum() * 2

    points.requires_grad_()
    inside(points, vertices).backward()
    want = 2 * nearest_vertices_reference(points, vertices, 2, subset=subset).squared_distance.sum()
    (expected,) = torch.autograd.grad(want, points)
    torch.testing.assert_close(points.grad, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(2, 5, 2)}, r"points must be \[B, N, 3\], got \[2, 5, 2\]"),
        ({"vertices": torch.zeros(1, 9, 3)}, r"vertices must be \[2, V, 3\], got \[1, 9, 3\]"),
        ({"k": 10}, "k must be 1 to 9, the number of vertices that are looked at, got 10"),
        ({"k": 0}, "k must be 1 to 9"),
        ({"subset": torch.tensor([0, 9])}, r"subset must hold indices 0..8, got 0..9"),
        ({"subset": torch.tensor([0.0, 1.0])}, "subset must be int32 or int64, got float32"),
        ({"vertices": torch.zeros(2, 0, 3)}, "k must be 1 to 0"),
        ({"backend": "kd"}, "backend must be one of auto, reference, native"),
    ],
)
def test_refusals(backend, change, message):
    arguments = {"points": torch.zeros(2, 5, 3), "vertices": torch.zeros(2, 9, 3), "k": 1, "backend": backend}
    with pytest.raises(ValueError, match=message):
        nearest_vertices(**(arguments | change))
