"""The main job: one photo becomes a talking head. Writes out.mp4 and a contact sheet, out.png.

python examples/01_demo.py                                   # NASA's portrait of Eileen Collins, driven by a clip
                                                             # of a person that does not exist
python examples/01_demo.py --photo me.jpg --drive clip.mp4   # your own
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from skimage.data import astronaut

from fourdface.media.image import encode_png, read_image
from fourdface.media.resize import fill_frame, resize
from fourdface.media.video import open_video

HERE = Path(__file__).resolve().parent
FOURD = [str(Path(sys.executable).with_name("fourd"))]  # the program that was installed with this Python
VIEWS = (-50, -25, 25, 50)
CELL = 256


def run(words: str, *commands: list[str]) -> None:
    """Run programs joined by pipes, as a shell does, and say how long it took."""
    line = " | ".join(shlex.join(command) for command in commands)
    print(f"{words}\n  $ {line.replace(FOURD[0], 'fourd').replace(sys.executable, 'python')}", flush=True)
    start = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for command in commands:
        before = running[-1].stdout if running else None
        after = None if command is commands[-1] else subprocess.PIPE
        running.append(subprocess.Popen(command, stdin=before, stdout=after))
        if before is not None:
            before.close()  # so that each program notices when the next one leaves
    if any([process.wait() for process in running]):
        sys.exit("the demo stops here; the lines above say why")
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)


def frames(path: Path, places: tuple[float, ...]) -> list[np.ndarray]:
    """Frames at some places (0..1) of a clip, as square cells. Two passes, so that a long clip needs no memory."""
    with open_video(path) as clip:
        count = sum(1 for _ in clip)
    wanted = [round(place * (count - 1)) for place in places]
    with open_video(path) as clip:
        cells = {k: fill_frame(frame.image_u8, CELL, CELL) for k, frame in enumerate(clip) if k in wanted}
    return [cells[k] for k in wanted]


def contact_sheet(photo: Path, drive: Path, result: Path, views: Path) -> np.ndarray:
    """Photo | driver over result | the same head from other sides."""
    places = (0.09, 0.33, 0.74, 0.97)
    columns = [fill_frame(read_image(photo)[..., :3], 2 * CELL, 2 * CELL)]
    columns += [np.concatenate(pair) for pair in zip(frames(drive, places), frames(result, places), strict=True)]
    sides = [fill_frame(read_image(file), CELL, CELL) for file in sorted(views.glob("*.png"))]
    columns += [np.concatenate(sides[:2]), np.concatenate(sides[2:])]
    return np.concatenate(columns, 1)


def main() -> None:
    """Make what is missing, run the chain, lay out the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, help="a photo of one person (default: NASA's astronaut)")
    parser.add_argument("--drive", type=Path, help="a clip of a talking person (default: a synthetic one is rendered)")
    parser.add_argument("--output", type=Path, default=Path("out.mp4"))
    parser.add_argument("--work", type=Path, default=Path("demo"), help="where avatar and driver are kept")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of the synthetic driver")
    args = parser.parse_args()
    start = time.perf_counter()
    args.work.mkdir(parents=True, exist_ok=True)
    photo, drive = args.photo or args.work / "astronaut.png", args.drive or args.work / f"driver_{args.seconds:g}s.mp4"
    if args.photo is None:
        photo.write_bytes(encode_png(resize(astronaut()[:340, 55:395], 512, 512)))  # head and shoulders
    if args.drive is None and not drive.exists():
        script = str(HERE / "02_synthetic_driver.py")
        run("draw the driver", [sys.executable, script, "-o", str(drive), "--seconds", f"{args.seconds:g}"])
    avatar, views, sheet = args.work / "avatar.h5", args.work / "views", args.output.with_suffix(".png")
    lift, keep = [*FOURD, "lift", str(photo)], ["tee", str(avatar)]
    run("lift and drive", lift, keep, [*FOURD, "reenact", str(drive), "-o", str(args.output), "--overwrite"])
    sides = [word for yaw in VIEWS for word in ("--yaw", str(yaw))]
    run("look at it from other sides", [*FOURD, "render", str(avatar), *sides, "-o", str(views), "--overwrite"])
    sheet.write_bytes(encode_png(contact_sheet(photo, drive, args.output, views), compress_level=9))
    print(f"{args.output} and {sheet} made in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
