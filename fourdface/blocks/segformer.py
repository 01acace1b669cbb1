"""Transformer blocks of SegFormer, and the same block with cross attention to motion tokens.

Xie et al., "SegFormer" (NeurIPS 2021), section 3.1: overlapped patch embedding, efficient self-attention (equation 2)
and Mix-FFN (equation 3). Deng et al., Portrait4D (CVPR 2024), section 3.3: cross attention to motion features, with a
scale that switches it off (section 3.4).

Tokens are [B, N, C] with N = height * width in rows; `size` is (height, width).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = [
    "Attention",
    "MixFFN",
    "MotionBlock",
    "OverlapPatchEmbed",
    "SegFormerBlock",
    "enlarged",
    "to_image",
    "to_tokens",
]


def to_tokens(image: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, H*W, C]."""
    return image.flatten(2).transpose(1, 2)


def to_image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, H*W, C] -> [B, C, H, W]."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


def enlarged(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """PixelShuffle by two: [B, H*W, C] -> [B, C/4, 2H, 2W], in one copy and channels-last, as convolutions want it."""
    batch, (height, width) = len(tokens), size
    blocks = tokens.reshape(batch, height, width, -1, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class OverlapPatchEmbed(nn.Module):
    """3x3 convolution with stride 2, then LayerNorm: image [B, C, H, W] -> tokens [B, H/2 * W/2, width]."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens and their grid (height, width)."""
        patches = self.proj(image)
        return self.norm(to_tokens(patches)), (patches.shape[-2], patches.shape[-1])


QUERIES_AT_ONCE = 512


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of heads [B, H, N, D] to [B, H, M, D].

    In half precision torch's fused kernel for CPUs is three times slower than two matrix products and a softmax over
    a few queries at once (measured for Portrait4D's G_T: N 16384, M 4096, D 512).
    """
    if query.device.type != "cpu" or query.dtype == torch.float32 or torch.is_grad_enabled():
        return scaled_dot_product_attention(query, key, value)
    query = (query * query.shape[-1] ** -0.5).contiguous()
    key, value = key.transpose(-1, -2).contiguous(), value.contiguous()
    rows = [torch.softmax(part @ key, dim=-1) @ value for part in query.split(QUERIES_AT_ONCE, dim=-2)]
    return torch.cat(rows, dim=-2)


class Attention(nn.Module):
    """Multi-head attention of tokens x to themselves or to other tokens y.

    `reduction` above 1 shortens the sequence that is attended to by a strided convolution and LayerNorm (SegFormer's
    spatial reduction), and needs the grid of x.
    """

    def __init__(self, width: int, heads: int, reduction: int = 1) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be split over {heads} heads")
        self.heads, self.reduction = heads, reduction
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        if reduction > 1:
            self.sr = nn.Conv2d(width, width, reduction, stride=reduction)
            self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, y: Tensor | None = None, size: tuple[int, int] | None = None) -> Tensor:
        """x [B, N, C], y [B, M, C] (default: x itself, spatially reduced) -> [B, N, C]."""
        if y is None:
            y = self._reduced(x, size)
        key, value = self.kv(y).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        attended = _attend(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))

    def _reduced(self, x: Tensor, size: tuple[int, int] | None) -> Tensor:
        if self.reduction == 1:
            return x
        if size is None:
            raise ValueError("spatial reduction needs the grid of the tokens")
        return self.norm(to_tokens(self.sr(to_image(x, size))))


class _Depthwise(nn.Module):
    """3x3 depthwise convolution over the grid of tokens (it carries the position)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        return to_tokens(self.dwconv(to_image(x, size)))


class MixFFN(nn.Module):
    """Linear, 3x3 depthwise convolution, GELU, linear (SegFormer, equation 3)."""

    def __init__(self, width: int, ratio: int = 2) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, ratio * width)
        self.dwconv = _Depthwise(ratio * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(ratio * width, width)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens [B, N, C] on a grid of `size` -> [B, N, C]."""
        return self.fc2(self.act(self.dwconv(self.fc1(x), size)))


class SegFormerBlock(nn.Module):
    """x += attention(LN x); x += MixFFN(LN x)."""

    def __init__(self, width: int, heads: int, *, ratio: int = 2, reduction: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, reduction)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MixFFN(width, ratio)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Tokens [B, N, C] on a grid of `size` -> [B, N, C]."""
        x = x + self.attn(self.norm1(x), size=size)
        return x + self.mlp(self.norm2(x), size)


class MotionBlock(nn.Module):
    """x += scale * cross(LN x, y); x += self(LN x); x += MixFFN(LN x).

    `scale` 0 leaves the cross attention out altogether: static 3D reconstruction (Portrait4D, section 3.4).
    """

    def __init__(self, width: int, heads: int, *, ratio: int = 2) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.attn2 = Attention(width, heads)
        self.norm3 = nn.LayerNorm(width)
        self.mlp = MixFFN(width, ratio)

    def forward(self, x: Tensor, y: Tensor, size: tuple[int, int], scale: float | Tensor = 1.0) -> Tensor:
        """x [B, N, C] on a grid of `size`, motion tokens y [B, M, C], scale a number or [B, 1, 1] -> [B, N, C]."""
        if isinstance(scale, torch.Tensor) or scale != 0:
            x = x + scale * self.attn2(self.norm2(x), y)
        x = x + self.attn1(self.norm1(x))
        return x + self.mlp(self.norm3(x), size)
