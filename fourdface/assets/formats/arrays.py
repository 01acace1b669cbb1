"""Numbers out of inert pickle values: numpy arrays and scalars, chumpy arrays, scipy's sparse matrices.

The closed list of what is understood; everything else stays a stub.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fourdface.assets.formats.errors import MOST_DIMENSIONS, FormatError
from fourdface.assets.formats.safe_pickle import Global, Stub

CODES: dict[str, str] = {
    "F64": "f8",
    "F32": "f4",
    "F16": "f2",
    "BF16": "u2",
    "BOOL": "b1",
    "I64": "i8",
    "I32": "i4",
    "I16": "i2",
    "I8": "i1",
    "U64": "u8",
    "U32": "u4",
    "U16": "u2",
    "U8": "u1",
}
"""The names of types in safetensors -> numpy's; BF16 is carried as its bits."""
_CODE_OF = {kind: code for code, kind in CODES.items() if code != "BF16"}
_TYPE = re.compile(r"([<>=|]?)([fiub][1248])")
LARGEST_DENSE = 1 << 20
"""Bytes of a sparse matrix made dense."""


@dataclass(frozen=True, eq=False)
class Array:
    """A tensor of a file: its safetensors type name and the numbers, a view of the file wherever possible."""

    code: str
    data: npt.NDArray[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis."""
        return self.data.shape


def checked_shape(value: Any) -> tuple[int, ...]:
    """A shape out of a file: a short sequence of lengths that are not negative."""
    if not isinstance(value, tuple | list) or len(value) > MOST_DIMENSIONS:
        raise FormatError("an array has a shape that is no short list of lengths")
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 1 << 48 for n in value):
        raise FormatError("an array has a length that is no whole number from 0 to 2^48")
    return tuple(value)


def array_from_bytes(raw: Any, kind: str, shape: Any, *, fortran: bool = False) -> Array:
    """A view of `raw` as an array of numpy type `kind` ("<f4"); FormatError where sizes do not agree."""
    lengths = checked_shape(shape)
    match = _TYPE.fullmatch(kind)
    if match is None or match[2] not in _CODE_OF:
        raise FormatError(f"an array holds {kind[:20]!r}, which are not numbers")
    data = bytes_of(raw)
    if data is None:
        raise FormatError("an array holds Python objects instead of numbers")
    expected = math.prod(lengths) * int(match[2][1])
    if expected != len(data):
        raise FormatError(f"an array of shape {lengths} needs {expected} bytes and has {len(data)}")
    values = np.frombuffer(data, np.dtype(kind)).reshape(lengths, order="F" if fortran else "C")
    if match[1] == ">":
        values = values.astype(values.dtype.newbyteorder("<"))
    return Array(_CODE_OF[match[2]], values)


def bytes_of(value: Any) -> bytes | memoryview | None:
    """The bytes of a value: byte strings, Python 2's strings, and bytes that Python 3 wrote for protocols 0 to 2."""
    if isinstance(value, bytes | memoryview):
        return value
    if isinstance(value, str):
        text, encoding = value, "latin-1"
    elif isinstance(value, Stub) and value.path == "_codecs.encode" and len(value.args) == 2:
        text, encoding = value.args
    elif isinstance(value, Stub) and value.path in ("builtins.bytes", "builtins.bytearray") and not value.args:
        return b""
    else:
        return None
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        return None
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise FormatError("an array has text where bytes are expected") from None


def array_of(value: Any) -> Array | None:
    """The array that a value stands for, None for everything else; FormatError for one that is malformed."""
    if not isinstance(value, Stub):
        return None
    module, _, name = value.path.rpartition(".")
    if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return _reconstructed(value)
    if name == "_frombuffer" and module in ("numpy.core.numeric", "numpy._core.numeric"):
        return _from_buffer(value)
    if name == "scalar" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return array_from_bytes(_at(value.args, 1), _type_name(_at(value.args, 0)), ())
    class_path = _class_path(value)
    if class_path.startswith("chumpy."):
        return _chumpy(value, class_path)
    if class_path.startswith("scipy.sparse."):
        return _sparse(value, class_path)
    return None


def _at(values: Sequence[Any], index: int) -> Any:
    if index >= len(values):
        raise FormatError("an array lacks a part of its description")
    return values[index]


def _reconstructed(value: Stub) -> Array:
    state = value.state
    if not isinstance(state, tuple) or len(state) not in (4, 5):
        raise FormatError("a numpy array has no state")
    shape, kind, fortran, raw = state[-4:]
    return array_from_bytes(raw, _type_name(kind), shape, fortran=fortran is True or fortran == 1)


def _from_buffer(value: Stub) -> Array:
    raw, kind, shape = (_at(value.args, index) for index in range(3))
    if isinstance(raw, Stub) and raw.path in ("builtins.bytearray", "builtins.bytes"):
        raw = _at(raw.args, 0) if raw.args else b""
    order = value.args[3] if len(value.args) > 3 else "C"
    return array_from_bytes(raw, _type_name(kind), shape, fortran=order == "F")


def _type_name(value: Any) -> str:
    """`numpy.dtype("f4", ...)` with state (3, "<", ...) -> "<f4"."""
    if not isinstance(value, Stub) or value.path not in ("numpy.dtype", "numpy.core.multiarray.dtype"):
        raise FormatError("an array has a type that is not numpy's")
    kind = _at(value.args, 0)
    order = value.state[1] if isinstance(value.state, tuple) and len(value.state) > 1 else "|"
    texts = [str(part, "latin-1") if isinstance(part, bytes) else part for part in (order, kind)]
    if not all(isinstance(text, str) and len(text) <= 8 for text in texts):
        raise FormatError("an array has a type that is no text")
    if texts[1].startswith(("O", "V")):
        raise FormatError("an array holds Python objects instead of numbers")
    return "".join(texts)


def _class_path(value: Stub) -> str:
    """Class of an object, also where the first argument of copyreg names it."""
    if value.path in ("copyreg._reconstructor", "copyreg.__newobj__") and value.args:
        first = value.args[0]
        return first.path if isinstance(first, Global) else ""
    return value.path


def _chumpy(value: Stub, path: str) -> Array | None:
    """The numbers of `chumpy.Ch` (its attribute x) and of a selection (array a, flat indices, shape)."""
    state = value.state
    if isinstance(state, tuple) and len(state) == 2 and isinstance(state[0], dict):
        state = state[0]
    if not isinstance(state, dict):
        raise FormatError("a chumpy array has no state")
    if path.endswith(".Ch"):
        return array_of(state.get("x"))
    if path.endswith(".Select"):
        source, index = array_of(state.get("a")), array_of(state.get("idxs"))
        shape = state.get("preferred_shape")
        if source is None or index is None or index.data.dtype.kind not in "iu":
            raise FormatError("a chumpy selection lacks its array or indices")
        flat = source.data.reshape(-1)
        if index.data.size and not (int(index.data.min()) >= 0 and int(index.data.max()) < flat.size):
            raise FormatError("a chumpy selection points outside of its array")
        picked = flat[index.data.reshape(-1)]
        if shape is None:
            return Array(source.code, picked)
        lengths = checked_shape(shape)
        if math.prod(lengths) != picked.size:
            raise FormatError("a chumpy selection has another size than its shape")
        return Array(source.code, picked.reshape(lengths))
    raise FormatError(f"{path[:80]} is a chumpy expression, and only chumpy arrays are understood")


def _sparse(value: Stub, path: str) -> Array:
    """A compressed sparse matrix, made dense after every index was checked."""
    state = value.state if isinstance(value.state, dict) else {}
    by_row = path.endswith(("csr_matrix", "csr_array"))
    if not by_row and not path.endswith(("csc_matrix", "csc_array")):
        raise FormatError(f"{path[:80]} is a sparse matrix of a kind that is not understood")
    parts = [array_of(state.get(name)) for name in ("data", "indices", "indptr")]
    shape = checked_shape(state.get("_shape", state.get("shape")))
    if len(shape) != 2 or any(part is None or part.data.ndim != 1 for part in parts):
        raise FormatError("a sparse matrix lacks data, indices, pointers or shape")
    values, indices, pointers = (part.data for part in parts if part is not None)
    if math.prod(shape) * values.dtype.itemsize > LARGEST_DENSE:
        raise FormatError(f"a sparse matrix of shape {shape} is too large")
    lines, width = shape if by_row else shape[::-1]
    if pointers.dtype.kind not in "iu" or indices.dtype.kind not in "iu" or len(pointers) != lines + 1:
        raise FormatError("a sparse matrix has pointers that do not fit its shape")
    steps: npt.NDArray[np.int64] = pointers[1:].astype(np.int64) - pointers[:-1].astype(np.int64)
    if int(pointers[0]) != 0 or (steps < 0).any() or int(pointers[-1]) != len(indices) or len(indices) != len(values):
        raise FormatError("a sparse matrix has pointers that do not fit its data")
    if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < width):
        raise FormatError("a sparse matrix has an index outside of its shape")
    dense = np.zeros((lines, width), values.dtype)
    np.add.at(dense, (np.repeat(np.arange(lines), steps), indices), values)
    code = next(item.code for item in parts if item is not None)
    return Array(code, dense if by_row else np.ascontiguousarray(dense.T))
