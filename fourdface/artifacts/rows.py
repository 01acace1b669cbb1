"""Large arrays that live in a file and not in memory, taken row by row."""

from __future__ import annotations

import math
import os
import weakref
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fourdface.errors import FourdError

CHUNK = 1 << 20
"""Bytes that are read at once where a whole array is checked."""


class StoredRows:
    """An array [N, ...] of an artifact that stays in its file: `rows[3]`, `rows[[5, 2]]`, `rows[10:20]` and
    `np.asarray(rows)` read what they name, and nothing else.

    Each row is checked when it is taken: against its checksum, and for numbers that are not finite (FourdError). The
    file is read at given places, so that forked processes may share it (others open it anew), and may be deleted
    meanwhile.
    """

    def __init__(
        self, path: Path, start: int, shape: Sequence[int], dtype: str, words: str, checksums: np.ndarray | None = None
    ) -> None:
        """`start`: where the array lies in the file, in C order; `words` names it in an error ("depths of a.h5").

        checksums: the CRC-32 [N] that each row is to have when it is taken, where they are known.
        """
        self.shape = tuple(int(size) for size in shape)
        self.dtype = np.dtype(dtype)
        self._stored = self.dtype.newbyteorder("<")
        self._start = start
        self._words = words
        self._checksums = checksums
        self._path = path
        self._handle = os.open(path, os.O_RDONLY)
        self._closer = weakref.finalize(self, os.close, self._handle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it takes to open the file anew."""
        return StoredRows, (self._path, self._start, self.shape, self.dtype.str, self._words, self._checksums)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Size of one row in the file."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """The rows of an index of the first axis, as numpy takes it (number, slice, list or mask); a new array."""
        chosen = np.arange(len(self))[index]
        if chosen.ndim == 0:
            return self._row(int(chosen))
        out = np.empty((*chosen.shape, *self.shape[1:]), self.dtype)
        for place in np.ndindex(chosen.shape):
            out[place] = self._row(int(chosen[place]))
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows."""
        if copy is False:
            raise ValueError(f"{self._words} lies in a file, and an array of it is a copy")
        return self[:].astype(self.dtype if dtype is None else dtype, copy=False)

    def checksum(self) -> int:
        """The CRC-32 of all rows together, read piece by piece."""
        size, found = len(self) * self.row_bytes, 0
        for begin in range(0, size, CHUNK):
            found = zlib.crc32(self._read(begin, min(CHUNK, size - begin)), found)
        return found

    def _row(self, place: int) -> np.ndarray:
        data = self._read(place * self.row_bytes, self.row_bytes)
        if self._checksums is not None and zlib.crc32(data) != int(self._checksums[place]):
            raise FourdError(f"{self._words} is damaged: the checksum of row {place} does not fit; make it again")
        row = np.frombuffer(data, self._stored).astype(self.dtype).reshape(self.shape[1:])
        if self.dtype.kind == "f" and not np.isfinite(row).all():
            raise FourdError(f"{self._words} is not valid: row {place} holds NaN or infinity; make it again")
        return row

    def _read(self, begin: int, size: int) -> bytes:
        data = os.pread(self._handle, size, self._start + begin)
        if len(data) != size:
            raise FourdError(f"{self._words} is cut off; make it again")
        return data


def row_checksums(array: np.ndarray) -> np.ndarray:
    """The CRC-32 [N] uint32 of each row of [N, ...] as it is stored (contiguous, little-endian)."""
    stored = array.dtype.newbyteorder("<")
    return np.array([zlib.crc32(np.ascontiguousarray(row, stored).data) for row in array], np.uint32)
