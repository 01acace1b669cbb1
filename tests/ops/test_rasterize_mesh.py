"""rasterize_mesh: ray casting as the truth, watertight edges, the camera plane, gradients, native against reference."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from parity.rule import parity_arrays

from fourdface.ops.rasterize_mesh import (
    PROJECTIONS,
    barycentrics_at,
    interpolate,
    rasterize_mesh,
    rasterize_mesh_reference,
)
from fourdface.priors.genhead.camera import frontal_label, invert_rigid, split_label
from support.heads import parity_pose, synthetic_flame


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


def ray_cast(vertices, faces, world_to_camera, intrinsics, width, height, near=0.01, orthographic=False):
    """Moeller and Trumbore's ray-triangle test for every pixel and face, in double."""
    camera = world_to_camera.double().numpy()
    corners = (vertices.double().numpy() @ camera[:3, :3].T + camera[:3, 3])[faces.numpy()]
    k = intrinsics.double().numpy()
    index = np.full((height, width), -1)
    depth, weights = np.zeros((height, width)), np.zeros((height, width, 3))
    for row in range(height):
        for col in range(width):
            x, y = (col + 0.5 - k[0, 2]) / k[0, 0], (row + 0.5 - k[1, 2]) / k[1, 1]
            start, ray = (np.array(v) for v in (((x, y, 0), (0, 0, 1)) if orthographic else ((0, 0, 0), (x, y, 1))))
            best = np.inf
            for f, (p0, p1, p2) in enumerate(corners):
                e1, e2 = p1 - p0, p2 - p0
                side = np.cross(ray, e2)
                det = e1 @ side
                if abs(det) < 1e-14:
                    continue
                u = (start - p0) @ side / det
                v = ray @ np.cross(start - p0, e1) / det
                z = e2 @ np.cross(start - p0, e1) / det
                if u >= 0 and v >= 0 and u + v <= 1 and near <= z < best:
                    best, index[row, col], depth[row, col], weights[row, col] = z, f, z, (1 - u - v, u, v)
    return index, weights, depth


def at_distance(camera, projection):
    """The camera of conftest, with the focal length of an orthographic one that sees as much at 0.6 m."""
    world_to_camera, intrinsics = camera
    scale = torch.tensor([[1.0], [1.0], [0.6]]).to(intrinsics) / 0.6 if projection == "orthographic" else 1.0
    principal = intrinsics[:2, 2].clone()
    intrinsics = intrinsics * scale
    intrinsics[:2, 2] = principal
    return world_to_camera, intrinsics


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_against_ray_casting(make_camera, backend, projection):
    vertices, faces = soup(60)
    camera = at_distance(make_camera(19, 14, focal=30.0), projection)
    out = rasterize_mesh(vertices, faces, *camera, 19, 14, projection=projection, backend=backend)
    index, weights, depth = ray_cast(vertices, faces, *camera, 19, 14, orthographic=projection == "orthographic")
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
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_native_equals_reference(make_camera, needs_native, count, size, cull_back, projection):
    vertices, faces = soup(count)
    camera = at_distance(make_camera(*size), projection)
    options = {"cull_back": cull_back, "projection": projection}
    got = rasterize_mesh(vertices, faces, *camera, *size, **options, backend="native")
    want = rasterize_mesh(vertices, faces, *camera, *size, **options, backend="reference")
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


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_gradients_reach_vertices_and_camera(make_camera, backend, projection):
    vertices, faces = soup(4, dtype=torch.float64, spread=0.02, size=0.1)
    camera = [c.double() for c in at_distance(make_camera(6, 5, focal=10.0), projection)]
    values = torch.rand(12, 2, dtype=torch.float64)
    numbers = camera[1][[0, 1, 0, 1], [0, 1, 2, 2]]
    options = {"projection": projection, "backend": backend}
    index = rasterize_mesh(vertices, faces, *camera, 6, 5, **options).face_index
    assert int((index >= 0).sum()) > 5

    def draw(*tensors):
        zero, one = torch.zeros_like(tensors[2][0]), torch.ones_like(tensors[2][0])
        fx, fy, cx, cy = tensors[2]
        intrinsics = torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one]).reshape(3, 3)
        out = rasterize_mesh(tensors[0], faces, tensors[1], intrinsics, 6, 5, **options)
        assert torch.equal(out.face_index, index)
        return interpolate(tensors[3], faces, out.face_index, out.barycentrics), out.depth_z

    inputs = [t.clone().requires_grad_() for t in (vertices, camera[0], numbers, values)]
    assert torch.autograd.gradcheck(draw, inputs, eps=1e-7, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_native_gradients_equal_those_of_autograd(make_camera, needs_native, projection):
    vertices, faces = soup(40, spread=0.05, size=0.1)
    camera = at_distance(make_camera(25, 19, focal=40.0), projection)
    inputs = [t.clone().requires_grad_() for t in (vertices, *camera)]
    weights = torch.rand(4, 19, 25, generator=torch.Generator().manual_seed(1))
    gradients = []
    for backend in ("native", "reference"):
        out = rasterize_mesh(inputs[0], faces, *inputs[1:], 25, 19, projection=projection, backend=backend)
        assert int((out.face_index >= 0).sum()) > 100
        loss = (out.barycentrics * weights[:3].movedim(0, -1)).sum() + (out.depth_z * weights[3]).sum()
        gradients.append(torch.autograd.grad(loss, inputs))
    for got, want in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * float(want.abs().max()))


def test_as_a_part_of_torch(make_camera, needs_native):
    vertices, faces = soup(6)
    camera = make_camera(9, 7, focal=15.0)
    vertices.requires_grad_()
    colours = torch.rand(18, 2)
    flags = (9, 7, 0.01, False, False)
    op = torch.ops.fourd.rasterize_mesh.default
    basic = ("test_schema", "test_autograd_registration", "test_faketensor")  # the fourth sums integers too
    torch.library.opcheck(op, (vertices, faces, *camera, *flags), test_utils=basic)
    torch.library.opcheck(op, (vertices.detach(), faces, *camera, *flags))

    def inside(v):
        out = rasterize_mesh(v, faces, *camera, 9, 7)
        return interpolate(colours, faces, out.face_index, out.barycentrics).square().sum()

    compiled = torch.compile(inside, fullgraph=True, backend="aot_eager")
    (got,) = torch.autograd.grad(compiled(vertices), vertices)
    (want,) = torch.autograd.grad(inside(vertices), vertices)
    assert float(want.abs().max()) > 0
    torch.testing.assert_close(got, want)


def test_numbers_of_the_paper_s_renderer(backend):
    """Portrait4D renders with pytorch3d; half a per cent of the pixels may differ at outlines."""
    numbers = parity_arrays("mesh_renderer_128.npz")
    head, pose, label = synthetic_flame(), parity_pose(), frontal_label(batch=2)
    faces = head.faces_within(head.face_mask)
    matrix, intrinsics = split_label(label)
    views = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])) @ invert_rigid(matrix)
    scale = torch.tensor([[128.0], [128.0], [1.0]])
    for b, vertices in enumerate(head.vertices(pose)):
        camera = (views[b], intrinsics[b] * scale)
        out = rasterize_mesh(vertices, faces, *camera, 128, 128, cull_back=True, backend=backend)
        seen, expected = out.face_index >= 0, numbers["mask"][b, 0]
        assert 0.05 < float(expected.float().mean()) < 0.95
        assert float((seen != expected).float().mean()) <= 0.005
        far = ((out.depth_z - numbers["depth"][b, 0]).abs() > 1e-4)[seen & expected]
        assert float(far.float().mean()) <= 0.005


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
        ({"near": math.nan, "projection": "orthographic"}, "near must be finite, got nan"),
        ({"projection": "fisheye"}, "projection must be one of perspective, orthographic, got 'fisheye'"),
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
