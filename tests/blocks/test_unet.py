from __future__ import annotations

import torch
from parity.rule import assert_close, draw, fill, parity_arrays

from fourdface.blocks.conv_encoder import with_coordinates
from fourdface.blocks.unet import BackgroundUNet


@torch.no_grad()
def test_it_is_portrait4ds_background() -> None:
    network = fill(BackgroundUNet(), "background.")
    out = network(with_coordinates(draw("in:app128", (1, 3, 128, 128), "pm1")))
    assert_close(out[:, ::2, ::2, ::2], parity_arrays("psi_background_unet.npz")["out128_sub"])
