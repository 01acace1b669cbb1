from __future__ import annotations

import pytest
import torch
from parity.rule import assert_close, draw, fill, parity_arrays

from fourdface.blocks.segformer import (
    Attention,
    MotionBlock,
    OverlapPatchEmbed,
    SegFormerBlock,
    enlarged,
    to_image,
    to_tokens,
)


@torch.no_grad()
def test_motion_block_is_portrait4ds() -> None:
    given = parity_arrays("psi_blocks.npz")
    block = fill(MotionBlock(1024, 4), "encoder_canonical.trans_blocks_neutral.0.")
    x, y = draw("in:tok", (1, 64, 1024)), draw("in:ytok", (1, 64, 1024))
    assert_close(block(x, y, (8, 8), 1.0), given["cross_scale1"])
    assert_close(block(x, y, (8, 8), 0.0), given["cross_scale0"])
    assert_close(block(x, y, (8, 8), torch.zeros(1, 1, 1)), given["cross_scale0"])


@torch.no_grad()
def test_reduced_block_is_portrait4ds() -> None:
    block = fill(SegFormerBlock(1024, 2, reduction=2), "generator_triplane.trans_blocks.0.")
    out = block(draw("in:tok2", (1, 256, 1024)), (16, 16))
    assert_close(out[:, ::4], parity_arrays("psi_blocks.npz")["dec_block_sub"])


def test_attention_is_softmax_of_scaled_products() -> None:
    """An independent truth in float64: one head, weights written out."""
    torch.manual_seed(0)
    attention = Attention(6, 1).double()
    x, y = torch.randn(1, 5, 6).double(), torch.randn(1, 7, 6).double()
    q = x @ attention.q.weight.T + attention.q.bias
    k, v = (y @ attention.kv.weight.T + attention.kv.bias).split(6, -1)
    weights = torch.softmax(q @ k.transpose(1, 2) / 6**0.5, -1)
    torch.testing.assert_close(attention(x, y), attention.proj(weights @ v))


@pytest.mark.parametrize("queries", [1, 31, 513, 1100])
@torch.no_grad()
def test_half_precision_attends_in_pieces_to_the_same_result(queries: int) -> None:
    torch.manual_seed(0)
    attention = Attention(32, 2)
    x, y = torch.randn(2, queries, 32), torch.randn(2, 40, 32)
    expected = attention(x, y)
    found = attention.to(torch.bfloat16)(x.bfloat16(), y.bfloat16())
    assert found.dtype == torch.bfloat16 and found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)


def test_tokens_are_rows_of_the_image() -> None:
    image = torch.arange(2 * 3 * 4 * 5).float().reshape(2, 3, 4, 5)
    tokens = to_tokens(image)
    assert (tokens[1, 5 * 2 + 3] == image[1, :, 2, 3]).all()
    assert (to_image(tokens, (4, 5)) == image).all()


def test_enlarged_is_pixel_shuffle() -> None:
    tokens = torch.randn(2, 3 * 5, 8)
    assert torch.equal(enlarged(tokens, (3, 5)), torch.nn.functional.pixel_shuffle(to_image(tokens, (3, 5)), 2))


def test_patch_embedding_halves_odd_sizes_upwards() -> None:
    tokens, size = OverlapPatchEmbed(3, 8)(torch.rand(1, 3, 7, 10))
    assert size == (4, 5) and tokens.shape == (1, 20, 8)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        Attention(10, 3)
    with pytest.raises(ValueError, match="grid"):
        Attention(8, 2, reduction=2)(torch.rand(1, 4, 8))
