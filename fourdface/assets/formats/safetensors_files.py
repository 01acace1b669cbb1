"""safetensors files: read as views, written as a stream, so that a conversion needs no memory for the weights.

Layout: 8 bytes length of the header, the header as JSON (name -> dtype, shape, data_offsets), the numbers. The package
safetensors reads what is written here; its own writer needs torch and a copy of everything in memory.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from fourdface.assets.formats.arrays import CODES, Array, checked_shape
from fourdface.assets.formats.errors import MOST_TENSORS, FormatError

_LARGEST_HEADER = 1 << 23
_PIECE = 1 << 23
"""Numbers copied at a time where a tensor is not contiguous or is checked."""


def looks_like_safetensors(data: memoryview) -> bool:
    """Whether the first bytes are a header length and the beginning of a JSON object."""
    if len(data) < 10 or bytes(data[8:9]) != b"{":
        return False
    return 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8


def read_safetensors(data: memoryview) -> tuple[dict[str, Array], dict[str, str]]:
    """Tensors by name, views of the file, and the metadata."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_LARGEST_HEADER, len(data) - 8):
        raise FormatError(f"it announces a header of {length} bytes, which cannot be")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        raise FormatError("its header is not JSON") from None
    if not isinstance(header, dict):
        raise FormatError("its header is no list of tensors")
    if len(header) > MOST_TENSORS:
        raise FormatError(f"it has more than {MOST_TENSORS} tensors")
    body = data[8 + length :]
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError("its metadata is not text")
    return {name: _tensor(name, entry, body) for name, entry in header.items()}, metadata


def _tensor(name: str, entry: Any, body: memoryview) -> Array:
    if not isinstance(entry, dict) or entry.get("dtype") not in CODES:
        raise FormatError(f"the tensor {name[:80]!r} has a type that is not understood")
    shape = checked_shape(entry.get("shape"))
    place = entry.get("data_offsets")
    if not isinstance(place, list) or len(place) != 2 or not all(type(at) is int for at in place):
        raise FormatError(f"the tensor {name[:80]!r} does not say where it lies")
    first, last = place
    kind = np.dtype(CODES[entry["dtype"]])
    if not 0 <= first <= last <= len(body) or last - first != math.prod(shape) * kind.itemsize:
        raise FormatError(f"the tensor {name[:80]!r} lies outside of the file or has another size than its shape")
    return Array(entry["dtype"], np.frombuffer(body[first:last], kind).reshape(shape))


def write_safetensors(file: IO[bytes], tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    """Write tensors in the order of their names and return the SHA-256 of what was written.

    Args:
        file: open for writing bytes, at its beginning.
        tensors: by name, in any layout; they are written as contiguous little-endian numbers.
        metadata: text by name.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name in sorted(tensors):
        array = tensors[name]
        size = math.prod(array.shape) * array.data.dtype.itemsize
        header[name] = {"dtype": array.code, "shape": list(array.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()

    def put(piece: bytes | memoryview) -> None:
        digest.update(piece)
        file.write(piece)

    put(len(text).to_bytes(8, "little") + text)
    for name in sorted(tensors):
        for piece in _pieces(tensors[name].data):
            put(piece.view(np.uint8).data)
    return digest.hexdigest()


def _pieces(values: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """The numbers of an array in order, as flat contiguous little-endian pieces of bounded size."""
    if values.size == 0:
        return
    if values.flags.c_contiguous:
        flat = values.reshape(-1)
        for start in range(0, flat.size, _PIECE):
            yield flat[start : start + _PIECE]
    elif values.ndim > 1 and values.size > _PIECE:
        for part in values:
            yield from _pieces(part)
    else:
        yield np.ascontiguousarray(values).reshape(-1)


def require_finite(tensors: Mapping[str, Array]) -> None:
    """Raise FormatError that names a tensor with numbers that are not finite."""
    for name, array in tensors.items():
        if not all(_finite(array.code, piece) for piece in _pieces(array.data)):
            raise FormatError(f"the tensor {name[:80]!r} has numbers that are not finite")


def _finite(code: str, values: npt.NDArray[Any]) -> bool:
    if code == "BF16":
        return bool(((values & 0x7F80) != 0x7F80).all())
    return values.dtype.kind != "f" or bool(np.isfinite(values).all())
