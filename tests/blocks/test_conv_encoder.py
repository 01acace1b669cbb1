from __future__ import annotations

import torch
from parity.rule import assert_close, draw, fill, parity_arrays

from fourdface.blocks.conv_encoder import DetailEncoder, with_coordinates


def test_coordinates_are_x_then_y_from_minus_one_to_one() -> None:
    both = with_coordinates(torch.zeros(2, 3, 5, 9))
    assert both.shape == (2, 5, 5, 9)
    assert both[1, 3, 0, 0] == both[1, 4, 0, 0] == -1
    assert both[1, 3, 0, -1] == both[1, 4, -1, 0] == 1
    assert (both[:, 3, 0] == both[:, 3, 4]).all() and (both[:, 4, :, 0] == both[:, 4, :, 8]).all()


@torch.no_grad()
def test_detail_encoder_is_portrait4ds() -> None:
    network = fill(DetailEncoder(), "encoder_detail.")
    out = network(with_coordinates(draw("in:app128", (1, 3, 128, 128), "pm1")))
    assert_close(out[:, ::2, ::2, ::2], parity_arrays("psi_encoder_detail.npz")["out128_sub"])
