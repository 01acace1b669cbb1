"""A tri-plane radiance field: planes and decoder, as a function of points that a volume renderer takes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..ops.triplane_render import DecoderWeights
from ..ops.triplane_sample import AXES, triplane_sample
from .decoder import OSGDecoder

__all__ = ["AXES", "TriplaneField", "decoder_weights"]


def decoder_weights(decoder: OSGDecoder) -> DecoderWeights:
    """Return the effective weights (gains applied, two heads put together); gradients flow to the parameters."""
    first = decoder.net[0]
    heads = [decoder.net[2]] if decoder.heads == 1 else [decoder.out_sigma, decoder.out_rgb]
    weights = [layer.weight * layer.weight_gain for layer in (first, *heads)]
    biases = [layer.bias * layer.bias_gain for layer in (first, *heads)]
    return DecoderWeights(weights[0], biases[0], torch.cat(weights[1:]), torch.cat(biases[1:]))


@dataclass(frozen=True)
class TriplaneField:
    """planes [B, 3, C, H, W] (or [B, 3, C, D, H, W]) with their decoder; axes and box_size as in `triplane_sample`."""

    planes: Tensor
    decoder: OSGDecoder
    axes: str = "eg3d"
    box_size: float = 1.0

    def features(self, points: Tensor) -> Tensor:
        """Return the features [B, ..., C] of points [B, ..., 3], before the decoder."""
        found = triplane_sample(self.planes, points.flatten(1, -2), axes=self.axes, box_size=self.box_size)
        return found.unflatten(1, points.shape[1:-1])

    def __call__(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return raw density [B, ...] and colours [B, ..., K] in -0.001..1.001 of points [B, ..., 3]."""
        colours, density = self.decoder.decode(self.features(points))
        return density[..., 0], colours
