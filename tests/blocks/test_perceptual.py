"""LPIPS against the layer tables of the papers written down a second time, its heads, gradients and files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from fourdface.assets import get_asset, sha256_of
from fourdface.blocks.perceptual import BACKBONES, NETWORKS, Lpips, load_lpips
from fourdface.errors import FourdError

CHANNELS = {
    "alex": (64, 192, 384, 256, 256),
    "vgg": (64, 128, 256, 512, 512),
    "squeeze": (64, 128, 256, 384, 384, 512, 512),
}
COUNTS = {"alex": 2_469_696, "vgg": 14_714_688, "squeeze": 722_496}
"""Parameters of the convolutions, as the model zoos state them (without the classifiers)."""


def random_weights(network: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    out = {}
    for name, value in Lpips(network).state_dict().items():
        spread = (2.0 / max(1, value[0].numel())) ** 0.5
        out[name] = torch.randn(value.shape, generator=generator) * spread
        if name.startswith("lin"):
            out[name] = out[name].abs()
    return out


def made(network: str) -> tuple[Lpips, dict[str, torch.Tensor]]:
    weights = random_weights(network)
    model = Lpips(network)
    model.load_state_dict(weights)
    return model, weights


def pictures(size: tuple[int, int] = (64, 67)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(2, 3, *size, generator=generator)
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def alex_layers(x, w):
    def conv(k, x, **kw):
        return F.relu(F.conv2d(x, w[f"features.{k}.weight"], w[f"features.{k}.bias"], **kw))

    one = conv(0, x, stride=4, padding=2)
    two = conv(3, F.max_pool2d(one, 3, 2), padding=2)
    three = conv(6, F.max_pool2d(two, 3, 2), padding=1)
    four = conv(8, three, padding=1)
    return [one, two, three, four, conv(10, four, padding=1)]


def vgg_layers(x, w):
    out = []
    for k in (0, 2, "pool", 5, 7, "pool", 10, 12, 14, "pool", 17, 19, 21, "pool", 24, 26, 28):
        if k == "pool":
            out.append(x)
            x = F.max_pool2d(x, 2)
        else:
            x = F.conv2d(x, w[f"features.{k}.weight"], w[f"features.{k}.bias"], padding=1).relu()
    return [*out, x]


def squeeze_layers(x, w):
    def pooled(x):
        return F.max_pool2d(x, kernel_size=3, stride=2, ceil_mode=True)

    def fire(k, x):
        def conv(part, x, padding=0):
            name = f"features.{k}.{part}"
            return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding).relu()

        small = conv("squeeze", x)
        return torch.cat([conv("expand1x1", small), conv("expand3x3", small, 1)], 1)

    one = F.conv2d(x, w["features.0.weight"], w["features.0.bias"], stride=2).relu()
    two = fire(4, fire(3, pooled(one)))
    three = fire(7, fire(6, pooled(two)))
    four = fire(9, pooled(three))
    five = fire(10, four)
    six = fire(11, five)
    return [one, two, three, four, five, six, fire(12, six)]


def second_lpips(network, a, b, w):
    """Equation 1 of the paper, in another arrangement: one channel after the other."""
    layers = {"alex": alex_layers, "vgg": vgg_layers, "squeeze": squeeze_layers}[network]
    shift = torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1)
    total = 0
    for k, (x, y) in enumerate(zip(*(layers(((p * 2 - 1) - shift) / scale, w) for p in (a, b)), strict=True)):
        x, y = (v / ((v * v).sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y))
        weighted = torch.einsum("c,bchw->bhw", w[f"lin{k}.model.1.weight"].flatten(), (x - y) ** 2)
        total = total + weighted.flatten(1).mean(1)
    return total


@pytest.mark.parametrize("network", NETWORKS)
def test_agrees_with_the_tables_of_the_papers(network):
    model, weights = made(network)
    a, b = pictures()
    want = second_lpips(network, a, b, weights)
    assert (model(a, b) - want).abs().max() < 1e-5 * want.abs().max() + 1e-6
    assert model(a, a).abs().max() == 0 and (want > 0).all()


@pytest.mark.parametrize("network", NETWORKS)
def test_names_and_sizes_are_those_of_the_public_files(network):
    weights = Lpips(network).state_dict()
    heads = [tuple(v.shape) for name, v in weights.items() if name.startswith("lin")]
    assert heads == [(1, channels, 1, 1) for channels in CHANNELS[network]]
    assert sum(v.numel() for name, v in weights.items() if name.startswith("features.")) == COUNTS[network]
    assert "lin0.model.1.weight" in weights and "features.0.bias" in weights


def test_is_differentiable_also_where_a_layer_is_silent():
    model, _ = made("alex")
    a, b = pictures((40, 40))
    a[0] = 0.0
    a.requires_grad_()
    model(a, b).sum().backward()
    assert torch.isfinite(a.grad).all() and a.grad[1].abs().max() > 0
    assert not any(value.requires_grad for value in model.parameters())
    step = 1e-3 * a.grad / a.grad.abs().max()
    with torch.no_grad():
        assert model(a - step, b).sum() < model(a, b).sum()


def test_small_pictures_and_unknown_networks_are_refused():
    model, _ = made("squeeze")
    with pytest.raises(ValueError, match="at least 32 x 32 pixels, got 40 x 31"):
        model(torch.zeros(1, 3, 31, 40), torch.zeros(1, 3, 31, 40))
    for network in NETWORKS:
        assert torch.isfinite(Lpips(network)(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32))).all()
    with pytest.raises(ValueError, match="alex, vgg, squeeze, got resnet"):
        Lpips("resnet")


def published(folder: Path, network: str) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    """Files as they are published: the whole backbone with its classifier, and the heads alone."""
    weights = random_weights(network)
    trunk = {name: value for name, value in weights.items() if name.startswith("features.")}
    heads = {name: value for name, value in weights.items() if name.startswith("lin")}
    torch.save({**trunk, "classifier.1.weight": torch.zeros(5, 5)}, folder / "trunk.pth")
    torch.save(heads, folder / "heads.pth", _use_new_zipfile_serialization=False)  # as torch wrote in 2018
    return folder / "trunk.pth", folder / "heads.pth", weights


def test_loads_public_files(tmp_path):
    trunk, heads, weights = published(tmp_path, "alex")
    model = load_lpips("alex", trunk, heads)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    with pytest.raises(FourdError, match="does not fit"):
        load_lpips("vgg", trunk, heads)
    with pytest.raises(FourdError, match="fourd assets fetch alexnet-imagenet"):
        load_lpips("alex")


def test_finds_them_among_the_assets(tmp_path, monkeypatch):
    from fourdface.assets import get_asset, place_of

    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    trunk, heads, weights = published(tmp_path, "alex")
    for name, file in ((BACKBONES["alex"], trunk), ("lpips-alex", heads)):
        place = place_of(get_asset(name))
        place.parent.mkdir(parents=True)
        place.write_bytes(file.read_bytes())
    a, b = pictures()
    assert load_lpips()(a, b).tolist() == pytest.approx(second_lpips("alex", a, b, weights).tolist(), rel=1e-4)


@pytest.mark.parametrize("network", NETWORKS)
def test_the_published_heads_fit(network, tmp_path):
    """torchmetrics ships them; they are the files of the assets."""
    torchmetrics = pytest.importorskip("torchmetrics", reason="torchmetrics is not installed")
    heads = Path(torchmetrics.__file__).parent / "functional/image/lpips_models" / f"{network}.pth"
    assert sha256_of(heads) == get_asset(f"lpips-{network}").sha256
    trunk = {name: value for name, value in random_weights(network).items() if name.startswith("features.")}
    torch.save(trunk, tmp_path / "trunk.pth")
    model = load_lpips(network, tmp_path / "trunk.pth", heads)
    weights = torch.cat([value.flatten() for name, value in model.state_dict().items() if name.startswith("lin")])
    assert float(weights.min()) >= 0 and 0 < float(model(*pictures())[0]) < 2
