"""Rays, tri-plane field and volume renderer against the official renderers' numbers and against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from parity.rule import GENHEAD_EQLR, draw, fill, parity_arrays
from torch import Tensor

from fourdface.blocks.decoder import OSGDecoder
from fourdface.blocks.rays import box_limits, camera_from_label, camera_rays, constant_limits, plane_limits
from fourdface.blocks.triplane import TriplaneField, decoder_weights
from fourdface.blocks.volume_renderer import (
    Draws,
    OffsetGrid,
    Rays,
    RaySampling,
    as_image,
    over_background,
    over_white,
    render_samples,
    render_volume,
)


@pytest.fixture(scope="module")
def eg3d() -> dict[str, Tensor]:
    return parity_arrays("eg3d_renderer_fixture.npz", "eg3d_gen3d_coherent3d")


def eg3d_field(numbers: dict[str, Tensor]) -> TriplaneField:
    decoder = OSGDecoder()
    decoder.load_state_dict(
        {f"net.{2 * i}.{key}": numbers[f"dec_fc{i}_{key}"] for i in (0, 1) for key in ("weight", "bias")}
    )
    return TriplaneField(numbers["planes"].expand(3, -1, -1, -1, -1), decoder.requires_grad_(False))


def eg3d_draws(numbers: dict[str, Tensor], variant: str) -> Draws | None:
    if variant == "rand":
        return Draws(numbers["jitter_coarse"][..., 0], numbers["u_fine"].reshape(3, 144, 48))
    even = torch.linspace(0, 1, 48).expand(3, 144, 48)
    return Draws(torch.full((3, 144, 48), 0.5), even) if variant == "half" else None


def eg3d_rays(numbers: dict[str, Tensor]) -> Rays:
    origins, directions = numbers["ray_origins"], numbers["ray_dirs"]
    return Rays(origins, directions, *constant_limits(origins, 2.25, 3.3))


def test_rays_are_eg3ds(eg3d: dict[str, Tensor]) -> None:
    world_to_camera, intrinsics = camera_from_label(eg3d["cam25"], 12)
    origins, directions = camera_rays(world_to_camera, intrinsics, 12, 12)
    torch.testing.assert_close(origins, eg3d["ray_origins"], atol=1e-5, rtol=0)
    torch.testing.assert_close(directions, eg3d["ray_dirs"], atol=1e-5, rtol=0)
    near, far = box_limits(origins, directions, 1.0, fill=False)
    torch.testing.assert_close(near, eg3d["ray_limits_min"][..., 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(far, eg3d["ray_limits_max"][..., 0], atol=1e-5, rtol=0)


def test_rays_are_portrait4ds() -> None:
    numbers = parity_arrays("camera_rays.npz")
    label = torch.cat([numbers["cam2world"].flatten(1), numbers["intrinsics"].flatten(1)], dim=1)
    world_to_camera, intrinsics = camera_from_label(label, 8, axes="opengl")
    origins, directions = camera_rays(world_to_camera, intrinsics, 8, 8)
    torch.testing.assert_close(origins, numbers["ray_origins"], atol=1e-5, rtol=0)
    torch.testing.assert_close(directions, numbers["ray_dirs"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", ["det", "half", "rand"])
@pytest.mark.parametrize("fine", [48, 0])
def test_eg3ds_renderer(eg3d: dict[str, Tensor], variant: str, fine: int) -> None:
    draws = eg3d_draws(eg3d, variant)
    if draws is not None and not fine:
        draws = Draws(draws.coarse, draws.fine[..., :0])
    end = "" if fine else "_coarse_only"
    rendered, samples = render_samples(
        eg3d_field(eg3d), eg3d_rays(eg3d), RaySampling(48, fine), draws=draws, over_batch=True
    )
    torch.testing.assert_close(rendered.features * 2 - 1, eg3d[f"{variant}_feature{end}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(rendered.ray_distance, eg3d[f"{variant}_depth{end}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(rendered.weight_sum, eg3d[f"{variant}_wsum{end}"], atol=1e-4, rtol=0)
    if fine:
        both = torch.cat([eg3d[f"{variant}_depths_coarse"], eg3d[f"{variant}_depths_fine"]], dim=-1)
        torch.testing.assert_close(samples.distances, both.sort(dim=-1).values, atol=1e-4, rtol=0)
    else:
        torch.testing.assert_close(samples.weights, eg3d[f"{variant}_weights_coarse"], atol=1e-4, rtol=0)


def test_eg3ds_white_background_disparity_and_auto_limits(eg3d: dict[str, Tensor]) -> None:
    field, rays = eg3d_field(eg3d), eg3d_rays(eg3d)
    white = over_white(render_volume(field, rays)) * 2 - 1
    torch.testing.assert_close(white, eg3d["det_feature_white_back"], atol=1e-4, rtol=0)
    disparity = render_volume(field, rays, RaySampling(spacing="disparity"), over_batch=True)
    torch.testing.assert_close(disparity.features * 2 - 1, eg3d["det_feature_disparity"], atol=1e-4, rtol=0)
    torch.testing.assert_close(disparity.ray_distance, eg3d["det_depth_disparity"], atol=1e-4, rtol=0)
    auto = Rays(rays.origins, rays.directions, *box_limits(rays.origins, rays.directions, 1.0))
    rendered = render_volume(field, auto, over_batch=True)
    torch.testing.assert_close(rendered.features * 2 - 1, eg3d["auto_feature"], atol=1e-4, rtol=0)
    torch.testing.assert_close(rendered.ray_distance, eg3d["auto_depth"], atol=1e-4, rtol=0)
    torch.testing.assert_close(rendered.weight_sum, eg3d["auto_wsum"], atol=1e-4, rtol=0)


def portrait4d_case() -> tuple[TriplaneField, Rays]:
    decoder = fill(OSGDecoder(heads=2), "decoder.", eqlr=GENHEAD_EQLR).requires_grad_(False)
    assert isinstance(decoder, OSGDecoder)
    field = TriplaneField(draw("in:rplanes", (1, 3, 32, 64, 64)), decoder, "portrait4d", 1.3)
    camera_to_world = torch.eye(4)
    camera_to_world[:3, 3] = torch.tensor([0.0, 0.01, 4.2])
    intrinsics = torch.tensor([4.757182, 0, 0.5, 0, 4.757182, 0.5, 0, 0, 1])
    world_to_camera, pixels = camera_from_label(
        torch.cat([camera_to_world.flatten(), intrinsics])[None], 16, axes="opengl"
    )
    return field, Rays(*camera_rays(world_to_camera, pixels, 16, 16), *plane_limits(world_to_camera, 256, 1.3))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("warped", [False, True])
def test_portrait4ds_renderer(backend: str, warped: bool) -> None:
    numbers = parity_arrays("renderer_identity_deform.npz")
    field, rays = portrait4d_case()
    sampling = RaySampling(placement="centres")
    warp = OffsetGrid(torch.zeros(1, 3, 4, 4, 4), 1.3) if warped else None
    rendered = render_volume(field, rays, sampling, warp=warp, over_batch=True, backend=backend)
    torch.testing.assert_close(rendered.features, numbers["feature"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rendered.ray_distance, numbers["depth"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rendered.transmittance, numbers["T_bg"], atol=1e-4, rtol=1e-4)
    samples = render_samples(field, rays, sampling)[1]
    torch.testing.assert_close(samples.distances[:, ::8, :, None], numbers["all_depths"], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(samples.weights[:, ::8, :, None], numbers["weights"], atol=1e-4, rtol=1e-4)


def ball(points: Tensor) -> tuple[Tensor, Tensor]:
    """A dense ball of radius 0.3 whose colour is the position."""
    density = torch.where(points.norm(dim=-1) < 0.3, 400.0, -100.0).to(points.dtype)
    return density, points


def looking_along_z(count: int = 5, dtype: torch.dtype = torch.float64) -> Rays:
    origins = torch.zeros(1, count, 3, dtype=dtype)
    origins[..., 0] = torch.linspace(-0.4, 0.4, count, dtype=dtype)
    origins[..., 2] = -2
    directions = torch.zeros_like(origins)
    directions[..., 2] = 1
    return Rays(origins, directions, *constant_limits(origins, 1.0, 3.0))


def test_any_field_and_an_opaque_ball() -> None:
    rays = looking_along_z()
    rendered = render_volume(ball, rays, RaySampling(96, 96))
    torch.testing.assert_close(
        rendered.weight_sum[0, :, 0], torch.tensor([0.0, 1, 1, 1, 0]).double(), atol=1e-7, rtol=0
    )
    x = rays.origins[0, 1:4, 0]
    surface = 2 - (0.09 - x**2).sqrt()
    torch.testing.assert_close(rendered.ray_distance[0, 1:4, 0], surface, atol=0.02, rtol=0)
    torch.testing.assert_close(rendered.features[0, 1:4, 0], x, atol=1e-7, rtol=0)
    assert rendered.ray_distance[0, 0, 0] == 3.0
    assert torch.equal(over_background(rendered, torch.ones(1, 5, 3))[0, 0], torch.ones(3).double())
    assert as_image(rendered.features, 1, 5).shape == (1, 3, 1, 5)


def test_uniform_fog_has_the_closed_form() -> None:
    def fog(points: Tensor) -> tuple[Tensor, Tensor]:
        raw = math.log(math.expm1(1.5)) + 1  # softplus(raw - 1) = 1.5
        return torch.full_like(points[..., 0], raw), torch.ones_like(points)

    rendered = render_volume(fog, looking_along_z())
    expected = torch.full((1, 5, 1), 1 - math.exp(-3.0), dtype=torch.float64)
    torch.testing.assert_close(rendered.weight_sum, expected, atol=1e-8, rtol=0)
    torch.testing.assert_close(rendered.features, expected.expand(-1, -1, 3), atol=1e-8, rtol=0)


def test_a_warp_moves_the_ball() -> None:
    rays, shift = looking_along_z(), torch.tensor([0.2, 0.0, 0.1]).double()
    moved = render_volume(lambda points: ball(points + shift), rays)
    by_function = render_volume(ball, rays, warp=lambda points: points + shift)
    grid = OffsetGrid(shift.reshape(1, 3, 1, 1, 1).expand(1, 3, 4, 4, 4).contiguous(), 8.0)
    for got in (by_function, render_volume(ball, rays, warp=grid)):
        torch.testing.assert_close(got.features, moved.features, atol=1e-12, rtol=0)


def test_jitter_is_counted_and_even() -> None:
    field, rays = ball, looking_along_z(257)
    one = render_samples(field, rays, RaySampling(placement="jitter", seed=2**40 + 7))[1].distances
    assert torch.equal(one, render_samples(field, rays, RaySampling(placement="jitter", seed=2**40 + 7))[1].distances)
    assert not torch.equal(one, render_samples(field, rays, RaySampling(placement="jitter", seed=7))[1].distances)
    coarse = render_samples(field, rays, RaySampling(48, 0, placement="jitter", seed=1))[1].distances
    offsets = (coarse - 1.0) / 2 * 47 - torch.arange(48)
    assert float(offsets.min()) >= -1e-6 and float(offsets.max()) < 1
    assert abs(float(offsets.mean()) - 0.5) < 0.01
    assert abs(float(offsets.var()) - 1 / 12) < 0.005


def test_a_bad_ray_is_nan_alone() -> None:
    field, rays = portrait4d_case()
    directions = rays.directions.clone()
    directions[0, 5, 1] = math.nan
    rendered = render_volume(field, rays._replace(directions=directions))
    assert bool(rendered.features[0, 5].isnan().all()) and bool(rendered.ray_distance[0, 5].isnan())
    assert int(rendered.features.isnan().any(-1).sum()) == 1


def test_gradients_reach_planes_and_decoder() -> None:
    field, rays = portrait4d_case()
    planes = field.planes.clone().requires_grad_()
    decoder = field.decoder.requires_grad_()
    rendered = render_volume(TriplaneField(planes, decoder, field.axes, field.box_size), rays)
    (rendered.features.square().sum() + rendered.ray_distance.sum()).backward()
    assert planes.grad is not None and float(planes.grad.abs().sum()) > 0
    assert all(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in decoder.parameters())
    assert decoder_weights(decoder).out_weight.shape == (33, 64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"near": torch.zeros(1, 4)}, "near must be"),
        ({"directions": torch.zeros(1, 5, 2)}, "ray directions must be"),
    ],
)
def test_wrong_rays_are_named(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_volume(ball, looking_along_z()._replace(**change))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="4 with fine ones"):
        RaySampling(3, 1)
    with pytest.raises(ValueError, match="spacing"):
        RaySampling(spacing="log")
    with pytest.raises(ValueError, match="native"):
        render_volume(ball, looking_along_z(), backend="native")
    with pytest.raises(ValueError, match="no picture"):
        as_image(torch.zeros(1, 5, 3), 2, 3)
    with pytest.raises(ValueError, match=r"draws.fine must be \[1, 5, 48\]"):
        render_volume(ball, looking_along_z(), draws=Draws(torch.zeros(1, 5, 48), torch.zeros(1, 5, 4)))
