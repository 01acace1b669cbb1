"""The small network from tri-plane features to density and colour features (EG3D's OSG decoder)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fourdface.blocks.stylegan2 import FullyConnected

__all__ = ["OSGDecoder"]


class OSGDecoder(nn.Module):
    """Mean over the planes, FC to `hidden` with softplus, then density and colour.

    `heads` 1 is one layer `net.2` with the density first (EG3D); 2 are `out_sigma` (zero at first) and `out_rgb`
    (Portrait4D and GenHead). Chan et al., EG3D (CVPR 2022), section 4.2.
    """

    def __init__(self, in_features: int = 32, out_features: int = 32, *, hidden: int = 64, heads: int = 1) -> None:
        super().__init__()
        if heads not in (1, 2):
            raise ValueError(f"heads must be 1 or 2, got {heads}")
        self.heads = heads
        layers: list[nn.Module] = [FullyConnected(in_features, hidden), nn.Softplus()]
        if heads == 1:
            layers.append(FullyConnected(hidden, 1 + out_features))
        else:
            self.out_sigma = FullyConnected(hidden, 1)
            self.out_rgb = FullyConnected(hidden, out_features)
            nn.init.zeros_(self.out_sigma.weight)
        self.net = nn.Sequential(*layers)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features [B, 3, N, C] -> colour features [B, N, K] in -0.001..1.001 and raw density [B, N, 1]."""
        if features.ndim != 4:
            raise ValueError(f"features must be [B, planes, N, C], got {tuple(features.shape)}")
        return self.decode(features.mean(dim=1))

    def decode(self, mean_features: Tensor) -> tuple[Tensor, Tensor]:
        """The same from features [B, N, C] that are already averaged over the planes."""
        x = self.net(mean_features)
        if self.heads == 1:
            sigma, rgb = x[..., :1], x[..., 1:]
        else:
            sigma, rgb = self.out_sigma(x), self.out_rgb(x)
        return torch.sigmoid(rgb) * 1.002 - 0.001, sigma
