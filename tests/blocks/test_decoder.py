"""The decoder of tri-plane features."""

from __future__ import annotations

import pytest
import torch
from parity.rule import GENHEAD_EQLR, assert_close, draw, fill, manifest_shapes, parity_arrays

from fourdface.blocks.decoder import OSGDecoder


def test_two_heads() -> None:
    numbers = parity_arrays("osg_decoder.npz")
    decoder = fill(OSGDecoder(heads=2), "decoder.", eqlr=GENHEAD_EQLR)
    rgb, sigma = decoder(draw("in:osg", (1, 3, 128, 32)))
    assert_close(rgb, numbers["rgb"])
    assert_close(sigma, numbers["sigma"])


def test_one_head_is_eg3ds() -> None:
    planes = parity_arrays("eg3d_planes_camera_fixture.npz", "eg3d_gen3d_coherent3d")
    weights = parity_arrays("eg3d_renderer_fixture.npz", "eg3d_gen3d_coherent3d")
    decoder = OSGDecoder()
    decoder.load_state_dict(
        {f"net.{2 * i}.{key}": weights[f"dec_fc{i}_{key}"] for i in (0, 1) for key in ("weight", "bias")}
    )
    rgb, sigma = decoder(_features(weights["planes"], planes["proj_eg3d"]))
    assert_close(rgb, planes["dec_rgb_eg3d"], absolute=1e-4)
    assert_close(sigma, planes["dec_sigma_eg3d"], absolute=1e-3)


def _features(planes: torch.Tensor, projected: torch.Tensor) -> torch.Tensor:
    """Features [1, 3, N, C] of points that are projected onto the planes [3, N, 2]."""
    looked_up = torch.nn.functional.grid_sample(planes[0], projected[:, None], align_corners=False)
    return looked_up[:, :, 0].transpose(1, 2)[None]


@pytest.mark.parametrize(
    ("heads", "manifest", "group"),
    [
        (2, "portrait4d_psi_state_dict_manifest.json", "portrait4d"),
        (2, "genhead_generator_state_dict_manifest.json", "portrait4d"),
        (1, "manifest_eg3d_ffhq512_generator.json", "eg3d_gen3d_coherent3d"),
    ],
)
def test_published_entries(heads: int, manifest: str, group: str) -> None:
    expected = {k: v for k, v in manifest_shapes(manifest, group).items() if k.startswith("decoder.")}
    entries = OSGDecoder(heads=heads).state_dict()
    assert {f"decoder.{key}": tuple(value.shape) for key, value in entries.items()} == expected


def test_density_is_zero_at_first_with_two_heads() -> None:
    assert torch.equal(OSGDecoder(heads=2)(draw("f", (1, 3, 5, 32)))[1], torch.zeros(1, 5, 1))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="heads must be 1 or 2"):
        OSGDecoder(heads=3)
    with pytest.raises(ValueError, match="features must be"):
        OSGDecoder()(torch.zeros(3, 5, 32))
