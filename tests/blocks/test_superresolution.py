"""The super-resolution networks: numbers of the papers' code at full size, sizes of the others."""

from __future__ import annotations

import pytest
import torch
from parity.rule import assert_close, draw, fill, manifest_shapes, parity_arrays

from fourdface.blocks.superresolution import VARIANTS, Superresolution, SuperresolutionConfig, constant_style


@pytest.mark.slow
@torch.no_grad()
def test_8xdc_numbers() -> None:
    network = fill(Superresolution(), "superresolution.", eqlr=("superresolution.",))
    rgb = draw("in:srrgb", (1, 3, 64, 64), "pm1")
    x = torch.cat([rgb, draw("in:srx", (1, 29, 64, 64), "pm1")], dim=1)
    out = network(rgb, x, draw("in:srw", (1, 1, 512)))
    assert_close(out[..., ::4, ::4], parity_arrays("superresolution_8xdc.npz")["out64_sub"])
    assert abs(float(out.std()) - 0.5493006706880187) < 1e-4


@pytest.mark.parametrize(
    "manifest", ["genhead_generator_state_dict_manifest.json", "portrait4d_psi_state_dict_manifest.json"]
)
def test_8xdc_has_the_published_entries(manifest: str) -> None:
    expected = {k: v for k, v in manifest_shapes(manifest).items() if k.startswith("superresolution.")}
    entries = Superresolution().state_dict()
    assert {f"superresolution.{key}": tuple(value.shape) for key, value in entries.items()} == expected


def test_8xdc_is_eg3ds() -> None:
    manifest = manifest_shapes("manifest_eg3d_ffhq512_generator.json", "eg3d_gen3d_coherent3d")
    expected = {k: v for k, v in manifest.items() if k.startswith("superresolution.")}
    entries = Superresolution().state_dict()
    assert {f"superresolution.{key}": tuple(value.shape) for key, value in entries.items()} == expected


@pytest.mark.parametrize("name", sorted(VARIANTS))
@pytest.mark.parametrize("size", [8, 16, 32])
@torch.no_grad()
def test_sizes(name: str, size: int) -> None:
    """Each variant, at an eighth of its size and of its channels, from smaller, equal and larger input."""
    full = VARIANTS[name]
    config = SuperresolutionConfig(
        full.input_resolution // 8, full.output_resolution // 8, (16, 8), only_enlarge=full.only_enlarge
    )
    network = Superresolution(6, config, w_dim=8)
    x = draw("x", (2, 6, size, size))
    out = network(x[:, :3], x, constant_style(2, 8, x))
    kept = full.only_enlarge and size > config.input_resolution
    expected = size * config.output_resolution // config.input_resolution if kept else config.output_resolution
    assert out.shape == (2, 3, expected, expected)


def test_the_last_style_counts() -> None:
    network = Superresolution(4, SuperresolutionConfig(8, 32, (8, 8)), w_dim=4)
    x, ws = draw("x", (1, 4, 8, 8)), draw("w", (1, 5, 4))
    other = torch.cat([ws[:, :4] * 3, ws[:, 4:]], dim=1)
    assert torch.equal(network(x[:, :3], x, ws), network(x[:, :3], x, other))
    assert not torch.equal(network(x[:, :3], x, ws), network(x[:, :3], x, ws * 3))


def test_other_ratios_are_refused() -> None:
    with pytest.raises(ValueError, match="2 or 4 times"):
        Superresolution(4, SuperresolutionConfig(64, 512))
