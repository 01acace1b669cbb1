from __future__ import annotations

import torch

from fourdface.blocks.hourglass import FAN, Hourglass, PyramidBlock


def test_pyramid_block_adds_its_input() -> None:
    """With its convolutions at zero the block is its shortcut."""
    block = PyramidBlock(8, 8).eval()
    for name, weight in block.named_parameters():
        if name.startswith("conv"):
            torch.nn.init.zeros_(weight)
    x = torch.randn(1, 8, 5, 6)
    assert torch.equal(block(x), x)


@torch.no_grad()
def test_hourglass_keeps_odd_sizes() -> None:
    assert Hourglass(2, 8).eval()(torch.randn(1, 8, 7, 14)).shape == (1, 8, 7, 14)


@torch.no_grad()
def test_fan_gives_one_map_per_point() -> None:
    assert FAN(points=5, channels=16, depth=2).eval()(torch.rand(1, 3, 64, 64)).shape == (1, 5, 16, 16)
