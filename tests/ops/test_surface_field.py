"""surface_field: distances by constrained least squares as the truth, the rule for small triangles, ties, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

from fourdface.ops.surface_field import surface_field, surface_field_reference


def mesh(vertex_count, face_count, batch=2, seed=0, dtype=torch.float32):
    draw = torch.Generator().manual_seed(seed)
    vertices = torch.randn(batch, vertex_count, 3, generator=draw, dtype=torch.float64).to(dtype)
    faces = torch.rand(face_count, max(vertex_count, 3), generator=draw).argsort(1)[:, :3] % vertex_count
    return vertices, faces


def cloud(batch, count, seed=1, dtype=torch.float32):
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def solved_distance(point, corners):
    """Squared distance to a triangle or segment: convex weights by non-negative least squares, sum 1 by a heavy row."""
    heavy = 1e4
    matrix = np.concatenate([corners.T, np.full((1, len(corners)), heavy)])
    weights, _ = nnls(matrix, np.append(point, heavy))
    return float(((corners.T @ weights - point) ** 2).sum())


def grid_mesh(side=6):
    """A wavy height field: every inner edge belongs to two triangles."""
    x, y = torch.meshgrid(torch.arange(float(side)), torch.arange(float(side)), indexing="ij")
    vertices = torch.stack([x, y, 0.4 * torch.sin(x + 2 * y)], -1).reshape(1, -1, 3)
    index = torch.arange(side * side).reshape(side, side)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    return vertices, torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])


@pytest.mark.parametrize("min_triangle_area", [0.0, 1.0, 1e9])
def test_against_least_squares(backend, min_triangle_area):
    vertices, faces = mesh(12, 9, batch=1)
    points = cloud(1, 30)
    got = surface_field(points, vertices, faces, min_triangle_area=min_triangle_area, backend=backend)
    corners = vertices[0, faces].double().numpy()
    area = 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    for n, point in enumerate(points[0].double().numpy()):
        distances = [
            solved_distance(point, c)
            if a >= min_triangle_area
            else min(solved_distance(point, np.delete(c, i, axis=0)) for i in range(3))
            for c, a in zip(corners, area, strict=True)
        ]
        found = int(got.face_index[0, n])
        assert distances[found] == pytest.approx(min(distances), rel=1e-5, abs=1e-7)
        assert float(got.squared_distance[0, n]) == pytest.approx(min(distances), rel=1e-5, abs=1e-7)


def test_numbers_rebuild_the_point(backend):
    vertices, faces = mesh(40, 60)
    points = cloud(2, 200)
    got = surface_field(points, vertices, faces, backend=backend)
    corners = vertices[torch.arange(2)[:, None, None], faces[got.face_index]]
    edges = corners[:, :, 1:] - corners[:, :, :1]
    normal = torch.nn.functional.normalize(torch.linalg.cross(edges[:, :, 0], edges[:, :, 1]), dim=-1)
    rebuilt = (corners * got.barycentrics[..., None]).sum(2) + got.signed_distance[..., None] * normal
    size = got.barycentrics.abs().amax(-1, keepdim=True)
    assert float(((rebuilt - points) / (1 + size)).abs().max()) < 2e-6
    torch.testing.assert_close(got.barycentrics.sum(-1), torch.ones(2, 200), atol=1e-4, rtol=1e-5)
    inside = (got.barycentrics >= 0).all(-1)
    assert 0.1 < float(inside.float().mean()) < 0.9  # both cases are met
    torch.testing.assert_close(
        got.squared_distance[inside], got.signed_distance[inside].square(), rtol=1e-5, atol=1e-10
    )
    assert bool((got.squared_distance[~inside] > got.signed_distance[~inside].square()).all())


@pytest.mark.parametrize("points_count", [0, 1, 31, 32, 33, 257])
@pytest.mark.parametrize("face_count", [1, 4, 5, 33, 1500])
@pytest.mark.parametrize("min_triangle_area", [0.0, 1.0])
def test_native_equals_reference(needs_native, points_count, face_count, min_triangle_area):
    vertices, faces = mesh(max(3, face_count // 2), face_count)
    points = cloud(2, points_count)
    got = surface_field(points, vertices, faces, min_triangle_area=min_triangle_area, backend="native")
    want = surface_field(points, vertices, faces, min_triangle_area=min_triangle_area, backend="reference")
    torch.testing.assert_close(got.squared_distance, want.squared_distance, rtol=1e-6, atol=1e-14)
    same = got.face_index == want.face_index  # both in double: only the last bit may decide otherwise
    assert points_count == 0 or float(same.float().mean()) > 0.999
    size = 1 + want.barycentrics[same].abs().amax(-1, keepdim=True)
    assert not same.any() or float(((got.barycentrics - want.barycentrics)[same] / size).abs().max()) < 1e-6
    torch.testing.assert_close(got.signed_distance[same], want.signed_distance[same], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("min_triangle_area", [0.0, 1e9])
def test_triangles_that_share_the_nearest_edge_tie_to_the_lower_index(backend, min_triangle_area):
    vertices, faces = grid_mesh()
    middles = vertices[:, faces[:, [0, 1]]].mean(2)  # of edges; far above a ridge the edge stays the nearest
    points = torch.cat([vertices + torch.tensor([0.0, 0.0, 1e-3]), middles], dim=1)
    for turned in (faces, faces.roll(1, dims=1), faces[:, [1, 0, 2]]):  # the winding does not decide
        got = surface_field(points, vertices, turned, min_triangle_area=min_triangle_area, backend=backend)
        backwards = surface_field(
            points, vertices, turned.flip(0), min_triangle_area=min_triangle_area, backend=backend
        )
        last = len(faces) - 1 - backwards.face_index  # the highest index of those equally near
        assert bool((got.face_index <= last).all())
        if min_triangle_area:
            assert float((got.face_index < last).float().mean()) > 0.8
        assert torch.equal(got.squared_distance, backwards.squared_distance)


def test_sides_of_a_triangle(backend):
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    points = torch.tensor([[[0.25, 0.25, 0.5], [0.25, 0.25, -0.5], [2.0, 0, 1], [-1, -1, 0], [1, 1, 0]]])
    got = surface_field(points, vertices, torch.tensor([[0, 1, 2]]), backend=backend)
    assert got.signed_distance[0].tolist() == [0.5, -0.5, 1.0, 0.0, 0.0]
    torch.testing.assert_close(got.squared_distance[0], torch.tensor([0.25, 0.25, 2.0, 2.0, 0.5]))
    want = torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.25, 0.25], [-1, 2, 0], [3, -1, -1], [-1, 1, 1]])
    torch.testing.assert_close(got.barycentrics[0], want)


def test_triangle_without_area(backend):
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [2, 0, 0]]])
    points = torch.tensor([[[0.5, 1.0, 0.0], [3.0, 0.0, 0.0]]])
    for faces in ([[0, 1, 2]], [[2, 2, 0]]):
        got = surface_field(points, vertices, torch.tensor(faces), backend=backend)
        torch.testing.assert_close(got.squared_distance, torch.tensor([[1.0, 1.0]]))
        torch.testing.assert_close(got.barycentrics, torch.full((1, 2, 3), 1 / 3))
        assert got.signed_distance.tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("min_triangle_area", [0.0, 1.0])
def test_gradients(backend, min_triangle_area):
    vertices, faces = mesh(8, 6, dtype=torch.float64)
    inputs = [cloud(2, 7, dtype=torch.float64).requires_grad_(), vertices.requires_grad_()]
    options = {"min_triangle_area": min_triangle_area, "backend": backend}
    index = surface_field(*inputs, faces, **options).face_index

    def numbers(p, v):
        found = surface_field(p, v, faces, **options)
        assert torch.equal(found.face_index, index)
        return found[1:]

    assert torch.autograd.gradcheck(numbers, inputs, atol=1e-4)


def test_numbers_that_are_not_finite(backend):
    vertices, faces = mesh(30, 20, batch=1)
    vertices[0, 0] = math.nan
    faces = torch.cat([torch.tensor([[0, 1, 2]]), faces])  # the first is broken
    points = cloud(1, 30)
    points[0, 3] = math.inf
    got = surface_field(points, vertices, faces, backend=backend)
    good = torch.arange(30) != 3
    assert bool(torch.isfinite(got.squared_distance[0, good]).all())
    assert bool((faces[got.face_index[0, good]] != 0).all())
    assert int(got.face_index[0, 3]) == 0 and not math.isfinite(float(got.squared_distance[0, 3]))


def test_same_bits_for_any_number_of_threads(needs_native, threads):
    vertices, faces = mesh(300, 900)
    points = cloud(2, 3000)
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(surface_field(points, vertices, faces, min_triangle_area=0.5, backend="native"))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_views(needs_native):
    vertices, faces = mesh(30, 40)
    points = cloud(2, 50)
    want = surface_field(points, vertices, faces, backend="native")
    turned = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (points, vertices, faces.int())]
    assert all(torch.equal(a, b) for a, b in zip(surface_field(*turned, backend="native"), want, strict=True))


def test_as_a_part_of_torch(needs_native):
    vertices, faces = mesh(9, 7)
    points = cloud(2, 5)
    torch.library.opcheck(torch.ops.fourd.surface_field.default, (points, vertices, faces, 0.1))

    @torch.compile(fullgraph=True, backend="eager")
    def inside(p, v):
        return surface_field(p, v, faces).signed_distance.square().sum() * 2

    points.requires_grad_()
    inside(points, vertices).backward()
    want = 2 * surface_field_reference(points, vertices, faces).signed_distance.square().sum()
    (expected,) = torch.autograd.grad(want, points)
    torch.testing.assert_close(points.grad, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.zeros(5, 3)}, r"points must be \[B, N, 3\], got \[5, 3\]"),
        ({"vertices": torch.zeros(1, 9, 3)}, r"vertices must be \[2, V, 3\], got \[1, 9, 3\]"),
        ({"faces": torch.zeros(0, 3, dtype=torch.int64)}, "faces must hold at least one triangle, got none"),
        ({"faces": torch.tensor([[0, 1, 9]])}, r"faces must hold indices 0..8, got 0..9"),
        ({"faces": torch.tensor([[0, 1, -1]])}, r"faces must hold indices 0..8, got -1..1"),
        ({"min_triangle_area": -1.0}, "min_triangle_area must be at least 0, got -1.0"),
        ({"min_triangle_area": math.nan}, "min_triangle_area must be at least 0, got nan"),
        ({"backend": "kd"}, "backend must be one of auto, reference, native"),
    ],
)
def test_refusals(backend, change, message):
    arguments = {
        "points": torch.zeros(2, 5, 3), "vertices": torch.zeros(2, 9, 3), "faces": torch.tensor([[0, 1, 2]]),
        "backend": backend,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        surface_field(**(arguments | change))
