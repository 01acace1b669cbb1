"""The mesh ops on a GPU against their references on the CPU. Searches there are in float32: near ties may differ."""

from __future__ import annotations

import math

import pytest
import torch

from fourdface.ops import _native
from fourdface.ops.bind_gaussians import bind_gaussians
from fourdface.ops.nearest_vertices import nearest_vertices
from fourdface.ops.rasterize_mesh import PROJECTIONS, rasterize_mesh
from fourdface.ops.surface_field import surface_field, surface_field_reference

pytestmark = pytest.mark.cuda
SIZES = [0, 1, 31, 32, 33, 257]


@pytest.fixture(autouse=True)
def _library():
    if _native.cuda_library() is None:
        pytest.fail(f"there is a GPU and no library: {_native.cuda_status()['reason']}")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def on_gpu(*tensors):
    return [t.cuda() for t in tensors]


def triangles(vertex_count, face_count):
    order = torch.rand(face_count, max(vertex_count, 3), generator=torch.Generator().manual_seed(3)).argsort(1)
    return order[:, :3] % vertex_count


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize(("vertex_count", "k"), [(1, 1), (9, 9), (257, 1), (300, 4), (500, 32)])
@pytest.mark.parametrize("half", [False, True])
def test_nearest_vertices(count, vertex_count, k, half):
    points, vertices = draw(2, count, 3), draw(2, vertex_count, 3, seed=1)
    subset = torch.arange(0, vertex_count, 2).flip(0) if half and (vertex_count + 1) // 2 >= k else None
    got = nearest_vertices(*on_gpu(points, vertices), k, subset=subset, backend="native")
    want = nearest_vertices(points, vertices, k, subset=subset, backend="reference")
    torch.testing.assert_close(got.squared_distance.cpu(), want.squared_distance, rtol=1e-5, atol=1e-6)
    if count:
        assert float((got.indices.cpu() == want.indices).float().mean()) > 0.99


def test_nearest_vertices_that_are_not_finite():
    vertices, points = draw(1, 12, 3), draw(1, 4, 3, seed=1)
    vertices[0, [2, 5]] = torch.tensor([[math.nan, 0, 0], [math.inf, 0, 0]])
    points[0, 1] = math.nan
    got = nearest_vertices(*on_gpu(points, vertices), 12, backend="native").indices.cpu()
    assert torch.equal(got, nearest_vertices(points, vertices, 12, backend="reference").indices)


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("face_count", [1, 127, 128, 129, 1500])
@pytest.mark.parametrize("min_triangle_area", [0.0, 1.0])
def test_surface_field(count, face_count, min_triangle_area):
    vertices, points = draw(2, max(3, face_count // 2), 3), draw(2, count, 3, seed=1)
    faces = triangles(vertices.shape[1], face_count)
    options = {"min_triangle_area": min_triangle_area}
    got = surface_field(*on_gpu(points, vertices, faces), **options, backend="native")
    want = surface_field_reference(points, vertices, faces, **options)
    torch.testing.assert_close(got.squared_distance.cpu(), want.squared_distance, rtol=1e-4, atol=1e-5)
    same = got.face_index.cpu() == want.face_index
    assert count == 0 or float(same.float().mean()) > 0.98
    size = 1 + want.barycentrics[same].abs().amax(-1, keepdim=True) if same.any() else 1.0
    torch.testing.assert_close(got.barycentrics.cpu()[same] / size, want.barycentrics[same] / size, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 33, 2000])
@pytest.mark.parametrize("size", [(1, 1), (67, 35), (256, 256)])
@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("cull_back", [False, True])
def test_rasterize_mesh(make_camera, count, size, projection, cull_back):
    vertices = (draw(count, 1, 3) * 0.1 + draw(count, 3, 3, seed=1) * 0.05).reshape(-1, 3)
    faces = torch.arange(3 * count).reshape(-1, 3)
    camera = make_camera(*size, focal=80.0 if projection == "perspective" else 130.0)
    options = {"projection": projection, "cull_back": cull_back}
    got = rasterize_mesh(*on_gpu(vertices, faces, *camera), *size, **options, backend="native")
    want = rasterize_mesh(vertices, faces, *camera, *size, **options, backend="reference")
    same = got.face_index.cpu() == want.face_index
    assert float(same.float().mean()) >= 0.999
    torch.testing.assert_close(got.barycentrics.cpu()[same], want.barycentrics[same], atol=1e-6, rtol=0)
    torch.testing.assert_close(got.depth_z.cpu()[same], want.depth_z[same], rtol=1e-6, atol=0)


def test_rasterize_mesh_gradients(make_camera):
    vertices, faces = draw(120, 3) * 0.1, torch.arange(120).reshape(-1, 3)
    gradients = []
    for backend, device in (("native", "cuda"), ("reference", "cpu")):
        inputs = [t.to(device).requires_grad_() for t in (vertices, *make_camera(40, 30, focal=60.0))]
        out = rasterize_mesh(inputs[0], faces.to(device), *inputs[1:], 40, 30, backend=backend)
        loss = out.barycentrics[..., 0].sum() + (out.depth_z * out.barycentrics[..., 1]).sum()
        gradients.append([g.cpu() for g in torch.autograd.grad(loss, inputs)])
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max()))


@pytest.mark.parametrize("count", SIZES)
@pytest.mark.parametrize("limit", [None, 1e-3, "each"])
def test_bind_gaussians(count, limit):
    vertices, faces = draw(20, 3), triangles(20, 30)
    half = draw(count, 3, 3, seed=2) * 0.2
    local = (half @ half.transpose(1, 2)).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    triangle = torch.arange(count) % 30
    max_trace = torch.rand(count) * 0.01 if limit == "each" else limit
    arguments = (vertices, faces, triangle, draw(count, 3, seed=4), local)
    moved = max_trace.cuda() if isinstance(max_trace, torch.Tensor) else max_trace
    got = bind_gaussians(*on_gpu(*arguments), max_trace=moved, backend="native")
    want = bind_gaussians(*arguments, max_trace=max_trace, backend="reference")
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a.cpu(), b, rtol=1e-4, atol=1e-5)


def test_captured_into_a_graph(make_camera):
    vertices, faces = on_gpu(draw(60, 3) * 0.1, torch.arange(60, dtype=torch.int32).reshape(-1, 3))
    camera = on_gpu(*make_camera(64, 48))
    rasterize_mesh(vertices, faces, *camera, 64, 48, backend="native")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = rasterize_mesh(vertices, faces, *camera, 64, 48, backend="native")
    vertices += 0.02
    graph.replay()
    torch.cuda.synchronize()
    want = rasterize_mesh(vertices, faces, *camera, 64, 48, backend="native")
    assert torch.equal(out.face_index, want.face_index) and torch.equal(out.depth_z, want.depth_z)
