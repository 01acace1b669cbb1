"""Running averages of networks (EMA), with a half-life in images and a ramp-up (Karras et al., StyleGAN2-ADA)."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from fourdface.training.buffers import persistent_buffers
from fourdface.training.config import TrainOptions


class Averages:
    """Copies of some networks that follow them slowly; buffers are copied as they are."""

    def __init__(self, networks: Mapping[str, nn.Module], names: Sequence[str], options: TrainOptions) -> None:
        self.options = options
        self.sources = {name: networks[name] for name in names}
        self.networks = {name: copy.deepcopy(module).eval() for name, module in self.sources.items()}
        for module in self.networks.values():
            module.requires_grad_(False)

    def update(self, images: int) -> None:
        """Follow one step; `images` seen so far, this step's included."""
        keep = decay(self.options, images)
        with torch.no_grad():
            for name, average in self.networks.items():
                for slow, fast in zip(average.parameters(), self.sources[name].parameters(), strict=True):
                    slow.lerp_(fast.to(slow.dtype), 1 - keep)
                buffers = persistent_buffers(average), persistent_buffers(self.sources[name])
                for copied, buffer in zip(*buffers, strict=True):
                    copied.copy_(buffer)


def decay(options: TrainOptions, images: int) -> float:
    """Weight that the average keeps in a step: 0.5 ** (batch / half-life)."""
    half_life = options.ema_half_life
    if options.ema_ramp:
        half_life = min(half_life, images * options.ema_ramp)
    return 0.5 ** (options.batch / max(half_life, 1e-8))
