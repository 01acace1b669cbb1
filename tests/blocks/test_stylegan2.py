"""StyleGAN2's blocks against numbers of the papers' code, and modulated convolution against its definition."""

from __future__ import annotations

import pytest
import torch
from parity.rule import GENHEAD_EQLR, assert_close, draw, fill, manifest_shapes, parity_arrays
from torch.nn.functional import conv2d

from fourdface.blocks.stylegan2 import (
    FullyConnected,
    MappingNetwork,
    StyleGAN2Generator,
    SynthesisBlock,
    SynthesisNetwork,
    modulated_conv2d,
)
from fourdface.ops.upfirdn2d import binomial_filter

GENERATOR_MANIFEST = "genhead_generator_state_dict_manifest.json"


@pytest.fixture(scope="module")
def numbers() -> dict[str, torch.Tensor]:
    return parity_arrays("stylegan2_ops_fixture.npz", "eg3d_gen3d_coherent3d")


def part(numbers: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in numbers.items() if key.startswith(prefix)}


def test_modulated_convolution(numbers: dict[str, torch.Tensor]) -> None:
    x, weight, styles = numbers["x"], numbers["w"], numbers["styles"]
    assert_close(modulated_conv2d(x, weight, styles), numbers["modconv_up1"], absolute=1e-5)
    doubled = modulated_conv2d(x, weight, styles, up=2, resample_filter=binomial_filter())
    assert_close(doubled, numbers["modconv_up2"], absolute=1e-5)
    assert_close(modulated_conv2d(x, weight, styles, demodulate=False), numbers["modconv_up1_nodemod"], absolute=1e-4)


def test_modulated_convolution_is_its_definition() -> None:
    """Weights scaled, normalised and applied sample by sample."""
    x, weight, styles = draw("a", (3, 4, 5, 6)).double(), draw("b", (2, 4, 3, 3)).double(), draw("c", (3, 4)).double()
    for i in range(3):
        w = weight * styles[i, None, :, None, None]
        w = w / (w.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        expected = conv2d(x[i : i + 1], w, padding=1)
        torch.testing.assert_close(modulated_conv2d(x, weight, styles)[i : i + 1], expected)
        torch.testing.assert_close(modulated_conv2d(x[i : i + 1], weight, styles[i : i + 1]), expected)
    assert torch.equal(modulated_conv2d(x, weight, torch.zeros(3, 4).double()), torch.zeros(3, 2, 5, 6).double())


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_one_sample_is_as_in_a_batch(up: int, demodulate: bool) -> None:
    x, weight, styles = draw("a", (3, 4, 5, 6)).double(), draw("b", (2, 4, 3, 3)).double(), draw("c", (3, 4)).double()
    options = {"up": up, "resample_filter": binomial_filter(), "demodulate": demodulate}
    whole = modulated_conv2d(x, weight, styles, **options)  # type: ignore[arg-type]
    one = modulated_conv2d(x[1:2], weight, styles[1:2], **options)  # type: ignore[arg-type]
    torch.testing.assert_close(one, whole[1:2])


def test_modulated_convolution_in_half_precision_does_not_overflow() -> None:
    """Activations at the clamp, large styles and stored weights: bfloat16 and float16 stay near float32."""
    x, weight, styles = draw("h", (2, 256, 4, 4)) * 100, draw("w", (8, 256, 3, 3)), draw("s", (2, 256)) * 50
    exact = modulated_conv2d(x, weight, styles)
    low = modulated_conv2d(x.half(), weight, styles)
    assert low.dtype == torch.float16
    torch.testing.assert_close(low.float(), exact, rtol=0.02, atol=0.02 * float(exact.abs().max()))


def test_mapping(numbers: dict[str, torch.Tensor]) -> None:
    mapping = MappingNetwork(16, 25, 16, 4, num_layers=2)
    mapping.load_state_dict(part(numbers, "map."))
    z, c = numbers["map_z"], numbers["map_c"]
    assert_close(mapping(z, c), numbers["map_ws"], absolute=1e-5)
    assert_close(mapping(z, c, truncation=0.7), numbers["map_ws_psi0.7"], absolute=1e-5)
    assert_close(mapping(z, c, truncation=0.7, truncation_cutoff=2), numbers["map_ws_psi0.7_cut2"], absolute=1e-5)


def test_running_mean_of_styles() -> None:
    mapping = MappingNetwork(4, 0, 4, 2, num_layers=1, average_decay=0.5)
    w = mapping(torch.randn(8, 4), update_average=True)[:, 0]
    torch.testing.assert_close(mapping.w_avg, 0.5 * w.mean(0).detach())


@pytest.mark.parametrize("mode", ["const", "none"])
def test_block(numbers: dict[str, torch.Tensor], mode: str) -> None:
    block = SynthesisBlock(8, 6, 16, 16, 3)
    block.load_state_dict(part(numbers, "blk."))
    x, img = block(numbers["blk_x"], numbers["blk_img"], numbers["blk_ws"], mode)  # type: ignore[arg-type]
    assert_close(x, numbers[f"blk_out_x_{mode}"], absolute=1e-5)
    assert_close(img, numbers[f"blk_out_img_{mode}"], absolute=1e-5)


def test_random_noise_is_drawn_per_sample() -> None:
    network = fill(SynthesisNetwork(8, 8, 3, channel_base=32), eqlr=("",))
    ws = draw("ws", (1, network.num_ws, 8)).repeat(2, 1, 1)  # type: ignore[operator]
    torch.manual_seed(0)
    first = network(ws)[0]
    torch.manual_seed(0)
    assert torch.equal(first, network(ws)[0])
    assert not torch.equal(first[0], first[1])


def test_gradients_of_a_small_generator() -> None:
    """Every parameter takes part, twice differentiable in the latent (path length, R1)."""
    generator = StyleGAN2Generator(4, 3, 4, 8, 3, mapping_layers=1, channel_base=32).double()
    for layer in ("b4.conv1", "b8.conv0", "b8.conv1"):
        torch.nn.init.ones_(generator.synthesis.get_submodule(layer).noise_strength)  # type: ignore[arg-type]
    ws = torch.randn(1, generator.num_ws, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda w: generator.synthesis(w, "const")[0].square().mean(), (ws,))
    image = generator.synthesis(ws, "const")[0]
    image.square().mean().backward()
    missing = [name for name, value in generator.synthesis.named_parameters() if value.grad is None]
    assert not missing


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"z must be \[B, 4\], got \(2, 3\)"):
        MappingNetwork(4, 0, 4, 2)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="z_dim and c_dim"):
        MappingNetwork(0, 0, 4, 2)
    with pytest.raises(ValueError, match="power of two"):
        SynthesisNetwork(8, 48, 3)
    network = SynthesisNetwork(8, 8, 3, channel_base=32)
    with pytest.raises(ValueError, match=r"ws must be \[B, 4, w_dim\]"):
        network(torch.zeros(1, 3, 8))
    with pytest.raises(ValueError, match="noise_mode"):
        network(torch.zeros(1, 4, 8), "loud")
    assert FullyConnected(3, 2, bias=False)(torch.ones(1, 3)).shape == (1, 2)


@pytest.fixture(scope="module")
def backbone() -> torch.nn.Module:
    """GenHead's generator of planes, with weights by rule."""
    return fill(StyleGAN2Generator(512, 325, 512, 256, 192, mapping_layers=2), "backbone.", eqlr=GENHEAD_EQLR)


def test_backbone_has_the_published_entries(backbone: torch.nn.Module) -> None:
    expected = {k: v for k, v in manifest_shapes(GENERATOR_MANIFEST).items() if k.startswith("backbone.")}
    assert {f"backbone.{key}": tuple(value.shape) for key, value in backbone.state_dict().items()} == expected


def test_genhead_mapping(backbone: torch.nn.Module) -> None:
    numbers, z = parity_arrays("genhead_mapping.npz"), draw("in:z", (1, 512))
    mapping = backbone.mapping
    assert isinstance(mapping, MappingNetwork)
    assert_close(mapping(z, numbers["c"])[:, 3], numbers["w"])
    assert_close(mapping(z, numbers["c"], truncation=0.7, truncation_cutoff=14)[:, 13], numbers["w_trunc07"])


@torch.no_grad()
def test_genhead_planes(backbone: torch.nn.Module) -> None:
    numbers, ws = parity_arrays("genhead_backbone.npz"), draw("in:wsrow", (1, 1, 512)).repeat(1, 14, 1)
    synthesis = backbone.synthesis
    assert isinstance(synthesis, SynthesisNetwork)
    planes, last = synthesis(ws, "const")
    assert_close(planes[:, ::8, ::16, ::16], numbers["planes_const_sub"])
    assert_close(last[:, ::8, ::16, ::16], numbers["last_feat_sub"])
    assert_close(synthesis(ws, "none")[0][:, ::8, ::16, ::16], numbers["planes_none_sub"])


@torch.no_grad()
def test_genhead_background() -> None:
    generator = fill(StyleGAN2Generator(512, 0, 512, 64, 32, channel_base=16384), "background.", eqlr=GENHEAD_EQLR)
    expected = {k: v for k, v in manifest_shapes(GENERATOR_MANIFEST).items() if k.startswith("background.")}
    assert {f"background.{key}": tuple(value.shape) for key, value in generator.state_dict().items()} == expected
    out = generator(draw("in:z", (1, 512)), None, "const")[..., ::2, ::2]
    assert_close(out, parity_arrays("genhead_background.npz")["bg_sub"])
