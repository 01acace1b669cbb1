"""Names and shapes of the tensors of published checkpoints, and the comparison with what a file holds.

The table is files/manifests.json.gz, written by scripts/build_manifests.py: structure -> tensor name -> shape, with
None for an axis whose length follows the head model (index lists of FLAME regions) and not the network.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

Shape = Sequence[int | None]
Manifest = Mapping[str, Shape]

OPTIONAL = ("dataset_label_std",)
"""Buffer that the training loop of EG3D and its relatives registers; no network reads it."""
_COUNTER = "num_batches_tracked"


@dataclasses.dataclass(frozen=True)
class Difference:
    """How the tensors of a file differ from a manifest; empty tuples where they do not."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    wrong: tuple[str, ...]
    """Names of tensors with another shape."""
    common: int

    @property
    def none(self) -> bool:
        """Whether the tensors fit."""
        return not (self.missing or self.unexpected or self.wrong)

    @property
    def likeness(self) -> float:
        """Part of all names that both have, 0 to 1."""
        return self.common / max(1, self.common + len(self.missing) + len(self.unexpected))


@lru_cache(maxsize=1)
def all_manifests() -> dict[str, dict[str, tuple[int | None, ...]]]:
    """Every shipped manifest by the name of its structure."""
    return {
        structure: {name: tuple(shape) for name, shape in tensors.items()}
        for structure, tensors in _packed()["shapes"].items()
    }


def integer_tensors(structure: str) -> frozenset[str] | None:
    """Names of the tensors that hold whole numbers or booleans; None for a structure whose types are not known."""
    names = _packed()["integers"].get(structure)
    return None if names is None else frozenset(names)


@lru_cache(maxsize=1)
def _packed() -> dict[str, Any]:
    packed = Path(__file__).with_name("files").joinpath("manifests.json.gz").read_bytes()
    return json.loads(gzip.decompress(packed))  # type: ignore[no-any-return]


def manifest(structure: str) -> dict[str, tuple[int | None, ...]]:
    """Tensor name -> shape of one structure; KeyError for a name that is not shipped."""
    return all_manifests()[structure]


def fits(shape: Sequence[int], expected: Shape) -> bool:
    """Whether a shape is the expected one; None stands for any length."""
    return len(shape) == len(expected) and all(b is None or a == b for a, b in zip(shape, expected, strict=True))


def compare(shapes: Mapping[str, Sequence[int]], expected: Manifest) -> Difference:
    """Compare names and shapes. Counters of batch normalisation may be missing, OPTIONAL buffers missing or there."""
    missing = (name for name in expected if name not in shapes and not is_optional(name))
    unexpected = (name for name in shapes if name not in expected and name not in OPTIONAL)
    common = [name for name in expected if name in shapes]
    wrong = (name for name in common if name not in OPTIONAL and not fits(shapes[name], expected[name]))
    return Difference(tuple(missing), tuple(unexpected), tuple(wrong), len(common))


def is_optional(name: str) -> bool:
    """Whether a tensor may be missing, because inference never reads it."""
    return name in OPTIONAL or name.endswith(_COUNTER)


def describe(difference: Difference, shapes: Mapping[str, Sequence[int]], expected: Manifest) -> str:
    """The first differences in words: what, expected and got."""
    parts = []
    if difference.wrong:
        name = difference.wrong[0]
        want = "x".join("?" if n is None else str(n) for n in expected[name]) or "one number"
        got = "x".join(map(str, shapes[name])) or "one number"
        parts.append(f"{name} has the shape {got}, expected {want}{_more(difference.wrong)}")
    if difference.missing:
        parts.append(f"{difference.missing[0]} is missing{_more(difference.missing)}")
    if difference.unexpected:
        parts.append(f"{difference.unexpected[0][:80]} is not expected{_more(difference.unexpected)}")
    return ", ".join(parts)


def _more(names: tuple[str, ...]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""
