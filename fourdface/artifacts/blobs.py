"""Long sequences of encoded files (one PNG or JPEG a frame) that live in a file and not in memory."""

from __future__ import annotations

import os
import tempfile
import weakref
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from fourdface.errors import FourdError


class Blobs(Sequence[bytes]):
    """A sequence of bytes kept on disk: append to it while frames arrive, or read the frames of an artifact one by one.

    `Blobs()` starts an empty one in an unnamed temporary file, so a clip of any length needs constant memory. What
    `Tracked.read` and `Frames.read` return is of this class too; each entry is checked when it is taken. Stored ones
    can be sent to another process, which opens the file anew.
    """

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        with tempfile.TemporaryFile(prefix="fourd-") as file:
            self._open(os.dup(file.fileno()), 0, [0], [], "a spooled frame", None)
        for entry in entries:
            self.append(entry)

    @classmethod
    def stored(cls, path: Path, start: int, offsets: list[int], checksums: list[int], words: str) -> Blobs:
        """Entries that lie in a file one after the other; `words` names them in an error ("frame_blobs of a.h5")."""
        blobs = cls.__new__(cls)
        blobs._open(os.open(path, os.O_RDONLY), start, offsets, checksums, words, path)
        return blobs

    def _open(
        self, handle: int, start: int, offsets: list[int], checksums: list[int], words: str, path: Path | None
    ) -> None:
        self._handle = handle
        self._start = start
        self._offsets = offsets
        self._checksums = checksums
        self._words = words
        self._path = path
        self._closer = weakref.finalize(self, os.close, handle)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what it takes to open the file anew; raises TypeError for what is in no file of its own."""
        if self._path is None:
            raise TypeError("frames that are spooled cannot be sent to another process; write the artifact first")
        return Blobs.stored, (self._path, self._start, self._offsets, self._checksums, self._words)

    @property
    def offsets(self) -> list[int]:
        """Where each entry starts, and where the last one ends: one number more than there are entries."""
        return list(self._offsets)

    @property
    def checksums(self) -> list[int]:
        """The CRC-32 of each entry."""
        return list(self._checksums)

    def append(self, entry: bytes) -> None:
        """Add an entry at the end (only to a sequence that was started with `Blobs()`)."""
        if self._path is not None:
            raise ValueError("the entries of a stored artifact cannot be added to")
        view = memoryview(entry)
        position = self._offsets[-1]
        while view.nbytes:
            written = os.pwrite(self._handle, view, position)
            view = view[written:]
            position += written
        self._offsets.append(position)
        self._checksums.append(zlib.crc32(entry))

    def __len__(self) -> int:
        return len(self._checksums)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index + len(self) if index < 0 else index
        if not 0 <= position < len(self):
            raise IndexError(f"entry {index} of {len(self)}")
        begin, end = self._offsets[position], self._offsets[position + 1]
        entry = os.pread(self._handle, end - begin, self._start + begin)
        if len(entry) != end - begin or zlib.crc32(entry) != self._checksums[position]:
            raise FourdError(f"{self._words} is damaged: the checksum of entry {position} does not fit; make it again")
        return entry

    def __iter__(self) -> Iterator[bytes]:
        for position in range(len(self)):
            yield self[position]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, bytes | str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]
