"""correspondence_warp: known motions, occlusion, native kernel against the reference, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from fourdface.ops import _native
from fourdface.ops.correspondence_warp import View, correspondence_warp, correspondence_warp_reference, warp_op


def view(size, turn=0.0, shift=0.0, batch=1, focal=2.0, distance=1.0, dtype=torch.float32):
    """A camera at `distance` that looks at the origin, turned about y, then moved to the side by `shift`."""
    camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    around = torch.eye(4)
    around[0, 0] = around[2, 2] = math.cos(turn)
    around[0, 2], around[2, 0] = math.sin(turn), -math.sin(turn)
    camera = camera @ around
    camera[2, 3], camera[0, 3] = distance, shift
    width, height = size
    lens = torch.tensor([[focal * width, 0, width / 2], [0, focal * width, height / 2], [0, 0, 1.0]])
    return View(camera.repeat(batch, 1, 1).to(dtype), lens.repeat(batch, 1, 1).to(dtype))


def bumpy(size, batch=2, channels=3, dtype=torch.float32, holes=True):
    """A random picture over a wavy surface with a step and some pixels without depth."""
    width, height = size
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(batch, channels, height, width, generator=draw).to(dtype)
    rows, cols = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    depth = 1.0 + 0.02 * torch.sin(rows / 3.0) * torch.cos(cols / 4.0) - 0.1 * (cols > width // 2)
    depth = depth.repeat(batch, 1, 1) + 0.01 * torch.rand(batch, height, width, generator=draw)
    if holes:
        depth[:, ::5, ::3] = 0.0
        depth[0, 0, -1], depth[-1, -1, 0] = math.nan, math.inf
    return image, depth.to(dtype)


def test_nothing_moves_nothing_changes(backend):
    image, depth = bumpy((20, 14), holes=False)
    camera = view((20, 14), batch=2)
    out = correspondence_warp(image, depth, camera, camera, 20, 14, radius=1.0, backend=backend)
    torch.testing.assert_close(out.image, image, atol=2e-4, rtol=0)
    assert float(out.visibility.min()) > 0.999


def test_a_plane_moves_by_whole_pixels(backend):
    image = torch.rand(1, 2, 9, 16)
    depth = torch.full((1, 9, 16), 1.0)
    source, target = view((16, 9)), view((16, 9), shift=3 / 32)  # 3 pixels of a focal length of 32 at 1 m
    out = correspondence_warp(image, depth, source, target, 16, 9, radius=1.0, backend=backend)
    torch.testing.assert_close(out.image[..., 3:], image[..., :-3], atol=1e-4, rtol=0)
    assert float(out.visibility[..., 3:].min()) > 0.999 and float(out.visibility[..., :2].max()) == 0.0


def test_the_nearer_hides_the_farther(backend):
    image = torch.zeros(1, 1, 8, 32)
    image[..., 16:] = 1.0
    depth = torch.full((1, 8, 32), 1.0)
    depth[..., 16:] = 0.5  # the right half stands nearer and moves to the left over the other
    source, target = view((32, 8)), view((32, 8), shift=-3 / 64)  # 3 and 6 pixels
    out = correspondence_warp(image, depth, source, target, 32, 8, radius=1.0, backend=backend)
    assert float(out.image[0, 0, 4, 10:25].min()) > 0.999 and float(out.image[0, 0, 4, 1:9].max()) == 0.0
    assert float(out.visibility[0, 4, 27:].max()) == 0.0
    wall = torch.full((1, 8, 32), 1.0)  # the target sees only the wall: what is nearer fades out
    other = correspondence_warp(image, depth, source, target, 32, 8, target_depth_z=wall, radius=1.0, backend=backend)
    assert float(other.visibility[0, 4, 14:25].max()) < 1e-4 and float(other.visibility[0, 4, 1:12].min()) > 0.999
    assert float(other.image[0, 0, 4, 1:12].max()) < 1e-6
    nothing = torch.zeros(1, 8, 32)
    empty = correspondence_warp(image, depth, source, target, 32, 8, target_depth_z=nothing, backend=backend)
    assert not bool(empty.visibility.any()) and not bool(empty.image.any())


@pytest.mark.parametrize("size", [(1, 1), (31, 33), (32, 5), (67, 35)])
@pytest.mark.parametrize("options", [{}, {"radius": 0.5}, {"radius": 4.0, "softness": 0.05}])
@pytest.mark.parametrize("known", [False, True])
def test_native_equals_reference(needs_native, size, options, known):
    image, depth = bumpy(size, channels=4)
    source, target = view(size, batch=2), view((size[0] + 3, size[1]), turn=0.3, batch=2)
    width, height = size[0] + 3, size[1]
    seen = torch.full((2, height, width), 1.0) if known else None
    results = []
    for backend in ("native", "reference"):
        leaf = image.clone().requires_grad_()
        out = correspondence_warp(
            leaf, depth, source, target, width, height, target_depth_z=seen, backend=backend, **options
        )
        upstream = torch.rand(out.image.shape, generator=torch.Generator().manual_seed(1))
        results.append((*out, *torch.autograd.grad((out.image * upstream).sum(), leaf)))
    for got, want in zip(*results, strict=True):
        # 1e-3: where next to nothing lands, rounding of the place is large beside the weight
        torch.testing.assert_close(got, want, atol=1e-3, rtol=1e-3)


def test_gradients_of_the_reference():
    image, depth = bumpy((5, 4), batch=1, channels=2, dtype=torch.float64, holes=False)
    source, target = (view((5, 4), turn, dtype=torch.float64) for turn in (0.0, 0.1))
    inputs = (image.requires_grad_(), depth.requires_grad_())

    def warp(picture, z):
        out = correspondence_warp_reference(picture, z, source, target, 5, 4, softness=0.05)
        return out.image * out.visibility[:, None], out.visibility

    assert torch.autograd.gradcheck(warp, inputs, eps=1e-7, atol=1e-4)


def test_auto_differentiates_depth_and_cameras():
    image, depth = bumpy((20, 14))
    depth = torch.where(depth > 0, depth, 0.0).requires_grad_()
    camera = view((20, 14), 0.1, batch=2)
    camera.world_to_camera.requires_grad_()
    correspondence_warp(image, depth, view((20, 14), batch=2), camera, 20, 14).image.sum().backward()
    assert float(depth.grad.abs().sum()) > 0 and float(camera.world_to_camera.grad.abs().sum()) > 0


def test_same_bits_for_any_number_of_threads(needs_native, threads):
    image, depth = bumpy((67, 45))
    leaf = image.requires_grad_()
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        views = view((67, 45), batch=2), view((67, 45), 0.2, batch=2)
        out = correspondence_warp(leaf, depth, *views, 67, 45, backend="native")
        results.append((*out, *torch.autograd.grad(out.image.square().sum(), leaf)))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_not_a_number_shows_where_it_lands(backend):
    image, depth = bumpy((20, 14), batch=1, holes=False)
    image[0, 0, 7, 10] = math.nan
    camera = view((20, 14))
    out = correspondence_warp(image, depth, camera, camera, 20, 14, backend=backend).image
    assert bool(out[0, 0, 7, 10].isnan()) and not bool(out[0, 1].isnan().any())
    assert not bool(out[0, 0, :4].isnan().any())


def test_empty_batch_and_library_hidden(backend, monkeypatch):
    image, depth = bumpy((20, 14))
    none = view((20, 14), batch=0)
    out = correspondence_warp(image[:0], depth[:0], none, none, 7, 6, backend=backend)
    assert out.image.shape == (0, 3, 6, 7) and out.visibility.shape == (0, 6, 7)
    monkeypatch.setattr(_native, "library", lambda: None)
    camera = view((20, 14), batch=2)
    assert correspondence_warp(image, depth, camera, camera, 7, 6).image.shape == (2, 3, 6, 7)


def test_operator_is_well_formed(needs_native):
    image, depth = bumpy((9, 7))
    matrix = torch.eye(3, 4).repeat(2, 1, 1)
    arguments = (image.requires_grad_(), depth, matrix, None, 9, 7, 1.5, 0.005, 0.01)
    torch.library.opcheck(warp_op, arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(2, 3, 4)}, r"image must be \[B, C, H, W\], got \[2, 3, 4\]"),
        ({"depth_z": torch.zeros(2, 14, 21)}, r"depth_z must be \[2, 14, 20\]"),
        ({"target": view((20, 14))}, r"target.world_to_camera must be \[2, 4, 4\]"),
        ({"target_depth_z": torch.zeros(2, 4, 4)}, r"target_depth_z must be \[2, 14, 20\]"),
        ({"radius": 5.0}, "radius must be 0.5 to 4"),
        ({"width": 0}, "pictures must not be empty"),
    ],
)
def test_refusals(change, message):
    image, depth = bumpy((20, 14))
    camera = view((20, 14), batch=2)
    arguments = {"image": image, "depth_z": depth, "source": camera, "target": camera, "width": 20, "height": 14}
    with pytest.raises(ValueError, match=message):
        correspondence_warp(**(arguments | change))


@pytest.mark.cuda
def test_cuda_kernel_equals_the_reference():
    image, depth = bumpy((67, 45))
    views = view((67, 45), batch=2), view((67, 45), 0.2, batch=2)
    results = []
    for device, backend in (("cpu", "reference"), ("cuda", "native")):
        leaf = image.to(device).requires_grad_()
        there = [View(*(t.to(device) for t in v)) for v in views]
        out = correspondence_warp(leaf, depth.to(device), *there, 67, 45, backend=backend)
        results.append([t.cpu() for t in (*out, *torch.autograd.grad(out.image.square().sum(), leaf))])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)
