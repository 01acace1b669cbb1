"""Arrays of .npy and .npz files; object arrays, which are pickles, are refused."""

from __future__ import annotations

import re

from fourdface.assets.formats.arrays import Array, array_from_bytes
from fourdface.assets.formats.errors import FormatError
from fourdface.assets.formats.zip_directory import read_directory, require_moderate, unpacked_bytes

NPY_MARK = b"\x93NUMPY"
_LARGEST_HEADER = 1 << 14
_HEADER = re.compile(
    r"\{'descr': '([^']{1,12})', 'fortran_order': (True|False), 'shape': \(((?:\d{1,15}, ?)*\d{0,15},?)\),? *\}\s*"
)


def read_npy(data: memoryview) -> Array:
    """The array of an .npy file, a view of it; FormatError for objects, text and damage."""
    if bytes(data[:6]) != NPY_MARK or len(data) < 12:
        raise FormatError("it is not a numpy array")
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if data[6] not in (1, 2, 3) or length > _LARGEST_HEADER or start > len(data):
        raise FormatError("a numpy array has a damaged header")
    match = _HEADER.fullmatch(str(data[8 + width : start], "latin-1"))
    if match is None:
        raise FormatError("a numpy array has a header that describes no plain array of numbers")
    shape = tuple(int(part) for part in match[3].split(",") if part.strip())
    if match[1].lstrip("<>=|").startswith("O"):
        raise FormatError("a numpy array holds Python objects instead of numbers")
    return array_from_bytes(data[start:], match[1], shape, fortran=match[2] == "True")


def is_npz(data: memoryview) -> bool:
    """Whether a zip archive holds numpy arrays and nothing else."""
    entries = read_directory(data)
    return bool(entries) and all(name.endswith(".npy") for name in entries)


def read_npz(data: memoryview) -> dict[str, Array]:
    """All arrays of an .npz file by name."""
    entries = read_directory(data)
    require_moderate(data, entries)
    return {
        name.removesuffix(".npy"): read_npy(memoryview(unpacked_bytes(data, entry))) for name, entry in entries.items()
    }
