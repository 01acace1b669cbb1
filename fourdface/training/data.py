"""The order of the data: a function of (seed, position) alone, the same for any number of ranks and workers.

The samples of a run form one endless sequence, permutation after permutation of the data set; step s takes positions
s B to (s + 1) B of it, rank r the r-th part of those. So a run continued at step s reads what it would have read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate
from torch.utils.data import Dataset as TorchDataset

from fourdface.errors import FourdError, UsageError
from fourdface.training.seeds import seed_of


class Samples(Protocol):
    """A data set: a length, and samples as dicts of tensors that can be stacked.

    A class that also has `draw(index, generator) -> dict[str, Tensor]` is asked by it instead: the generator
    (torch, CPU) is seeded by (seed, position), for augmentation and random partners.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> dict[str, Tensor]: ...


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of one epoch [count] int64, the same on every machine."""
    return np.random.default_rng([seed, epoch, 0x0DA7A]).permutation(count)


def index_at(seed: int, position: int, count: int) -> int:
    """Index of the sample at a position of the endless sequence."""
    epoch, place = divmod(position, count)
    return int(permutation(seed, epoch, count)[place])


class _Positions(TorchDataset[Any]):
    """The data set as a function of the position, for the workers."""

    def __init__(self, samples: Samples, seed: int) -> None:
        self.samples, self.seed, self.count = samples, seed, len(samples)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> dict[str, Tensor] | FourdError:
        index = index_at(self.seed, position, self.count)
        draw = getattr(self.samples, "draw", None)
        try:
            if draw is None:
                return self.samples[index]
            generator = torch.Generator().manual_seed(seed_of(self.seed, position, "sample"))
            return draw(index, generator)  # type: ignore[no-any-return]
        except FourdError as error:  # raised in a worker, it would arrive with the worker's traceback as its text
            return error


def _collate(samples: list[dict[str, Tensor] | FourdError]) -> dict[str, Tensor] | FourdError:
    """Samples as one batch, or the first error among them."""
    error = next((sample for sample in samples if isinstance(sample, FourdError)), None)
    return error or default_collate(samples)


class _Order:
    """Batch sampler: the positions of one rank's micro-batches, from a step on, without end."""

    def __init__(self, batch: int, micros: int, rank: int, world: int, step: int) -> None:
        self.batch, self.micros, self.rank, self.world, self.step = batch, micros, rank, world, step

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch // (self.world * self.micros)
        step = self.step
        while True:
            for micro in range(self.micros):
                first = step * self.batch + (self.rank * self.micros + micro) * size
                yield list(range(first, first + size))
            step += 1


def check_split(batch: int, accumulate: int, world: int) -> None:
    """Refuse a batch that cannot be cut into equal parts; raises UsageError."""
    if batch % (accumulate * world):
        raise UsageError(
            f"train.batch is {batch}, and it must divide into {world} process(es) times {accumulate} micro-batch(es); "
            f"give a multiple of {accumulate * world}"
        )


def steps_of_batches(
    samples: Samples, seed: int, batch: int, accumulate: int, *, rank: int = 0, world: int = 1, step: int = 0,
    workers: int = 0, device: torch.device | None = None,
) -> Iterator[list[dict[str, Tensor]]]:  # fmt: skip
    """Yield, step by step from `step` on, the micro-batches of this rank as dicts of stacked tensors on `device`.

    Raises FourdError for an empty data set, UsageError for a batch that does not divide.
    """
    check_split(batch, accumulate, world)
    if len(samples) == 0:
        raise FourdError("the training data holds no sample")
    device = device or torch.device("cpu")
    options: dict[str, Any] = {"num_workers": workers, "pin_memory": device.type == "cuda", "collate_fn": _collate}
    if workers:
        options |= {"persistent_workers": True, "prefetch_factor": 4}
    order: Any = _Order(batch, accumulate, rank, world, step)
    batches = iter(DataLoader(_Positions(samples, seed), batch_sampler=order, **options))
    while True:
        yield [to_device(next(batches), device) for _ in range(accumulate)]


def to_device(batch: dict[str, Tensor] | FourdError, device: torch.device) -> dict[str, Tensor]:
    """The batch on a device, copied while it computes where memory is pinned; raises an error that came instead."""
    if isinstance(batch, FourdError):
        raise batch
    return {name: value.to(device, non_blocking=True) for name, value in batch.items()}
