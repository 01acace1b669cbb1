"""The two trained halves of the reconstructor: Phi (neutralise, then move) and G_T (tri-planes).

Deng et al., "Portrait4D" (CVPR 2024), section 3.3; "Portrait4D-v2" (ECCV 2024), section 4.1 keeps them unchanged.
Names of submodules are the names in the published state dicts.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from fourdface.blocks.segformer import MotionBlock, OverlapPatchEmbed, SegFormerBlock, enlarged

__all__ = ["CanonicalEncoder", "TriplaneDecoder"]

SLOPE = 0.01
"""Of the LeakyReLU in the convolutions."""


def _motion_mlp(motion: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(motion, width), nn.LeakyReLU(SLOPE), nn.Linear(width, width), nn.LeakyReLU(SLOPE))


class CanonicalEncoder(nn.Module):
    """Phi: global features and two motions -> canonical features that carry the driver's expression.

    The first blocks (Phi_de) see the source's own motion and take the expression out; the others (Phi_re) see the
    driver's and put it in. Everything before Phi_re depends on the source alone: `neutralise` is run once per photo,
    `move` once per frame.
    """

    def __init__(
        self, in_channels: int = 256, out_channels: int = 96, *, width: int = 1024, blocks: int = 4, heads: int = 4,
        motion: int = 548, hidden: int = 512, tokens: int = 64, channels: int = 128,
    ) -> None:  # fmt: skip
        super().__init__()
        self.tokens, self.width = tokens, width
        self.maps = _motion_mlp(motion, hidden)
        self.maps_neutral = _motion_mlp(motion, hidden)
        self.proj_y_neutral = nn.Linear(hidden, tokens * width)
        self.proj_y = nn.Linear(hidden, tokens * width)
        self.patch_embed = OverlapPatchEmbed(in_channels, width)
        self.trans_blocks_neutral = nn.ModuleList(MotionBlock(width, heads) for _ in range(blocks))
        self.trans_blocks_motion = nn.ModuleList(MotionBlock(width, heads) for _ in range(blocks))
        enlarge = {"scale_factor": 2.0, "mode": "bilinear", "align_corners": True}
        self.convs = nn.Sequential(
            nn.Upsample(**enlarge),  # type: ignore[arg-type]
            nn.Conv2d(width // 4, channels, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(**enlarge),  # type: ignore[arg-type]
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, out_channels, 3, padding=1),
        )

    def neutralise(
        self, features: Tensor, source_motion: Tensor, scale: float | Tensor = 1.0
    ) -> tuple[Tensor, tuple[int, int]]:
        """Phi_de: features [B, C, H, W], motion [B, M] of the source -> tokens [B, H/2 * W/2, width] and their grid."""
        x, size = self.patch_embed(features)
        y = self._motion_tokens(self.maps_neutral, self.proj_y_neutral, source_motion)
        for block in self.trans_blocks_neutral:
            x = block(x, y, size, scale)
        return x, size

    def move(
        self, tokens: Tensor, size: tuple[int, int], motion: Tensor, scale: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Phi_re: neutral tokens and the driver's motion [B, M] -> features [B, width/4, H, W] and [B, C, 4H, 4W]."""
        y = self._motion_tokens(self.maps, self.proj_y, motion)
        for block in self.trans_blocks_motion:
            tokens = block(tokens, y, size, scale)
        coarse = enlarged(tokens, size)
        return coarse, self.convs(coarse)

    def forward(
        self, features: Tensor, motion: Tensor, source_motion: Tensor, scale: float | Tensor = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Both halves at once; see `neutralise` and `move`."""
        tokens, size = self.neutralise(features, source_motion, scale)
        return self.move(tokens, size, motion, scale)

    def _motion_tokens(self, maps: nn.Module, project: nn.Module, motion: Tensor) -> Tensor:
        return project(maps(motion)).reshape(-1, self.tokens, self.width)


class TriplaneDecoder(nn.Module):
    """G_T: canonical features and detail features, both [B, channels, R, R] -> tri-planes [B, planes, R, R]."""

    def __init__(
        self, channels: int = 96, planes: int = 96, *, width: int = 1024, heads: int = 2, reduction: int = 2,
        blocks: int = 1, hidden: tuple[int, int] = (256, 128),
    ) -> None:  # fmt: skip
        super().__init__()
        wide, narrow = hidden
        self.convs1 = nn.Sequential(*_convolution(2 * channels, wide), *_convolution(wide, narrow))
        self.patch_embed = OverlapPatchEmbed(narrow, width)
        self.trans_blocks = nn.ModuleList(SegFormerBlock(width, heads, reduction=reduction) for _ in range(blocks))
        self.convs2 = nn.Sequential(
            *_convolution(width // 4 + channels, wide), *_convolution(wide, narrow), *_convolution(narrow, narrow)
        )
        self.conv_last = nn.Conv2d(narrow, planes, 3, padding=1)

    def prepare(self, detail: Tensor) -> Tensor:
        """What the first convolution makes of the detail features alone: it is linear, so this is done once a photo."""
        first = cast(nn.Conv2d, self.convs1[0])
        return conv2d(detail, first.weight[:, -detail.shape[1] :], first.bias, padding=1)

    def forward(self, canonical: Tensor, detail: Tensor, prepared: Tensor | None = None) -> Tensor:
        """Canonical features (Phi's) and detail features (E_detail's) -> tri-planes, plane after plane.

        prepared: `prepare` of the detail features, of any batch that broadcasts; they are not read then.
        """
        if prepared is None:
            x = self.convs1(torch.cat([canonical, detail], 1))
        else:
            weight = cast(nn.Conv2d, self.convs1[0]).weight[:, : canonical.shape[1]]
            x = self.convs1[1:](conv2d(canonical, weight, padding=1) + prepared)
        x, size = self.patch_embed(x)
        for block in self.trans_blocks:
            x = block(x, size)
        x = enlarged(x, size)
        return self.conv_last(self.convs2(torch.cat([x, canonical], 1)))


def _convolution(in_channels: int, out_channels: int) -> list[nn.Module]:
    return [nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.LeakyReLU(SLOPE)]
