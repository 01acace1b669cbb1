"""Render a talking clip, with sound, of a person that does not exist: the demo's driver.

    python examples/02_synthetic_driver.py -o driver.mp4 --seed 1 --seconds 6

Identity, skin, hair, light, speech and movement follow from the seed; nothing is downloaded. The known truth of every
frame (52 coefficients, head rotation, gaze, landmarks) can be kept with --truth.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from fourdface.media.audio import AudioTrack
from fourdface.media.video import VideoWriter
from fourdface.priors.synthetic_person import Performance, SyntheticPerson, perform, write_wav


def pictures(person: SyntheticPerson, performance: Performance, size: int) -> Iterator[np.ndarray]:
    """One picture uint8 [size,size,3] a frame, as many at a time as there are cores."""
    torch.set_num_threads(1)  # the cores work on different frames, which beats sharing one
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda state: person.render(state, size), performance.states())


def main() -> None:
    """Parse, perform, render, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("driver.mp4"))
    parser.add_argument("--seed", type=int, default=1, help="another seed is another person")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rate", type=int, default=25, help="frames a second")
    parser.add_argument("--size", type=int, default=512, help="pixels")
    parser.add_argument("--truth", type=Path, metavar="FILE.npz", help="also write what was drawn")
    args = parser.parse_args()

    start = time.perf_counter()
    person = SyntheticPerson(args.seed)
    performance = perform(args.seed, args.seconds, args.rate)
    tags = {"comment": f"synthetic media: a person drawn by fourd from seed {args.seed}, who does not exist"}
    with tempfile.TemporaryDirectory() as folder:
        wav = Path(folder) / "voice.wav"
        write_wav(wav, performance.sound)
        sound = AudioTrack.from_file(wav)  # encoded to AAC on the way into the mp4
        with VideoWriter(args.output, args.size, args.size, performance.rate, audio=sound, metadata=tags) as writer:
            for picture in pictures(person, performance, args.size):
                writer.write(picture)
    if args.truth:
        landmarks = np.stack([person.landmarks(state, args.size) for state in performance.states()])
        np.savez_compressed(
            args.truth, landmarks=landmarks, expression=performance.expression, head=performance.head,
            eyes=performance.eyes, shape=person.look.shape,
        )  # fmt: skip
    print(f"{args.output}: {len(performance)} frames with sound in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
