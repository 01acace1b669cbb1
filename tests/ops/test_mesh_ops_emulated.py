"""The CUDA kernels of the mesh ops run on the CPU (tests/ops/emulated_cuda), by the ops' own code."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch

from fourdface.ops import _native
from fourdface.ops.bind_gaussians import bind_gaussians
from fourdface.ops.nearest_vertices import nearest_vertices
from fourdface.ops.rasterize_mesh import PROJECTIONS, rasterize_mesh
from fourdface.ops.surface_field import surface_field


@pytest.fixture
def on_emulator(emulated, monkeypatch):
    """Native ops run their CUDA kernels, emulated; returns the names of those that did."""
    ran = []

    def run(op, arguments, device):
        memory = None
        if op == "rasterize_mesh":
            memory = torch.full((arguments.height, arguments.width), 77, dtype=torch.int64)
            arguments.keys = memory.data_ptr()
        ran.append(op)
        _native.check_status(emulated(op)[f"fourd_{op}_cuda"](ctypes.byref(arguments), None), op)

    monkeypatch.setattr(_native, "run", run)
    return ran


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [0, 1, 130])
@pytest.mark.parametrize(("vertex_count", "k"), [(1, 1), (9, 9), (257, 1), (129, 4), (40, 32)])
def test_nearest_vertices(on_emulator, count, vertex_count, k):
    points, vertices = draw(2, count, 3), draw(2, vertex_count, 3, seed=1)
    got = nearest_vertices(points, vertices, k, backend="native")
    want = nearest_vertices(points, vertices, k, backend="reference")
    torch.testing.assert_close(got.squared_distance, want.squared_distance, rtol=1e-5, atol=1e-6)
    assert torch.equal(got.indices, want.indices) and on_emulator == ["nearest_vertices"]


def test_nearest_vertices_ties_and_broken_numbers(on_emulator):
    vertices, points = draw(1, 12, 3).repeat(1, 2, 1), draw(1, 4, 3, seed=1)
    vertices[0, [2, 5]] = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0]])
    points[0, 1] = math.nan
    for k in (1, 7, 24):
        subset = torch.arange(24) if k == 24 else torch.arange(23, 3, -1)
        got = nearest_vertices(points, vertices, min(k, len(subset)), subset=subset.sort().values, backend="native")
        want = nearest_vertices(points, vertices, min(k, len(subset)), subset=subset, backend="reference")
        assert torch.equal(got.indices, want.indices)


@pytest.mark.parametrize("count", [0, 130])
@pytest.mark.parametrize("face_count", [1, 128, 300])
@pytest.mark.parametrize("min_triangle_area", [0.0, 1.0])
def test_surface_field(on_emulator, count, face_count, min_triangle_area):
    vertices, points = draw(2, max(3, face_count // 2), 3), draw(2, count, 3, seed=1)
    faces = torch.rand(face_count, vertices.shape[1], generator=torch.Generator().manual_seed(3)).argsort(1)[:, :3]
    options = {"min_triangle_area": min_triangle_area}
    got = surface_field(points, vertices, faces, **options, backend="native")
    want = surface_field(points, vertices, faces, **options, backend="reference")
    torch.testing.assert_close(got.squared_distance, want.squared_distance, rtol=1e-4, atol=1e-5)
    same = got.face_index == want.face_index
    assert on_emulator == ["surface_field"] and (count == 0 or float(same.float().mean()) > 0.98)
    size = 1 + want.barycentrics[same].abs().amax(-1, keepdim=True) if same.any() else 1.0
    torch.testing.assert_close(got.barycentrics[same] / size, want.barycentrics[same] / size, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.signed_distance[same], want.signed_distance[same], rtol=1e-5, atol=1e-6)


def test_surface_field_ties_and_broken_numbers(on_emulator):
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.5], [math.nan, 0, 0]])
    faces = torch.tensor([[4, 0, 1], [0, 2, 3], [2, 0, 1]])
    points = torch.tensor([[0.5, 0.5, 0.1], [0.2, 0.2, -0.1], [math.nan, 0, 0]])
    for area in (0.0, 10.0):
        got, want = (
            surface_field(points[None], square[None], faces, min_triangle_area=area, backend=backend)
            for backend in ("native", "reference")
        )
        assert torch.equal(got.face_index, want.face_index)
        assert not math.isfinite(float(got.signed_distance[0, 2]))


@pytest.mark.parametrize("count", [0, 1, 33, 200])
@pytest.mark.parametrize("size", [(1, 1), (37, 19)])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("cull_back", [False, True])
def test_rasterize_mesh(on_emulator, make_camera, count, size, projection, cull_back):
    vertices = (draw(count, 1, 3) * 0.1 + draw(count, 3, 3, seed=1) * 0.05).reshape(-1, 3)
    faces = torch.arange(3 * count).reshape(-1, 3)
    camera = make_camera(*size, focal=30.0 if projection == "perspective" else 50.0)
    options = {"projection": projection, "cull_back": cull_back}
    got = rasterize_mesh(vertices, faces, *camera, *size, **options, backend="native")
    want = rasterize_mesh(vertices, faces, *camera, *size, **options, backend="reference")
    assert torch.equal(got.face_index, want.face_index) and on_emulator == ["rasterize_mesh"]
    torch.testing.assert_close(got.barycentrics, want.barycentrics, atol=1e-6, rtol=0)
    torch.testing.assert_close(got.depth_z, want.depth_z, rtol=1e-6, atol=0)


def test_rasterize_mesh_around_the_camera(on_emulator, make_camera):
    vertices = (draw(20, 1, 3) * 0.3 + draw(20, 3, 3, seed=1) * 0.6).reshape(-1, 3)
    vertices[4] = math.nan
    faces = torch.arange(60).reshape(-1, 3)
    camera = make_camera(17, 13, focal=12.0)
    for near in (0.05, 0.5):
        got = rasterize_mesh(vertices, faces, *camera, 17, 13, near=near, backend="native")
        want = rasterize_mesh(vertices, faces, *camera, 17, 13, near=near, backend="reference")
        assert torch.equal(got.face_index, want.face_index)


@pytest.mark.parametrize("count", [0, 1, 257])
@pytest.mark.parametrize("limit", [None, 1e-3, "each"])
def test_bind_gaussians(on_emulator, count, limit):
    vertices = draw(20, 3)
    faces = torch.rand(30, 20, generator=torch.Generator().manual_seed(5)).argsort(1)[:, :3]
    half = draw(count, 3, 3, seed=2) * 0.2
    local = (half @ half.transpose(1, 2)).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    max_trace = torch.rand(count) * 0.01 if limit == "each" else limit
    arguments = (vertices, faces, torch.arange(count) % 30, draw(count, 3, seed=4), local)
    got = bind_gaussians(*arguments, max_trace=max_trace, backend="native")
    want = bind_gaussians(*arguments, max_trace=max_trace, backend="reference")
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert on_emulator == ["bind_gaussians"]
