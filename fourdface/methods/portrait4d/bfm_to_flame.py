"""From coefficients of the Basel face model to FLAME's, by a small network (released with Portrait4D)."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["BfmToFlame"]


class BfmToFlame(nn.Module):
    """Identity 80 and expression 64 of the BFM [B, 144] -> FLAME shape 300, expression 100, jaw 3 [B, 403]."""

    def __init__(self, hidden: int = 512) -> None:
        super().__init__()
        self.maps = nn.Sequential(nn.Linear(144, hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, 403))

    def forward(self, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients -> shape [B, 300], expression [B, 100], jaw rotation [B, 3] in radians."""
        shape, expression, jaw = self.maps(coefficients).split([300, 100, 3], dim=-1)
        return shape, expression, jaw
