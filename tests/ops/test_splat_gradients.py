"""splat's native gradients against the reference in double, several cameras, the torch operator itself."""

from __future__ import annotations

import math

import pytest
import torch

from fourdface.ops import _native
from fourdface.ops._splat_native import splat_op
from fourdface.ops.splat import splat

NAMES = ("means", "covariances", "colors", "opacities", "world_to_camera")
TOLERANCE = 1e-4  # of the largest gradient of the input; the reference itself in float32 comes to 2e-5


def gradients(arguments, backend, dtype=torch.float32, names=NAMES, **options):
    """Gradients of a fixed random combination of image, alpha and depth, by input."""
    values = {k: v.to(dtype) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    leaves = {name: values[name].clone().requires_grad_() for name in names}
    channels = values["colors"].shape[-1]
    device = values["means"].device
    leaves["background"] = torch.linspace(0.1, 0.9, channels, dtype=dtype, device=device).requires_grad_()
    draw = torch.Generator().manual_seed(0)
    drawn = splat(**(values | leaves), backend=backend, **options)
    sum((t * torch.randn(t.shape, generator=draw).to(t)).sum() for t in drawn).backward()
    return {name: leaf.grad for name, leaf in leaves.items()}


def assert_same_gradients(got, want):
    for name, expected in want.items():
        scale = float(expected.abs().max()) if expected.numel() else 0.0
        torch.testing.assert_close(got[name].double(), expected, atol=TOLERANCE * max(scale, 1e-6), rtol=0, msg=name)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257])
@pytest.mark.parametrize("size", [(16, 16), (67, 35)])
def test_equal_to_the_reference_in_double(scene, native, count, size):
    arguments = scene(count, *size)
    assert_same_gradients(gradients(arguments, "native"), gradients(arguments, "reference", torch.float64))


@pytest.mark.parametrize("options", [{"antialiased": True}, {"eps2d": 0.0}, {"eps2d": 1.0, "near": 0.6}])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_options_and_channels(scene, native, options, channels):
    arguments = scene(200, 40, 30, channels=channels, size=0.006)
    got = gradients(arguments, "native", **options)
    assert_same_gradients(got, gradients(arguments, "reference", torch.float64, **options))


def test_directions_beyond_the_edge(scene, native):
    arguments = scene(200, 20, 16, spread=0.3, size=0.05)  # many centres far outside: their direction is clamped
    assert_same_gradients(gradients(arguments, "native"), gradients(arguments, "reference", torch.float64))


def several(arguments, turns=(0.0, 0.3, -0.2)):
    """The same scene seen by one camera for each turn about the world's y axis."""
    cameras = []
    for turn in turns:
        around = torch.eye(4)
        around[0, 0] = around[2, 2] = math.cos(turn)
        around[0, 2], around[2, 0] = math.sin(turn), -math.sin(turn)
        cameras.append(arguments["world_to_camera"] @ around)
    lenses = arguments["intrinsics"].repeat(len(turns), 1, 1)
    return arguments | {"world_to_camera": torch.stack(cameras), "intrinsics": lenses}


@pytest.mark.parametrize("own_colors", [False, True])
def test_several_cameras(scene, backend, own_colors):
    arguments = several(scene(80, 33, 21))
    if own_colors:
        arguments["colors"] = torch.rand(3, 80, 3, generator=torch.Generator().manual_seed(2))
    drawn = splat(**arguments, backend=backend)
    assert [tuple(t.shape) for t in drawn] == [(3, 21, 33, 3), (3, 21, 33), (3, 21, 33)]
    for i in range(3):
        one = {k: arguments[k][i] for k in ("world_to_camera", "intrinsics")}
        one["colors"] = arguments["colors"][i] if own_colors else arguments["colors"]
        for got, want in zip(drawn, splat(**(arguments | one), backend=backend), strict=True):
            assert torch.equal(got[i], want)
    if backend == "native":
        want = gradients(arguments, "reference", torch.float64)
        assert_same_gradients(gradients(arguments, "native"), want)
    none = {k: arguments[k][:0] for k in ("world_to_camera", "intrinsics")}
    none["colors"] = arguments["colors"][:0] if own_colors else arguments["colors"]
    assert splat(**(arguments | none), backend=backend).image.shape == (0, 21, 33, 3)


def test_same_bits_for_any_number_of_threads(scene, needs_native, threads):
    arguments = several(scene(5000, 120, 90))
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        results.append(gradients(arguments, "native"))
    for result in results[1:]:
        assert all(torch.equal(result[name], value) for name, value in results[0].items())


def test_broken_gaussians_get_no_gradient_and_disturb_none(scene, native):
    arguments = scene(40, 30, 30)
    good = gradients(arguments, "native")
    broken = scene(6, 30, 30, seed=9)
    broken["means"][0, 0], broken["means"][1, 2] = math.nan, math.inf
    broken["covariances"][2, 3], broken["covariances"][3, 0] = math.nan, -1.0
    broken["opacities"][4], broken["opacities"][5] = math.nan, 0.0
    parts = NAMES[:4]
    joined = arguments | {k: torch.cat([arguments[k], broken[k]]) for k in parts}
    got = gradients(joined, "native")
    for name in parts:
        assert torch.equal(got[name][:40], good[name]) and not bool(got[name][40:].any())
    assert torch.equal(got["world_to_camera"], good["world_to_camera"])


def test_a_gradient_that_is_not_a_number_shows(scene, needs_native):
    arguments = scene(40, 30, 30)
    colors = arguments["colors"].clone().requires_grad_()
    image = splat(**(arguments | {"colors": colors}), backend="native").image
    image.backward(torch.full_like(image, math.nan))
    assert bool(colors.grad.isnan().any())


def test_only_what_is_asked_for(scene, needs_native):
    arguments = scene(60, 30, 30)
    assert set(gradients(arguments, "native", names=("colors",))) == {"colors", "background"}
    opacities = arguments["opacities"].double().requires_grad_()  # another precision: cast there and back
    splat(**(arguments | {"opacities": opacities}), backend="native").alpha.sum().backward()
    assert opacities.grad.dtype == torch.float64 and float(opacities.grad.abs().sum()) > 0


def test_intrinsics_need_the_reference(scene, needs_native):
    arguments = scene(20, 16, 16)
    arguments["intrinsics"].requires_grad_()
    with pytest.raises(ValueError, match="no gradient for the intrinsics"):
        splat(**arguments, backend="native")
    splat(**arguments).image.sum().backward()
    assert float(arguments["intrinsics"].grad.abs().sum()) > 0


def test_without_the_library_the_reference_draws(scene, monkeypatch):
    monkeypatch.setattr(_native, "library", lambda: None)
    arguments = scene(20, 16, 16)
    assert_same_gradients(gradients(arguments, "auto"), gradients(arguments, "reference", torch.float64))


def test_operator_is_well_formed(scene, needs_native):
    arguments = several(scene(9, 20, 17, spread=0.02))
    tensors = [arguments[name].clone().requires_grad_() for name in NAMES] + [arguments["intrinsics"]]
    options = (20, 17, 0.3, 0.01, False)
    torch.library.opcheck(splat_op, (*tensors, torch.rand(3).requires_grad_(), *options))
    torch.library.opcheck(splat_op, (*tensors, None, *options))


def test_compiles_without_a_break(scene, needs_native):
    arguments = scene(50, 24, 24)

    def loss(means, colors):
        return splat(**(arguments | {"means": means, "colors": colors})).image.square().sum()

    results = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [arguments[k].clone().requires_grad_() for k in ("means", "colors")]
        function(*leaves).backward()
        results.append([leaf.grad for leaf in leaves])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.cuda
@pytest.mark.parametrize("options", [{}, {"antialiased": True}])
def test_cuda_gradients(scene, options):
    arguments = several(scene(400, 67, 35))
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    want = gradients(arguments, "reference", torch.float64, **options)
    got = {k: v.cpu() for k, v in gradients(there, "native", **options).items()}
    assert_same_gradients(got, want)
