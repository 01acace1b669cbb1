"""Perceptual distance on the features of the embedded landmark network: needs no download, and knows faces.

It stands in for LPIPS (Zhang et al., CVPR 2018) where the licensed backbones are missing, in the same form: unit-length
features of several layers, squared differences, mean over places; but all channels weigh alike, because nobody's
judgements were fitted.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fourdface.assets import asset_path
from fourdface.errors import FourdError
from fourdface.perception.networks import LandmarkNet

__all__ = ["PERCEPTION_ASSET", "FaceFeatures", "load_face_features"]

PERCEPTION_ASSET = "perception"
SMALLEST = 16
"""Least height and width of pictures: the deepest layer then has two by two places."""
_PREFIX = "landmarks."
_EPSILON = 1e-8


class FaceFeatures(nn.Module):
    """The frozen trunk of `LandmarkNet` with four taps at 1/2, 1/4, 1/8 and 1/16 of the picture's size."""

    def __init__(self) -> None:
        super().__init__()
        network = LandmarkNet(fused=True)
        self.stem, self.stage1, self.stage2, self.stage3 = network.stem, network.stage1, network.stage2, network.stage3
        self.requires_grad_(False)

    def read(self, image: Tensor) -> list[Tensor]:
        """Tapped layers [B, C, h, w] of pictures [B, 3, H, W] in 0..1, of length 1 along the channels.

        Raises ValueError for pictures under 16 pixels.
        """
        if min(image.shape[-2:]) < SMALLEST:
            raise ValueError(
                f"face features need pictures of at least {SMALLEST} pixels, got {image.shape[-1]} x {image.shape[-2]}"
            )
        half = self.stem[0](image * 2 - 1)
        quarter = self.stage1(self.stem[1](half))
        eighth = self.stage2(quarter)
        taps = [half, quarter, eighth, self.stage3(eighth)]
        # the norm of a vector of zeros (after a ReLU) has no gradient, hence the constant inside of the root
        return [x / (x.square().sum(1, keepdim=True) + _EPSILON).sqrt() for x in taps]

    def compare(self, a: list[Tensor], b: list[Tensor]) -> Tensor:
        """Distance [B] in 0..2 of what `read` gave: squared differences, mean over places and layers."""
        return torch.stack([(x - y).square().sum(1).mean((1, 2)) for x, y in zip(a, b, strict=True)]).mean(0)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance [B] of pictures [B, 3, H, W] in 0..1; gradients reach both."""
        return self.compare(self.read(a), self.read(b))


def load_face_features(weights: Path | None = None) -> FaceFeatures:
    """The network with the embedded weights (or those of a file of the same kind), frozen, in eval mode.

    Raises FourdError where the file is none of these weights.
    """
    path = weights or asset_path(PERCEPTION_ASSET)
    network = FaceFeatures()
    try:
        state = {name.removeprefix(_PREFIX): value.float() for name, value in load_file(path).items()}
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise FourdError(f"{path} does not hold the weights of the landmark network; reinstall fourd") from error
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
