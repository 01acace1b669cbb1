"""Buffers of networks (running means): put back when an update is skipped, and averaged like gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fourdface.training.distributed import Ranks, mean_in_buckets


def persistent_buffers(module: nn.Module) -> list[Tensor]:
    """The buffers that a checkpoint holds, themselves; all others are constants (bases of a head model)."""
    state = module.state_dict(keep_vars=True)
    return [value for value in state.values() if not isinstance(value, nn.Parameter)]


class BufferGuard:
    """The buffers of all networks as they were before a phase.

    Every micro-batch starts from them, and what the micro-batches of all ranks change is averaged: so a running mean
    comes out the same however the batch is split.
    """

    def __init__(self, networks: Mapping[str, nn.Module], micros: int, ranks: Ranks) -> None:
        self.micros, self.ranks = micros, ranks
        self.buffers = [value for module in networks.values() for value in persistent_buffers(module)]
        self.before = [value.clone() for value in self.buffers]
        self._changes: list[Tensor] = []

    def restore(self) -> None:
        """Undo all changes."""
        self._write(self.before)

    def collect(self) -> None:
        """Take in what one micro-batch changed, and put the buffers back for the next."""
        if self.micros * self.ranks.world == 1:
            return
        changes = [(new - old) / self.micros for new, old in self._floats()]
        self._changes = [a + b for a, b in zip(self._changes, changes, strict=True)] if self._changes else changes
        if self.micros > 1:
            self.restore()

    def finish(self) -> None:
        """Give the buffers the mean of all changes; what no micro-batch changed stays exact."""
        if not self._changes:
            return
        mean_in_buckets(self._changes, self.ranks)
        with torch.no_grad():
            for (buffer, old), change in zip(self._floats(), self._changes, strict=True):
                buffer.copy_(old + change)

    def _floats(self) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self.buffers, self.before, strict=True)
        return [(new, old) for new, old in pairs if new.is_floating_point()]

    def _write(self, values: list[Tensor]) -> None:
        with torch.no_grad():
            for buffer, value in zip(self.buffers, values, strict=True):
                buffer.copy_(value)
