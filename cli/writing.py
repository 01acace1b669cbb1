"""Write rendered frames as mp4, PNG folder or frames artifact, whichever the output's name asks for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from fourdface.cli.stream import Output, open_output, output_folder
from fourdface.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from fourdface.artifacts import Provenance
    from fourdface.media.audio import AudioTrack

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v")


@dataclass
class FrameTarget:
    """Where frames go: `kind` is mp4, png (folder) or h5 (frames artifact)."""

    kind: str
    output: Output | None
    folder: Path | None
    overwrite: bool


def open_frame_target(argument: str | None, *, overwrite: bool, transparent: bool, pipe: str) -> FrameTarget:
    """Decide by the name of -o, before anything is computed; stdout gets fragmented mp4.

    Raises UsageError where the name says nothing, or for a transparent mp4.
    """
    if argument not in (None, "-"):
        path = Path(str(argument))
        if path.suffix.lower() in (".h5", ".hdf5"):
            out = open_output(argument, overwrite=overwrite, what="a frames artifact", example="frames.h5")
            return FrameTarget("h5", out, None, overwrite)
        if path.suffix == "" or path.is_dir():
            return FrameTarget("png", None, path, overwrite)
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise UsageError(
                f"-o {path}: cannot tell what to write from {path.suffix}; "
                "use NAME.mp4, NAME.h5 or a folder for PNG files"
            )
    if transparent:
        raise UsageError("an mp4 holds no transparency; write PNG files (-o FOLDER) or a frames artifact (-o NAME.h5)")
    out = open_output(argument, overwrite=overwrite, what="a video", example="out.mp4", suffix=".mp4", pipe=pipe)
    return FrameTarget("mp4", out, None, overwrite)


@dataclass(frozen=True)
class FrameInfo:
    """What the writers need beside the pixels."""

    width: int
    height: int
    rate: Fraction
    provenance: Provenance
    audio: AudioTrack | None = None
    variable_rate: bool = False
    """Show every frame at its own time, as a driver of variable rate or with dropped frames needs."""


Item = tuple["np.ndarray", float, "np.ndarray", "np.ndarray"]
"""Picture, time in seconds, world_to_camera [4,4], intrinsics [3,3]."""


def write_frames(target: FrameTarget, items: Iterable[Item], info: FrameInfo) -> int:
    """Write all frames and return their number; without any nothing is written at all."""
    items = iter(items)
    first = next(items, None)
    if first is None:
        return 0
    items = itertools.chain([first], items)
    del first
    if target.kind == "png":
        return _write_folder(target, items)
    if target.kind == "h5":
        return _write_artifact(target, items, info)
    return _write_video(target, items, info)


def _write_video(target: FrameTarget, items: Iterable[Item], info: FrameInfo) -> int:
    from fourdface.media.video import VideoWriter

    if target.output is None:
        raise ValueError("an mp4 target has an output")
    made_from = ", ".join(source.name for source in info.provenance.sources)
    metadata = {
        "comment": f"synthetic media made by fourd {info.provenance.fourd_version} from {made_from}",
        "synthetic_media": "true",
        "fourd_method": info.provenance.method,
    }
    with target.output as path, open(path, "wb") as file:
        destination = file if target.output.to_stdout else path
        with VideoWriter(
            destination, info.width, info.height, info.rate, audio=info.audio, metadata=metadata,
            fragmented=target.output.to_stdout, variable_rate=info.variable_rate,
        ) as writer:  # fmt: skip
            count = 0
            for picture, time, *_ in items:
                writer.write(picture, time if info.variable_rate else None)
                count += 1
    return count


def _write_folder(target: FrameTarget, items: Iterable[Item]) -> int:
    from fourdface.media.image import encode_png

    if target.folder is None:
        raise ValueError("a png target has a folder")
    count = 0
    with output_folder(target.folder, overwrite=target.overwrite) as folder:
        for picture, *_ in items:
            (folder / f"{count:06d}.png").write_bytes(encode_png(picture))
            count += 1
    return count


def _write_artifact(target: FrameTarget, items: Iterable[Item], info: FrameInfo) -> int:
    import numpy as np

    from fourdface.artifacts import Blobs, Frames
    from fourdface.media.image import encode_png

    if target.output is None:
        raise ValueError("a frames target has an output")
    times, worlds, cameras, blobs = [], [], [], Blobs()
    for picture, time, world_to_camera, intrinsics in items:
        blobs.append(encode_png(picture))
        times.append(time)
        worlds.append(world_to_camera)
        cameras.append(intrinsics)
    frames = Frames(
        provenance=info.provenance, rate_numerator=info.rate.numerator, rate_denominator=info.rate.denominator,
        times=np.asarray(times, np.float64), frame_blobs=blobs, intrinsics=np.asarray(cameras, np.float32),
        world_to_camera=np.asarray(worlds, np.float32),
    )  # fmt: skip
    with target.output as path:
        frames.write(path, overwrite=True)
    return len(times)


def counted_times(rate: Fraction, count: int | None = None) -> Iterator[float]:
    """Presentation times of frames at an exact rate."""
    k = 0
    while count is None or k < count:
        yield float(k / rate)
        k += 1
