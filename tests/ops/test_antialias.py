"""antialias: covered areas and their gradients as the truth, inner edges left alone, gradcheck, tiny triangles."""

from __future__ import annotations

import math

import pytest
import torch

from fourdface.ops.antialias import antialias, face_neighbours
from fourdface.ops.rasterize_mesh import interpolate, rasterize_mesh

SIZE = 48
FRONT = torch.eye(4)
ORTHOGRAPHIC = torch.tensor([[1.0, 0, SIZE / 2], [0, 1.0, SIZE / 2], [0, 0, 1]])  # one unit is one pixel


def polygon(corners, radius=15.3, turn=0.3, squeeze=0.7, dtype=torch.float64):
    """A fan around the middle, at depth 1; sides of every slope."""
    angle = torch.arange(corners, dtype=dtype) * (2 * math.pi / corners) + turn
    rim = torch.stack([angle.cos() * radius, angle.sin() * radius * squeeze, torch.ones_like(angle)], 1)
    vertices = torch.cat([torch.tensor([[0.2, -0.4, 1.0]], dtype=dtype), rim])
    index = torch.arange(corners)
    return vertices, torch.stack([torch.zeros_like(index), 1 + index, 1 + (index + 1) % corners], 1)


def area(vertices):
    x, y = vertices[1:, 0], vertices[1:, 1]
    return 0.5 * (x * y.roll(-1) - y * x.roll(-1)).sum().abs()


def coverage(vertices, faces, projection="orthographic", intrinsics=ORTHOGRAPHIC):
    camera = (FRONT.to(vertices), intrinsics.to(vertices))
    out = rasterize_mesh(vertices, faces, *camera, SIZE, SIZE, projection=projection)
    mask = (out.face_index >= 0).to(vertices.dtype)[:, :, None]
    return antialias(mask, out, vertices, faces, *camera, projection=projection), mask


@pytest.mark.parametrize("corners", [3, 4, 5, 7, 64, 400])
def test_covered_area_and_its_gradient(corners):
    vertices, faces = polygon(corners)
    vertices.requires_grad_()
    smooth, mask = coverage(vertices, faces)
    want = area(vertices)
    assert abs(float((smooth.sum() - want).detach())) < 1.0
    (got,) = torch.autograd.grad(smooth.sum(), vertices)
    (expected,) = torch.autograd.grad(want, vertices)
    # how much area a shift, a scaling and a shear of the whole outline win
    for move in (
        torch.tensor([1.0, 0, 0]),
        torch.tensor([0, 1.0, 0]),
        vertices.detach(),
        vertices.detach()[:, [1, 0, 2]],
    ):
        win, true = float((got * move).sum()), float((expected * move).sum())
        assert win == pytest.approx(true, abs=0.05 * float((expected * vertices.detach()).sum()))
    assert float((smooth.detach() - mask).abs().max()) <= 0.5 + 1e-6
    assert float((smooth.detach() - mask).abs().sum()) > 1.0


def test_perspective_gives_the_same_picture():
    vertices, faces = polygon(5)
    deep = torch.cat([vertices[:, :2], vertices[:, 2:]], 1) * 2.0  # twice as far and twice as large
    assert torch.allclose(coverage(deep, faces, "perspective")[0], coverage(vertices, faces)[0], atol=1e-9)


def test_gradcheck():
    vertices, faces = polygon(5, radius=4.0)
    intrinsics = torch.tensor([[1.0, 0, 5], [0, 1.0, 5], [0, 0, 1]], dtype=torch.float64)
    camera = (FRONT.double(), intrinsics)
    out = rasterize_mesh(vertices, faces, *camera, 10, 10, projection="orthographic")
    image = torch.rand(10, 10, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs = [t.clone().requires_grad_() for t in (image, vertices, intrinsics)]

    def smooth(i, v, k):
        return antialias(i, out, v, faces, camera[0], k, projection="orthographic")

    assert not torch.equal(smooth(*inputs), image)
    assert torch.autograd.gradcheck(smooth, inputs)


def test_inner_edges_stay_sharp():
    vertices, faces = polygon(9)
    camera = (FRONT.double(), ORTHOGRAPHIC.double())
    out = rasterize_mesh(vertices, faces, *camera, SIZE, SIZE, projection="orthographic")
    colours = (out.face_index.double() * 0.1)[:, :, None]
    smooth = antialias(colours, out, vertices, faces, *camera, projection="orthographic")
    seen = out.face_index >= 0
    inner = seen.clone()
    for shift in (1, -1):
        for axis in (0, 1):
            inner &= seen.roll(shift, axis)
    assert int(inner.sum()) > 50
    assert torch.equal(smooth[inner], colours[inner])
    assert not torch.equal(smooth, colours)


def test_the_nearer_surface_covers_the_farther():
    near, faces = polygon(4, radius=8.0)
    far, _ = polygon(4, radius=20.0, turn=0.9)
    far = far + torch.tensor([0, 0, 1.0])
    camera = (FRONT.double(), ORTHOGRAPHIC.double())
    vertices, both = torch.cat([far, near]), torch.cat([faces, faces + len(far)])
    out = rasterize_mesh(vertices, both, *camera, SIZE, SIZE, projection="orthographic")
    colours = torch.cat([torch.zeros(len(far), 1), torch.ones(len(near), 1)]).double()
    image = interpolate(colours, both, out.face_index, out.barycentrics)
    smooth = antialias(image, out, vertices, both, *camera, projection="orthographic")
    assert abs(float(smooth.sum() - area(near))) < 1.0


def test_outline_of_a_closed_surface_of_tiny_triangles():
    rings = 40
    theta = torch.linspace(0.05, math.pi - 0.05, rings, dtype=torch.float64)[:, None]
    phi = torch.linspace(0.0, 2 * math.pi, rings + 1, dtype=torch.float64)[None, :-1]
    sphere = torch.stack([theta.sin() * phi.cos(), theta.cos() * torch.ones_like(phi), theta.sin() * phi.sin()], -1)
    index = torch.arange(rings * rings).reshape(rings, rings)
    right = index.roll(-1, dims=1)
    a, b, c, d = index[:-1], index[1:], right[1:], right[:-1]
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    radius = torch.tensor(16.0, dtype=torch.float64, requires_grad=True)
    vertices = sphere.reshape(-1, 3) * radius + torch.tensor([0.3, 0.1, 20.0])
    smooth, _ = coverage(vertices, faces)
    (slope,) = torch.autograd.grad(smooth.sum(), radius)
    shape = float(smooth.detach().sum()) / 256  # area of the outline per squared radius, somewhat below pi
    assert 0.96 * math.pi < shape < math.pi
    assert float(slope) == pytest.approx(2 * 16 * shape, rel=0.05)


def test_neighbours():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [5, 6, 7], [1, 2, 8]])
    links = face_neighbours(faces)
    assert links[0].tolist() == [-1, 3, -1]  # edge 1 (1-2) meets edge 0 (2-1) of face 1
    assert links[1].tolist() == [1, -1, -1]
    assert links[2].tolist() == [-1, -1, -1]
    assert links[3].tolist() == [-1, -1, -1]  # a third triangle at an edge counts as a border
    assert face_neighbours(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)
    torus = torch.arange(20).reshape(4, 5)
    down, right = torus.roll(-1, 0), torus.roll(-1, 1)
    both = torch.cat([torch.stack([torus, down, right], -1), torch.stack([right, down, down.roll(-1, 1)], -1)])
    links = face_neighbours(both.reshape(-1, 3))
    assert int(links.min()) >= 0
    assert torch.equal(links.flatten()[links.flatten()], torch.arange(links.numel()))


def test_nothing_seen_and_refusals():
    vertices, faces = polygon(3)
    camera = (FRONT.double(), ORTHOGRAPHIC.double())
    image = torch.rand(SIZE, SIZE, 1, dtype=torch.float64)
    out = rasterize_mesh(vertices + 1000, faces, *camera, SIZE, SIZE, projection="orthographic")
    assert torch.equal(antialias(image, out, vertices + 1000, faces, *camera, projection="orthographic"), image)
    assert torch.equal(antialias(image, out, vertices, faces[:0], *camera), image)
    with pytest.raises(ValueError, match=r"image must be \[48, 48, C\], got \[3, 48, 48\]"):
        antialias(torch.zeros(3, SIZE, SIZE), out, vertices, faces, *camera)
    with pytest.raises(ValueError, match=r"neighbours must be \[3, 3\], got \[1, 3\]"):
        antialias(image, out, vertices, faces, *camera, neighbours=torch.zeros(1, 3))
