"""EG3D's super-resolution: two StyleGAN2 blocks from rendered features to the picture.

Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (CVPR 2022), section 4.3. Portrait4D and
GenHead use "8xdc" (features 128 -> picture 512).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fourdface.blocks.stylegan2 import NoiseMode, SynthesisBlock

__all__ = ["VARIANTS", "Superresolution", "SuperresolutionConfig", "constant_style"]


@dataclass(frozen=True)
class SuperresolutionConfig:
    """Sizes in pixels; channels of the two blocks. Input of another size is resized to `input_resolution` first.

    The first block doubles the size where output is four times input, and keeps it where output is twice input.
    `only_enlarge` leaves larger input as it is.
    """

    input_resolution: int = 128
    output_resolution: int = 512
    channels: tuple[int, int] = (256, 128)
    only_enlarge: bool = False

    @property
    def factors(self) -> tuple[int, int]:
        """Enlargement by the two blocks."""
        ratio = self.output_resolution / self.input_resolution
        if ratio not in (2, 4):
            raise ValueError(
                f"output_resolution must be 2 or 4 times input_resolution, got {self.output_resolution} and "
                f"{self.input_resolution}"
            )
        return (int(ratio) // 2, 2)


VARIANTS = {
    "8xdc": SuperresolutionConfig(128, 512, (256, 128)),
    "8x": SuperresolutionConfig(128, 512, (128, 64)),
    "4x": SuperresolutionConfig(128, 256, (128, 64), only_enlarge=True),
    "2x": SuperresolutionConfig(64, 128, (128, 64)),
}
"""EG3D's four networks by the name of their class (SuperresolutionHybrid8XDC and so on)."""


class Superresolution(nn.Module):
    """`block0` and `block1` over features [B, C, R, R] and their first picture [B, 3, R, R]."""

    def __init__(
        self,
        in_channels: int = 32,
        config: SuperresolutionConfig = VARIANTS["8xdc"],
        *,
        w_dim: int = 512,
        clamp: float | None = 256.0,
        antialias: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.antialias = config, antialias
        first, second = config.factors
        wide, narrow = config.channels
        size = config.input_resolution * first
        self.block0 = SynthesisBlock(in_channels, wide, w_dim, size, 3, up=first, clamp=clamp)
        self.block1 = SynthesisBlock(wide, narrow, w_dim, size * second, 3, up=second, clamp=clamp)

    def forward(self, rgb: Tensor, x: Tensor, ws: Tensor, noise_mode: NoiseMode = "none") -> Tensor:
        """rgb [B, 3, R, R], features x [B, C, R, R], styles ws [B, n, w_dim] (the last one counts) -> [B, 3, S, S]."""
        ws = ws[:, -1:].expand(-1, 3, -1)
        size = self.config.input_resolution
        if x.shape[-1] < size or (x.shape[-1] > size and not self.config.only_enlarge):
            rgb, x = self._resized(rgb, size), self._resized(x, size)
        x, rgb = self.block0(x, rgb, ws, noise_mode)
        return self.block1(x, rgb, ws, noise_mode)[1]

    def _resized(self, x: Tensor, size: int) -> Tensor:
        x = x.to(torch.promote_types(x.dtype, torch.float32))  # torch resizes no bfloat16 on CPUs
        return interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=self.antialias)


def constant_style(batch: int, w_dim: int, like: Tensor) -> Tensor:
    """The style of ones [B, 1, w_dim] that GenHead gives its super-resolution."""
    return torch.ones(batch, 1, w_dim, device=like.device, dtype=like.dtype)
