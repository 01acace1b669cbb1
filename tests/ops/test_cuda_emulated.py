"""The CUDA kernels run on the CPU, thread by thread (tests/ops/emulated_cuda), against the references.

This shows that the kernels compute the right numbers where there is no GPU; races, speed and the toolkit's own code
(CUB) are for the tests marked `cuda`.
"""

from __future__ import annotations

import ctypes

import pytest
import torch

from fourdface.ops import _native
from fourdface.ops._splat_native import SplatBackwardArguments, arguments_of
from fourdface.ops.correspondence_warp import View, correspondence_warp
from fourdface.ops.sparse_conv3d import neighbour_map, sparse_conv3d, sparse_conv3d_reference
from fourdface.ops.splat import splat

NAMES = ("means", "covariances", "colors", "opacities", "world_to_camera")


def scratch_for(library, scene, backward):
    """Give the arguments scratch memory; returns what must live."""
    library.fourd_splat_scratch_cuda.restype = ctypes.c_int64
    scene.scratch_bytes = library.fourd_splat_scratch_cuda(ctypes.byref(scene), backward)
    assert scene.scratch_bytes > 0
    memory = torch.full((scene.scratch_bytes,), 0x5A, dtype=torch.uint8)
    count = torch.full((1,), -1, dtype=torch.int64)
    scene.scratch, scene.pair_count = memory.data_ptr(), count.data_ptr()
    return memory, count


def draw_emulated(library, arguments, background, upstream=None, room=4096, **options):
    """Image, alpha, depth of the CUDA kernels; with `upstream` gradients of these, also those of the inputs."""
    inputs = tuple(arguments[k].contiguous() for k in (*NAMES, "intrinsics"))
    inputs = (*inputs[:4], *(t if t.dim() == 3 else t[None] for t in inputs[4:]))
    width, height, cameras = arguments["width"], arguments["height"], len(inputs[4])
    options = {"eps2d": 0.3, "near": 0.01, "antialiased": False} | options
    scene = arguments_of(inputs, background, width, height, *options.values())
    shape = (cameras, height, width)
    drawn = torch.full((*shape, inputs[2].shape[-1]), 9.0), torch.full(shape, 9.0), torch.full(shape, 9.0)
    scene.image, scene.alpha, scene.depth_z = (t.data_ptr() for t in drawn)
    scene.pair_capacity = room
    _memory, count = scratch_for(library, scene, 0)
    assert library.fourd_splat_cuda(ctypes.byref(scene), None) == 0
    if upstream is None:
        return drawn, int(count)
    found = [torch.zeros_like(t) for t in (*inputs[:5], background)]
    backward = SplatBackwardArguments(scene, *(t.data_ptr() for t in (*upstream, *found)))
    _memory, _count = scratch_for(library, backward.scene, 1)
    assert library.fourd_splat_backward_cuda(ctypes.byref(backward), None) == 0
    return drawn, dict(zip((*NAMES, "background"), found, strict=True))


def several(arguments):
    """The scene seen by two cameras, the second one shifted."""
    cameras = torch.stack([arguments["world_to_camera"]] * 2)
    cameras[1, 0, 3] += 0.03
    return arguments | {"world_to_camera": cameras, "intrinsics": arguments["intrinsics"].repeat(2, 1, 1)}


@pytest.mark.parametrize(
    ("count", "size", "channels", "options"),
    [
        (0, (16, 16), 3, {}),
        (1, (1, 1), 1, {}),
        (33, (33, 21), 3, {}),
        (40, (20, 17), 6, {"antialiased": True}),
        (700, (18, 16), 3, {}),  # more than a block's batch in a tile
    ],
)
def test_splat(emulated, scene, count, size, channels, options):
    arguments = several(scene(count, *size, channels=channels, spread=0.03))
    background = torch.linspace(0.1, 0.9, channels)
    draw = torch.Generator().manual_seed(0)
    shapes = [(2, size[1], size[0], channels), (2, size[1], size[0]), (2, size[1], size[0])]
    upstream = [torch.randn(shape, generator=draw) for shape in shapes]
    drawn, gradients = draw_emulated(emulated("splat"), arguments, background, upstream, **options)
    doubles = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    leaves = {name: doubles[name].clone().requires_grad_() for name in NAMES}
    leaves["background"] = background.double().requires_grad_()
    want = splat(**(doubles | leaves), backend="reference", **options)
    for got, expected in zip(drawn, want, strict=True):
        torch.testing.assert_close(got.double(), expected.detach(), atol=2e-4, rtol=0)
    sum((t * g).sum() for t, g in zip(want, upstream, strict=True)).backward()
    for name, leaf in leaves.items():
        scale = max(float(leaf.grad.abs().max()) if leaf.grad.numel() else 0.0, 1e-6)
        torch.testing.assert_close(gradients[name].double(), leaf.grad, atol=2e-4 * scale, rtol=0, msg=name)


def test_splat_colors_of_each_camera_and_broken_gaussians(emulated, scene):
    arguments = several(scene(60, 20, 17))
    arguments["colors"] = torch.rand(2, 60, 3, generator=torch.Generator().manual_seed(1))
    arguments["means"][3, 0], arguments["covariances"][4, 0], arguments["opacities"][5] = float("nan"), -1.0, 0.0
    drawn, _ = draw_emulated(emulated("splat"), arguments, torch.zeros(3))
    for got, want in zip(drawn, splat(**arguments, backend="reference"), strict=True):
        torch.testing.assert_close(got, want, atol=2e-4, rtol=0)


def test_splat_says_when_the_room_was_too_small(emulated, scene):
    arguments = scene(60, 40, 33)
    full, pairs = draw_emulated(emulated("splat"), arguments, torch.zeros(3))
    assert pairs > 60
    exact, counted = draw_emulated(emulated("splat"), arguments, torch.zeros(3), room=pairs)
    assert counted == pairs and all(torch.equal(a, b) for a, b in zip(exact, full, strict=True))
    short, counted = draw_emulated(emulated("splat"), arguments, torch.zeros(3), room=pairs // 2)
    assert counted == pairs and not torch.equal(short[0], full[0])  # the farthest are missing, and it is known
    assert bool((short[1] <= full[1] + 1e-6).all())


@pytest.fixture
def instead(emulated, monkeypatch):
    """instead("NAME"): let `_native.run` call the emulated kernels of cuda/NAME.cu."""

    def use(name: str) -> None:
        library = emulated(name)

        def run(op: str, arguments: ctypes.Structure, device: torch.device) -> None:
            _native.check_status(library[f"fourd_{op}_cuda"](ctypes.byref(arguments), None), op)

        monkeypatch.setattr(_native, "run", run)
        monkeypatch.setattr(_native, "library", lambda: library)

    return use


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("radius", [0.5, 1.5, 4.0])
def test_correspondence_warp(instead, known, radius):
    draw = torch.Generator().manual_seed(0)
    image, depth = torch.rand(2, 4, 13, 19, generator=draw), 1 + 0.1 * torch.rand(2, 13, 19, generator=draw)
    depth[0, 3, 4], depth[1, 0, 0] = 0.0, float("nan")
    camera = torch.eye(4).repeat(2, 1, 1)
    turned = camera.clone()
    turned[:, 0, 3] = 0.05
    lens = torch.tensor([[40.0, 0, 9.5], [0, 40.0, 6.5], [0, 0, 1]]).repeat(2, 1, 1)
    options = {"radius": radius, "target_depth_z": torch.full((2, 12, 21), 1.05) if known else None}
    views = View(camera, lens), View(turned, lens)
    want_leaf = image.clone().requires_grad_()
    want = correspondence_warp(want_leaf, depth, *views, 21, 12, backend="reference", **options)
    upstream = torch.rand(want.image.shape, generator=draw)
    (want.image * upstream).sum().backward()
    instead("correspondence_warp")
    got_leaf = image.clone().requires_grad_()
    got = correspondence_warp(got_leaf, depth, *views, 21, 12, **options)
    (got.image * upstream).sum().backward()
    for a, b in ((got.image, want.image), (got.visibility, want.visibility), (got_leaf.grad, want_leaf.grad)):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("count", "channels"), [(0, (4, 4)), (1, (1, 1)), (65, (5, 70)), (200, (33, 16))])
def test_sparse_conv3d(instead, monkeypatch, stride, count, channels):
    draw = torch.Generator().manual_seed(0)
    numbers = torch.randperm(9 * 6 * 11, generator=draw)[:count]
    sites = torch.stack([torch.zeros_like(numbers), numbers // 66, numbers // 11 % 6, numbers % 11], dim=1)
    found = neighbour_map(sites, (9, 6, 11), stride=stride, backend="reference")
    features = torch.randn(count, channels[0], generator=draw, requires_grad=True)
    weight = torch.randn(channels[1], 3, 3, 3, channels[0], generator=draw, requires_grad=True)
    upstream = torch.randn(len(found.coordinates), channels[1], generator=draw)
    want = sparse_conv3d_reference(features, found, weight)
    wanted = (want, *torch.autograd.grad(want, (features, weight), upstream))
    instead("sparse_conv3d")
    scratch = torch.empty((27, max(count, 1)), dtype=torch.int32)  # what the op allocates on CUDA
    monkeypatch.setattr(_native, "float_pointer", lambda tensor: scratch.data_ptr())
    got = sparse_conv3d(features, found, weight)
    for a, b in zip((got, *torch.autograd.grad(got, (features, weight), upstream)), wanted, strict=True):
        torch.testing.assert_close(
            a, b, atol=1e-5 * max(1.0, float(b.detach().abs().max()) if b.numel() else 1), rtol=0
        )
