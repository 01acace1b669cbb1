"""What `fourd eval` knows of a result beside its pictures: its sound, and what it took to make."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.errors import FourdError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.metrics import Cost, Sound


_LONGEST_NOTE = 4096
"""Bytes of a note of costs that are read."""


def sounds_of(results: dict[str, Path], truth: Path, metrics: tuple[str, ...]) -> dict[str, Sound]:
    """The sound of each system's result, where a metric wants it: its own, else that of the truth (the driver)."""
    if not any(name.startswith("sync_") for name in metrics):
        return {}
    fallback = read_sound(truth)
    found = {label: read_sound(path) or fallback for label, path in results.items()}
    return {label: sound for label, sound in found.items() if sound is not None}


def read_sound(path: Path) -> Sound | None:
    """A video's sound as mono at 16 kHz in 16-bit units, from its first frame to its end; None where it has none."""
    from fourdface.media.video_reader import VideoReader
    from fourdface.metrics import Sound

    if path.is_dir() or path.suffix == ".h5":
        return None
    try:
        video = VideoReader(path)
    except FourdError:
        return None
    if video.audio is None:
        return None
    import av
    import numpy as np

    resampler = av.AudioResampler(format="s16", layout="mono", rate=16_000)
    parts: list[np.ndarray] = []
    start: float | None = None
    for frame, begin in video.audio.frames():
        start = float(begin) if start is None else start
        parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(frame)]
    parts += [part.to_ndarray().reshape(-1) for part in resampler.resample(None)]
    samples = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    shift = round((start or 0.0) * 16_000)
    samples = np.concatenate([np.zeros(shift, np.int16), samples]) if shift > 0 else samples[-shift:]
    return Sound(samples, video.rate)


@contextmanager
def measured(place: Path) -> Iterator[None]:
    """Write the seconds and the peak memory (MiB; Linux only) of the block beside `place`."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the kernel's high-water mark starts anew
    begin = time.perf_counter()
    yield
    seconds = time.perf_counter() - begin
    place.with_suffix(".cost.json").write_text(json.dumps({"seconds": seconds, "memory": _peak_memory()}))


def _peak_memory() -> float | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return None


def cost_of(place: Path) -> Cost:
    """What `measured` wrote, time over the frames of the artifact `place`; empty where it is not there.

    Raises FourdError for a note that `measured` did not write.
    """
    from fourdface.artifacts import Frames
    from fourdface.metrics import Cost

    note = place.with_suffix(".cost.json")
    if not note.is_file():
        return Cost()
    seconds, memory = _noted(note, place)
    return Cost(seconds / max(1, len(Frames.read(place).frame_blobs)), memory)


def _noted(note: Path, place: Path) -> tuple[float, float | None]:
    """Seconds and MiB of a note that lies in a folder of the user's, where it may have been changed."""
    try:
        with note.open("rb") as file:
            found = json.loads(file.read(_LONGEST_NOTE))
        seconds, memory = float(found["seconds"]), found["memory"]
        memory = None if memory is None else float(memory)
        fits = all(0 <= value < float("inf") for value in (seconds, memory or 0.0))
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        fits = False
    if not fits:
        raise FourdError(
            f"{note} is damaged: it should hold what {place.name} took to make, as seconds and memory; delete both "
            "files, and they are made again"
        )
    return seconds, memory
