"""splat: reference against independent truths, native kernel against the reference, refusals."""

from __future__ import annotations

import math
import sys
import types

import numpy as np
import pytest
import torch

from fourdface.ops import splat as splat_module
from fourdface.ops._splat_reference import Scene
from fourdface.ops.splat import covariance_from_quaternion_scale, splat, splat_reference, splat_to_u8

# Where an alpha stands at 1/255, or a transmittance at 1e-4, float32 rounding may decide otherwise: that moves a pixel
# by up to 1/255 of the light left. Elsewhere the paths differ by the order of sums (measured: 9e-5 on 100k Gaussians).
SUM_TOLERANCE = 2e-4
STEP = 1.2 / 255.0


def assert_close(got, want, allowed=0.002):
    difference = (got - want).abs()
    assert got.shape == want.shape
    if difference.numel():
        assert float(difference.max()) <= STEP
        assert float((difference > SUM_TOLERANCE).float().mean()) <= allowed


def brute_force(scene, eps2d=0.3, near=0.01):
    """One pixel and one Gaussian at a time in double, with the projection's derivative by finite differences."""
    values = {k: np.asarray(v, dtype=np.float64) for k, v in scene.items() if isinstance(v, torch.Tensor)}
    rotation, translation = values["world_to_camera"][:3, :3], values["world_to_camera"][:3, 3]
    camera = values["intrinsics"]

    def to_pixels(point):
        x, y, z = rotation @ point + translation
        return np.array([camera[0, 0] * x / z + camera[0, 2], camera[1, 1] * y / z + camera[1, 2]])

    projected = []
    for i, mean in enumerate(values["means"]):
        z = (rotation @ mean + translation)[2]
        if z < near:
            continue
        steps = np.eye(3) * 1e-6
        derivative = np.stack([(to_pixels(mean + s) - to_pixels(mean - s)) / 2e-6 for s in steps], axis=1)
        xx, xy, xz, yy, yz, zz = values["covariances"][i]
        covariance = derivative @ np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) @ derivative.T
        projected.append((z, i, to_pixels(mean), np.linalg.inv(covariance + eps2d * np.eye(2))))
    projected.sort(key=lambda p: p[0])
    image = np.zeros((scene["height"], scene["width"], values["colors"].shape[1]))
    alpha, depth = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for row in range(scene["height"]):
        for col in range(scene["width"]):
            left, sum_z = 1.0, 0.0
            for z, i, centre, conic in projected:
                offset = np.array([col + 0.5, row + 0.5]) - centre
                a = min(0.999, values["opacities"][i] * math.exp(-0.5 * offset @ conic @ offset))
                if a < 1 / 255:
                    continue
                if left * (1 - a) <= 1e-4:
                    break
                image[row, col] += left * a * values["colors"][i]
                sum_z += left * a * z
                left *= 1 - a
            alpha[row, col] = 1 - left
            depth[row, col] = sum_z / (1 - left) if left < 1 else 0.0
    return image, alpha, depth


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_against_brute_force(scene, backend, channels):
    arguments = scene(12, 19, 13, channels=channels, spread=0.03)  # inside the picture: no clamped directions
    for got, want in zip(splat(**arguments, backend=backend), brute_force(arguments), strict=True):
        np.testing.assert_allclose(got.numpy(), want, atol=2e-5)


def test_one_isotropic_gaussian_has_the_closed_form(backend):
    focal, z, sigma, opacity, size = 100.0, 0.5, 0.02, 0.8, 41
    out = splat(
        torch.tensor([[0.0, 0.0, z]]), torch.tensor([[sigma**2, 0, 0, sigma**2, 0, sigma**2]]),
        torch.tensor([[0.2, 0.5, 0.9]]), torch.tensor([opacity]), torch.eye(4),
        torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]]), size, size,
        background=torch.tensor([1.0, 1.0, 0.0]), backend=backend,
    )  # fmt: skip
    grid = torch.arange(size) + 0.5 - size / 2
    squared = grid[:, None] ** 2 + grid[None, :] ** 2
    alpha = opacity * torch.exp(-0.5 * squared / ((focal * sigma / z) ** 2 + 0.3))
    alpha = torch.where(alpha >= 1 / 255, alpha, torch.zeros(()))
    assert 0 < int((alpha > 0).sum()) < size * size
    torch.testing.assert_close(out.alpha, alpha, atol=2e-6, rtol=0)
    want = alpha[..., None] * torch.tensor([0.2, 0.5, 0.9]) + (1 - alpha[..., None]) * torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(out.image, want, atol=2e-6, rtol=0)
    torch.testing.assert_close(out.depth_z, torch.where(alpha > 0, z, 0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 257, 3000])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (67, 35)])
def test_native_equals_reference(scene, native, count, size):
    arguments = scene(count, *size)
    background = torch.tensor([0.1, 0.7, 0.3])
    got = splat(**arguments, background=background, backend="native")
    want = splat(**arguments, background=background, backend="reference")
    assert_close(got.image, want.image, allowed=0.02 if size == (1, 1) else 0.002)
    assert_close(got.alpha, want.alpha)
    covered = want.alpha > 0.01  # expected depth is a quotient: where hardly anything is seen it says little
    torch.testing.assert_close(got.depth_z[covered], want.depth_z[covered], atol=2e-3, rtol=0)


@pytest.mark.parametrize("options", [{"antialiased": True}, {"eps2d": 0.0}, {"eps2d": 1.0, "near": 0.6}])
@pytest.mark.parametrize("channels", [1, 2, 3, 17])
def test_options_and_channels(scene, native, options, channels):
    arguments = scene(400, 40, 30, channels=channels, size=0.004)
    assert_close(
        splat(**arguments, **options, backend="native").image, splat(**arguments, **options, backend="reference").image
    )


def test_large_and_needle_gaussians(scene, native):
    arguments = scene(60, 70, 50)
    scales = torch.tensor([[0.5, 0.5, 0.5], [0.3, 0.0005, 0.0005], [0.0, 0.0, 0.0]]).repeat(20, 1)
    draw = torch.Generator().manual_seed(5)
    arguments["covariances"] = covariance_from_quaternion_scale(torch.randn(60, 4, generator=draw), scales)
    arguments["opacities"] = arguments["opacities"] * 0.2
    want = splat_reference(**{k: v.double() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()})
    got = splat(**arguments, backend="native")
    assert_close(got.image, want.image.float(), allowed=0.02)


def test_many_gaussians_of_one_depth_go_by_index(scene, native):
    arguments = scene(300, 32, 32, spread=0.01)
    arguments["world_to_camera"] = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    arguments["world_to_camera"][2, 3] = 0.6
    arguments["means"][:, 2] = 0.0
    assert_close(splat(**arguments, backend="native").image, splat(**arguments, backend="reference").image)
    swapped = {
        k: v.flip(0) if k in ("means", "covariances", "colors", "opacities") else v for k, v in arguments.items()
    }
    changed = (splat(**arguments, backend="native").image - splat(**swapped, backend="native").image).abs().max()
    assert float(changed) > 0.01  # the order of equal depths is the order of the input


def test_same_bits_for_any_number_of_threads(scene, needs_native, threads):
    arguments = scene(5000, 120, 90)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        for _ in range(5):
            results.append(splat(**arguments, backend="native"))
    for result in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], result, strict=True))


def test_order_of_input_does_not_matter(scene, needs_native):
    arguments = scene(500, 48, 48)
    shuffle = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    mixed = {k: v[shuffle] if k in ("means", "covariances", "colors", "opacities") else v for k, v in arguments.items()}
    assert torch.equal(splat(**arguments, backend="native").image, splat(**mixed, backend="native").image)


def test_light_is_conserved(scene, backend):
    arguments = scene(800, 50, 40)
    arguments["colors"] = torch.tensor([0.25, 0.5, 1.0]).expand(800, 3)
    out = splat(**arguments, backend=backend)
    torch.testing.assert_close(out.image, out.alpha[..., None] * arguments["colors"][0], atol=2e-5, rtol=0)
    assert float(out.alpha.min()) >= 0 and float(out.alpha.max()) <= 1 - 1e-4
    same = splat(**arguments, background=arguments["colors"][0], backend=backend)  # behind them the same colour: flat
    torch.testing.assert_close(same.image, arguments["colors"][0].expand_as(same.image), atol=2e-5, rtol=0)


def test_moving_world_and_camera_together_changes_nothing(scene, backend):
    arguments = scene(300, 40, 40)
    draw = torch.Generator().manual_seed(3)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=draw))[0]
    rotation = rotation * torch.sign(torch.linalg.det(rotation))
    motion = torch.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, torch.tensor([0.3, -0.2, 0.5])
    moved = dict(arguments)
    moved["means"] = arguments["means"] @ rotation.T + motion[:3, 3]
    full = arguments["covariances"][:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    moved["covariances"] = (rotation @ full @ rotation.T).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    moved["world_to_camera"] = arguments["world_to_camera"] @ torch.linalg.inv(motion)
    assert_close(splat(**moved, backend=backend).image, splat(**arguments, backend=backend).image, allowed=0.01)


def matrix(numbers):
    """The intrinsics of fx, fy, cx, cy."""
    zero, one = torch.zeros_like(numbers[0]), torch.ones_like(numbers[0])
    return torch.stack([numbers[0], zero, numbers[2], zero, numbers[1], numbers[3], zero, zero, one]).reshape(3, 3)


@pytest.mark.parametrize("antialiased", [False, True])
def test_gradients_of_the_reference(scene, antialiased):
    arguments = scene(4, 5, 4, channels=2, dtype=torch.float64, spread=0.01, size=0.03)
    arguments["opacities"] = torch.tensor([0.5, 0.6, 0.7, 0.4], dtype=torch.float64)
    names = ("means", "covariances", "colors", "opacities", "world_to_camera")
    background = torch.tensor([0.3, 0.6], dtype=torch.float64, requires_grad=True)

    numbers = arguments["intrinsics"][[0, 1, 0, 1], [0, 1, 2, 2]].clone().requires_grad_()

    def draw(*tensors):
        values = dict(zip(names, tensors, strict=False))
        values["intrinsics"] = matrix(tensors[-2])
        return tuple(splat_reference(**values, width=5, height=4, background=tensors[-1], antialiased=antialiased))

    inputs = [arguments[name].clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(draw, (*inputs, numbers, background), eps=1e-7, atol=1e-4)


def test_broken_gaussians_are_left_out(scene, native):
    arguments = scene(40, 30, 30)
    good = splat(**arguments, backend="native").image
    broken = scene(9, 30, 30, seed=9)
    broken["means"][0, 0] = math.nan
    broken["means"][1, 2] = math.inf
    broken["covariances"][2, 3] = math.nan
    broken["covariances"][3, 0] = -1.0
    broken["opacities"][4] = math.nan
    broken["opacities"][5] = 0.0
    broken["opacities"][6] = -1.0
    broken["means"][7] = torch.tensor([0.0, 0.0, 0.7])  # behind the camera
    broken["means"][8, 0] = 1e20
    joined = {
        k: torch.cat([arguments[k], broken[k]]) if k in ("means", "covariances", "colors", "opacities") else v
        for k, v in arguments.items()
    }
    assert torch.equal(splat(**joined, backend="native").image, good)
    assert_close(splat(**joined, backend="reference").image, good)


def test_views_and_double_precision_inputs(scene, needs_native):
    arguments = scene(100, 24, 24)
    views = dict(arguments)
    views["means"] = torch.stack([arguments["means"]] * 2, dim=2)[:, :, 0]
    views["covariances"] = arguments["covariances"].T.contiguous().T
    views["colors"] = torch.cat([arguments["colors"], arguments["colors"]], dim=1)[:, :3]
    views["opacities"] = torch.stack([arguments["opacities"]] * 2, dim=1)[:, 0]
    assert not any(views[k].is_contiguous() for k in ("means", "covariances", "colors", "opacities"))
    assert torch.equal(splat(**views, backend="native").image, splat(**arguments, backend="native").image)
    double = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    assert splat(**double).image.dtype == torch.float64  # auto keeps the precision: reference


def test_auto_gives_gradients_where_they_are_asked_for(scene):
    arguments = scene(20, 16, 16)
    arguments["colors"].requires_grad_()
    splat(**arguments).image.sum().backward()
    assert float(arguments["colors"].grad.abs().sum()) > 0
    with torch.no_grad():
        assert not splat(**arguments).image.requires_grad


def test_antialiasing_keeps_the_light_of_small_gaussians(scene, native):
    focal, z, sigma = 100.0, 0.5, 0.002  # 0.4 pixels
    camera = torch.tensor([[focal, 0, 16.0], [0, focal, 16.0], [0, 0, 1.0]])
    tensors = (
        torch.tensor([[0.0, 0.0, z]]), torch.tensor([[sigma**2, 0, 0, sigma**2, 0, sigma**2]]),
        torch.ones(1, 3), torch.tensor([1.0]), torch.eye(4), camera,
    )  # fmt: skip
    total = float(splat(*tensors, 32, 32, antialiased=True, eps2d=1.0, backend="native").alpha.sum())
    want = 2 * math.pi * (focal * sigma / z) ** 2
    assert total == pytest.approx(want, rel=0.06)  # the cut at 1/255 takes 3 %
    assert float(splat(*tensors, 32, 32, eps2d=1.0, backend="native").alpha.sum()) > 5 * want


def test_stack_of_opaque_gaussians_ends(needs_native):
    count = 5000
    tensors = (
        torch.tensor([[0.0, 0.0, 1.0]]) + torch.arange(count)[:, None] * torch.tensor([0.0, 0.0, 1e-4]),
        torch.tensor([[1.0, 0, 0, 1.0, 0, 1.0]]).repeat(count, 1),
        torch.cat([torch.ones(1, 3), torch.zeros(count - 1, 3)]), torch.full((count,), 0.95), torch.eye(4),
        torch.tensor([[50.0, 0, 8], [0, 50.0, 8], [0, 0, 1]]),
    )  # fmt: skip
    out = splat(*tensors, 16, 16, backend="native")
    torch.testing.assert_close(out.image[8, 8], torch.full((3,), 0.95), atol=1e-3, rtol=0)
    # three leave 1.25e-4; the fourth would leave 6e-6 and is not drawn
    torch.testing.assert_close(out.alpha[8, 8], torch.tensor(1 - 0.05**3), atol=1e-5, rtol=0)


def test_u8_equals_the_float_picture(scene, native):
    arguments = scene(500, 45, 37)
    plate = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    tensors = [v for v in arguments.values() if isinstance(v, torch.Tensor)]
    drawn = splat(**arguments, backend="native")
    want = drawn.image + (1 - drawn.alpha[..., None]) * torch.from_numpy(plate) / 255.0
    got = splat_to_u8(*tensors, plate, backend="native")
    assert got.dtype == np.uint8 and got.shape == plate.shape
    assert np.abs(got - want.clamp(0, 1).numpy() * 255.0).max() <= 0.5 + 1e-3  # rounded to the nearest
    other = splat_to_u8(*tensors, plate, backend="reference")
    assert np.abs(got.astype(int) - other.astype(int)).max() <= 1
    strided = np.repeat(plate, 2, axis=1)[:, ::2]
    assert np.array_equal(splat_to_u8(*tensors, strided, backend="native"), got)


def test_u8_of_nothing_is_the_background(scene, native):
    arguments = scene(0, 45, 37)
    plate = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    tensors = [v for v in arguments.values() if isinstance(v, torch.Tensor)]
    assert np.array_equal(splat_to_u8(*tensors, plate, backend="native"), plate)


def test_u8_clamps(scene, needs_native):
    arguments = scene(200, 20, 20)
    arguments["colors"] = arguments["colors"] * 8 - 3
    tensors = [v for v in arguments.values() if isinstance(v, torch.Tensor)]
    plate = np.zeros((20, 20, 3), np.uint8)
    got = splat_to_u8(*tensors, plate, backend="native")
    want = splat_to_u8(*tensors, plate, backend="reference")
    assert np.abs(got.astype(int) - want.astype(int)).max() <= 1 and got.max() == 255 and got.min() == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"means": torch.zeros(5, 4)}, r"means must be \[N, 3\], got \[5, 4\]"),
        ({"covariances": torch.zeros(4, 6)}, r"covariances must be \[5, 6\], got \[4, 6\]"),
        ({"colors": torch.zeros(5)}, r"colors must be \[5, D\], got \[5\]"),
        ({"colors": torch.zeros(5, 0)}, "at least one channel"),
        ({"opacities": torch.zeros(5, 1)}, r"opacities must be \[5\], got \[5, 1\]"),
        ({"world_to_camera": torch.eye(3)}, r"world_to_camera must be \[4, 4\]"),
        ({"intrinsics": torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]])}, "no skew, got 0.5"),
        ({"background": torch.zeros(4)}, r"background must be \[3\], got \[4\]"),
        ({"width": 0}, "width and height must be at least 1"),
        ({"near": 0.0}, "near must be above 0"),
        ({"backend": "cuda"}, "backend must be one of auto, reference, native, gsplat"),
        ({"backend": "gsplat"}, "needs CUDA tensors"),
    ],
)
def test_refusals(scene, change, message):
    with pytest.raises(ValueError, match=message):
        splat(**(scene(5) | change))


def test_u8_refusals(scene):
    tensors = [v for v in scene(5).values() if isinstance(v, torch.Tensor)]
    with pytest.raises(ValueError, match=r"background_u8 must be uint8 \[H, W, 3\], got float32 \[4, 4, 3\]"):
        splat_to_u8(*tensors, np.zeros((4, 4, 3), np.float32))
    tensors[2] = torch.zeros(5, 2)
    with pytest.raises(ValueError, match=r"colors must be \[N, 3\], got \[5, 2\]"):
        splat_to_u8(*tensors, np.zeros((4, 4, 3), np.uint8))


def test_covariance_from_quaternion_scale():
    half = math.sqrt(0.5)  # a quarter turn about z takes x to y
    got = covariance_from_quaternion_scale(torch.tensor([[2 * half, 0, 0, 2 * half]]), torch.tensor([[1.0, 2.0, 3.0]]))
    torch.testing.assert_close(got, torch.tensor([[4.0, 0, 0, 1.0, 0, 9.0]]), atol=1e-5, rtol=0)
    inputs = (torch.randn(3, 4).double().requires_grad_(), torch.rand(3, 3).double().requires_grad_())
    assert torch.autograd.gradcheck(covariance_from_quaternion_scale, inputs)


def test_gsplat_gets_the_right_arguments(scene, monkeypatch):
    seen = {}

    def rasterization(**arguments):
        seen.update(arguments)
        height, width, channels = arguments["height"], arguments["width"], arguments["colors"].shape[-1]
        drawn = torch.cat([torch.full((1, height, width, channels), 0.25), torch.full((1, height, width, 1), 0.6)], -1)
        return drawn, torch.full((1, height, width, 1), 0.5), {}

    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace(rasterization=rasterization))
    arguments = scene(7, 12, 9)
    background = torch.tensor([1.0, 0.5, 0.0])
    out = splat_module._splat_gsplat(Scene(**arguments, background=background, eps2d=0.4, near=0.02, antialiased=True))
    assert seen["covars"].shape == (7, 3, 3) and torch.equal(seen["covars"], seen["covars"].transpose(1, 2))
    assert torch.equal(seen["covars"][:, 1, 2], arguments["covariances"][:, 4])
    assert seen["viewmats"].shape == (1, 4, 4) and seen["Ks"].shape == (1, 3, 3)
    assert (seen["eps2d"], seen["near_plane"], seen["rasterize_mode"]) == (0.4, 0.02, "antialiased")
    assert (seen["render_mode"], seen["width"], seen["height"]) == ("RGB+ED", 12, 9)
    torch.testing.assert_close(out.image[0, 0], 0.25 + 0.5 * background)
    assert (
        out.image.shape == (9, 12, 3) and out.alpha.shape == (9, 12) and float(out.depth_z[0, 0]) == pytest.approx(0.6)
    )


class OnCuda:
    """Enough of a CUDA tensor for the choice of a backend."""

    is_cuda = True

    def __init__(self, count=5, dtype=torch.float32, requires_grad=False):
        self.count, self.dtype, self.requires_grad = count, dtype, requires_grad

    def __len__(self):
        return self.count


@pytest.mark.parametrize(
    ("changes", "installed", "want"),
    [
        ({}, True, "gsplat"),
        ({}, False, "reference"),
        ({"means": OnCuda(requires_grad=True)}, True, "gsplat"),
        ({"intrinsics": OnCuda(requires_grad=True)}, True, "reference"),
        ({"colors": OnCuda(dtype=torch.float64)}, True, "reference"),
        ({"means": OnCuda(count=0)}, True, "reference"),
    ],
)
def test_choice_on_a_gpu(monkeypatch, changes, installed, want):
    monkeypatch.setitem(sys.modules, "gsplat", types.SimpleNamespace() if installed else None)
    names = ("means", "covariances", "colors", "opacities", "world_to_camera", "intrinsics")
    tensors = {name: OnCuda() for name in names} | changes
    scene = Scene(**tensors, width=8, height=8, background=None, eps2d=0.3, near=0.01, antialiased=False)
    assert splat_module._choose("auto", scene) == want
    if not installed:
        with pytest.raises(ValueError, match="needs the package gsplat"):
            splat_module._choose("gsplat", scene)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_reference_is_the_same_on_every_device(scene, device):
    arguments = scene(200, 30, 20)
    there = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    assert_close(splat(**there, backend="reference").image.cpu(), splat(**arguments, backend="reference").image)


@pytest.mark.cuda
def test_gsplat_draws_the_same_picture(scene):
    pytest.importorskip("gsplat")
    arguments = scene(3000, 128, 96)
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    got = splat(**there, backend="gsplat").image.cpu()
    # 2e-3: gsplat's fast exponential and its own cut-offs
    assert float((got - splat(**arguments, backend="reference").image).abs().max()) <= 2e-3 + STEP


@pytest.mark.cuda
@pytest.mark.parametrize("channels", [1, 3, 17])
def test_cuda_kernel_equals_the_reference(scene, channels):
    arguments = scene(3000, 128, 96, channels=channels)
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
    for _ in range(3):  # the first call learns how much room the pairs take
        drawn = splat(**there, backend="native")
    for got, want in zip(drawn[:2], splat(**arguments, backend="reference")[:2], strict=True):
        assert_close(got.cpu(), want)


@pytest.mark.cuda
def test_cuda_kernel_draws_as_gsplat(scene):
    pytest.importorskip("gsplat")
    there = {k: v.cuda() if isinstance(v, torch.Tensor) else v for k, v in scene(3000, 128, 96).items()}
    difference = splat(**there, backend="native").image - splat(**there, backend="gsplat").image
    assert float(difference.abs().max()) <= 2e-3 + STEP
