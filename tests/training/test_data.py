"""The order of the data, shards read by workers, and errors of samples."""

from __future__ import annotations

import itertools
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fourdface.artifacts import Views
from fourdface.errors import FourdError, UsageError
from fourdface.training.data import index_at, permutation, steps_of_batches
from support.artifacts import make_views


class Numbers:
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"index": torch.tensor(index)}


class Drawn(Numbers):
    def draw(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"index": torch.tensor(index), "noise": torch.randn((), generator=generator)}


class Shards(Numbers):
    """Rows of several `views` files, each opened by the process that reads it."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        super().__init__(3 * len(paths))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        views = opened(self.paths[index // 3])
        picture = np.frombuffer(views.images[index % 3], np.uint8).copy()
        return {"image": torch.from_numpy(picture[:5]), "shape": torch.from_numpy(views.shape[index % 3])}


@lru_cache(maxsize=2)
def opened(path: Path) -> Views:
    return Views.read(path)


def taken(samples: Numbers, steps: int, batch: int = 6, accumulate: int = 1, **options: int) -> list[dict[str, Tensor]]:
    batches = steps_of_batches(samples, 0, batch, accumulate, **options)
    return [
        {name: torch.cat([micro[name] for micro in micros]) for name in micros[0]}
        for micros in itertools.islice(batches, steps)
    ]


pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 257])
def test_every_sample_once_an_epoch(count: int) -> None:
    for epoch in range(3):
        indices = [index_at(5, position, count) for position in range(epoch * count, (epoch + 1) * count)]
        assert sorted(indices) == list(range(count))
    assert count < 3 or list(permutation(5, 0, count)) != list(permutation(5, 1, count))


def test_the_parts_of_ranks_and_micro_batches_make_the_whole() -> None:
    whole = taken(Numbers(10), 5, batch=12)
    parts = [taken(Numbers(10), 5, batch=12, accumulate=2, rank=rank, world=3) for rank in range(3)]
    for step in range(5):
        assert torch.equal(torch.cat([part[step]["index"] for part in parts]), whole[step]["index"])


def test_a_later_start_reads_what_would_have_been_read() -> None:
    assert torch.equal(taken(Drawn(10), 5)[3]["noise"], taken(Drawn(10), 1, step=3)[0]["noise"])


def test_what_is_drawn_differs_between_epochs_and_not_between_workers() -> None:
    plain, workers = taken(Drawn(6), 2), taken(Drawn(6), 2, workers=2)
    assert set(plain[0]["index"].tolist()) == set(plain[1]["index"].tolist())
    assert not set(plain[0]["noise"].tolist()) & set(plain[1]["noise"].tolist())
    for a, b in zip(plain, workers, strict=True):
        assert torch.equal(a["noise"], b["noise"])


def test_shards_are_the_same_for_any_number_of_workers(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.h5" for number in range(3)]
    for number, path in enumerate(paths):
        make_views(3, seed=number).write(path)
    truth = taken(Shards(paths), 4)
    for workers in (1, 4):
        for a, b in zip(taken(Shards(paths), 4, workers=workers), truth, strict=True):
            assert torch.equal(a["image"], b["image"]) and torch.equal(a["shape"], b["shape"])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_cannot_be_read_is_one_sentence(workers: int) -> None:
    class Broken(Numbers):
        def __getitem__(self, index: int) -> dict[str, Tensor]:
            raise FourdError("images of a.h5 is damaged; make it again")

    with pytest.raises(FourdError, match=r"^images of a.h5 is damaged; make it again$"):
        taken(Broken(4), 1, workers=workers)


def test_no_data_and_a_batch_that_does_not_divide() -> None:
    with pytest.raises(FourdError, match="holds no sample"):
        taken(Numbers(0), 1)
    with pytest.raises(UsageError, match=r"train.batch is 6.*give a multiple of 4"):
        taken(Numbers(3), 1, accumulate=2, world=2)
