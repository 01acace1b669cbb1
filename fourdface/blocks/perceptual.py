"""LPIPS, the learned perceptual distance of pictures (Zhang et al., CVPR 2018), version 0.1, on three networks.

The networks are those of the papers (AlexNet: Krizhevsky, 2014; VGG-16: Simonyan and Zisserman, 2015; SqueezeNet 1.1:
Iandola et al., 2016) up to their last tapped layer. Their parameters have the names of the public ImageNet files
(`features.0.weight`, ...) and the heads those of LPIPS (`lin0.model.1.weight`, ...), so that both load as they are.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourdface.assets import asset_path, load_weights

NETWORKS = ("alex", "vgg", "squeeze")
BACKBONES = {"alex": "alexnet-imagenet", "vgg": "vgg16-imagenet", "squeeze": "squeezenet1-1-imagenet"}
"""Asset of each feature network; that of its heads is `lpips-NETWORK`."""
SMALLEST = 32
"""Least height and width of pictures: the strides of all three networks fit."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Constants of LPIPS' scaling layer: ImageNet's mean and deviation in -1..1, as published (rounded)."""
_EPSILON = 1e-10


class Fire(nn.Module):
    """SqueezeNet's module: squeeze to `squeezed` channels, expand to 2 * `expanded` by 1x1 and 3x3 filters."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,2*expanded,h,w]."""
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


def _alexnet() -> tuple[list[nn.Module], dict[int, int]]:
    plan = [(3, 64, 11, 4, 2), (64, 192, 5, 1, 2), (192, 384, 3, 1, 1), (384, 256, 3, 1, 1), (256, 256, 3, 1, 1)]
    layers: list[nn.Module] = []
    taps = {}
    for number, (channels, out, kernel, stride, padding) in enumerate(plan):
        if number in (1, 2):
            layers.append(nn.MaxPool2d(3, 2))
        layers += [nn.Conv2d(channels, out, kernel, stride, padding), nn.ReLU()]
        taps[len(layers) - 1] = out
    return layers, taps


def _vgg16() -> tuple[list[nn.Module], dict[int, int]]:
    layers: list[nn.Module] = []
    taps, channels = {}, 3
    for stage, (out, depth) in enumerate([(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)]):
        if stage:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(depth):
            layers += [nn.Conv2d(channels, out, 3, padding=1), nn.ReLU()]
            channels = out
        taps[len(layers) - 1] = out
    return layers, taps


def _squeezenet() -> tuple[list[nn.Module], dict[int, int]]:
    def pool() -> nn.Module:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    layers = [
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(), Fire(64, 16, 64), Fire(128, 16, 64), pool(), Fire(128, 32, 128),
        Fire(256, 32, 128), pool(), Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    ]  # fmt: skip
    return layers, {1: 64, 4: 128, 7: 256, 9: 384, 10: 384, 11: 512, 12: 512}


class Head(nn.Module):
    """Weights >= 0 of the channels of one layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Identity(), nn.Conv2d(channels, 1, 1, bias=False))  # 0 is dropout in training

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,1,h,w]."""
        weighted: Tensor = self.model(x)
        return weighted


class Lpips(nn.Module):
    """LPIPS with one of the networks `alex`, `vgg`, `squeeze`; differentiable in both pictures, itself frozen.

    Raises ValueError for another network.
    """

    def __init__(self, network: str = "alex") -> None:
        super().__init__()
        builders = {"alex": _alexnet, "vgg": _vgg16, "squeeze": _squeezenet}
        if network not in builders:
            raise ValueError(f"LPIPS has the networks {', '.join(NETWORKS)}, got {network}")
        layers, self._taps = builders[network]()
        self.features = nn.Sequential(*layers)
        for number, channels in enumerate(self._taps.values()):
            self.add_module(f"lin{number}", Head(channels))
        self.shift: Tensor
        self.scale: Tensor
        self.register_buffer("shift", torch.tensor(_SHIFT)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def read(self, image: Tensor) -> list[Tensor]:
        """Tapped layers [B,C,h,w] of pictures [B,3,H,W] in 0..1, of length 1 along the channels.

        Raises ValueError for pictures under 32 pixels.
        """
        if min(image.shape[-2:]) < SMALLEST:
            size = f"{image.shape[-1]} x {image.shape[-2]}"
            raise ValueError(f"LPIPS needs pictures of at least {SMALLEST} x {SMALLEST} pixels, got {size}")
        x = (2 * image - 1 - self.shift) / self.scale
        out = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self._taps:
                out.append(x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + _EPSILON))
        return out

    def compare(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance [B] of what `read` gave (equation 1 of the paper): weighted squares, mean over places, summed."""
        total = a[0].new_zeros(a[0].shape[0])
        for number, (x, y) in enumerate(zip(a, b, strict=True)):
            total = total + self.get_submodule(f"lin{number}")((x - y).square()).mean(dim=(1, 2, 3))
        return total

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [B] of pictures [B,3,H,W] in 0..1."""
        return self.compare(self.read(a), self.read(b))


def load_lpips(network: str = "alex", backbone: str | Path | None = None, heads: str | Path | None = None) -> Lpips:
    """LPIPS with its published weights, from the assets or from files of the same names.

    Raises FourdError with the commands that fetch what is missing, or for a file that does not fit.
    """
    out = Lpips(network)
    weights = out.state_dict()
    for prefix, source in (("features.", backbone or BACKBONES[network]), ("lin", heads or f"lpips-{network}")):
        if isinstance(source, str) and not Path(source).is_file():
            source = asset_path(source)
        names = {name: tuple(value.shape) for name, value in weights.items() if name.startswith(prefix)}
        weights |= load_weights(Path(source), names)
    out.load_state_dict(weights)
    for value in out.features.parameters():  # the layout makes CPUs a third faster: pooling most of all
        if value.ndim == 4:
            value.data = value.data.contiguous(memory_format=torch.channels_last)
    return out.eval()


def lpips(a: Tensor, b: Tensor, network: str = "alex") -> Tensor:
    """LPIPS [B] of pictures [B,3,H,W] in 0..1 with published weights, loaded once; see `load_lpips`.

    The network stays on the CPU; a loss on another device holds its own `load_lpips(...).to(device)`.
    """
    if network not in _LOADED:
        _LOADED[network] = load_lpips(network)
    distance: Tensor = _LOADED[network](a, b)
    return distance


_LOADED: dict[str, Lpips] = {}
