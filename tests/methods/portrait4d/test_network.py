"""Psi as a whole: entries, halves, cameras, and (slow) the published size with rule-made weights."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from parity.rule import PSI_EQLR, assert_close, draw, fill, manifest_shapes, parity_arrays, parity_folder

from fourdface.blocks.conv_encoder import with_coordinates
from fourdface.blocks.head_model import HeadModel
from fourdface.blocks.rays import camera_from_label, camera_rays
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.blocks.volume_renderer import RaySampling
from fourdface.errors import FourdError
from fourdface.methods.portrait4d.config import SIZES, ReconstructorConfig
from fourdface.methods.portrait4d.engine import neck_pose
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.view import OPEN_FACE_ANCHOR, portrait_label
from fourdface.ops.triplane_sample import triplane_sample
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.head import HeadGeometry
from support.heads import parity_pose, synthetic_flame

TINY = replace(SIZES["tiny"], motion=548, motion_encoder="pdfgc")


@pytest.fixture(scope="module")
def tiny() -> Reconstructor:
    network = Reconstructor(replace(TINY, resolution=64, render_size=16, coarse_samples=8, fine_samples=8))
    return fill(network, eqlr=PSI_EQLR).requires_grad_(False)


def inputs(network: Reconstructor, batch: int = 1) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    side = network.config.resolution
    image = torch.rand(batch, 3, side, side, generator=generator) * 2 - 1
    motions = [torch.randn(batch, network.config.motion, generator=generator) for _ in range(2)]
    return (image, *motions)


def test_entries_are_those_of_the_published_checkpoints() -> None:
    """One to one: names and shapes; index lists follow the head model, as the manifest says."""
    manifest = manifest_shapes("portrait4d_psi_state_dict_manifest.json")
    with torch.device("meta"):
        own = Reconstructor().state_dict()
    head = {f"deformer.flame_deform.{key}" for key in synthetic_flame().state_dict()}
    assert len(manifest) == 426 and set(own) | head == set(manifest)
    assert {key: tuple(value.shape) for key, value in own.items()} == {key: manifest[key] for key in own}
    counted = sum(value.numel() for key, value in own.items() if key not in _buffers())
    assert counted + 9 == 224766132, "the two poses of the head model are the other 9"


def _buffers() -> set[str]:
    content = json.loads((parity_folder() / "portrait4d" / "portrait4d_psi_state_dict_manifest.json").read_text())
    return {key for key, entry in content["state_dict"].items() if entry["kind"] == "buffer"}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    with torch.device("meta"):
        network = Reconstructor(SIZES[name])
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    assert {"tiny": 2 < millions < 5, "small": 20 < millions < 60, "paper": 224 < millions < 226}[name]
    assert ReconstructorConfig.from_json(SIZES[name].to_json()) == SIZES[name]


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"widht": 4}', '{"width": -4}', '{"width": "4"}', '{"global_depths": [1]}', '{"width": 1e99}']
)
def test_impossible_settings_are_refused(text: str) -> None:
    with pytest.raises(FourdError):
        ReconstructorConfig.from_json(text)


def test_halves_make_the_whole(tiny: Reconstructor) -> None:
    image, source_motion, motion = inputs(tiny, 2)
    whole = tiny(image, source_motion, motion, frontal_label(batch=2))
    source = tiny.encode_source(image, source_motion)
    planes = tiny.planes(source, motion)
    assert planes.shape == (2, 3, TINY.plane_channels, 32, 32)
    assert torch.equal(whole.picture, tiny.render(planes, frontal_label(batch=2), source.background).picture)
    assert whole.picture.shape == (2, 3, 64, 64) and whole.features.shape == (2, TINY.plane_channels, 16, 16)
    one = tiny(image[1:], source_motion[1:], motion[1:], frontal_label())
    torch.testing.assert_close(whole.picture[1:], one.picture, atol=1e-4, rtol=1e-4)


def test_static_lifting_ignores_motions(tiny: Reconstructor) -> None:
    image, source_motion, motion = inputs(tiny)
    pictures = [
        tiny(image, a, b, frontal_label(), motion_scale=0.0).picture
        for a, b in ((source_motion, motion), (motion * 0, source_motion))
    ]
    assert torch.equal(*pictures)
    moved = tiny(image, source_motion, motion, frontal_label()).picture
    assert not torch.allclose(moved, pictures[0], atol=1e-4)


def test_a_straight_face_lies_behind_its_own_pixels() -> None:
    """`source_frame` plane: what a pixel shows is found on the xy-plane where its ray meets the face."""
    network = Reconstructor(SIZES["tiny"])
    side, box = network.config.resolution, network.config.box_size
    picture = torch.full((1, 3, side, side), -1.0)
    picture[:, :, 40:46, 80:86] = 1.0  # above the middle, on the right
    label = portrait_label(torch.zeros(1, 3), OPEN_FACE_ANCHOR)
    world_to_camera, intrinsics = camera_from_label(label, side, axes="opengl")
    origins, directions = camera_rays(world_to_camera, intrinsics, side, side)
    on_face = intrinsics[0, 0, 0] * network.config.frame_width / side  # distance at which the photo is so wide
    along = directions @ world_to_camera[0, 2, :3]
    points = (origins + directions * (on_face / along.abs())[..., None])[:, 43 * side + 83][:, None]
    planes = torch.zeros(1, 3, 3, side, side)
    planes[:, 0] = network._in_frame(picture)
    found = triplane_sample(planes, points, axes="portrait4d", box_size=box, reduce="sum")
    torch.testing.assert_close(found, torch.ones(1, 1, 3))
    assert (network._in_frame(picture) > 0).float().mean() < 36 / side**2
    half = picture.bfloat16().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network._in_frame(half).float(), network._in_frame(picture), atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [8, 16, 33, 64])
def test_large_renders_are_shown_without_super_resolution(tiny: Reconstructor, size: int) -> None:
    image, source_motion, motion = inputs(tiny)
    out = tiny(image, source_motion, motion, frontal_label(), size=size)
    side = 64 if size <= 16 else size
    assert out.picture.shape == (1, 3, side, side)
    assert size <= 16 or torch.equal(out.picture, out.features[:, :3])


def test_rendering_is_without_chance_unless_a_seed_asks(tiny: Reconstructor) -> None:
    image, source_motion, motion = inputs(tiny)
    first, second = (tiny(image, source_motion, motion, frontal_label()).picture for _ in range(2))
    assert torch.equal(first, second)
    jitter = [RaySampling(8, 8, placement="jitter", seed=seed) for seed in (1, 1, 2)]
    one, same, other = (
        tiny(image, source_motion, motion, frontal_label(), sampling=sampling).features for sampling in jitter
    )
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_turning_the_neck_is_turning_the_camera() -> None:
    """A head that turns as a whole looks like the same head from the camera turned the other way."""
    geometry = HeadGeometry.from_head_model(HeadModel.load("open"))
    network = Reconstructor(replace(TINY, resolution=64, render_size=16, coarse_samples=32, fine_samples=0), geometry)
    network = fill(network, eqlr=PSI_EQLR).requires_grad_(False)
    torch.manual_seed(3)
    planes = torch.nn.functional.interpolate(torch.randn(3, 16, 6, 6), size=(32, 32), mode="bicubic")[None] * 2
    turn = torch.tensor([[0.0, 0.25, 0.0]])
    background = torch.zeros(1, 16, 16, 16)
    pose = neck_pose(geometry, turn)
    turned = network.render(planes, frontal_label(), background, warp=network.warp(pose)).features
    by_grid = network.render(planes, frontal_label(), background, warp=network.warp_grid(pose)).features
    assert (by_grid - turned).abs().max() < 0.02 and (by_grid - turned).abs().mean() < 1e-3
    label = frontal_label()
    matrix = label[:, :16].reshape(4, 4)
    back = axis_angle_to_matrix(-turn)[0]
    moved = matrix.clone()
    moved[:3] = back @ matrix[:3]
    label[:, :16] = moved.reshape(1, 16)
    seen = network.render(planes, label, background).features
    still = network.render(planes, frontal_label(), background).features
    middle = (slice(None), slice(None), slice(5, 11), slice(5, 11))  # the neck itself bends, the head turns
    error = (turned - seen)[middle].abs().mean()
    assert error < 0.5 * (still - seen)[middle].abs().mean()


def test_a_picture_of_another_size_is_refused(tiny: Reconstructor) -> None:
    with pytest.raises(ValueError, match=r"\[B, 3, 64, 64\]"):
        tiny.encode_source(torch.zeros(1, 3, 128, 128), torch.zeros(1, 548))


def test_without_a_head_the_neck_cannot_turn(tiny: Reconstructor) -> None:
    with pytest.raises(ValueError, match="head geometry"):
        tiny.warp(parity_pose()[:1])


@pytest.mark.slow
@pytest.mark.timeout(1800)
@torch.no_grad()
def test_the_published_network_with_weights_by_rule() -> None:
    """The whole network at full size, as the parity data call it, and the module fixtures through it.

    `fill(Reconstructor(head=geometry), eqlr=PSI_EQLR)` is the network with rule-made weights, and `render` gives the
    picture of planes and cameras: this is the call for cases that are kept elsewhere.
    """
    network = fill(Reconstructor(head=synthetic_flame()), eqlr=PSI_EQLR)
    small = with_coordinates(draw("in:app128", (1, 3, 128, 128), "pm1"))
    assert_close(network.encoder_global(small), parity_arrays("psi_encoder_global.npz")["out128"])
    assert_close(
        network.background(small)[:, :, ::2, ::2][:, ::2], parity_arrays("psi_background_unet.npz")["out128_sub"]
    )
    image, driving, source_motion = (
        draw("in:app512", (1, 3, 512, 512), "pm1"),
        draw("in:mot", (1, 548)),
        draw("in:motapp", (1, 548)),
    )
    source = network.encode_source(image, source_motion)
    planes = network.planes(source, driving)
    expected = _statistics()
    assert planes.mean().item() == pytest.approx(expected["planes"]["mean"], abs=1e-6)
    assert planes.double().abs().sum().item() == pytest.approx(expected["planes"]["abs_sum"], rel=1e-6)
    out = network.render(planes, frontal_label(), source.background, warp=network.warp(parity_pose()[:1]), size=64)
    assert out.picture.shape == (1, 3, 512, 512)
    # The published coarse mesh of the neck's deformation is not part of the parity data, hence the wide limits.
    for name, value in (("image", out.features[:, :3]), ("image_sr", out.picture), ("T_bg", out.transmittance)):
        assert value.mean().item() == pytest.approx(expected[name]["mean"], abs=2e-3), name
        assert value.std().item() == pytest.approx(expected[name]["std"], abs=2e-3), name


def _statistics() -> dict[str, dict[str, float]]:
    entries = json.loads((parity_folder() / "portrait4d" / "index.json").read_text(encoding="utf-8"))
    return next(entry["stats"] for entry in entries if entry["file"].startswith("psi_full_synthesis"))
