"""Tensors of torch files without torch: zip archives (torch 1.6 and later), the older stream of pickles, and the blobs
of storages inside plain pickles. Tensors are views of the file.

Layouts as torch writes them: a zip archive holds NAME/data.pkl and one NAME/data/KEY for each storage; the older stream
is magic number, version, system information, object, list of storage keys, then for each key its length and bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fourdface.assets.formats.arrays import CODES, Array, array_of, bytes_of, checked_shape
from fourdface.assets.formats.errors import Budget, FormatError
from fourdface.assets.formats.safe_pickle import Global, PersistentId, Stub, read_pickle
from fourdface.assets.formats.zip_directory import Entry, read_directory, stored_bytes

MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
ZIP_MARK = b"PK\x03\x04"
STORAGES: dict[str, str] = {
    "Double": "F64",
    "Float": "F32",
    "Half": "F16",
    "BFloat16": "BF16",
    "Bool": "BOOL",
    "Long": "I64",
    "Int": "I32",
    "Short": "I16",
    "Char": "I8",
    "Byte": "U8",
}
DTYPES: dict[str, str] = {
    "torch.float64": "F64",
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int64": "I64",
    "torch.int32": "I32",
    "torch.int16": "I16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.bool": "BOOL",
}
Storage = tuple[str, memoryview]
"""Type name and bytes; the type is "" for storages without one."""
Find = Callable[[str], memoryview]
LARGEST_ARRAYS = 1 << 29
_LOAD_FROM_BYTES = "torch.storage._load_from_bytes"
_MODULES = ("torch", "torch.cuda", "torch.storage")


class TensorReader:
    """Finds the arrays that inert values stand for, in one file; storages are looked up once."""

    def __init__(self, find: Find | None = None, budget: Budget | None = None) -> None:
        """`find` gives the bytes of a storage by key; None where the file has no storages of its own."""
        self._find = find
        self._budget = budget or Budget()
        self._blobs: dict[int, tuple[Any, Storage]] = {}
        self._array_bytes = 0

    def read(self, value: Any) -> Array | None:
        """The array that a value stands for, None where it is none; FormatError for one that is malformed."""
        for _ in range(4):  # parameters wrap tensors, subclasses wrap parameters
            if not isinstance(value, Stub):
                return None
            if value.path in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
                value = _argument(value, 0)
            elif value.path in ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type"):
                function, args = _argument(value, 0), _argument(value, 2)
                value = Stub(function, args if isinstance(args, tuple) else ())
            else:
                break
        if not isinstance(value, Stub):
            return None
        if value.path in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            return self._tensor(value, None)
        if value.path == "torch._utils._rebuild_tensor_v3":
            return self._tensor(value, DTYPES.get(getattr(_argument(value, 6), "path", ""), ""))
        array = array_of(value)
        if array is not None:  # some are copies: big-endian numbers, selections, sparse matrices made dense
            self._array_bytes += array.data.nbytes
            if self._array_bytes > LARGEST_ARRAYS:
                raise FormatError("its numpy arrays take more than 512 MiB")
        return array

    def _tensor(self, value: Stub, code: str | None) -> Array:
        offset, shape, stride = (_argument(value, index) for index in (1, 2, 3))
        stored, data = self.storage(_argument(value, 0))
        code = stored if code is None else code
        if code not in CODES:
            raise FormatError("a tensor has a type that is not understood")
        lengths, steps = checked_shape(shape), checked_shape(stride)
        if isinstance(offset, bool) or not isinstance(offset, int) or offset < 0 or len(lengths) != len(steps):
            raise FormatError("a tensor has strides that do not fit its shape")
        kind = np.dtype(CODES[code])
        last = offset + sum((n - 1) * step for n, step in zip(lengths, steps, strict=True))
        if 0 in lengths:
            return Array(code, np.zeros(lengths, kind))
        if (last + 1) * kind.itemsize > len(data):
            held = len(data) // kind.itemsize
            raise FormatError(f"a tensor of shape {lengths} reaches to number {last} of a storage of {held}")
        strides = [step * kind.itemsize for step in steps]
        return Array(code, np.ndarray(lengths, kind, data, offset * kind.itemsize, strides))

    def storage(self, value: Any) -> Storage:
        """Type and bytes of a storage."""
        if isinstance(value, Stub) and value.path == "torch.storage.TypedStorage" and value.kwargs.get("wrap_storage"):
            value = value.kwargs["wrap_storage"]
        if isinstance(value, PersistentId):
            return _referenced(value, self._find)
        if isinstance(value, Stub) and value.path == _LOAD_FROM_BYTES:
            blob = _argument(value, 0)
            known = self._blobs.get(id(blob))
            if known is None:
                known = self._blobs[id(blob)] = (blob, _storage_of_blob(blob, self._budget))
            return known[1]
        raise FormatError("a tensor has no storage")


def is_torch_stream(data: memoryview) -> bool:
    """Whether data begins with the magic number of torch files before the zip archives."""
    return bytes(data[:14]) in (_magic_pickle(protocol) for protocol in (2, 3, 4, 5))


def _magic_pickle(protocol: int) -> bytes:
    return b"\x80" + bytes([protocol]) + b"\x8a\x0a" + MAGIC.to_bytes(10, "little")


def read_torch_zip(data: memoryview, budget: Budget | None = None) -> tuple[Any, TensorReader]:
    """The value of a torch zip archive and the reader of its tensors."""
    budget = budget or Budget()
    entries = read_directory(data)
    pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError("it is a zip archive, but not one of torch (no data.pkl) nor of numpy (no .npy entries)")
    base = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{base}code/") for name in entries):
        raise FormatError("it is a TorchScript program, and only weights are read")
    order = entries.get(base + "byteorder")
    if order is not None and bytes(stored_bytes(data, order)) != b"little":
        raise FormatError("it was written on a big-endian machine")

    def find(key: str) -> memoryview:
        entry: Entry | None = entries.get(f"{base}data/{key}")
        if entry is None:
            raise FormatError(f"it lacks the storage {key[:40]!r} that a tensor refers to")
        return stored_bytes(data, entry)

    value, _ = read_pickle(stored_bytes(data, entries[pickles[0]]), 0, budget)
    return value, TensorReader(find, budget)


def read_torch_stream(data: memoryview, budget: Budget | None = None) -> tuple[Any, TensorReader]:
    """The value of an older torch file (or of the bytes of one) and the reader of its tensors."""
    budget = budget or Budget()
    magic, position = read_pickle(data, 0, budget)
    version, position = read_pickle(data, position, budget)
    system, position = read_pickle(data, position, budget)
    if magic != MAGIC or version != _VERSION:
        raise FormatError("it is not a torch file: the magic number differs")
    if isinstance(system, dict) and system.get("little_endian", True) is not True:
        raise FormatError("it was written on a big-endian machine")
    value, position = read_pickle(data, position, budget)
    keys, position = read_pickle(data, position, budget)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise FormatError("its list of storages is malformed")
    places: dict[str, tuple[int, int]] = {}
    sizes = _reference_sizes(value, budget)  # lengths are in numbers, whose size only the references tell
    for key in keys:
        if position + 8 > len(data):
            raise FormatError("it is cut off before the end of its storages")
        count = int.from_bytes(data[position : position + 8], "little")
        length = count * sizes.get(key, 1)
        if length > len(data) - position - 8:
            raise FormatError(f"its storage {key[:40]!r} announces {count} numbers, more than the file holds")
        places[key] = (position + 8, length)
        position += 8 + length

    def find(key: str) -> memoryview:
        if key not in places:
            raise FormatError(f"it lacks the storage {key[:40]!r} that a tensor refers to")
        start, length = places[key]
        return data[start : start + length]

    return value, TensorReader(find, budget)


def _reference_sizes(value: Any, budget: Budget) -> dict[str, int]:
    """Bytes of one number of every storage that a value refers to."""
    sizes: dict[str, int] = {}
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, PersistentId):
            code, key, _, _ = _reference(item)
            sizes[key] = np.dtype(CODES[code]).itemsize if code else 1
            continue
        if not isinstance(item, list | tuple | dict | Stub) or id(item) in seen:
            continue
        seen.add(id(item))
        budget.spend(1)
        if isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, Stub):
            waiting += [item.args, item.state, item.items, item.elements, item.kwargs]
        else:
            waiting.extend(item)
    return sizes


def _argument(value: Stub, index: int) -> Any:
    try:
        return value.args[index]
    except IndexError:
        raise FormatError(f"{value.path} lacks an argument") from None


def _reference(value: PersistentId) -> tuple[str, str, int, Any]:
    """Type, key, count of numbers and view of a reference ("storage", type, key, place, count[, view])."""
    parts = value.value
    if not isinstance(parts, tuple) or len(parts) not in (5, 6) or parts[0] != "storage":
        raise FormatError("it refers to something that is no storage of torch")
    kind, key, count = parts[1], parts[2], parts[4]
    if (
        not isinstance(kind, Global)
        or not isinstance(key, str)
        or isinstance(count, bool)
        or not isinstance(count, int)
    ):
        raise FormatError("it refers to a storage in a form that torch never writes")
    name = kind.name.removesuffix("Storage")
    if kind.module not in _MODULES or (name != "Untyped" and name not in STORAGES):
        raise FormatError(f"it has a storage of the type {kind.path[:60]}, which is not understood")
    return STORAGES.get(name, ""), key, count, parts[5] if len(parts) == 6 else None


def _referenced(value: PersistentId, find: Find | None) -> Storage:
    code, key, count, view = _reference(value)
    if find is None:
        raise FormatError("it refers to storages that it does not hold")
    data = find(key)
    size = np.dtype(CODES[code]).itemsize if code else 1
    if view is not None:
        data = _view_of(view, data, size)
    elif not 0 <= count * size <= len(data):
        raise FormatError(f"its storage {key[:40]!r} should have {count * size} bytes and has {len(data)}")
    return code, data[: count * size] if view is None else data


def _view_of(view: Any, data: memoryview, size: int) -> memoryview:
    """A part of a storage, (key, first number, count), as older torch wrote them."""
    if not isinstance(view, tuple) or len(view) != 3 or not all(isinstance(part, int) for part in view[1:]):
        raise FormatError("it refers to a part of a storage in a form that torch never writes")
    first, count = view[1], view[2]
    if first < 0 or count < 0 or (first + count) * size > len(data):
        raise FormatError("it refers to a part of a storage that lies outside of it")
    return data[first * size : (first + count) * size]


def _storage_of_blob(blob: Any, budget: Budget) -> Storage:
    """The storage that `torch.save` wrote into bytes inside a plain pickle."""
    content = bytes_of(blob)
    if content is None:
        raise FormatError("a tensor's storage is not made of bytes")
    data = memoryview(content)
    if bytes(data[:4]) == ZIP_MARK:
        value, reader = read_torch_zip(data, budget)
    elif is_torch_stream(data):
        value, reader = read_torch_stream(data, budget)
    else:
        raise FormatError("a tensor's storage is not a torch file")
    if isinstance(value, Stub) and value.path == _LOAD_FROM_BYTES:
        raise FormatError("a tensor's storage is packed more than once")
    return reader.storage(value)
