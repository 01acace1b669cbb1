"""Time the main job end to end: lift a photo, reenact a clip (decode, perception, fit, splat, encode), `fourd --help`.

    python scripts/bench_main_job.py --photo PHOTO --clip CLIP [--size 512]

Wall seconds of whole processes, start included, and CPU seconds beside them; the rate of reenactment is that of the
frames after the start (two runs of different length, difference divided by difference).
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click


def run(*arguments: str) -> tuple[float, float]:
    """Wall and CPU seconds of one fourd command."""
    program = [sys.executable, "-c", "from fourdface.cli.main import main; main()"]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*program, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shortened(clip: Path, frames: int, place: Path) -> Path:
    """The first frames of a clip as an mp4 of its own, without sound."""
    from fourdface.media.video import VideoReader, VideoWriter

    reader = VideoReader(clip)
    with VideoWriter(place, reader.width, reader.height, reader.rate) as writer:
        for frame in reader:
            if frame.index >= frames:
                break
            writer.write(frame.image_u8)
    return place


@click.command()
@click.option("--photo", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--clip", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--size", default=512, show_default=True, help="Longest side of the photo.")
@click.option("--frames", default=330, show_default=True, help="Frames of the longer run.")
def main(photo: Path, clip: Path, size: int, frames: int) -> None:
    """See the module's docstring."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        avatar, short = place / "a.h5", max(30, frames // 6)
        wall, cpu = run("-q", "--help")
        click.echo(f"fourd --help          {wall:6.2f} s   CPU {cpu:5.2f} s")
        wall, cpu = run("lift", str(photo), "--size", str(size), "-o", str(avatar))
        click.echo(f"lift                  {wall:6.2f} s   CPU {cpu:5.2f} s")
        few, many = (shortened(clip, count, place / f"{count}.mp4") for count in (short, frames))
        times = [
            run("-q", "reenact", str(c), "--avatar", str(avatar), "-o", str(place / f"o{c.name}")) for c in (few, many)
        ]
        wall, cpu = times[1][0] - times[0][0], times[1][1] - times[0][1]
        count = frames - short
        each = f"{1e3 * wall / count:5.1f} ms a frame, CPU {1e3 * cpu / count:5.1f} ms"
        click.echo(f"reenact               {count / wall:6.1f} frames/s   {each}")
        click.echo(f"  start of reenact    {times[0][0] - short * wall / count:6.2f} s")


if __name__ == "__main__":
    main()
