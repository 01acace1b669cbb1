"""The directory of a zip archive, read with every offset and length checked; nothing is unpacked here but on request.

Written from the format's public description (APPNOTE.TXT). Python's `zipfile` is not used because torch archives are
read as views of the file, and because its memory and time are not bounded for hostile archives.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from fourdface.assets.formats.errors import FormatError

MOST_ENTRIES = 20_000
LARGEST_UNPACKED = 1 << 30
"""Bytes of all entries together after unpacking."""
LARGEST_RATIO = 30
SMALL_UNPACKED = 1 << 26
"""Archives up to this size may be packed by any ratio."""
_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its name, where its bytes lie and how long they are, packed and unpacked."""

    name: str
    start: int
    packed: int
    size: int
    method: int
    crc: int


def read_directory(data: memoryview) -> dict[str, Entry]:
    """Entries by name; FormatError for anything that is not one consistent archive without overlaps."""
    offset, length, count = _locate(data)
    if count > MOST_ENTRIES:
        raise FormatError(f"it is a zip archive of {count} entries, and at most {MOST_ENTRIES} are read")
    entries: dict[str, Entry] = {}
    position, end = offset, offset + length
    for _ in range(count):
        entry, position = _central(data, position, end)
        if entry.name in entries:
            raise FormatError(f"its zip archive has two entries named {entry.name[:60]!r}")
        entries[entry.name] = entry
    reached = 0
    for entry in sorted(entries.values(), key=lambda item: item.start):
        if entry.start < reached or entry.start + entry.packed > offset:
            raise FormatError(f"the entry {entry.name[:60]!r} of its zip archive overlaps another or the directory")
        reached = entry.start + entry.packed
    return entries


def stored_bytes(data: memoryview, entry: Entry) -> memoryview:
    """A view of an entry that is not compressed."""
    if entry.method != _STORED or entry.packed != entry.size:
        raise FormatError(f"the entry {entry.name[:60]!r} is compressed, which torch never does")
    return data[entry.start : entry.start + entry.size]


def require_moderate(data: memoryview, entries: Mapping[str, Entry]) -> None:
    """Raise FormatError for an archive that grows far more than arrays of numbers do."""
    size = sum(entry.size for entry in entries.values())
    packed = any(entry.method != _STORED for entry in entries.values())
    if packed and size > min(LARGEST_UNPACKED, max(SMALL_UNPACKED, len(data) * LARGEST_RATIO)):
        raise FormatError(f"it is a zip archive that grows from {len(data)} to {size} bytes")


def unpacked_bytes(data: memoryview, entry: Entry) -> bytes | memoryview:
    """The bytes of an entry, unpacked and checked; FormatError for a damaged entry.

    Never more than the announced size is unpacked: call `require_moderate` first.
    """
    packed = data[entry.start : entry.start + entry.packed]
    if entry.method == _STORED:
        raw: bytes | memoryview = stored_bytes(data, entry)
    else:
        unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            raw = unpacker.decompress(packed, entry.size + 1)
        except zlib.error as error:
            raise FormatError(f"the entry {entry.name[:60]!r} is damaged") from error
        if len(raw) != entry.size:
            raise FormatError(f"the entry {entry.name[:60]!r} does not have the {entry.size} bytes it announces")
    if zlib.crc32(raw) != entry.crc:
        raise FormatError(f"the entry {entry.name[:60]!r} is damaged: its checksum differs")
    return raw


def _locate(data: memoryview) -> tuple[int, int, int]:
    """Offset, length and number of entries of the directory."""
    tail_start = max(0, len(data) - 22 - _MAX16)
    found = bytes(data[tail_start:]).rfind(_END)
    if found < 0 or tail_start + found + 22 > len(data):
        raise FormatError("its zip archive has no directory: the file is cut off")
    at = tail_start + found
    disk, first_disk, here, count, length, offset, comment = struct.unpack("<4H2IH", data[at + 4 : at + 22])
    if at + 22 + comment > len(data):
        raise FormatError("its zip archive is cut off")
    end = at
    if _MAX16 in (count, here) or _MAX32 in (length, offset):
        count, here, length, offset, end = _locate64(data, at)
    if disk or first_disk or here != count:
        raise FormatError("its zip archive is split over several files")
    if offset + length > end or count * 46 > length:
        raise FormatError("its zip archive has a directory that does not fit into the file")
    return offset, length, count


def _locate64(data: memoryview, end_record: int) -> tuple[int, int, int, int, int]:
    locator = end_record - 20
    if locator < 0 or data[locator : locator + 4] != _LOCATOR64:
        raise FormatError("its zip archive lacks the directory of a large file")
    (at,) = struct.unpack("<Q", data[locator + 8 : locator + 16])
    if at + 56 > locator or data[at : at + 4] != _END64:
        raise FormatError("its zip archive lacks the directory of a large file")
    here, count, length, offset = struct.unpack("<4Q", data[at + 24 : at + 56])
    return count, here, length, offset, at


def _central(data: memoryview, at: int, end: int) -> tuple[Entry, int]:
    if at + 46 > end or data[at : at + 4] != _CENTRAL:
        raise FormatError("its zip archive has a damaged directory")
    flags, method = struct.unpack("<2H", data[at + 8 : at + 12])
    crc, packed, size, name_length, extra_length, comment = struct.unpack("<3I3H", data[at + 16 : at + 34])
    (local,) = struct.unpack("<I", data[at + 42 : at + 46])
    following = at + 46 + name_length + extra_length + comment
    if following > end:
        raise FormatError("its zip archive has a damaged directory")
    try:
        name = str(data[at + 46 : at + 46 + name_length], "utf-8")
    except ValueError:
        raise FormatError("its zip archive has a name that is no text") from None
    _check_name(name)
    if flags & 1 or method not in (_STORED, _DEFLATED):
        raise FormatError(f"the entry {name[:60]!r} is encrypted or packed by an unusual method")
    extra = data[at + 46 + name_length : following - comment]
    size, packed, local = _widened(extra, size, packed, local)
    if local + 30 > len(data) or data[local : local + 4] != _LOCAL:
        raise FormatError(f"the entry {name[:60]!r} is not where its directory says")
    local_name, local_extra = struct.unpack("<2H", data[local + 26 : local + 30])
    start = local + 30 + local_name + local_extra
    if start + packed > len(data):
        raise FormatError(f"the entry {name[:60]!r} is cut off")
    return Entry(name, start, packed, size, method, crc), following


def _widened(extra: memoryview, size: int, packed: int, local: int) -> tuple[int, int, int]:
    """Sizes and offset of entries beyond 4 GiB, from the extra field 1."""
    values = [size, packed, local]
    if _MAX32 not in values:
        return size, packed, local
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack("<2H", extra[at : at + 4])
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            values = [next(wide, value) if value == _MAX32 else value for value in values]
            return values[0], values[1], values[2]
        at += 4 + length
    return size, packed, local


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if not name or name.startswith(("/", "\\")) or ".." in parts or "\x00" in name or ":" in parts[0]:
        raise FormatError(f"its zip archive has an entry that points outside of it: {name[:60]!r}")
