"""Time and memory of `fourd assets import` for a checkpoint of full size in the official form, with random weights.

Usage: python scripts/bench_import.py --folder WORK    (needs 4 GB of disk there and 3 GB of memory to make the file)
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "portrait4d-v2-vfhq512.pkl"
MEASURE = """
import sys, threading, time
from pathlib import Path
from fourdface.assets.formats.opening import open_weights
from fourdface.assets.importer import import_file
from fourdface.assets.recognise import recognise

def own_megabytes():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1024

path, peak, running = Path(sys.argv[1]), [0.0], True
def watch():
    while running:
        peak[0] = max(peak[0], own_megabytes())
        time.sleep(0.005)

start = time.perf_counter()
recognise(open_weights(path))
print(f"recognised in {time.perf_counter() - start:.2f} s")
thread = threading.Thread(target=watch)
thread.start()
start = time.perf_counter()
done = import_file(path, overwrite=True)
running = False
thread.join()
print(f"{done.tensors} tensors converted in {time.perf_counter() - start:.1f} s, {peak[0]:.0f} MB of own memory")
"""


def make(path: Path) -> None:
    """Write the checkpoint with the stand-ins of the tests."""
    sys.path.insert(0, str(ROOT / "tests"))
    import torch

    from fourdface.assets.manifests import integer_tensors, manifest
    from support.checkpoints import concrete, module_tree, persistence_pickle

    torch.manual_seed(0)
    structures = ("portrait4d-psi", "portrait4d-psi", "portrait4d-discriminator")
    whole = {structure: integer_tensors(structure) or frozenset() for structure in structures}
    generator, average, discriminator = (
        module_tree(
            {
                name: torch.randn(concrete(shape)).to(torch.int64 if name in whole[structure] else torch.float32)
                for name, shape in manifest(structure).items()
            }
        )
        for structure in structures
    )
    persistence_pickle(path, generator, discriminator, average=average)


def main() -> int:
    """Make the file unless it is there, and measure in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / NAME).is_file():
        make(folder / NAME)
    environment = {**os.environ, "FOURD_ASSETS": str(folder / "assets")}
    command = [sys.executable, "-c", MEASURE, str(folder / NAME)]
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
