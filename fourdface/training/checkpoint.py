"""Checkpoints: one safetensors file with all that a continued run needs, written whole or not at all.

Tensors: network/NAME/KEY, average/NAME/KEY, optimizer/OWNER/NETWORK.PARAMETER/KEY, variable/NAME. The metadata holds
one JSON object `run`: step, counts, seed, number of samples. Randomness needs no state (see seeds.py).
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fourdface.artifacts.atomic import reason, replacing
from fourdface.errors import FourdError

logger = logging.getLogger(__name__)

FORMAT = 1
FOLDER = "checkpoints"
NAME = re.compile(r"step-(\d{9})\.safetensors")


def save(run_dir: Path, tensors: Mapping[str, Tensor], facts: dict[str, Any], keep: int) -> Path:
    """Write the checkpoint of `facts["step"]` and drop all but the newest `keep`.

    Raises FourdError (disk full, no permission); what was there before is then untouched.
    """
    folder = run_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{facts['step']:09d}.safetensors"
    older = [place for _, place in found(run_dir)]
    try:
        write_tensors(path, tensors, {"run": json.dumps({"format": FORMAT, **facts}, sort_keys=True)})
    except FourdError as error:
        kept = f"; {older[-1]} is whole: make room and run the same command again" if older else ""
        raise FourdError(f"{error}{kept}") from error
    for _, place in found(run_dir)[:-keep]:
        place.unlink(missing_ok=True)
    return path


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file in one step, replacing an old one; raises FourdError where the disk is full."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    seen: set[int] = set()
    for name, value in whole.items():  # safetensors refuses tensors that share memory (tied weights)
        place = value.untyped_storage().data_ptr()
        whole[name] = value.clone() if place in seen else value
        seen.add(place)
    with replacing(path, overwrite=True) as temporary:
        try:
            save_file(whole, temporary, metadata=metadata)
        except (SafetensorError, OSError) as error:
            raise FourdError(f"cannot write {path}: {reason(error)}") from error


def found(run_dir: Path) -> list[tuple[int, Path]]:
    """(step, file) of the checkpoints of a run, oldest first."""
    folder = run_dir / FOLDER
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted((int(match[1]), path) for path in files if (match := NAME.fullmatch(path.name)))


def sweep(run_dir: Path) -> None:
    """Remove what a killed process left half written."""
    for path in [*run_dir.glob(".*.tmp.*"), *run_dir.glob("*/.*.tmp.*")]:
        path.unlink(missing_ok=True)


class Checkpoint:
    """An opened checkpoint: its facts, and its tensors by group."""

    def __init__(self, path: Path) -> None:
        """Raises FourdError for a file that is damaged, none of ours, or newer than this program."""
        self.path = path
        try:
            with self._opened() as file:
                self.names = set(file.keys())
                self.facts: dict[str, Any] = json.loads((file.metadata() or {})["run"])
                version = int(self.facts["format"])
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise FourdError(f"{path} is no whole checkpoint: {reason(error)}") from error
        if version > FORMAT:
            raise FourdError(f"{path} has format {version}, and this fourd reads up to {FORMAT}; install a newer one")

    def _opened(self) -> Any:
        return safe_open(self.path, framework="pt")

    def group(self, name: str) -> dict[str, Tensor]:
        """Tensors whose name starts with NAME/, without it."""
        start = f"{name}/"
        with self._opened() as file:
            names = [key for key in sorted(self.names) if key.startswith(start)]
            return {key.removeprefix(start): file.get_tensor(key) for key in names}

    def matching(self, name: str, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A group whose names and shapes must be those of `wanted`; raises FourdError naming the first difference."""
        group = self.group(name)
        for key in sorted({*group, *wanted}):
            if key not in group or key not in wanted:
                where = "the checkpoint" if key not in group else "the recipe"
                raise FourdError(
                    f"{self.path} belongs to another network: {name}/{key} is missing in {where}; {_FRESH}"
                )
            if group[key].shape != wanted[key].shape:
                raise FourdError(
                    f"{self.path} belongs to another network: {name}/{key} is {list(group[key].shape)}, and "
                    f"{list(wanted[key].shape)} is expected; {_FRESH}"
                )
        return group


_FRESH = "take the configuration of that run, or give --fresh to start anew"


def newest(run_dir: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole; None where there is none. A damaged one is named in a warning.

    Raises FourdError where there are checkpoints and all are damaged.
    """
    places = found(run_dir)
    error: FourdError | None = None
    for _, path in reversed(places):
        try:
            return Checkpoint(path)
        except FourdError as problem:
            error = error or problem
            logger.warning("%s; the one before is taken", problem)
    if error is not None:
        raise error
    return None


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep a second run out of the folder; the lock ends with the process, however it ends. Raises FourdError."""
    import fcntl

    with open(run_dir / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FourdError(f"another run is writing to {run_dir}; wait for it or choose another folder") from error
        except OSError as error:  # a file system without locks
            logger.debug("no lock in %s: %s", run_dir, error)
        yield
