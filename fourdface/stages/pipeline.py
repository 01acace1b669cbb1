"""Two stages at once: tracking of the next frames while the current one is rendered."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetched(make: Callable[[], Iterable[T]], depth: int = 4, spare_core: bool = True) -> Iterator[T]:
    """Iterate over `make()` in a background thread that is at most `depth` items ahead.

    Both sides get their share of the cores: one for the background thread, which runs many small operations, the
    rest for the caller. Small operations spread over busy cores cost more in waiting than they gain. An error in the
    background is raised here; when the caller stops early the thread ends too.

    spare_core: leave a core to the background; not where the caller's work on a frame is a hundred times longer.
    """
    items: queue.Queue[tuple[str, object]] = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(kind: str, value: object) -> bool:
        while not stop.is_set():
            try:
                items.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        torch.set_num_threads(1)
        try:
            for item in make():
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # handed over to the caller, who raises it
            put("error", error)

    before = torch.get_num_threads()
    if spare_core:
        torch.set_num_threads(max(1, min(before, (os.cpu_count() or 2) - 1)))
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            kind, value = items.get()
            if kind == "end":
                return
            if kind == "error":
                raise value  # type: ignore[misc]
            yield value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=10)
        torch.set_num_threads(before)
