"""Phi, G_T, the motion encoder and the BFM mapper against the published networks with rule-made weights."""

from __future__ import annotations

import pytest
import torch
from parity.rule import assert_close, draw, fill, manifest_shapes, parity_arrays

from fourdface.methods.portrait4d.bfm_to_flame import BfmToFlame
from fourdface.methods.portrait4d.modules import CanonicalEncoder, TriplaneDecoder
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in module.state_dict().items()}


@torch.no_grad()
def test_canonical_encoder() -> None:
    given = parity_arrays("psi_encoder_canonical.npz")
    network = fill(CanonicalEncoder(), "encoder_canonical.")
    features = draw("in:fglob", (1, 256, 16, 16))
    driving, source = draw("in:mot", (1, 548)), draw("in:motapp", (1, 548))
    coarse, fine = network(features, driving, source, 1.0)
    assert_close(coarse, given["lr"])
    assert_close(fine[:, ::2, ::2, ::2], given["sr_sub"])
    for scale in (0.0, torch.zeros(1, 1, 1)):
        static = network(features, driving, source, scale)[1]
        assert_close(static[:, ::2, ::2, ::2], given["sr_scale0_sub"])


@torch.no_grad()
def test_motion_scale_is_per_item() -> None:
    network = CanonicalEncoder(8, 4, width=16, blocks=1, heads=2, motion=5, hidden=8, tokens=3, channels=4).eval()
    features, driving, source = torch.randn(2, 8, 8, 8), torch.randn(2, 5), torch.randn(2, 5)
    both = network(features, driving, source, torch.tensor([1.0, 0.0]).view(2, 1, 1))[1]
    torch.testing.assert_close(both[:1], network(features[:1], driving[:1], source[:1], 1.0)[1])
    torch.testing.assert_close(both[1:], network(features[1:], driving[1:], source[1:], 0.0)[1])


@torch.no_grad()
def test_triplane_decoder() -> None:
    network = fill(TriplaneDecoder(), "generator_triplane.")
    planes = network(draw("in:gt_g", (1, 96, 64, 64)), draw("in:gt_d", (1, 96, 64, 64)))
    assert_close(planes[:, ::2, ::2, ::2], parity_arrays("psi_triplane_decoder.npz")["out_sub"])


@torch.no_grad()
def test_motion_encoder() -> None:
    given = parity_arrays("pdfgc_motion_encoder.npz")
    network = fill(MotionEncoder(), "pdfgc.")
    assert shapes(network) == manifest_shapes("pdfgc_motion_encoder_state_dict_manifest.json")
    motion = network(draw("in:pdfgc", (1, 3, 224, 224), "pm1"))
    for name, value in (("headpose", motion.head_pose), ("eye", motion.eyes), ("emo", motion.emotion)):
        assert_close(value, given[name])
    assert_close(motion.mouth, given["mouth"])
    assert_close(motion.embedding(), given["motion548"])


@torch.no_grad()
def test_bfm_to_flame() -> None:
    network = fill(BfmToFlame(), "mapper.")
    assert shapes(network) == manifest_shapes("bfm2flame_mapper_state_dict_manifest.json")
    shape, expression, jaw = network(draw("in:bfm", (2, 144)))
    assert (shape.shape, expression.shape, jaw.shape) == ((2, 300), (2, 100), (2, 3))
    assert_close(torch.cat([shape, expression, jaw], -1), parity_arrays("bfm2flame_mapper.npz")["out"])


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(ValueError, match="heads"):
        TriplaneDecoder(8, 6, width=32, heads=5)
