"""The main job: one photo becomes a talking head. Writes out.mp4 and a contact sheet, out.png.

    python examples/01_demo.py                                   # NASA's portrait of Eileen Collins, driven by a clip
                                                                 # of a person that does not exist
    python examples/01_demo.py --photo me.jpg --drive clip.mp4   # your own
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from fourdface.media.image import encode_png, read_image
from fourdface.media.resize import fill_frame
from fourdface.media.video import open_video

HERE = Path(__file__).resolve().parent
FOURD = [str(Path(sys.executable).with_name("fourd"))]  # the program that was installed with this Python
VIEWS = (-50, -25, 25, 50)
CELL = 256


def run(words: str, command: list[str]) -> None:
    """Run a program and say how long it took."""
    print(f"{words}\n  $ {show(command)}", flush=True)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)


def show(command: list[str]) -> str:
    """The command as one types it."""
    return " ".join(command).replace(FOURD[0], "fourd").replace(sys.executable, "python")


def lift_and_reenact(photo: Path, drive: Path, avatar: Path, output: Path) -> None:
    """`fourd lift PHOTO | tee AVATAR | fourd reenact DRIVE -o OUTPUT`: two programs and a pipe."""
    lift, reenact = [*FOURD, "lift", str(photo)], [*FOURD, "reenact", str(drive), "-o", str(output), "--overwrite"]
    print(f"lift the photo and drive it\n  $ {show(lift)} | tee {avatar} | {show(reenact)}", flush=True)
    start = time.perf_counter()
    first = subprocess.Popen(lift, stdout=subprocess.PIPE)
    second = subprocess.Popen(["tee", str(avatar)], stdin=first.stdout, stdout=subprocess.PIPE)
    third = subprocess.Popen(reenact, stdin=second.stdout)
    for process in (first, second):
        process.stdout.close()  # so that each program notices when the next one leaves
    if any([process.wait() for process in (third, second, first)]):
        sys.exit("the demo stops here; the line above says why")
    print(f"  {time.perf_counter() - start:.1f} s", flush=True)


def frames(path: Path, places: tuple[float, ...]) -> list[np.ndarray]:
    """Frames at some places (0..1) of a clip, as square cells."""
    with open_video(path) as clip:
        pictures = [fill_frame(frame.image_u8, CELL, CELL) for frame in clip]
    return [pictures[round(place * (len(pictures) - 1))] for place in places]


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
        from skimage.data import astronaut

        photo.write_bytes(encode_png(astronaut()))
    if args.drive is None and not drive.exists():
        draw = [sys.executable, str(HERE / "02_synthetic_driver.py"), "-o", str(drive), "--seconds", f"{args.seconds:g}"]
        run("render the driver, a person that does not exist", draw)
    avatar, views, sheet = args.work / "avatar.h5", args.work / "views", args.output.with_suffix(".png")
    lift_and_reenact(photo, drive, avatar, args.output)
    sides = [word for yaw in VIEWS for word in ("--yaw", str(yaw))]
    run("look at it from other sides", [*FOURD, "render", str(avatar), *sides, "-o", str(views), "--overwrite"])
    sheet.write_bytes(encode_png(contact_sheet(photo, drive, args.output, views), compress_level=9))
    print(f"{args.output} and {sheet} made in {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
