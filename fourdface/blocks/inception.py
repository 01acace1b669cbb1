"""Inception-v3 as FID and KID use it: the network of 2015-12-05 in TensorFlow, ported (Szegedy et al., CVPR 2016).

Parameters have the names of the public file `pt_inception-2015-12-05-6726825d.pth`. The port differs from the network
that torch's own model zoo ships: average pooling does not count the padding, and the very last block pools by maximum.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourdface.assets import asset_path, load_weights

ASSET = "inception-fid"
SIZE = 299
Pair = int | tuple[int, int]


class Unit(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, channels: int, out: int, kernel: Pair, stride: int = 1, padding: Pair = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,out,h',w']."""
        return functional.relu(self.bn(self.conv(x)))


def _wide(channels: int, out: int) -> Unit:
    return Unit(channels, out, (1, 7), padding=(0, 3))


def _tall(channels: int, out: int) -> Unit:
    return Unit(channels, out, (7, 1), padding=(3, 0))


def _average(x: Tensor) -> Tensor:
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


class BlockA(nn.Module):
    """35x35 block: 1x1, 5x5, double 3x3 and pooling, out = 224 + pooled channels."""

    def __init__(self, channels: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(channels, 64, 1)
        self.branch5x5_1, self.branch5x5_2 = Unit(channels, 48, 1), Unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(channels, 64, 1), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, padding=1)
        self.branch_pool = Unit(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,224+pooled,h,w]."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """35x35 -> 17x17."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(channels, 384, 3, 2)
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(channels, 64, 1), Unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Unit(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,480+C,h/2,w/2]."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, functional.max_pool2d(x, 3, 2)], 1)


class BlockC(nn.Module):
    """17x17 block of 7x1 and 1x7 filters with `inner` channels."""

    def __init__(self, inner: int, channels: int = 768) -> None:
        super().__init__()
        self.branch1x1 = Unit(channels, 192, 1)
        self.branch7x7_1 = Unit(channels, inner, 1)
        self.branch7x7_2, self.branch7x7_3 = _wide(inner, inner), _tall(inner, 192)
        self.branch7x7dbl_1 = Unit(channels, inner, 1)
        self.branch7x7dbl_2, self.branch7x7dbl_3 = _tall(inner, inner), _wide(inner, inner)
        self.branch7x7dbl_4, self.branch7x7dbl_5 = _tall(inner, inner), _wide(inner, 192)
        self.branch_pool = Unit(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,768,h,w] -> [B,768,h,w]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """17x17 -> 8x8."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch3x3_1, self.branch3x3_2 = Unit(channels, 192, 1), Unit(192, 320, 3, 2)
        self.branch7x7x3_1 = Unit(channels, 192, 1)
        self.branch7x7x3_2 = _wide(192, 192)
        self.branch7x7x3_3 = _tall(192, 192)
        self.branch7x7x3_4 = Unit(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,512+C,h/2,w/2]."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, functional.max_pool2d(x, 3, 2)], 1)


class BlockE(nn.Module):
    """8x8 block; `maximum`: its pooling branch takes the largest instead of the mean (the last block of the port)."""

    def __init__(self, channels: int, maximum: bool) -> None:
        super().__init__()
        self._maximum = maximum
        self.branch1x1 = Unit(channels, 320, 1)
        self.branch3x3_1 = Unit(channels, 384, 1)
        self.branch3x3_2a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1, self.branch3x3dbl_2 = Unit(channels, 448, 1), Unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Unit(channels, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,h,w] -> [B,2048,h,w]."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, 1, 1) if self._maximum else _average(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(three), self.branch3x3_2b(three)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class FidInception(nn.Module):
    """Pooled features [B,2048] of pictures; frozen, without the classifier.

    The order of the modules is the order of the network; 3x3 maximum pooling stands before 3b and before 5b.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Unit(64, 80, 1)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)
        self.Mixed_6a = BlockB(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = (BlockC(n) for n in (128, 160, 160, 192))
        self.Mixed_7a = BlockD(768)
        self.Mixed_7b, self.Mixed_7c = BlockE(1280, maximum=False), BlockE(2048, maximum=True)
        self.requires_grad_(False)

    def forward(self, image_u8: Tensor) -> Tensor:
        """Pictures [B,3,H,W] with values 0..255 -> features [B,2048]."""
        x = (resized(image_u8.float(), SIZE) - 128) / 128
        for name, module in self.named_children():
            if name in ("Conv2d_3b_1x1", "Mixed_5b"):
                x = functional.max_pool2d(x, 3, 2)
            x = module(x)
        return x.mean(dim=(2, 3))


def resized(image: Tensor, size: int) -> Tensor:
    """[B,C,H,W] -> [B,C,size,size] as TensorFlow 1 did: bilinear, corner pixels aligned at the upper left only."""
    rows, columns = (_taps(length, size, image) for length in image.shape[-2:])
    return rows @ image @ columns.T


def _taps(length: int, size: int, like: Tensor) -> Tensor:
    """Matrix [size,length]: output k reads position k * length / size, between its two neighbours."""
    place = torch.arange(size, device=like.device, dtype=torch.float64) * length / size
    low = place.floor().long()
    high = (low + 1).clamp_max(length - 1)
    part = place - low
    out = torch.zeros(size, length, device=like.device, dtype=torch.float64)
    index = torch.arange(size, device=like.device)
    out[index, low] += 1 - part
    out[index, high] += part
    return out.to(like.dtype)


def load_inception(file: str | Path | None = None) -> FidInception:
    """The network with its published weights, from the asset `inception-fid` or a file.

    Raises FourdError with the command that fetches it, or for a file that does not fit.
    """
    out = FidInception()
    names = {name: tuple(value.shape) for name, value in out.state_dict().items()}
    known = load_weights(Path(file) if file else asset_path(ASSET), names)
    out.load_state_dict(known, strict=False)  # strict but for counters of batch normalisation: load_weights compared
    return out.eval()
