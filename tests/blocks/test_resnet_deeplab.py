from __future__ import annotations

import pytest
import torch
from parity.rule import assert_close, draw, fill, parity_arrays

from fourdface.blocks.conv_encoder import with_coordinates
from fourdface.blocks.resnet_deeplab import ResNetDeepLab


@torch.no_grad()
def test_it_is_portrait4ds_global_encoder() -> None:
    network = fill(ResNetDeepLab(), "encoder_global.")
    out = network(with_coordinates(draw("in:app128", (1, 3, 128, 128), "pm1")))
    assert_close(out, parity_arrays("psi_encoder_global.npz")["out128"])


@pytest.mark.slow
@torch.no_grad()
def test_it_is_portrait4ds_global_encoder_at_full_size() -> None:
    network = fill(ResNetDeepLab(), "encoder_global.")
    out = network(with_coordinates(draw("in:app512", (1, 3, 512, 512), "pm1")))
    assert_close(out[:, ::4, ::4, ::4], parity_arrays("psi_encoder_global.npz")["out512_sub"])


@pytest.mark.parametrize("size", [(32, 48), (64, 64)])
@torch.no_grad()
def test_output_is_an_eighth_of_the_size(size: tuple[int, int]) -> None:
    network = ResNetDeepLab(3, 6, width=4, depths=(1, 1, 1, 1), rates=(2,))
    assert network(torch.rand(2, 3, *size)).shape == (2, 6, size[0] // 8, size[1] // 8)
