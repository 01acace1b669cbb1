"""The three small networks of the embedded perception backend: face detector, dense landmarks, person matte.

Plain 3x3 residual networks: on CPUs these run several times faster per parameter than depthwise-separable ones, in
training more so. Batch normalisation is folded into the convolutions for inference (`fuse`), so a network built with
`fused=True` has convolutions with biases only, which is what the shipped float16 weights hold.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourdface.perception.geometry import COEFFICIENT_COUNT, LANDMARK_COUNT

LANDMARK_INPUT = 128
DETECTOR_INPUT = 192
DETECTOR_STRIDE = 8
MATTE_INPUT = 256


class ConvUnit(nn.Module):
    """3x3 (or 1x1) convolution, batch normalisation unless fused, ReLU unless `linear`."""

    def __init__(
        self, inputs: int, outputs: int, stride: int = 1, kernel: int = 3, linear: bool = False, fused: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=fused)
        self.norm = nn.Identity() if fused else nn.BatchNorm2d(outputs)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        """[B,inputs,H,W] -> [B,outputs,H/stride,W/stride]."""
        x = self.norm(self.conv(x))
        return x if self.linear else functional.relu(x)


class Residual(nn.Module):
    """Two 3x3 units with a skip connection."""

    def __init__(self, channels: int, fused: bool = False) -> None:
        super().__init__()
        self.first = ConvUnit(channels, channels, fused=fused)
        self.second = ConvUnit(channels, channels, linear=True, fused=fused)

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> the same shape."""
        return functional.relu(x + self.second(self.first(x)))


def fuse(network: nn.Module) -> dict[str, Tensor]:
    """State dict of `network` with every batch normalisation folded into its convolution (for `fused=True`)."""
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    for name, module in network.named_modules():
        if not isinstance(module, ConvUnit) or not isinstance(module.norm, nn.BatchNorm2d):
            continue
        norm = module.norm
        if norm.running_var is None or norm.running_mean is None:
            raise ValueError(f"batch normalisation {name} keeps no running statistics")
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        for key in [k for k in state if k.startswith(f"{name}.norm.")]:
            del state[key]
        state[f"{name}.conv.weight"] = module.conv.weight.detach() * scale[:, None, None, None]
        state[f"{name}.conv.bias"] = norm.bias.detach() - norm.running_mean * scale
    return state


class LandmarkNet(nn.Module):
    """Face crop -> dense landmarks, coefficients, rotation, presence.

    A residual backbone gives a coarse shape (a linear basis over a code); each landmark then reads the fine feature map
    where it lies and corrects itself (weights shared over landmarks up to a per-landmark gain, bias and read-out). The
    coefficients are read from the corrected landmarks, normalised for place and size, beside the code: MediaPipe's own
    coefficients are a function of its landmarks alone.
    """

    CODE = 176
    LOCAL = 32
    HIDDEN = 48

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvUnit(3, 32, 2, fused=fused), ConvUnit(32, 48, 2, fused=fused))
        self.stage1 = nn.Sequential(*(Residual(48, fused) for _ in range(2)))
        self.stage2 = nn.Sequential(ConvUnit(48, 96, 2, fused=fused), *(Residual(96, fused) for _ in range(3)))
        self.stage3 = nn.Sequential(ConvUnit(96, 144, 2, fused=fused), *(Residual(144, fused) for _ in range(3)))
        self.squeeze = ConvUnit(144, 48, kernel=1, fused=fused)
        self.code = nn.Linear(48 * 64, self.CODE)
        self.basis = nn.Linear(self.CODE, LANDMARK_COUNT * 2)
        self.pose = nn.Linear(self.CODE, 7)
        self.local_fine = ConvUnit(48, self.LOCAL, kernel=1, linear=True, fused=fused)
        self.local_coarse = ConvUnit(96, self.LOCAL, kernel=1, linear=True, fused=fused)
        self.point = nn.Linear(self.LOCAL, self.HIDDEN)
        self.point_gain = nn.Parameter(torch.ones(LANDMARK_COUNT, self.HIDDEN))
        self.point_bias = nn.Parameter(torch.zeros(LANDMARK_COUNT, self.HIDDEN))
        self.point_out = nn.Parameter(torch.zeros(LANDMARK_COUNT, 2, self.HIDDEN))
        self.shape_mean: Tensor
        self.shape_scale: Tensor
        self.register_buffer("shape_mean", torch.zeros(LANDMARK_COUNT * 2))
        self.register_buffer("shape_scale", torch.ones(LANDMARK_COUNT * 2))
        self.coefficients = nn.Sequential(
            nn.Linear(LANDMARK_COUNT * 2 + self.CODE, 192),
            nn.ReLU(),
            nn.Linear(192, 128),
            nn.ReLU(),
            nn.Linear(128, COEFFICIENT_COUNT),
        )

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`image` [B,3,128,128] in 0..1 -> dict.

        coarse, landmarks [B,478,2] crop coordinates; coefficients [B,52] (logits); rotation [B,3,3] in the crop's axes
        (x right, y up, z to the viewer); presence [B] (logit).
        """
        fine = self.stage1(self.stem(image * 2 - 1))
        middle = self.stage2(fine)
        code = functional.relu(self.code(self.squeeze(self.stage3(middle)).flatten(1)))
        coarse = self.basis(code).float().unflatten(1, (LANDMARK_COUNT, 2))
        landmarks = coarse + self._refine(fine, middle, coarse.detach())
        pose = self.pose(code).float()
        shape = normalised_shape(landmarks).flatten(1)
        shape = (shape - self.shape_mean) * self.shape_scale
        return {
            "coarse": coarse,
            "landmarks": landmarks,
            "coefficients": self.coefficients(torch.cat([shape, code.float()], dim=1)).float(),
            "rotation": rotation_from_six(pose[:, :6]),
            "presence": pose[:, 6],
        }

    def _refine(self, fine: Tensor, middle: Tensor, points: Tensor) -> Tensor:
        """Corrections [B,478,2] read from the feature maps at `points`."""
        coarse = functional.interpolate(
            self.local_coarse(middle).float(), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        features = self.local_fine(fine).float() + coarse
        sampled = functional.grid_sample(features, points[:, None], align_corners=False, padding_mode="border")
        hidden = self.point(sampled[:, :, 0].transpose(1, 2)).float()
        hidden = functional.relu(hidden * self.point_gain + self.point_bias)
        return torch.einsum("bph,pch->bpc", hidden, self.point_out)


def normalised_shape(landmarks: Tensor) -> Tensor:
    """Landmarks [B,P,2] with their mean removed and divided by their root mean square radius."""
    centred = landmarks - landmarks.mean(dim=1, keepdim=True)
    return centred / centred.square().sum(dim=2).mean(dim=1).clamp_min(1e-6).sqrt()[:, None, None]


def rotation_from_six(six: Tensor) -> Tensor:
    """Six numbers [B,6] -> rotations [B,3,3] by Gram-Schmidt on two columns (Zhou et al. 2019, section 4.2)."""
    first = functional.normalize(six[:, :3] + torch.tensor([1.0, 0.0, 0.0], device=six.device), dim=1)
    second = six[:, 3:] + torch.tensor([0.0, 1.0, 0.0], device=six.device)
    second = functional.normalize(second - (first * second).sum(dim=1, keepdim=True) * first, dim=1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=2)


class DetectorNet(nn.Module):
    """Small picture -> one map of face centres and their boxes (stride 8); faces from 12 px to the whole picture."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvUnit(3, 16, 2, fused=fused), ConvUnit(16, 32, 2, fused=fused))
        self.eighth = nn.Sequential(ConvUnit(32, 48, 2, fused=fused), Residual(48, fused))
        self.sixteenth = nn.Sequential(ConvUnit(48, 64, 2, fused=fused), Residual(64, fused))
        self.thirtysecond = nn.Sequential(ConvUnit(64, 64, 2, fused=fused), Residual(64, fused))
        self.lateral16 = ConvUnit(64, 64, kernel=1, fused=fused)
        self.lateral8 = ConvUnit(48, 48, kernel=1, fused=fused)
        self.reduce = ConvUnit(64, 48, kernel=1, fused=fused)
        self.head = nn.Sequential(Residual(48, fused), nn.Conv2d(48, 5, 1))

    def forward(self, image: Tensor) -> Tensor:
        """`image` [B,3,H,W] in 0..1 (sides multiples of 32) -> [B,5,H/8,W/8].

        Channels: logit of a face centre; offset x, y from the cell's centre, log width, log height, all in cells.
        """
        eighth = self.eighth(self.stem(image * 2 - 1))
        sixteenth = self.sixteenth(eighth)
        deepest = self.thirtysecond(sixteenth)
        up = functional.interpolate(deepest, size=sixteenth.shape[-2:], mode="nearest")
        up = self.reduce(self.lateral16(sixteenth) + up)
        up = functional.interpolate(up, size=eighth.shape[-2:], mode="nearest")
        return self.head(self.lateral8(eighth) + up).float()


class MatteNet(nn.Module):
    """Picture and a map of where the face is -> person alpha (logits), a small U-Net at 256x256."""

    def __init__(self, fused: bool = False) -> None:
        super().__init__()
        self.enter = ConvUnit(4, 16, 2, fused=fused)
        self.down = nn.ModuleList(
            [
                nn.Sequential(ConvUnit(16, 24, 2, fused=fused), Residual(24, fused)),
                nn.Sequential(ConvUnit(24, 48, 2, fused=fused), Residual(48, fused)),
                nn.Sequential(ConvUnit(48, 64, 2, fused=fused), Residual(64, fused)),
                nn.Sequential(ConvUnit(64, 80, 2, fused=fused), Residual(80, fused)),
            ]
        )
        widths = (16, 24, 48, 64, 80)
        self.up = nn.ModuleList(ConvUnit(widths[i + 1] + widths[i], widths[i], fused=fused) for i in range(4))
        self.leave = nn.Sequential(ConvUnit(16 + 4, 16, fused=fused), nn.Conv2d(16, 1, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """`image` [B,4,H,W]: RGB and face map in 0..1, sides multiples of 32 -> logits [B,1,H,W]."""
        x = image * 2 - 1
        levels = [self.enter(x)]
        for layer in self.down:
            levels.append(layer(levels[-1]))
        y = levels.pop()
        for layer in reversed(self.up):
            skip = levels.pop()
            y = layer(
                torch.cat(
                    [functional.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False), skip], dim=1
                )
            )
        y = functional.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return self.leave(torch.cat([y, x.to(y.dtype)], dim=1)).float()
