"""How an artifact declares its fields: each dataclass field carries its dtype, axes, units and frame as metadata.

From these declarations alone follow the checks, the HDF5 layout (`_store.py`) and the page docs/artifacts.md.

Axes are written as in ``"T,478,2"``. A letter is a size that all fields of one artifact share (``T`` frames, ``H`` and
``W`` rows and columns, ``S`` identity modes); a star matches any size, and ``...`` any shape.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fourdface.artifacts.rows import StoredRows
from fourdface.errors import FourdError

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,63}")
"""What a key of a free-form group (an avatar's tensors, a motion's embeddings) may look like."""


@dataclasses.dataclass(frozen=True)
class Spec:
    """What one field of an artifact holds.

    kind: ``array``, ``integer``, ``text``, ``blob`` (bytes), ``blobs`` (one bytes entry per index of the first axis) or
    ``mapping`` (name -> array). group: HDF5 group whose fields are all given or all absent ("" = always given).
    notes: for a mapping, the names of the artifact's fields that hold its axes and units by key. by_row: for an array,
    that it stays in the file when it is read (`StoredRows`).
    """

    kind: str
    doc: str
    dtype: str = ""
    axes: str = ""
    units: str = ""
    frame: str = ""
    group: str = ""
    optional: bool = False
    check: Callable[[Any], str | None] | None = None
    notes: tuple[str, str] | None = None
    by_row: bool = False


def array(dtype: str, axes: str, doc: str, **details: Any) -> Any:
    """Declare an array field: numpy dtype (``"f4"``), axes (``"T,3"``); further fields of `Spec` by their names."""
    return _field(Spec("array", doc, dtype=dtype, axes=axes, **details))


def integer(doc: str, **details: Any) -> Any:
    """Declare a whole number, kept as an HDF5 attribute."""
    return _field(Spec("integer", doc, dtype="i8", **details))


def text(doc: str, **details: Any) -> Any:
    """Declare a string, kept as an HDF5 attribute; the optional ones are empty when not given."""
    return _field(Spec("text", doc, **details))


def blob(doc: str, **details: Any) -> Any:
    """Declare the bytes of one encoded file (a PNG, a sound track)."""
    return _field(Spec("blob", doc, dtype="u1", axes="*", **details))


def blobs(axes: str, doc: str, **details: Any) -> Any:
    """Declare a sequence of encoded files, one per index of the axis; an entry may be empty."""
    return _field(Spec("blobs", doc, dtype="u1", axes=axes, **details))


def mapping(axes: str, doc: str, **details: Any) -> Any:
    """Declare a group of arrays with free names."""
    return _field(Spec("mapping", doc, axes=axes, **details))


def note(doc: str) -> Any:
    """Declare a name -> words field that annotates a mapping (axes or units); stored as attributes of the arrays."""
    return _field(Spec("note", doc))


def _field(spec: Spec) -> Any:
    metadata = {"spec": spec}
    if spec.kind in ("mapping", "note"):
        return dataclasses.field(default_factory=dict, metadata=metadata)
    if spec.kind == "text" and (spec.optional or spec.group):
        return dataclasses.field(default="", metadata=metadata)
    if spec.optional or spec.group:
        return dataclasses.field(default=None, metadata=metadata)
    return dataclasses.field(metadata=metadata)


def specs(artifact: Any) -> Iterator[tuple[str, Spec]]:
    """Each declared field of an artifact (class or instance) with its name, in order of declaration."""
    for field in dataclasses.fields(artifact):
        if "spec" in field.metadata:
            yield field.name, field.metadata["spec"]


def is_given(value: Any) -> bool:
    """Whether a field holds something (None, "" and {} stand for "not given")."""
    return not (value is None or (isinstance(value, str | Mapping) and len(value) == 0))


def groups_given(artifact: Any) -> set[str]:
    """The optional groups of which at least one field is given ("" is always among them)."""
    return {""} | {spec.group for name, spec in specs(artifact) if spec.group and is_given(getattr(artifact, name))}


def problems(artifact: Any) -> list[str]:
    """Everything that contradicts the declarations, one short phrase each; an empty list is a valid artifact."""
    present = groups_given(artifact)
    sizes: dict[str, tuple[int, str]] = {}
    missing = []
    found: list[str] = []
    for name, spec in specs(artifact):
        value = getattr(artifact, name)
        if not is_given(value):
            if spec.group in present and not spec.optional and spec.kind not in ("mapping", "note"):
                missing.append(f"{spec.group}/{name}" if spec.group else name)
            continue
        issue = _CHECKS[spec.kind](name, value, spec, sizes)
        if issue is None and spec.check is not None:
            issue = spec.check(value)
            issue = f"{name} {issue}" if issue else None
        if issue is not None:
            found.append(issue)
    if missing:
        found.insert(0, "missing: " + ", ".join(missing))
    return found


def require_valid(artifact: Any, words: str) -> None:
    """Raise one FourdError that names everything wrong with the artifact, called `words` in it."""
    found = problems(artifact) or artifact.contradictions()
    if found:
        raise FourdError(f"{words} is not valid: " + "; ".join(found))


def _check_array(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    stored = spec.by_row and isinstance(value, StoredRows)
    if not stored and not isinstance(value, np.ndarray):
        return f"{name} must be a numpy array, got {type(value).__name__}"
    expected = np.dtype(spec.dtype)
    if value.dtype != expected:
        return f"{name} must be {expected.name}, got {value.dtype.name}"
    return check_shape(name, value.shape, spec.axes, sizes) or (None if stored else check_finite(name, value))


def check_shape(name: str, shape: tuple[int, ...], axes: str, sizes: dict[str, tuple[int, str]]) -> str | None:
    """Compare a shape with declared axes; `sizes` remembers the size of each letter and which field gave it."""
    if axes == "...":
        return None
    wanted = axes.split(",")
    if len(shape) != len(wanted):
        return f"{name} must have shape [{axes}], got {list(shape)}"
    for axis, size in zip(wanted, shape, strict=True):
        if axis == "*":
            continue
        if axis.isdigit():
            if size != int(axis):
                return f"{name} must have shape [{axes}], got {list(shape)}"
            continue
        known, source = sizes.setdefault(axis, (size, name))
        if size != known:
            return f"{name} has {axis} = {size}, but {source} has {axis} = {known}"
    return None


def check_finite(name: str, value: np.ndarray) -> str | None:
    """Arrays hold numbers only: a missing frame is marked by its status, never by NaN."""
    if value.dtype.kind == "f" and value.size and not np.isfinite(value).all():
        return f"{name} holds NaN or infinity"
    return None


def _check_integer(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        return f"{name} must be a whole number, got {value!r}"
    return None if -(2**63) <= value < 2**63 else f"{name} does not fit 64 bits"


def _check_text(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    if not isinstance(value, str):
        return f"{name} must be text, got {type(value).__name__}"
    return f"{name} holds a NUL character" if "\0" in value else None


def _check_blob(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    return None if isinstance(value, bytes) else f"{name} must be bytes, got {type(value).__name__}"


def _check_blobs(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    if isinstance(value, bytes | str) or not isinstance(value, Sequence):
        return f"{name} must be a sequence of bytes, got {type(value).__name__}"
    if isinstance(value, list | tuple) and not all(isinstance(entry, bytes) for entry in value):
        return f"{name} must hold bytes only"
    return check_shape(name, (len(value),), spec.axes, sizes)


def _check_mapping(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    if not isinstance(value, Mapping):
        return f"{name} must map names to arrays, got {type(value).__name__}"
    for key, entry in value.items():
        full = f"{name}/{key}"
        if not isinstance(key, str) or NAME.fullmatch(key) is None:
            return f"{name} holds the name {key!r}, which is not made of letters, digits, _ - and ."
        if not isinstance(entry, np.ndarray) or entry.dtype.kind not in "fiu":
            return f"{full} must be a numpy array of numbers, got {getattr(entry, 'dtype', type(entry).__name__)}"
        if spec.dtype and entry.dtype != np.dtype(spec.dtype):
            return f"{full} must be {np.dtype(spec.dtype).name}, got {entry.dtype.name}"
        issue = check_shape(full, entry.shape, spec.axes, sizes) or check_finite(full, entry)
        if issue is not None:
            return issue
    return None


def _check_note(name: str, value: Any, spec: Spec, sizes: dict[str, tuple[int, str]]) -> str | None:
    if not isinstance(value, Mapping) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        return f"{name} must map names to words"
    return None


_CHECKS: dict[str, Callable[[str, Any, Spec, dict[str, tuple[int, str]]], str | None]] = {
    "array": _check_array,
    "integer": _check_integer,
    "text": _check_text,
    "blob": _check_blob,
    "blobs": _check_blobs,
    "mapping": _check_mapping,
    "note": _check_note,
}
