"""The networks: shapes, folding of batch normalisation, sizes, rotation head."""

from __future__ import annotations

import pytest
import torch

from fourdface.perception.networks import (
    DetectorNet,
    LandmarkNet,
    MatteNet,
    fuse,
    normalised_shape,
    rotation_from_six,
)


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """Random running statistics, so that folding has something to fold."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.4, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.2)
    return network.eval()


@pytest.mark.parametrize(
    ("kind", "shape"), [(DetectorNet, (2, 3, 64, 96)), (MatteNet, (1, 4, 64, 64)), (LandmarkNet, (2, 3, 128, 128))]
)
def test_fused_network_gives_the_same(kind: type[torch.nn.Module], shape: tuple[int, ...]) -> None:
    network, fused = shaken(kind()), kind(fused=True).eval()
    fused.load_state_dict(fuse(network))
    image = torch.rand(shape)
    with torch.inference_mode():
        expected, got = network(image), fused(image)
    if not isinstance(expected, dict):
        expected, got = {"map": expected}, {"map": got}
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-3, atol=1e-3)


def test_all_networks_fit_eight_megabytes_in_half_precision() -> None:
    count = sum(value.numel() for kind in (DetectorNet, LandmarkNet, MatteNet) for value in fuse(kind()).values())
    assert count * 2 <= 7_900_000


def test_detector_and_matte_keep_the_grid() -> None:
    assert DetectorNet()(torch.rand(1, 3, 96, 160)).shape == (1, 5, 12, 20)
    assert MatteNet()(torch.rand(1, 4, 96, 160)).shape == (1, 1, 96, 160)


def test_landmark_outputs() -> None:
    out = LandmarkNet().eval()(torch.rand(3, 3, 128, 128))
    assert out["landmarks"].shape == (3, 478, 2)
    assert out["coefficients"].shape == (3, 52)
    assert out["presence"].shape == (3,)
    eye = out["rotation"] @ out["rotation"].transpose(1, 2)
    torch.testing.assert_close(eye, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)


def test_rotation_head_starts_at_identity_and_is_proper() -> None:
    torch.testing.assert_close(rotation_from_six(torch.zeros(1, 6))[0], torch.eye(3))
    turned = rotation_from_six(torch.randn(50, 6))
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(50), atol=1e-4, rtol=0)


def test_normalised_shape_forgets_place_and_size() -> None:
    points = torch.randn(2, 478, 2)
    torch.testing.assert_close(normalised_shape(points * 7 + 3), normalised_shape(points), atol=1e-4, rtol=1e-4)
