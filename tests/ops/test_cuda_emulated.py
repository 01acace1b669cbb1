"""The CUDA kernels run on the CPU, thread by thread (tests/ops/emulated_cuda), against the references.

This shows that the kernels compute the right numbers where there is no GPU; races, speed and the toolkit's own code
(CUB) are for the tests marked `cuda`.
"""

from __future__ import annotations

import ctypes

import pytest
import torch

from fourdface.ops._splat_native import SplatBackwardArguments, arguments_of
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
