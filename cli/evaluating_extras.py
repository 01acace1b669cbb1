"""What `fourd eval` knows of a result beside its pictures: its sound, and the time that it took to make."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.errors import FourdError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.metrics import Sound


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
def timed(place: Path) -> Iterator[None]:
    """Write the seconds that the block takes beside `place`."""
    begin = time.perf_counter()
    yield
    place.with_suffix(".seconds.json").write_text(json.dumps(time.perf_counter() - begin))


def seconds_per_frame(place: Path) -> float | None:
    """What `timed` wrote, over the frames of the artifact `place`; None where it is not there."""
    from fourdface.artifacts import Frames

    note = place.with_suffix(".seconds.json")
    if not note.is_file():
        return None
    return float(json.loads(note.read_text())) / max(1, len(Frames.read(place).frame_blobs))
