"""Small convolutional pieces shared by the feed-forward reconstructors: coordinate channels and the detail encoder.

Trevithick et al., "Real-Time Radiance Fields for Single-Image Portrait View Synthesis" (SIGGRAPH 2023), section 3.2:
both encoders of an image see the pixel's position as two more channels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["DetailEncoder", "with_coordinates"]


def with_coordinates(image: Tensor) -> Tensor:
    """Image [B, C, H, W] -> [B, C + 2, H, W]: x then y, each from -1 at the first to 1 at the last pixel centre."""
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height, device=image.device, dtype=image.dtype)
    x = torch.linspace(-1, 1, width, device=image.device, dtype=image.dtype)
    grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return torch.cat([image, grid.expand(image.shape[0], -1, -1, -1)], 1)


class DetailEncoder(nn.Module):
    """E_detail: one 7x7 convolution that halves the size, then 3x3 ones, each with LeakyReLU 0.01.

    Image [B, C, H, W] -> features [B, channels, H/2, W/2]. No normalisation, so that colours pass unchanged.
    """

    def __init__(self, in_channels: int = 5, stem: int = 64, channels: int = 96, depth: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(in_channels, stem, 7, stride=2, padding=3), nn.LeakyReLU(0.01)]
        for k in range(depth):
            layers += [nn.Conv2d(stem if k == 0 else channels, channels, 3, padding=1), nn.LeakyReLU(0.01)]
        self.encoder = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Image with its coordinate channels -> features at half the size."""
        return self.encoder(image)
