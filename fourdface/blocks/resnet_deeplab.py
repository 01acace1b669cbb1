"""ResNet with a DeepLabV3 head and no normalisation layers: the global encoder of the one-shot reconstructors.

He et al., "Deep Residual Learning" (CVPR 2016); Chen et al., "Rethinking Atrous Convolution" (DeepLabV3, 2017). Batch
normalisation is left out (as in LP3D and Portrait4D), and no convolution has a bias.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

__all__ = ["ResNetDeepLab"]


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; `dilation` widens all of them and takes the place of the stride."""

    def __init__(self, in_channels: int, channels: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return relu(self.conv2(relu(self.conv1(x))) + shortcut)


class _ResNet(nn.Module):
    """The ResNet trunk with basic blocks at output stride 8: the last two stages are dilated by 2 and 4."""

    def __init__(self, in_channels: int, width: int, depths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        widths = [width * 2**k for k in range(4)]
        self.layer1 = self._stage(width, widths[0], depths[0], 1, 1)
        self.layer2 = self._stage(widths[0], widths[1], depths[1], 2, 1)
        self.layer3 = self._stage(widths[1], widths[2], depths[2], 1, 2)
        self.layer4 = self._stage(widths[2], widths[3], depths[3], 1, 4)

    @staticmethod
    def _stage(in_channels: int, channels: int, depth: int, stride: int, dilation: int) -> nn.Sequential:
        first = _BasicBlock(in_channels, channels, stride, dilation)
        return nn.Sequential(first, *(_BasicBlock(channels, channels, 1, dilation) for _ in range(depth - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(relu(self.conv1(x)))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


class _AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: 1x1, three dilated 3x3 and the mean of the picture, joined by a 1x1."""

    def __init__(self, in_channels: int, channels: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        branches: list[nn.Module] = [nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.ReLU())]
        for rate in rates:
            conv = nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate, bias=False)
            branches.append(nn.Sequential(conv, nn.ReLU()))
        pooled = nn.Conv2d(in_channels, channels, 1, bias=False)
        branches.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), pooled, nn.ReLU()))
        self.convs = nn.ModuleList(branches)
        self.project = nn.Sequential(nn.Conv2d(len(branches) * channels, channels, 1, bias=False), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2:]
        parts = [branch(x) for branch in self.convs]
        parts[-1] = parts[-1].expand(-1, -1, *size)
        return self.project(torch.cat(parts, 1))


class ResNetDeepLab(nn.Module):
    """E_global: image with coordinates [B, in_channels, H, W] -> features [B, channels, H/8, W/8].

    `width` is the number of channels of the first stage (64 in ResNet), `depths` the blocks per stage (3, 4, 6, 3 is
    ResNet34), `rates` the dilations of the pyramid.
    """

    def __init__(
        self, in_channels: int = 5, channels: int = 256, *, width: int = 64,
        depths: tuple[int, int, int, int] = (3, 4, 6, 3), rates: tuple[int, ...] = (12, 24, 36),
    ) -> None:  # fmt: skip
        super().__init__()
        self.encoder = _ResNet(in_channels, width, depths)
        pyramid = _AtrousPyramid(width * 8, channels, rates)
        self.decoder = nn.Sequential(pyramid, nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.ReLU())

    def forward(self, image: Tensor) -> Tensor:
        """Image with its coordinate channels -> global features at an eighth of the size (H and W divisible by 8)."""
        return self.decoder(self.encoder(image))
