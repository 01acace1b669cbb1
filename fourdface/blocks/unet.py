"""U-Net of three halvings whose first convolution halves too: from the picture to what stands behind the person."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

__all__ = ["BackgroundUNet"]


class _Down(nn.Module):
    """3x3 convolution with stride 2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Up(nn.Module):
    """Nearest enlargement by two, then a 3x3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1), nn.LeakyReLU(0.01)]


class BackgroundUNet(nn.Module):
    """Picture with coordinates [B, in_channels, H, W] -> raw features [B, out_channels, H, W] (H, W divisible by 16).

    `width` is the number of channels at half size; each further halving doubles it, to 8 * width.
    """

    def __init__(self, in_channels: int = 5, out_channels: int = 32, width: int = 64) -> None:
        super().__init__()
        w = width
        self.input_conv = nn.Sequential(*_convolution(in_channels, w, stride=2))
        self.down_conv_1 = nn.Sequential(*_convolution(w, w), _Down(w, 2 * w))
        self.down_conv_2 = nn.Sequential(*_convolution(2 * w, 2 * w), _Down(2 * w, 4 * w))
        self.down_conv_3 = nn.Sequential(*_convolution(4 * w, 4 * w), _Down(4 * w, 8 * w))
        self.middle = nn.Sequential(*_convolution(8 * w, 8 * w))
        self.up_conv_1 = nn.Sequential(*_convolution(16 * w, 4 * w), _Up(4 * w))
        self.up_conv_2 = nn.Sequential(*_convolution(8 * w, 2 * w), _Up(2 * w))
        self.up_conv_3 = nn.Sequential(*_convolution(4 * w, w), _Up(w))
        self.up_conv_4 = nn.Sequential(*_convolution(2 * w, w), _Up(w))
        self.out_conv = nn.Conv2d(w, out_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Picture with its coordinate channels -> features of the same size, before the sigmoid."""
        half = self.input_conv(image)
        quarter = self.down_conv_1(half)
        eighth = self.down_conv_2(quarter)
        sixteenth = self.down_conv_3(eighth)
        x = self.up_conv_1(torch.cat([self.middle(sixteenth), sixteenth], 1))
        x = self.up_conv_2(torch.cat([x, eighth], 1))
        x = self.up_conv_3(torch.cat([x, quarter], 1))
        x = self.up_conv_4(torch.cat([x, half], 1))
        return self.out_conv(x)
