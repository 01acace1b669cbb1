"""StyleGAN2's generator: mapping network, modulated convolution, synthesis blocks with skip connections.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (CVPR 2020), section 2 and appendix B, in the
form that EG3D and its family use. Names of parameters and buffers are those of the published checkpoints.

Equalised learning rate: weights are stored with unit variance (divided by the learning-rate multiplier) and scaled by
multiplier / sqrt(fan-in) when used.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d

from fourdface.ops.bias_act import ACTIVATIONS, bias_act
from fourdface.ops.upfirdn2d import binomial_filter, upfirdn2d, upsample2d

__all__ = [
    "FullyConnected",
    "MappingNetwork",
    "StyleGAN2Generator",
    "SynthesisBlock",
    "SynthesisLayer",
    "SynthesisNetwork",
    "ToRGB",
    "modulated_conv2d",
    "normalize_second_moment",
]

NoiseMode = Literal["random", "const", "none"]
_EPSILON = 1e-8


def normalize_second_moment(x: Tensor) -> Tensor:
    """Scale the rows of [B, N] to a mean square of 1."""
    return x * (x.square().mean(dim=1, keepdim=True) + _EPSILON).rsqrt()


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    up: int = 1,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
) -> Tensor:
    """Convolve with weights scaled per sample by styles, and normalised per output channel.

    With w = weight * s over the input channels and d = 1/sqrt(sum w² + 1e-8), the result is the convolution with w d.
    One sample is convolved with w d itself. For several, styles scale the input and d the output, so that one weight
    serves them all; the input is also divided by the largest style and sqrt(fan-in) and the output multiplied back,
    which keeps both within the range of float16.

    Args:
        x: [B, I, H, W]. weight: [O, I, K, K], K odd. styles: [B, I].
        up: 1 is a correlation of the same size; 2 a true convolution onto twice the size, smoothed by
            `resample_filter` [L, L].
        demodulate: False leaves d out (ToRGB).

    Returns:
        [B, O, H up, W up].
    """
    if x.shape[0] == 1:
        weight = weight * styles[0][:, None, None]
        if demodulate:
            weight = weight * (weight.square().sum(dim=(1, 2, 3), keepdim=True) + _EPSILON).rsqrt()
        return _convolve(x, weight, up, resample_filter)
    if not demodulate:
        return _convolve(x * styles[:, :, None, None].to(x.dtype), weight, up, resample_filter)
    energy = weight.square().sum(dim=(2, 3))  # [O, I]
    scale = (styles.square() @ energy.T + _EPSILON).rsqrt()
    size = styles.abs().amax(dim=1, keepdim=True).clamp_min(_EPSILON) * math.sqrt(weight[0].numel())
    x = x * (styles / size)[:, :, None, None].to(x.dtype)
    return _convolve(x, weight, up, resample_filter) * (scale * size)[:, :, None, None].to(x.dtype)


def _convolve(x: Tensor, weight: Tensor, up: int, resample_filter: Tensor | None) -> Tensor:
    weight = weight.to(x.dtype)
    margin = weight.shape[-1] // 2
    if up == 1:
        return conv2d(x, weight, padding=margin)
    if resample_filter is None:
        raise ValueError("modulated_conv2d with up > 1 needs a resample_filter")
    x = conv_transpose2d(x, weight.transpose(0, 1), stride=up)  # begins K - 1 samples before the picture
    taps = resample_filter.shape[0]
    left = margin + (taps + up - 1) // 2 - (2 * margin)
    right = margin + (taps - up) // 2 - (2 * margin + 1 - up)
    return upfirdn2d(x, resample_filter, padding=(left, right, left, right), gain=float(up * up))


class FullyConnected(nn.Module):
    """y = activation(x (weight g)^T + bias m): [B, I] -> [B, O]; weight [O, I], bias [O], m the lr multiplier."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), float(bias_init))) if bias else None
        self.activation = activation
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """[..., I] -> [..., O]."""
        weight = (self.weight * self.weight_gain).to(x.dtype)
        bias = None if self.bias is None else self.bias * self.bias_gain
        return bias_act(x @ weight.T, bias, dim=x.ndim - 1, activation=self.activation)


class MappingNetwork(nn.Module):
    """Latents and labels to styles: `embed` (labels), `fc0`, `fc1`...; `w_avg` is a running mean for truncation.

    z_dim or c_dim may be 0. num_ws None gives w [B, w_dim], a number repeats it to [B, num_ws, w_dim].
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int | None,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        average_decay: float | None = 0.998,
    ) -> None:
        super().__init__()
        if z_dim == 0 and c_dim == 0:
            raise ValueError("MappingNetwork needs latents, labels or both: z_dim and c_dim are 0")
        self.z_dim, self.c_dim, self.w_dim, self.num_ws = z_dim, c_dim, w_dim, num_ws
        self.num_layers, self.average_decay = num_layers, average_decay
        if c_dim:
            self.embed = FullyConnected(c_dim, w_dim)
        width = z_dim + (w_dim if c_dim else 0)
        for i in range(num_layers):
            layer = FullyConnected(width if i == 0 else w_dim, w_dim, activation="lrelu", lr_multiplier=lr_multiplier)
            self.add_module(f"fc{i}", layer)
        if num_ws is not None and average_decay is not None:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self,
        z: Tensor | None,
        c: Tensor | None = None,
        *,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        update_average: bool = False,
    ) -> Tensor:
        """z [B, z_dim] and c [B, c_dim] (None where the size is 0) -> w.

        `truncation` moves the first `truncation_cutoff` styles (None: all) towards the mean: 0 the mean, 1 no change.
        """
        parts = []
        if self.z_dim:
            parts.append(normalize_second_moment(self._checked("z", z, self.z_dim)))
        if self.c_dim:
            parts.append(normalize_second_moment(self.embed(self._checked("c", c, self.c_dim))))
        x = torch.cat(parts, dim=1)
        for i in range(self.num_layers):
            x = self.get_submodule(f"fc{i}")(x)
        if update_average and self.average_decay is not None:
            self.w_avg.copy_(x.detach().mean(dim=0).lerp(self.w_avg, self.average_decay))
        if self.num_ws is None:
            return x
        x = x[:, None].repeat(1, self.num_ws, 1)
        if truncation == 1:
            return x
        cut = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(x[:, :cut], truncation), x[:, cut:]], dim=1)

    @staticmethod
    def _checked(name: str, value: Tensor | None, size: int) -> Tensor:
        if value is None or value.ndim != 2 or value.shape[1] != size:
            got = None if value is None else tuple(value.shape)
            raise ValueError(f"{name} must be [B, {size}], got {got}")
        return value


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, leaky ReLU: [B, I, H, W] -> [B, O, resolution, resolution]."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        kernel_size: int = 3,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.clamp = resolution, up, clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("resample_filter", binomial_filter())
        self.register_buffer("noise_const", torch.randn(resolution, resolution))

    def forward(self, x: Tensor, w: Tensor, noise_mode: NoiseMode = "random", gain: float = 1.0) -> Tensor:
        """x [B, I, H, W], w [B, w_dim]; noise of each call, of the checkpoint, or none; `gain` scales the result."""
        x = modulated_conv2d(x, self.weight, self.affine(w), up=self.up, resample_filter=self.resample_filter)
        if noise_mode == "random":
            noise = torch.randn(x.shape[0], 1, *x.shape[2:], device=x.device)
            x = x + (noise * self.noise_strength).to(x.dtype)
        elif noise_mode == "const":
            x = x + (self.noise_const * self.noise_strength).to(x.dtype)
        elif noise_mode != "none":
            raise ValueError(f"noise_mode must be random, const or none, got {noise_mode!r}")
        limit = None if self.clamp is None else self.clamp * gain
        return bias_act(x, self.bias, activation="lrelu", gain=ACTIVATIONS["lrelu"].gain * gain, clamp=limit)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to a picture (or planes): [B, I, H, W] -> [B, O, H, W], no demodulation."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, clamp: float | None = None) -> None:
        super().__init__()
        self.clamp = clamp
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x [B, I, H, W], w [B, w_dim]."""
        x = modulated_conv2d(x, self.weight, self.affine(w) * self.weight_gain, demodulate=False)
        return bias_act(x, self.bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """Two layers (one in the first block, which starts from `const`) and a picture added to the enlarged one before.

    in_channels 0 marks the first block. up 1 keeps the size (the first block of EG3D's 4X and 2X super-resolution).
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        img_channels: int,
        *,
        up: int = 2,
        clamp: float | None = 256.0,
    ) -> None:
        super().__init__()
        self.in_channels, self.w_dim, self.resolution, self.up = in_channels, w_dim, resolution, up
        self.register_buffer("resample_filter", binomial_filter())
        if in_channels == 0:
            self.const = nn.Parameter(torch.randn(out_channels, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=up, clamp=clamp)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, clamp=clamp)
        self.torgb = ToRGB(out_channels, img_channels, w_dim, clamp=clamp)

    def forward(
        self, x: Tensor | None, img: Tensor | None, ws: Tensor, noise_mode: NoiseMode = "random"
    ) -> tuple[Tensor, Tensor]:
        """Features and picture of the block before -> those of this one.

        x and img are None in the first block; ws is [B, 3, w_dim], there [B, 2, w_dim].
        """
        styles = iter(ws.unbind(dim=1))
        if self.in_channels == 0:
            x = self.const.expand(ws.shape[0], -1, -1, -1)
        elif x is None:
            raise ValueError("only the first block starts without features")
        else:
            x = x.contiguous(memory_format=torch.channels_last)  # a third faster on CPUs
            x = self.conv0(x, next(styles), noise_mode)
        x = self.conv1(x, next(styles), noise_mode)
        if img is not None and self.up > 1:
            img = upsample2d(img, self.resample_filter, self.up)
        rgb = self.torgb(x, next(styles))
        rgb = rgb.to(torch.promote_types(rgb.dtype, torch.float32))  # pictures are never summed in half precision
        return x, rgb if img is None else img + rgb


class SynthesisNetwork(nn.Module):
    """Blocks b4, b8, ... to `img_resolution`; channels of a block = min(channel_base / resolution, channel_max)."""

    def __init__(
        self,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = 256.0,
    ) -> None:
        super().__init__()
        if img_resolution < 4 or img_resolution & (img_resolution - 1):
            raise ValueError(f"img_resolution must be a power of two from 4 on, got {img_resolution}")
        self.resolutions = [2**i for i in range(2, img_resolution.bit_length())]
        self.num_ws = 2 * len(self.resolutions)
        channels = {size: min(channel_base // size, channel_max) for size in self.resolutions}
        for size in self.resolutions:
            before = 0 if size == 4 else channels[size // 2]
            block = SynthesisBlock(before, channels[size], w_dim, size, img_channels, clamp=clamp)
            self.add_module(f"b{size}", block)

    def forward(self, ws: Tensor, noise_mode: NoiseMode = "random") -> tuple[Tensor, Tensor]:
        """ws [B, num_ws, w_dim] -> picture [B, img_channels, R, R] and the last features [B, C, R, R]."""
        if ws.ndim != 3 or ws.shape[1] != self.num_ws:
            raise ValueError(f"ws must be [B, {self.num_ws}, w_dim], got {tuple(ws.shape)}")
        x: Tensor | None = None
        img: Tensor | None = None
        first = 0
        for size in self.resolutions:
            block = self.get_submodule(f"b{size}")
            count = 1 if size == 4 else 2
            x, img = block(
                x, img, ws[:, first : first + count + 1], noise_mode
            )  # ToRGB shares the next block's first w
            first += count
        if x is None or img is None:
            raise RuntimeError("a synthesis network has at least one block")
        return img, x


class StyleGAN2Generator(nn.Module):
    """`mapping` and `synthesis`: latents z and labels c to pictures (tri-planes, backgrounds)."""

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        img_resolution: int,
        img_channels: int,
        *,
        mapping_layers: int = 8,
        channel_base: int = 32768,
        channel_max: int = 512,
        clamp: float | None = 256.0,
    ) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            w_dim, img_resolution, img_channels, channel_base=channel_base, channel_max=channel_max, clamp=clamp
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, self.num_ws, num_layers=mapping_layers)

    def forward(self, z: Tensor, c: Tensor | None = None, noise_mode: NoiseMode = "random") -> Tensor:
        """z [B, z_dim], c [B, c_dim] -> [B, img_channels, R, R], without truncation."""
        return self.synthesis(self.mapping(z, c), noise_mode)[0]
