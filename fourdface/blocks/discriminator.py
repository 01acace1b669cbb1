"""StyleGAN2's residual discriminator over several pictures of one sample at once.

EG3D's dual discrimination (Chan et al., CVPR 2022, section 4.4) shows it the sharp picture beside the enlarged render;
Portrait4D's GenHead adds the head's surface correspondence and its silhouette. It is conditioned on the camera label.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from fourdface.blocks.stylegan2 import FullyConnected, MappingNetwork
from fourdface.ops.bias_act import ACTIVATIONS, bias_act
from fourdface.ops.upfirdn2d import binomial_filter, downsample2d, upfirdn2d

__all__ = ["Discriminator", "DiscriminatorConfig", "DualDiscriminator", "minibatch_deviation"]


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Sizes of the network; the defaults are Portrait4D's for 512 pixels.

    label_dim: length of the camera label. group: samples that share a minibatch deviation. half_blocks: number of
    largest blocks that run in float16 on CUDA (0: none).
    """

    resolution: int = 512
    img_channels: int = 10
    label_dim: int = 25
    channel_base: int = 32768
    channel_max: int = 512
    mapping_layers: int = 8
    group: int = 2
    clamp: float = 256.0
    half_blocks: int = 4

    def __post_init__(self) -> None:
        if self.resolution < 8 or self.resolution & (self.resolution - 1):
            raise ValueError(f"resolution must be a power of two from 8 on, got {self.resolution}")


def minibatch_deviation(x: Tensor, group: int) -> Tensor:
    """Append one channel: the deviation within groups of samples, averaged over pixels and channels.

    [B, C, H, W] -> [B, C + 1, H, W]; sample i is in group i mod (B / group). Karras et al., "Progressive Growing of
    GANs" (2018), section 3. Raises ValueError where the batch is no multiple of the group.
    """
    batch = x.shape[0]
    size = min(group, batch)
    if batch % size:
        raise ValueError(f"the batch of {batch} must be a multiple of the discriminator's group of {size}")
    groups = x.reshape(size, batch // size, *x.shape[1:])
    deviation = (groups.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
    extra = deviation.repeat(size)[:, None, None, None].expand(-1, 1, *x.shape[2:])
    return torch.cat([x, extra], dim=1)


class _Convolution(nn.Module):
    """Equalised convolution, halving the size where `down`, then leaky ReLU where `activation` says so."""

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "lrelu",
        down: bool = False,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.activation, self.down, self.clamp = activation, down, clamp
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", binomial_filter())
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """[B, I, H, W] -> [B, O, H, W] or half of it."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        margin = weight.shape[-1] // 2
        if self.down and margin == 0:
            x = conv2d(downsample2d(x, self.resample_filter), weight)
        elif self.down:
            around = margin + 1
            smooth = upfirdn2d(x, self.resample_filter, padding=(around, around, around, around))
            x = conv2d(smooth, weight, stride=2)
        else:
            x = conv2d(x, weight, padding=margin)
        limit = None if self.clamp is None else self.clamp * gain
        factor = ACTIVATIONS[self.activation].gain * gain
        return bias_act(x, self.bias, activation=self.activation, gain=factor, clamp=limit)


class _Block(nn.Module):
    """Residual block that halves the size; the first one takes the pictures."""

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, clamp: float, img_channels: int = 0) -> None:
        super().__init__()
        self.register_buffer("resample_filter", binomial_filter())
        if img_channels:
            self.fromrgb = _Convolution(img_channels, in_channels, 1, clamp=clamp)
        self.takes_pictures = img_channels > 0
        self.conv0 = _Convolution(in_channels, in_channels, 3, clamp=clamp)
        self.conv1 = _Convolution(in_channels, out_channels, 3, down=True, clamp=clamp)
        self.skip = _Convolution(in_channels, out_channels, 1, bias=False, activation="linear", down=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, O, H/2, W/2]."""
        if self.takes_pictures:
            x = self.fromrgb(x)
        half = math.sqrt(0.5)
        return self.skip(x, gain=half) + self.conv1(self.conv0(x), gain=half)


class _Epilogue(nn.Module):
    """The last 4x4 pixels to one score per sample: the inner product with the embedded label."""

    def __init__(self, channels: int, group: int, clamp: float) -> None:
        super().__init__()
        self.group = group
        self.conv = _Convolution(channels + 1, channels, 3, clamp=clamp)
        self.fc = FullyConnected(channels * 16, channels, activation="lrelu")
        self.out = FullyConnected(channels, channels)

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """x [B, C, 4, 4], embedded label [B, C] -> [B, 1]."""
        x = self.conv(minibatch_deviation(x, self.group))
        x = self.out(self.fc(x.flatten(1)))
        return (x * embedded).sum(dim=1, keepdim=True) / math.sqrt(embedded.shape[1])


class Discriminator(nn.Module):
    """Blocks b512, b256, ... and the epilogue b4: stacked pictures [B, K, R, R] and labels [B, L] -> logits [B, 1]."""

    resample_filter: Tensor

    def __init__(self, config: DiscriminatorConfig = DiscriminatorConfig()) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("resample_filter", binomial_filter())
        self.resolutions = [2**i for i in range(config.resolution.bit_length() - 1, 2, -1)]
        channels = {size: min(config.channel_base // size, config.channel_max) for size in [*self.resolutions, 4]}
        for i, size in enumerate(self.resolutions):
            pictures = config.img_channels if i == 0 else 0
            self.add_module(f"b{size}", _Block(channels[size], channels[size // 2], config.clamp, pictures))
        last = channels[4]
        self.mapping = MappingNetwork(
            0, config.label_dim, last, None, num_layers=config.mapping_layers, average_decay=None
        )
        self.b4 = _Epilogue(last, config.group, config.clamp)

    def forward(self, pictures: Tensor, label: Tensor) -> Tensor:
        """pictures [B, K, R, R] in -1..1, label [B, L] -> logits [B, 1], high for real."""
        config = self.config
        expected = (config.img_channels, config.resolution, config.resolution)
        if tuple(pictures.shape[1:]) != expected:
            raise ValueError(f"pictures must be [B, {', '.join(map(str, expected))}], got {tuple(pictures.shape)}")
        x = pictures
        for i, size in enumerate(self.resolutions):
            half = x.is_cuda and i < config.half_blocks
            x = self.get_submodule(f"b{size}")(x.to(torch.float16 if half else pictures.dtype))
        return self.b4(x.to(pictures.dtype), self.mapping(None, label))


class DualDiscriminator(Discriminator):
    """A discriminator of a picture together with other views of it, all resized to the picture's size."""

    def forward(self, image: Tensor, others: tuple[Tensor, ...] | Tensor, label: Tensor) -> Tensor:  # type: ignore[override]
        """Judge a picture beside what it should agree with.

        Args:
            image: [B, 3, R, R] in -1..1, the final picture.
            others: pictures [B, k, r, r] of any size, stacked after it: the render before super-resolution [B, 3, ..],
                for GenHead also the correspondence map [B, 3, ..] and the silhouette [B, 1, ..], all in -1..1.
            label: [B, L] camera label.

        Returns:
            Logits [B, 1].
        """
        rest = (others,) if isinstance(others, Tensor) else others
        size = image.shape[-1]
        return super().forward(torch.cat([image, *(_resized(x, size) for x in rest)], dim=1), label)


def _resized(x: Tensor, size: int) -> Tensor:
    """[B, k, r, r] -> [B, k, size, size], bilinear, without aliasing."""
    x = x.to(torch.promote_types(x.dtype, torch.float32))  # torch resizes no bfloat16 on CPUs
    return interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
