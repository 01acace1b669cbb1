"""Arrays that stay in their file: the same numbers as in memory, checked row by row, and memory for what is taken."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fourdface.artifacts import Blobs, Views
from fourdface.artifacts.rows import CHUNK, StoredRows, row_checksums
from fourdface.errors import FourdError
from support.artifacts import assert_same, make_views


def depths_of(path: Path) -> StoredRows:
    rows = Views.read(path).depths
    assert isinstance(rows, StoredRows)
    return rows


def edited(path: Path, edit: Any) -> Path:
    with h5py.File(path, "r+", libver=("v108", "v110")) as file:
        edit(file)
    return path


INDICES = [0, -1, 32, np.int64(5), slice(None), slice(3, 30, 4), slice(5, 2), [7, 3, 3], [], np.array([[1, 2], [3, 4]]),
           np.arange(33) % 2 == 0]  # fmt: skip


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_rows_are_those_of_the_array(index: Any, tmp_path: Path) -> None:
    views = make_views(33)
    views.write(tmp_path / "v.h5")
    rows = depths_of(tmp_path / "v.h5")
    (tmp_path / "v.h5").unlink()
    expected = np.asarray(views.depths)[index]
    np.testing.assert_array_equal(rows[index], expected, strict=True)
    assert rows[index].flags.writeable and len(rows) == 33 and rows.shape == (33, 3, 4) and rows.ndim == 3


@pytest.mark.parametrize("count", [0, 1, 33])
def test_the_whole_as_an_array(count: int, tmp_path: Path) -> None:
    views = make_views(count)
    views.write(tmp_path / "v.h5")
    rows = depths_of(tmp_path / "v.h5")
    np.testing.assert_array_equal(np.asarray(rows), np.asarray(views.depths), strict=True)
    assert np.asarray(rows, np.float32).dtype == np.float32
    np.testing.assert_array_equal(np.stack(list(rows)) if count else rows[:], np.asarray(views.depths))
    with pytest.raises(IndexError):
        rows[count]


def test_a_strided_array_is_written_by_value(tmp_path: Path) -> None:
    wide = np.arange(3 * 6 * 8).reshape(3, 6, 8).astype("f2")
    make_views(depths=wide[:, ::2, 1::2]).write(tmp_path / "v.h5")
    np.testing.assert_array_equal(np.asarray(depths_of(tmp_path / "v.h5")), wide[:, ::2, 1::2])


def test_damage_is_noticed_where_it_is_taken(tmp_path: Path) -> None:
    make_views().write(tmp_path / "v.h5")

    def edit(file: Any) -> None:
        file["depths"][1, 2, 3] += 1

    rows = depths_of(edited(tmp_path / "v.h5", edit))
    assert rows[[0, 2]].shape == (2, 3, 4)
    with pytest.raises(FourdError, match=r"^depths of .*v\.h5 is damaged: the checksum of row 1 does not fit"):
        rows[1:]


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    make_views().write(tmp_path / "v.h5")

    def edit(file: Any) -> None:
        value = file["depths"][...]
        value[2, 0, 0] = np.nan
        file["depths"][...] = value
        file["depths_checksums"][...] = row_checksums(value)
        file["depths_checksums"].attrs["crc32"] = np.uint32(zlib.crc32(row_checksums(value).tobytes()))

    rows = depths_of(edited(tmp_path / "v.h5", edit))
    assert np.isfinite(rows[:2]).all()
    with pytest.raises(FourdError, match="row 2 holds NaN or infinity"):
        np.asarray(rows)


def test_files_of_earlier_versions_are_checked_when_they_are_opened(tmp_path: Path) -> None:
    depths = np.random.default_rng(0).random((3, 700, 700)).astype("f2")  # more than a chunk, and no multiple of it
    assert depths.nbytes > 2 * CHUNK and depths.nbytes % CHUNK
    make_views(depths=depths).write(tmp_path / "v.h5")
    edited(tmp_path / "v.h5", lambda file: file.__delitem__("depths_checksums"))
    np.testing.assert_array_equal(depths_of(tmp_path / "v.h5")[:], depths)

    def edit(file: Any) -> None:
        file["depths"][2, 699, 699] += 1

    with pytest.raises(FourdError, match="the checksum of depths does not fit its data"):
        Views.read(edited(tmp_path / "v.h5", edit))


@pytest.mark.parametrize("count", [2, 4])
def test_as_many_checksums_as_rows(count: int, tmp_path: Path) -> None:
    make_views().write(tmp_path / "v.h5")

    def edit(file: Any) -> None:
        del file["depths_checksums"]
        value = np.zeros(count, "u4")
        file.create_dataset("depths_checksums", data=value).attrs["crc32"] = np.uint32(zlib.crc32(value.tobytes()))

    with pytest.raises(FourdError, match=f"depths has 3 rows and {count} checksums of them"):
        Views.read(edited(tmp_path / "v.h5", edit))


def test_wrong_shapes_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    make_views().write(tmp_path / "v.h5")

    def replaced(value: Any) -> Any:
        def edit(file: Any) -> None:
            del file["depths"]
            file.create_dataset("depths", data=value).attrs["crc32"] = np.uint32(0)

        return edit

    for value, words in (
        (np.zeros((2, 3, 4), "f2"), "depths has 2 rows and 3 checksums"),
        (np.zeros((3, 4), "f2"), r"depths must have shape \[N,H,W\]"),
        (np.float16(1), "depths is a single number"),
        (np.zeros((3, 3, 4), "f4"), "depths holds float32, expected float16"),
    ):
        with pytest.raises(FourdError, match=words):
            Views.read(edited(tmp_path / "v.h5", replaced(value)))


def test_memory_is_that_of_the_rows_taken(tmp_path: Path) -> None:
    count, size = 64, 512
    make_views(count, depths=np.ones((count, size, size), "f2")).write(tmp_path / "v.h5")
    tracemalloc.start()
    try:
        rows = depths_of(tmp_path / "v.h5")
        taken = np.asarray(rows[[3, 60]], np.float32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken.shape == (2, size, size) and peak < 6 << 20 < count * size * size * 2


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    make_views().write(tmp_path / "v.h5")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        depths_of(tmp_path / "v.h5")[0]
    assert len(os.listdir("/proc/self/fd")) <= before + 5


def test_other_processes_open_the_file_anew(tmp_path: Path) -> None:
    """What a worker that is spawned, not forked, gets: everything by pickle."""
    views = make_views()
    views.write(tmp_path / "v.h5")
    read = Views.read(tmp_path / "v.h5")
    again = pickle.loads(pickle.dumps(read))
    del read
    assert_same(again, views)
    with pytest.raises(TypeError, match="write the artifact first"):
        pickle.dumps(Blobs([b"one"]))
