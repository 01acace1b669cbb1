"""Work ahead in a background thread: order, errors, and that nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator

import pytest
import torch

from fourdface.stages.pipeline import prefetched


def background_threads() -> int:
    return sum(thread.daemon and thread.is_alive() for thread in threading.enumerate())


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_everything_comes_in_order(count: int) -> None:
    assert list(prefetched(lambda: range(count), depth=3)) == list(range(count))


def test_the_items_are_made_elsewhere() -> None:
    names = list(prefetched(lambda: (threading.current_thread().name for _ in range(3))))
    assert set(names) != {threading.current_thread().name}


def test_it_runs_ahead_but_not_far() -> None:
    made = 0

    def items() -> Iterator[int]:
        nonlocal made
        for k in range(100):
            made += 1
            yield k

    stream = prefetched(items, depth=4)
    assert next(stream) == 0
    time.sleep(0.3)
    assert 2 <= made <= 6, "the queue, the item given out, and one that waits for a place"
    stream.close()


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_comes_after_the_items_before_it(error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise error

    seen = []
    with pytest.raises(type(error)) as caught:
        for item in prefetched(items):
            seen.append(item)
    assert seen == [1, 2] and caught.value is error


def test_an_error_before_the_first_item() -> None:
    def make() -> Iterator[int]:
        raise OSError("no such clip")

    with pytest.raises(OSError, match="no such clip"):
        next(prefetched(make))


def test_stopping_early_ends_the_thread() -> None:
    before = background_threads()
    stream = prefetched(lambda: iter(range(10**9)), depth=2)
    assert [next(stream) for _ in range(5)] == [0, 1, 2, 3, 4]
    assert background_threads() == before + 1
    stream.close()
    assert background_threads() == before


def test_an_error_in_the_caller_ends_the_thread() -> None:
    before = background_threads()
    stream = prefetched(lambda: iter(range(10**9)))
    with pytest.raises(RuntimeError), contextlib.closing(stream):  # type: ignore[type-var]
        next(stream)
        raise RuntimeError("disk full")
    assert background_threads() == before


def test_the_callers_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    list(prefetched(lambda: range(3)))
    assert torch.get_num_threads() == before


def test_a_core_is_left_to_the_background_where_that_is_asked() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        streams = [prefetched(lambda: range(3), spare_core=spare) for spare in (True, False)]
        seen = [{torch.get_num_threads() for _ in stream} for stream in streams]
    finally:
        torch.set_num_threads(before)
    assert seen == [{max(1, min(2, (os.cpu_count() or 2) - 1))}, {2}]
