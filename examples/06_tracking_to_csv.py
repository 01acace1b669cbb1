"""Track the face of a clip and write the numbers as a table: one row a frame, with pose and 52 coefficients.

    python examples/06_tracking_to_csv.py clip.mp4 -o clip.csv

Angles are degrees (pitch: down, yaw: to the subject's left, roll: counter-clockwise, as axis-angle components),
translation is metres in front of the camera, status is 0 where the face was seen and 1 where it was missing.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from fourdface.artifacts import Provenance, Tracked
from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.blocks.head_model import HeadModel
from fourdface.media.video import open_video
from fourdface.perception import load_perception
from fourdface.stages.fit_flame import fit_flame
from fourdface.stages.preprocess import Source, preprocess

COLUMNS = ("time", "status", "pitch", "yaw", "roll", "x", "y", "z", *ARKIT_NAMES)


def track(clip: Path) -> Tracked:
    """Landmarks, coefficients and the fitted head of every frame; frames are read one by one and not kept."""
    made_by = Provenance(command="examples/06_tracking_to_csv.py")
    with open_video(clip) as reader:
        frames = ((frame.image_u8, frame.time) for frame in reader)
        source = Source(frames, reader.width, reader.height, reader.rate, clip.name, "")
        tracked = preprocess(source, load_perception(), made_by)
    return fit_flame(tracked, HeadModel.load("open"), made_by)


def table(tracked: Tracked) -> np.ndarray:
    """Numbers [T, 60] in the order of COLUMNS."""
    head = tracked.head()
    clock = np.stack([tracked.times, tracked.status], 1)
    return np.concatenate([clock, np.degrees(head.rotation), head.translation, head.expression], 1)


def main() -> None:
    """Track, write, and say what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("tracking.csv"))
    args = parser.parse_args()

    tracked = track(args.clip)
    with args.output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([f"{value:.5g}" for value in row] for row in table(tracked))
    seen = int((tracked.status != 1).sum())
    print(f"{args.output}: {len(tracked.times)} frames, a face in {seen} of them")


if __name__ == "__main__":
    main()
