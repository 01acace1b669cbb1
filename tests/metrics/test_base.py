"""Values that do not depend on order or on how work was split; intervals."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing

from fourdface.metrics import Picture, Sample
from fourdface.metrics.base import bootstrap_interval, mean_of
from fourdface.metrics.image import L1, Psnr


def sample(k: int) -> Sample:
    generator = np.random.default_rng(k)
    image = generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    other = generator.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    return Sample(f"clip{k % 3}", k, Picture(image), Picture(other))


def whole() -> Psnr:
    metric = Psnr()
    for k in range(23):
        metric.update(sample(k))
    return metric


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_parts_give_the_very_bits_of_the_whole(parts):
    total = Psnr()
    order = list(range(parts))
    random.Random(parts).shuffle(order)
    for part in order:
        piece = Psnr()
        for k in range(part, 23, parts):
            piece.update(sample(k))
        total.merge(piece)
    assert total.compute() == whole().compute()


def test_what_cannot_be_merged():
    one, two = Psnr(), Psnr()
    one.update(sample(0))
    two.update(sample(0))
    with pytest.raises(ValueError, match="frame 0 of clip0 is in both parts"):
        one.merge(two)
    with pytest.raises(ValueError, match="cannot merge l1 into psnr"):
        one.merge(L1())
    with pytest.raises(ValueError, match="cannot merge psnr_face into psnr"):
        one.merge(Psnr("face"))


def _rank(rank: int, place: str, results) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    piece = Psnr()
    for k in range(rank, 23, 2):
        piece.update(sample(k))
    parts: list[Psnr | None] = [None, None]
    torch.distributed.all_gather_object(parts, piece)
    total = Psnr()
    for part in parts:
        assert part is not None
        total.merge(part)
    results.put((rank, total.compute()))
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_ranks_give_the_very_bits_of_one(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    workers = [context.Process(target=_rank, args=(rank, str(tmp_path / "rendezvous"), results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    assert [results.get()[1] for _ in range(2)] == [whole().compute()] * 2


def test_mean_ignores_what_was_not_measured():
    assert mean_of([1.0, math.nan, 3.0]) == 2.0
    assert math.isnan(mean_of([math.nan])) and math.isnan(mean_of([]))


def test_bootstrap_interval():
    low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert 1.0 < low < 3.0 < high < 5.0
    assert bootstrap_interval([1.0, 2.0, 3.0]) == bootstrap_interval([1.0, 2.0, 3.0])
    assert bootstrap_interval([2.0] * 4) == (2.0, 2.0)
    assert all(math.isnan(v) for v in bootstrap_interval([1.0]))
