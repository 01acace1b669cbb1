"""One stack of the face alignment network (FAN): residual convolutions around an hourglass.

Bulat and Tzimiropoulos, "How far are we from solving the 2D & 3D Face Alignment problem?" (ICCV 2017), section 3.
Names of submodules are the names in published FAN state dicts. Sizes are halved by maxima and doubled bilinearly, which
is the variant that PD-FGC was trained with (Bulat's own takes means and nearest neighbours).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, max_pool2d, relu

__all__ = ["FAN", "Hourglass", "PyramidBlock"]


class PyramidBlock(nn.Module):
    """Three 3x3 convolutions of falling width whose outputs stand side by side, plus a shortcut; norms come first."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half, quarter = out_channels // 2, out_channels // 4
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, half, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv2 = nn.Conv2d(half, quarter, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(quarter)
        self.conv3 = nn.Conv2d(quarter, quarter, 3, padding=1, bias=False)
        self.downsample = None
        if in_channels != out_channels:
            shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)
            self.downsample = nn.Sequential(nn.BatchNorm2d(in_channels), nn.ReLU(), shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in_channels, H, W] -> [B, out_channels, H, W]."""
        first = self.conv1(relu(self.bn1(x)))
        second = self.conv2(relu(self.bn2(first)))
        third = self.conv3(relu(self.bn3(second)))
        shortcut = x if self.downsample is None else self.downsample(x)
        return torch.cat([first, second, third], 1) + shortcut


class Hourglass(nn.Module):
    """Halve `depth` times and come back, adding what each size saw: [B, C, H, W] -> same.

    Blocks are numbered by the level that they stand at, from `depth` at full size down to 1.
    """

    def __init__(self, depth: int, channels: int) -> None:
        super().__init__()
        self.depth = depth
        for level in range(depth, 0, -1):
            for branch in ("b1", "b2", "b3"):
                self.add_module(f"{branch}_{level}", PyramidBlock(channels, channels))
        self.add_module("b2_plus_1", PyramidBlock(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Features in, features of the same shape out."""
        return self._level(self.depth, x)

    def _level(self, level: int, x: Tensor) -> Tensor:
        same = self.get_submodule(f"b1_{level}")(x)
        lower = self.get_submodule(f"b2_{level}")(max_pool2d(x, 2))
        lower = self._level(level - 1, lower) if level > 1 else self.get_submodule("b2_plus_1")(lower)
        lower = self.get_submodule(f"b3_{level}")(lower)
        return same + interpolate(lower, size=same.shape[-2:], mode="bilinear", align_corners=False)


class FAN(nn.Module):
    """Picture [B, 3, S, S] -> one score map per landmark [B, points, S/4, S/4]."""

    def __init__(self, points: int = 68, channels: int = 256, depth: int = 4) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels // 4, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(channels // 4)
        self.conv2 = PyramidBlock(channels // 4, channels // 2)
        self.conv3 = PyramidBlock(channels // 2, channels // 2)
        self.conv4 = PyramidBlock(channels // 2, channels)
        self.m0 = Hourglass(depth, channels)
        self.top_m_0 = PyramidBlock(channels, channels)
        self.conv_last0 = nn.Conv2d(channels, channels, 1)
        self.bn_end0 = nn.BatchNorm2d(channels)
        self.l0 = nn.Conv2d(channels, points, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Picture -> raw score maps."""
        x = relu(self.bn1(self.conv1(image)))
        x = max_pool2d(self.conv2(x), 2)
        x = self.top_m_0(self.m0(self.conv4(self.conv3(x))))
        return self.l0(relu(self.bn_end0(self.conv_last0(x))))
