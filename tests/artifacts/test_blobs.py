"""Blobs: a sequence of bytes on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fourdface.artifacts import Blobs
from fourdface.errors import FourdError


def test_it_is_a_sequence() -> None:
    blobs = Blobs([b"a", b"", b"ccc"])
    blobs.append(b"dd")
    assert len(blobs) == 4 and list(blobs) == [b"a", b"", b"ccc", b"dd"]
    assert blobs[-1] == b"dd" and blobs[1:3] == [b"", b"ccc"] and blobs == (b"a", b"", b"ccc", b"dd")
    assert blobs.offsets == [0, 1, 1, 4, 6]
    with pytest.raises(IndexError):
        blobs[4]


def test_stored_ones_cannot_grow(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(ValueError, match="stored"):
        Blobs.stored(tmp_path / "x", 0, [0], [], "x").append(b"a")


def test_a_changed_entry_is_noticed_when_it_is_taken(tmp_path: Path) -> None:
    import zlib

    (tmp_path / "x").write_bytes(b"abcdef")
    blobs = Blobs.stored(tmp_path / "x", 0, [0, 3, 6], [zlib.crc32(b"abc"), zlib.crc32(b"xxx")], "frames of x")
    assert blobs[0] == b"abc"
    with pytest.raises(FourdError, match="frames of x is damaged: the checksum of entry 1"):
        blobs[1]


def test_descriptors_are_given_back() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        Blobs([b"x"])
    assert len(os.listdir("/proc/self/fd")) <= before + 1
