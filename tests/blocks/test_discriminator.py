"""The discriminator of several pictures: numbers of the paper's code at full size, everything else small."""

from __future__ import annotations

import pytest
import torch
from parity.rule import assert_close, draw, fill, manifest_shapes, parity_arrays

from fourdface.blocks.discriminator import DiscriminatorConfig, DualDiscriminator, minibatch_deviation

SMALL = DiscriminatorConfig(resolution=16, img_channels=7, label_dim=5, channel_base=64, mapping_layers=2)


@pytest.mark.slow
@torch.no_grad()
def test_genhead_numbers() -> None:
    numbers = parity_arrays("dual_discriminator.npz")
    network = fill(DualDiscriminator(), "D.", eqlr=("",))
    others = (
        draw("in:d_raw", (2, 3, 64, 64), "pm1"),
        draw("in:d_uv", (2, 3, 512, 512), "pm1"),
        draw("in:d_seg", (2, 1, 64, 64), "pm1"),
    )
    assert_close(network(draw("in:d_sr", (2, 3, 512, 512), "pm1"), others, numbers["c"]), numbers["logits"])


def test_published_entries() -> None:
    with torch.device("meta"):
        entries = DualDiscriminator().state_dict()
    expected = manifest_shapes("dual_discriminator_state_dict_manifest.json")
    assert {key: tuple(value.shape) for key, value in entries.items()} == expected


def test_eg3ds_entries() -> None:
    with torch.device("meta"):
        entries = DualDiscriminator(DiscriminatorConfig(img_channels=6)).state_dict()
    expected = manifest_shapes("manifest_eg3d_ffhq512_discriminator.json", "eg3d_gen3d_coherent3d")
    assert {key: tuple(value.shape) for key, value in entries.items()} == expected


def test_deviation_is_that_of_its_group() -> None:
    x = draw("x", (4, 3, 2, 2))
    out = minibatch_deviation(x, 2)
    assert torch.equal(out[:, :3], x)
    expected = torch.stack([x[0], x[2]]).std(0, unbiased=False).mean()
    torch.testing.assert_close(out[2, 3], expected.expand(2, 2), rtol=1e-4, atol=1e-5)
    assert minibatch_deviation(x[:1], 2).shape == (1, 4, 2, 2)
    with pytest.raises(ValueError, match="multiple of the discriminator's group"):
        minibatch_deviation(x[:3], 2)


def test_label_and_every_picture_count() -> None:
    network = fill(DualDiscriminator(SMALL), eqlr=("",))
    image, raw, mask = draw("i", (2, 3, 16, 16)), draw("r", (2, 3, 4, 4)), draw("m", (2, 1, 8, 8))
    label = draw("c", (2, 5))
    score = network(image, (raw, mask), label)
    assert score.shape == (2, 1)
    for changed in ((image * 2, (raw, mask), label), (image, (raw, -mask), label), (image, (raw, mask), -label)):
        assert not torch.allclose(network(*changed), score)


def test_gradient_penalty_reaches_the_weights() -> None:
    """R1: the gradient of the squared gradient of the score with respect to the pictures."""
    network = fill(DualDiscriminator(SMALL), eqlr=("",)).double().train()
    pictures = [draw(k, s).double().requires_grad_() for k, s in (("i", (2, 3, 16, 16)), ("r", (2, 4, 16, 16)))]
    score = network(pictures[0], pictures[1], draw("c", (2, 5)).double())
    gradients = torch.autograd.grad(score.sum(), pictures, create_graph=True)
    sum(g.square().sum() for g in gradients).backward()  # type: ignore[union-attr]
    weights = {name: value.grad for name, value in network.named_parameters() if name.endswith("weight")}
    assert all(g is not None and torch.isfinite(g).all() and g.abs().max() > 0 for g in weights.values())


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"pictures must be \[B, 7, 16, 16\]"):
        DualDiscriminator(SMALL)(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 4, 4), torch.zeros(2, 5))
    with pytest.raises(ValueError, match="power of two"):
        DiscriminatorConfig(resolution=100)
