"""A small network over the active sites of a volume: seven submanifold and two strided convolutions.

As Morphable Diffusion (Chen et al. 2024) conditions on a head model's vertices, after Neural Body (Peng et al. 2021);
Gen3D-Face uses the same. The names of the parameters are those of their checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..ops.sparse_conv3d import NeighbourMap, Shape, neighbour_map, sparse_conv3d, to_dense

__all__ = ["SparseConv3d", "SparseConvNet", "SparseVolume"]


class SparseVolume(NamedTuple):
    """Features [N, C] at the sites coordinates [N, 4] (batch, depth, height, width) of volumes (D, H, W)."""

    features: Tensor
    coordinates: Tensor
    shape: Shape

    def dense(self, batch: int) -> Tensor:
        """Return [batch, C, D, H, W], zero where no site is active."""
        return to_dense(self.features, self.coordinates, self.shape, batch)


class SparseConv3d(nn.Module):
    """A 3 x 3 x 3 convolution without bias over active sites; weight [O, 3, 3, 3, C], stride 1 or 2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, 3, 3, 3, in_channels))
        nn.init.uniform_(self.weight, -1 / math.sqrt(27 * in_channels), 1 / math.sqrt(27 * in_channels))

    def forward(self, features: Tensor, neighbours: NeighbourMap) -> Tensor:
        """Convolve [N, C] to [M, O]; the map must be of this layer's stride."""
        return sparse_conv3d(features, neighbours, self.weight)


def _layers(channels: Sequence[int], stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU for each step from one number of channels to the next."""
    layers: list[nn.Module] = []
    for before, after in pairwise(channels):
        layers += [SparseConv3d(before, after, stride), nn.BatchNorm1d(after, eps=1e-3, momentum=0.01), nn.ReLU()]
    return nn.Sequential(*layers)


class SparseConvNet(nn.Module):
    """From 16 channels at active sites to 64 at a quarter of the resolution."""

    def __init__(self, channels: tuple[int, int, int] = (16, 32, 64)) -> None:
        super().__init__()
        first, second, third = channels
        self.conv0 = _layers((first, first, first))
        self.down0 = _layers((first, second), stride=2)
        self.conv1 = _layers((second, second, second))
        self.down1 = _layers((second, third), stride=2)
        self.conv2 = _layers((third, third, third, third))

    def forward(self, volume: SparseVolume) -> SparseVolume:
        """Return the sparse volume of a quarter of the resolution (each halving rounds up).

        Each site of `volume` must be given once (`ops.sparse_conv3d.merge_sites`).
        """
        same = neighbour_map(volume.coordinates, volume.shape)
        features = _run(self.conv0, volume.features, same)
        for down, stay in ((self.down0, self.conv1), (self.down1, self.conv2)):
            halved = neighbour_map(same.coordinates, same.shape, stride=2)
            features = _run(down, features, halved)
            same = neighbour_map(halved.coordinates, halved.shape)
            features = _run(stay, features, same)
        return SparseVolume(features, same.coordinates, same.shape)


def _run(layers: nn.Sequential, features: Tensor, neighbours: NeighbourMap) -> Tensor:
    for layer in layers:
        features = layer(features, neighbours) if isinstance(layer, SparseConv3d) else layer(features)
    return features
