"""rasterize_mesh: ray casting as the truth, watertight edges, the camera plane, gradients, native against reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fourdface.ops.rasterize_mesh import barycentrics_at, interpolate, rasterize_mesh, rasterize_mesh_reference


def soup(count, seed=0, dtype=torch.float32, spread=0.1, size=0.05):
    draw = torch.Generator().manual_seed(seed)
    centre = torch.randn(count, 1, 3, generator=draw) * spread
    corners = centre + torch.randn(count, 3, 3, generator=draw) * size
    return corners.reshape(-1, 3).to(dtype), torch.arange(3 * count, dtype=torch.int32).reshape(-1, 3)


def sphere(rings=20, radius=0.12):
    """A closed sphere wound counter-clockwise seen from outside."""
    theta = torch.linspace(0.0, math.pi, rings + 1)[:, None]
    phi = torch.linspace(0.0, 2 * math.pi, 2 * rings + 1)[None, :-1]
    points = torch.stack([theta.sin() * phi.sin(), theta.cos() * torch.ones_like(phi), theta.sin() * phi.cos()], -1)
    index = torch.arange(points[..., 0].numel()).reshape(rings + 1, 2 * rings)
    right = index.roll(-1, dims=1)
    a, b, c, d = index[:-1], index[1:], right[1:], right[:-1]
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    return points.reshape(-1, 3) * radius, faces.to(torch.int32)


def ray_cast(vertices, faces, world_to_camera, intrinsics, width, height, near=0.01):
    """Moeller and Trumbore's ray-triangle test for every pixel and face, in double."""
    camera = world_to_camera.double().numpy()
    corners = (vertices.double().numpy() @ camera[:3, :3].T + camera[:3, 3])[faces.numpy()]
    k = intrinsics.double().numpy()
    index = np.full((height, width), -1)
    depth, weights = np.zeros((height, width)), np.zeros((height, width, 3))
    for row in range(height):
        for col in range(width):
            ray = np.array([(col + 0.5 - k[0, 2]) / k[0, 0], (row + 0.5 - k[1, 2]) / k[1, 1], 1.0])
            best = np.inf
            for f, (p0, p1, p2) in enumerate(corners):
                e1, e2 = p1 - p0, p2 - p0
                side = np.cross(ray, e2)
                det = e1 @ side
                if abs(det) < 1e-14:
                    continue
                u = -p0 @ side / det
                v = ray @ np.cross(-p0, e1) / det
                z = e2 @ np.cross(-p0, e1) / det
                if u >= 0 and v >= 0 and u + v <= 1 and near <= z < best:
                    best, index[row, col], depth[row, col], weights[row, col] = z, f, z, (1 - u - v, u, v)
    return index, weights, depth


def test_against_ray_casting(make_camera, backend):
    vertices, faces = soup(60)
    world_to_camera, intrinsics = make_camera(19, 14, focal=30.0)
    out = rasterize_mesh(vertices, faces, world_to_camera, intrinsics, 19, 14, backend=backend)
    index, weights, depth = ray_cast(vertices, faces, world_to_camera, intrinsics, 19, 14)
    assert 50 < int((index >= 0).sum()) < 19 * 14
    assert np.array_equal(out.face_index.numpy(), index)
    np.testing.assert_allclose(out.barycentrics.numpy(), weights, atol=2e-6)
    np.testing.assert_allclose(out.depth_z.numpy(), depth, atol=1e-6)


def test_triangles_through_the_camera_plane(make_camera, backend):
    vertices, faces = soup(20, seed=3, spread=0.3, size=0.6)  # the camera stands among them
    world_to_camera, intrinsics = make_camera(17, 13, focal=12.0)
    z = (vertices @ world_to_camera[:3, :3].T + world_to_camera[:3, 3])[:, 2][faces.long()]
    assert int(((z < 0).any(1) & (z > 0).any(1)).sum()) >= 3
    out = rasterize_mesh(vertices, faces, world_to_camera, intrinsics, 17, 13, near=0.05, backend=backend)
    index, weights, depth = ray_cast(vertices, faces, world_to_camera, intrinsics, 17, 13, near=0.05)
    assert np.array_equal(out.face_index.numpy(), index)
    np.testing.assert_allclose(out.depth_z.numpy(), depth, rtol=1e-5)
    np.testing.assert_allclose(out.barycentrics.numpy(), weights, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257, 2000])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (67, 35)])
@pytest.mark.parametrize("cull_back", [False, True])
def test_native_equals_reference(make_camera, needs_native, count, size, cull_back):
    vertices, faces = soup(count)
    camera = make_camera(*size)
    got = rasterize_mesh(vertices, faces, *camera, *size, cull_back=cull_back, backend="native")
    want = rasterize_mesh(vertices, faces, *camera, *size, cull_back=cull_back, backend="reference")
    # both work in double; a pixel centre within 1e-12 of an edge may still go to either neighbour
    same = got.face_index == want.face_index
    assert float(same.float().mean()) >= 0.999
    torch.testing.assert_close(got.barycentrics[same], want.barycentrics[same], atol=2e-7, rtol=0)
    torch.testing.assert_close(got.depth_z[same], want.depth_z[same], atol=0, rtol=2e-7)


def test_no_pixel_falls_between_neighbours(backend):
    draw = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij"), -1)
    # corners at pixel centres and along pixel rows: every edge rule is met; inside ones also moved off the lattice
    grid[1:-1, 1:-1] += torch.randint(0, 2, (7, 7, 1), generator=draw) * torch.rand(7, 7, 2, generator=draw) * 0.5
    points = torch.cat([(grid.reshape(-1, 2) * 8 + 0.5 - 32.0) / 50.0, torch.ones(81, 1)], 1)
    index = torch.arange(81).reshape(9, 9)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    intrinsics = torch.tensor([[50.0, 0, 32], [0, 50.0, 32], [0, 0, 1]])
    out = rasterize_mesh(points, faces, torch.eye(4), intrinsics, 65, 65, backend=backend)
    inner = (slice(1, -1), slice(1, -1))  # on the outline itself float32 corners decide
    assert bool((out.face_index[inner] >= 0).all())
    torch.testing.assert_close(out.depth_z[inner], torch.ones(63, 63), atol=1e-6, rtol=0)


def test_sphere_from_outside_and_inside(make_camera, backend):
    vertices, faces = sphere()
    world_to_camera, intrinsics = make_camera(64, 48, focal=100.0)
    plain = rasterize_mesh(vertices, faces, world_to_camera, intrinsics, 64, 48, backend=backend)
    front = rasterize_mesh(vertices, faces, world_to_camera, intrinsics, 64, 48, cull_back=True, backend=backend)
    assert torch.equal(plain.face_index, front.face_index)  # outside, the faces that are seen all look at the camera
    turned = rasterize_mesh(
        vertices, faces.flip(1), world_to_camera, intrinsics, 64, 48, cull_back=True, backend=backend
    )
    seen = front.face_index >= 0
    assert torch.equal(seen, turned.face_index >= 0)  # the inside of the far half has the same outline
    assert bool((turned.depth_z[seen] >= front.depth_z[seen]).all())
    assert float(front.depth_z[seen].min()) == pytest.approx(0.6 - 0.12, abs=0.004)


def test_interpolated_positions_lie_on_the_rays(make_camera, backend):
    vertices, faces = sphere()
    world_to_camera, intrinsics = make_camera(40, 30, focal=90.0)
    out = rasterize_mesh(vertices, faces, world_to_camera, intrinsics, 40, 30, backend=backend)
    points = interpolate(vertices, faces, out.face_index, out.barycentrics)
    seen = out.face_index >= 0
    in_camera = points[seen] @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
    pixels = (in_camera @ intrinsics.T)[:, :2] / in_camera[:, 2:]
    rows, cols = torch.nonzero(seen, as_tuple=True)
    torch.testing.assert_close(pixels, torch.stack([cols, rows], 1) + 0.5, atol=2e-4, rtol=0)
    torch.testing.assert_close(in_camera[:, 2], out.depth_z[seen], atol=1e-6, rtol=0)
    assert float(points[~seen].abs().sum()) == 0


def test_gradients_reach_vertices_and_camera(make_camera, backend):
    vertices, faces = soup(4, dtype=torch.float64, spread=0.02, size=0.1)
    camera = [c.double() for c in make_camera(6, 5, focal=10.0)]
    values = torch.rand(12, 2, dtype=torch.float64)
    numbers = camera[1][[0, 1, 0, 1], [0, 1, 2, 2]]
    index = rasterize_mesh(vertices, faces, *camera, 6, 5, backend=backend).face_index
    assert int((index >= 0).sum()) > 5

    def draw(*tensors):
        zero, one = torch.zeros_like(tensors[2][0]), torch.ones_like(tensors[2][0])
        fx, fy, cx, cy = tensors[2]
        intrinsics = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one]).reshape(3, 3)
        out = rasterize_mesh(tensors[0], faces, tensors[1], intrinsics, 6, 5, backend=backend)
        assert torch.equal(out.face_index, index)
        return interpolate(tensors[3], faces, out.face_index, out.barycentrics), out.depth_z

    inputs = [t.clone().requires_grad_() for t in (vertices, camera[0], numbers, values)]
    assert torch.autograd.gradcheck(draw, inputs, eps=1e-7, atol=1e-4, rtol=1e-3)


def test_barycentrics_of_given_faces(make_camera):
    vertices, faces = sphere(8)
    camera = make_camera(20, 16)
    out = rasterize_mesh_reference(vertices, faces, *camera, 20, 16)
    weights, depth = barycentrics_at(vertices, faces, out.face_index, *camera)
    torch.testing.assert_close(weights, out.barycentrics)
    torch.testing.assert_close(depth, out.depth_z)


def test_same_bits_for_any_number_of_threads(make_camera, needs_native, threads):
    vertices, faces = soup(3000)
    results = []
    for count in (1, 2, 5):
        threads(count)
        results.append(rasterize_mesh(vertices, faces, *make_camera(100, 80), 100, 80, backend="native"))
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_broken_and_flat_faces_are_left_out(make_camera, backend):
    vertices, faces = sphere(8)
    camera = make_camera(24, 24)
    want = rasterize_mesh(vertices, faces, *camera, 24, 24, backend=backend)
    bad = torch.tensor([[math.nan, 0, 0], [0, 0, 0.3], [0.1, 0, 0.3], [math.inf, 0, 0], [0.0, 0.1, 0.3]])
    n = len(vertices)
    more = torch.tensor([[n, n + 1, n + 2], [n + 1, n + 3, n + 4], [n + 1, n + 1, n + 2]], dtype=torch.int32)
    got = rasterize_mesh(torch.cat([vertices, bad]), torch.cat([faces, more]), *camera, 24, 24, backend=backend)
    assert torch.equal(got.face_index, want.face_index)
    assert bool(torch.isfinite(got.barycentrics).all() and torch.isfinite(got.depth_z).all())


def test_views(make_camera, needs_native):
    vertices, faces = sphere(8)
    camera = make_camera(24, 24)
    got = rasterize_mesh(vertices.T.contiguous().T, faces.long().T.contiguous().T, *camera, 24, 24, backend="native")
    assert torch.equal(got.face_index, rasterize_mesh(vertices, faces, *camera, 24, 24, backend="native").face_index)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vertices": torch.zeros(9, 4)}, r"vertices must be \[V, 3\], got \[9, 4\]"),
        ({"faces": torch.zeros(4, 3)}, "faces must be int32 or int64, got float32"),
        ({"faces": torch.full((4, 3), 9)}, r"faces must hold indices 0..8, got 9..9"),
        ({"faces": torch.full((4, 3), -2, dtype=torch.int32)}, r"faces must hold indices 0..8, got -2..-2"),
        ({"intrinsics": torch.zeros(4, 4)}, r"intrinsics must be \[3, 3\], got \[4, 4\]"),
        ({"height": 0}, "width and height must be at least 1"),
        ({"near": -1.0}, "near must be above 0"),
        ({"backend": "gl"}, "backend must be one of auto, reference, native"),
    ],
)
def test_refusals(make_camera, backend, change, message):
    world_to_camera, intrinsics = make_camera(8, 8)
    arguments = {
        "vertices": torch.zeros(9, 3), "faces": torch.zeros(4, 3, dtype=torch.int64), "width": 8, "height": 8,
        "world_to_camera": world_to_camera, "intrinsics": intrinsics, "backend": backend,
    }  # fmt: skip
    with pytest.raises(ValueError, match=message):
        rasterize_mesh(**(arguments | change))
