"""Artifacts as HDF5 files: written deterministically, read with suspicion.

A file comes from a pipe, a colleague or a disk that filled up, so nothing in it is believed before it is checked: the
length against the superblock, every size against the length before memory is taken, every array against its CRC-32.
Only the declared names are looked at; links that leave the file, virtual and compressed datasets and object types are
refused. The 1.8 file format is used because its metadata carries checksums of its own, which the older one lacks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fourdface import __version__
from fourdface.artifacts._schema import NAME, Spec, groups_given, is_given, specs
from fourdface.artifacts.atomic import reason
from fourdface.artifacts.blobs import Blobs
from fourdface.artifacts.provenance import Provenance
from fourdface.artifacts.rows import StoredRows, row_checksums
from fourdface.errors import FourdError, UsageError
from fourdface.media.sniff import describe_bytes

MAGIC = b"\x89HDF\r\n\x1a\n"
FILE_FORMAT = ("v108", "v108")
ROW_CHECKSUMS = "_checksums"
"""Ending of the dataset, beside an array that is read by rows, with the CRC-32 of each."""
MAX_KEYS = 4096  # entries of a free-form group; far above any use, far below what would hang a reader
_END_OF_FILE = slice(28, 36)  # where superblock versions 2 and 3 keep the length of the file


class _Damage(Exception):
    """Something in the file that no fourd writes; turned into a FourdError that names the file."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What an artifact says of itself before its fields are read."""

    kind: str
    schema_version: int
    provenance: Provenance


# ---------------------------------------------------------------------------------------------------------- writing


def write_file(path: Path, kind: str, schema_version: int, provenance: Provenance, artifact: Any) -> None:
    """Write a validated artifact to `path` (not atomic: `atomic.replacing` gives the path); FourdError on I/O."""
    try:
        with open(path, "w+b", buffering=0) as raw:
            target = _ForgivingFile(raw)
            with h5py.File(target, "w", libver=FILE_FORMAT, track_order=False) as file:
                _write_all(file, target, kind, schema_version, provenance, artifact)
            target.check()
    except (OSError, RuntimeError, ValueError) as error:
        raise FourdError(f"cannot write {path}: {reason(error)}") from error


class _ForgivingFile:
    """A file that keeps a failed write to itself until it is asked.

    HDF5 goes on writing while it closes a file whose disk is full, and then crashes the process; so it is told that all
    went well, and `check` raises the first error once it is safe to leave.
    """

    def __init__(self, raw: io.FileIO) -> None:
        self._raw = raw
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error of all writes so far."""
        if self._error is not None:
            raise self._error

    def write(self, data: memoryview) -> int:
        """Write all of the data, or keep the error."""
        view = memoryview(data).cast("B")
        end = self._raw.tell() + view.nbytes
        try:
            while view.nbytes and self._error is None:
                view = view[self._raw.write(view) :]
        except OSError as error:
            self._error = error
        self._raw.seek(end)
        return memoryview(data).nbytes

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; what was never written reads as zeros."""
        view = memoryview(buffer).cast("B")
        got = self._raw.readinto(view) or 0
        view[got:] = bytes(view.nbytes - got)
        return view.nbytes

    def read(self, size: int = -1) -> bytes:
        """Read from the position (h5py takes only objects that can)."""
        return self._raw.read(size) or b""

    def truncate(self, size: int | None = None) -> int:
        """Set the length, or keep the error."""
        try:
            return self._raw.truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a position."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """The position."""
        return self._raw.tell()

    def flush(self) -> None:
        """Nothing is buffered."""


def _write_all(
    file: Any, target: _ForgivingFile, kind: str, schema_version: int, provenance: Provenance, artifact: Any
) -> None:
    attributes = {"fourd_kind": kind, "schema_version": schema_version, **provenance.attributes()}
    for name, value in attributes.items():
        _write_attribute(file, name, value)
    present = groups_given(artifact)
    for name, spec in specs(artifact):
        value = getattr(artifact, name)
        if is_given(value) and spec.group in present:
            _write_field(file.require_group(spec.group) if spec.group else file, name, value, spec, artifact)
            target.check()


def _write_attribute(node: Any, name: str, value: Any) -> None:
    if isinstance(value, bool):
        node.attrs.create(name, np.bool_(value))
    elif isinstance(value, str):  # of fixed length: the heap that holds the other kind has no checksum
        data = value.encode("utf-8", "replace")
        node.attrs.create(name, np.bytes_(data), dtype=h5py.string_dtype("utf-8", max(1, len(data))))
    else:
        node.attrs.create(name, np.int64(value))


def _write_field(group: Any, name: str, value: Any, spec: Spec, artifact: Any) -> None:
    if spec.kind in ("integer", "text"):
        _write_attribute(group, name, value)
    elif spec.kind == "array":
        whole = np.asarray(value)
        _write_array(group, name, whole, spec.axes, spec.units, spec.frame)
        if spec.by_row:
            _write_array(group, name + ROW_CHECKSUMS, row_checksums(whole), spec.axes.split(",")[0], "CRC-32", "")
    elif spec.kind == "blob":
        _write_array(group, name, np.frombuffer(value, np.uint8), "byte", spec.units, "")
    elif spec.kind == "blobs":
        _write_blobs(group, name, value, spec)
    elif spec.kind == "mapping":
        axes, units = (getattr(artifact, note) for note in spec.notes) if spec.notes else ({}, {})
        node = group.create_group(name)
        for key in sorted(value):
            _write_array(node, key, value[key], axes.get(key, spec.axes), units.get(key, spec.units), spec.frame)


def _write_array(group: Any, name: str, value: np.ndarray, axes: str, units: str, frame: str) -> None:
    stored = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).reshape(value.shape)
    dataset = group.create_dataset(name, data=stored, track_times=False)
    dataset.attrs.create("crc32", np.uint32(_checksum(stored)))
    for key, words in (("axes", axes), ("units", units), ("frame", frame)):
        _write_attribute(dataset, key, words)


def _write_blobs(group: Any, name: str, entries: Sequence[bytes], spec: Spec) -> None:
    """One dataset with all bytes and one with offsets: faster than HDF5's variable length, and bounded when read."""
    if isinstance(entries, Blobs):
        offsets, checksums = entries.offsets, entries.checksums
    else:
        offsets = [0, *np.cumsum([len(entry) for entry in entries], dtype=np.int64).tolist()]
        checksums = [zlib.crc32(entry) for entry in entries]
    node = group.create_group(name)
    for key, words in (("axes", spec.axes), ("units", spec.units)):
        _write_attribute(node, key, words)
    _write_array(node, "offsets", np.asarray(offsets, np.uint64), f"{spec.axes}+1", "bytes", "")
    _write_array(node, "checksums", np.asarray(checksums, np.uint32), spec.axes, "CRC-32", "")
    data = node.create_dataset("data", shape=(offsets[-1],), dtype=np.uint8, track_times=False)
    for begin, entry in zip(offsets[:-1], entries, strict=True):
        if entry:
            data[begin : begin + len(entry)] = np.frombuffer(entry, np.uint8)


def _checksum(value: np.ndarray) -> int:
    return zlib.crc32(value.reshape(-1).view(np.uint8).data) if value.size else 0


# ---------------------------------------------------------------------------------------------------------- reading


@contextlib.contextmanager
def open_file(path: Path, words: str) -> Iterator[tuple[Any, Header]]:
    """Open an artifact of any kind; `words` names it in errors (its path, or "standard input").

    Raises UsageError for what is no artifact (naming what it is) and FourdError for an empty or damaged one. Errors of
    HDF5 inside the block are turned into such a sentence too.
    """
    _check_container(path, words)
    try:
        with h5py.File(path, "r") as file:
            yield file, _read_header(file, words)
    except (_Damage, OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, OverflowError) as error:
        raise FourdError(f"{words} is damaged: {reason(error)}; make it again") from error


def _check_container(path: Path, words: str) -> None:
    """Check magic and length before HDF5 sees the file; it does not notice bytes after the end of an artifact."""
    try:
        size = path.stat().st_size if path.is_file() else -1
        with open(path, "rb") as file:
            head = file.read(512)
    except FileNotFoundError as error:
        raise FourdError(f"{words} does not exist") from error
    except OSError as error:
        raise FourdError(f"cannot read {words}: {reason(error)}") from error
    if size < 0:
        raise UsageError(f"{words} is not a plain file, and an artifact is read from a file or from standard input (-)")
    if not head:
        raise FourdError(f"{words} is empty: the command that should have made it failed or wrote nothing")
    if not head.startswith(MAGIC[: len(head)]):
        raise UsageError(f"{words} is {describe_bytes(head)}, not a fourd artifact; {making_one()}")
    if len(head) < 48:
        raise FourdError(f"{words} is cut off: it holds only {size} bytes; make it again")
    if head[8] not in (2, 3):
        raise UsageError(f"{words} is an HDF5 file that fourd did not write; {making_one()}")
    declared = int.from_bytes(head[_END_OF_FILE], "little")
    if declared > size:
        raise FourdError(f"{words} is cut off: it holds {size} of {declared} bytes; make it again")
    if declared < size:
        with open(path, "rb") as file:
            file.seek(declared)
            second = file.read(len(MAGIC)) == MAGIC
        extra = "a second artifact follows the first" if second else f"{size - declared} bytes follow the artifact"
        raise FourdError(f"{words} holds more than one artifact's bytes: {extra}; give one artifact at a time")


def making_one() -> str:
    """The hint for whoever gave something else: artifacts are made by commands."""
    return "make one with `fourd preprocess` or `fourd lift`"


def _read_header(file: Any, words: str) -> Header:
    if "fourd_kind" not in file.attrs or "schema_version" not in file.attrs:
        raise UsageError(f"{words} is an HDF5 file that fourd did not write; {making_one()}")
    kind = read_attribute(file, "fourd_kind", str)
    version = read_attribute(file, "schema_version", int)
    from fourdface.artifacts import KINDS  # the kinds need this module first

    if kind not in KINDS:
        raise UsageError(f"{words} is a {kind!r} artifact, which fourd {__version__} does not know; update fourd")
    newest = KINDS[kind].SCHEMA_VERSION
    if version > newest:
        raise FourdError(
            f"{words} is a {kind} artifact of schema {version}, and fourd {__version__} reads up to schema {newest}; "
            "update fourd"
        )
    if version < 1:
        raise _Damage(f"its schema version is {version}")
    defaults = Provenance().attributes()
    values = {name: read_attribute(file, name, type(default)) for name, default in defaults.items()}
    try:
        return Header(kind, version, Provenance.from_attributes(values))
    except FourdError as error:
        raise _Damage(str(error)) from error


def read_attribute(node: Any, name: str, wanted: type) -> Any:
    """Read a scalar attribute of the wanted type (str, int or bool); anything else in its place is damage."""
    if name not in node.attrs:
        raise _Damage(f"its attribute {name} is missing")
    info = node.attrs.get_id(name)
    kinds = {str: "S", int: "iu", bool: "b"}[wanted]
    if info.shape != () or info.dtype.kind not in kinds or info.dtype.itemsize > _size_of(node.file):
        raise _Damage(f"its attribute {name} is not a single {wanted.__name__}")
    value = node.attrs[name]
    return value.decode("utf-8") if wanted is str else wanted(value)


def read_fields(file: Any, cls: Any, path: Path, words: str) -> dict[str, Any]:
    """Read every declared field of an artifact class; the missing ones are listed in one FourdError."""
    values: dict[str, Any] = {}
    missing: list[str] = []
    declared = list(specs(cls))
    present = {group for group in {spec.group for _, spec in declared} if not group or _child(file, group) is not None}
    for name, spec in declared:
        if spec.kind == "note" or spec.group not in present:
            continue
        node = _child(file, spec.group) if spec.group else file
        if not isinstance(node, h5py.Group):
            raise _Damage(f"{spec.group} is not a group")
        if not _holds(node, name, spec):
            if not spec.optional and spec.kind != "mapping":
                missing.append(f"{spec.group}/{name}" if spec.group else name)
        elif spec.kind == "mapping":
            values.update(_read_mapping(node, name, spec))
        else:
            values[name] = _read_field(node, name, spec, path, words)
    if missing:
        raise FourdError(f"{words} is damaged: it lacks {', '.join(missing)}; make it again")
    return values


def _holds(node: Any, name: str, spec: Spec) -> bool:
    return name in node.attrs if spec.kind in ("integer", "text") else _child(node, name) is not None


def _read_field(node: Any, name: str, spec: Spec, path: Path, words: str) -> Any:
    if spec.kind == "integer":
        return read_attribute(node, name, int)
    if spec.kind == "text":
        return read_attribute(node, name, str)
    if spec.kind == "blobs":
        return _read_blobs(node, name, path, words)
    if spec.kind == "blob":
        return _read_array(node, name, "u1", 1).tobytes()
    return _read_rows(node, name, spec.dtype, path, words) if spec.by_row else _read_array(node, name, spec.dtype)


def _read_rows(group: Any, name: str, dtype: str, path: Path, words: str) -> StoredRows:
    """An array that stays in the file. Without checksums of its rows (files of earlier versions) all is read once."""
    dataset = _dataset(group, name, dtype, None)
    if not dataset.shape:
        raise _Damage(f"{name} is a single number")
    place, called = dataset.id.get_offset() or 0, f"{name} of {words}"
    if _child(group, name + ROW_CHECKSUMS) is None:
        rows = StoredRows(path, place, dataset.shape, dtype, called)
        _check_sum(dataset, name, rows.checksum())
        return rows
    checksums = _read_array(group, name + ROW_CHECKSUMS, "u4", 1)
    if len(checksums) != len(dataset):
        raise _Damage(f"{name} has {len(dataset)} rows and {len(checksums)} checksums of them")
    return StoredRows(path, place, dataset.shape, dtype, called, checksums)


def _read_mapping(node: Any, name: str, spec: Spec) -> dict[str, Any]:
    group = _child(node, name)
    if not isinstance(group, h5py.Group) or len(group) > MAX_KEYS:
        raise _Damage(f"{name} is not a group of at most {MAX_KEYS} arrays")
    keys = sorted(group)
    if not all(NAME.fullmatch(key) for key in keys):
        raise _Damage(f"{name} holds a name that is not made of letters, digits, _ - and .")
    values: dict[str, Any] = {name: {key: _read_array(group, key, spec.dtype) for key in keys}}
    for note, attribute in zip(spec.notes or (), ("axes", "units"), strict=False):
        words = {key: read_attribute(group[key], attribute, str) for key in keys}
        values[note] = {key: word for key, word in words.items() if word and word != getattr(spec, attribute)}
    return values


def _read_blobs(node: Any, name: str, path: Path, words: str) -> Blobs:
    group = _child(node, name)
    if not isinstance(group, h5py.Group):
        raise _Damage(f"{name} is not a group")
    offsets = _read_array(group, "offsets", "u8", 1)
    checksums = _read_array(group, "checksums", "u4", 1)
    data = _dataset(group, "data", "u1", 1)
    if len(offsets) != len(checksums) + 1 or offsets[0] != 0 or offsets[-1] != data.size:
        raise _Damage(f"the offsets of {name} do not fit its data")
    if (offsets[1:] < offsets[:-1]).any():
        raise _Damage(f"the offsets of {name} do not increase")
    start = data.id.get_offset() or 0
    return Blobs.stored(path, start, offsets.tolist(), checksums.tolist(), f"{name} of {words}")


def _read_array(group: Any, name: str, dtype: str, dimensions: int | None = None) -> np.ndarray:
    dataset = _dataset(group, name, dtype, dimensions)
    value = dataset[...]
    _check_sum(dataset, name, _checksum(np.ascontiguousarray(value)))
    return value


def _check_sum(dataset: Any, name: str, found: int) -> None:
    info = dataset.attrs.get_id("crc32") if "crc32" in dataset.attrs else None
    if info is None or info.shape != () or info.dtype.kind not in "iu":
        raise _Damage(f"{name} has no checksum")
    if int(dataset.attrs["crc32"]) != found:
        raise _Damage(f"the checksum of {name} does not fit its data")


def _dataset(group: Any, name: str, dtype: str, dimensions: int | None) -> Any:
    """Open a dataset and check all that decides how much memory reading it takes."""
    node = _child(group, name)
    if not isinstance(node, h5py.Dataset):
        raise _Damage(f"{name} is {'missing' if node is None else 'not a dataset'}")
    found = node.dtype
    if found.kind not in "fiu" or found.names is not None or (dtype and found != np.dtype(dtype).newbyteorder("<")):
        raise _Damage(f"{name} holds {found}, expected {np.dtype(dtype).name if dtype else 'numbers'}")
    if node.shape is None or (dimensions is not None and len(node.shape) != dimensions):
        raise _Damage(f"{name} has shape {node.shape}")
    layout = node.id.get_create_plist().get_layout()
    if layout != h5py.h5d.CONTIGUOUS or node.is_virtual or node.external:
        raise _Damage(f"{name} is stored in pieces, compressed or in another file")
    size = _size_of(group.file)
    count = 1
    for extent in node.shape:
        count *= int(extent)
    needed = count * found.itemsize
    if needed and (node.id.get_storage_size() != needed or (node.id.get_offset() or size) + needed > size):
        raise _Damage(f"{name} claims {needed} bytes that the file does not hold")
    return node


def _child(group: Any, name: str) -> Any:
    """A direct child, or None; links that could lead out of the file or in circles are refused unopened."""
    link = group.get(name, None, getlink=True)  # `name in group` would already follow a link into another file
    if link is None:
        return None
    if not isinstance(link, h5py.HardLink):
        raise _Damage(f"{name} is a link to somewhere else")
    return group[name]


def _size_of(file: Any) -> int:
    return os.path.getsize(file.filename)


def as_json(value: Mapping[str, Any]) -> str:
    """Settings as the JSON text that `Provenance.config_json` holds: sorted, so equal settings give equal bytes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
