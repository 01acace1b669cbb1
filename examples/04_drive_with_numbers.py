"""Drive an avatar from your own numbers: no video, only the 52 coefficients and a head rotation.

    fourd lift me.jpg -o me.h5
    python examples/04_drive_with_numbers.py me.h5 -o numbers.mp4                    # a written motion
    python examples/04_drive_with_numbers.py me.h5 -o numbers.mp4 --csv motion.csv   # one row a frame

The CSV's columns are ARKit names (capitals do not matter, so files of phone apps work too) and, if wanted, pitch, yaw
and roll in degrees. Coefficients that are not there are 0, angles that are not there stay as in the photo.
`06_tracking_to_csv.py` writes such files.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fourdface.artifacts import Avatar
from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.errors import FourdError
from fourdface.media.video import VideoWriter
from fourdface.methods.splat.restore import restore_avatar
from fourdface.methods.splat.rig import HeadState
from fourdface.stages.render import make_canvas, render_one, source_camera

Row = dict[str, float]


def written_motion(frames: int) -> Iterator[Row]:
    """Open and close the mouth, blink, smile, shake the head."""
    for k in range(frames):
        t = k / max(frames - 1, 1)
        smile = float(np.clip(4 * t - 2.6, 0, 0.8))
        blink = float(np.exp(-(((t - 0.5) / 0.03) ** 2)))
        yield {
            "jawopen": 0.3 * (1 - np.cos(6 * np.pi * t)) * (t < 0.67), "eyeblinkleft": blink, "eyeblinkright": blink,
            "mouthsmileleft": smile, "mouthsmileright": smile, "yaw": 20 * float(np.sin(2 * np.pi * t)),
        }  # fmt: skip


def csv_motion(path: Path) -> Iterator[Row]:
    """Rows of numbers by lower-case column name; columns without numbers are left out."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        for row in csv.DictReader(file):
            yield {key.lower(): float(value) for key, value in row.items() if key and _is_number(value)}


def _is_number(text: str | None) -> bool:
    try:
        return text is not None and bool(np.isfinite(float(text)))
    except ValueError:
        return False


def to_state(row: Row, rest: HeadState) -> HeadState:
    """One row as a pose of the avatar; the head turns where the photo shows it."""
    own = dict(zip(("pitch", "yaw", "roll"), np.degrees(rest.rotation.numpy()), strict=True))
    expression = np.array([np.clip(row.get(name.lower(), 0.0), 0, 1) for name in ARKIT_NAMES])
    rotation = np.radians([row.get(name, angle) for name, angle in own.items()])
    eye = {name.lower(): row.get(name.lower(), 0.0) for name in ARKIT_NAMES if name.startswith("eyeLook")}
    down = 0.5 * np.array([eye[f"eyelookdown{side}"] - eye[f"eyelookup{side}"] for side in ("left", "right")])
    # radians of the left and the right eye; +x is the subject's left
    turn = [eye["eyelookoutleft"] - eye["eyelookinleft"], eye["eyelookinright"] - eye["eyelookoutright"]]
    eyes = np.stack([down, 0.5 * np.array(turn), np.zeros(2)], 1).ravel()
    return HeadState.from_arrays(expression, rotation, rest.translation, eyes)


def main() -> None:
    """Read the avatar, move it, write a video."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("avatar", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("numbers.mp4"))
    parser.add_argument("--csv", type=Path, help="one row a frame (default: a written motion)")
    parser.add_argument("--frames", type=int, default=75, help="length of the written motion")
    parser.add_argument("--size", type=int, default=512)
    args = parser.parse_args()

    rows = list(csv_motion(args.csv) if args.csv else written_motion(args.frames))
    if not any(set(row) & {name.lower() for name in ARKIT_NAMES} for row in rows):
        raise FourdError(f"{args.csv}: no column has an ARKit name such as jawOpen")
    splat = restore_avatar(Avatar.read(args.avatar))
    canvas = make_canvas(splat, "keep", None, args.size)
    camera = source_camera(splat, canvas)
    with VideoWriter(args.output, canvas.width, canvas.height, 25, metadata={"comment": "synthetic media"}) as writer:
        for row in rows:
            writer.write(render_one(splat, to_state(row, splat.rig.source), camera, canvas.background_u8))
    print(f"{args.output}: {len(rows)} frames")


if __name__ == "__main__":
    main()
