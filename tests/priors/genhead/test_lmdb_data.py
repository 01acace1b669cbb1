"""The official LMDB layout: records made here byte by byte, and hostile ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from fourdface.errors import FourdError
from fourdface.priors.genhead.lmdb_data import GENHEAD_FIELDS, LABELS, LmdbPictures, parse_record
from support.lmdb_folders import clip_record, encoded, message, store

pytest.importorskip("lmdb", reason="the package lmdb is not installed")


def labels(count: int = 1) -> np.ndarray:
    rows = np.arange(count * LABELS, dtype=np.float32).reshape(count, LABELS) / 1000
    rows[:, :25] = np.eye(5, dtype=np.float32).reshape(25)
    return rows


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8)


def ffhq(seed: int, label: bytes | None = None, image: bytes | None = None) -> bytes:
    opacity = np.full((16, 16), 10 * seed, np.uint8)
    parts = (image or encoded(picture(seed)), encoded(opacity), label or labels().tobytes(), b"\0" * 2192)
    return message((1, 3), (2, 16), (3, 16), *zip((4, 5, 6, 7), parts, strict=True))


def test_pictures_come_back_as_they_were_stored(tmp_path: Path) -> None:
    """Two records of FFHQ's kind; also after pickling, as in a worker."""
    source = LmdbPictures(store(tmp_path / "FFHQ_16_2", [ffhq(1), ffhq(2)]))
    assert len(source) == 2 and source.labels.shape == (2, 25)
    source = pickle.loads(pickle.dumps(source))
    row = source.row(1)
    np.testing.assert_array_equal(row.image_u8, picture(2))
    assert row.opacity_u8.shape == (16, 16) and int(row.opacity_u8[0, 0]) == 20
    whole = labels()[0]
    np.testing.assert_array_equal(row.shape, whole[25:325])
    np.testing.assert_array_equal(row.expression, whole[325:425])
    np.testing.assert_array_equal(row.jaw, whole[428:431])
    np.testing.assert_array_equal(row.eyes, whole[431:437])


def test_clips_give_every_frame(tmp_path: Path) -> None:
    """A record of VFHQ's kind: raw pixels of three frames."""
    frames = np.stack([picture(k) for k in range(3)])
    segments = np.stack([np.full((16, 16), k, np.uint8) for k in range(3)])
    record = clip_record(frames, segments, labels(3))
    source = LmdbPictures(store(tmp_path / "VFHQ_16_2", [record, record]))
    assert len(source) == 6
    row = source.row(5)
    np.testing.assert_array_equal(row.image_u8, picture(2))
    assert int(row.opacity_u8.max()) == 2
    np.testing.assert_array_equal(row.shape, labels(3)[2, 25:325])


def test_a_record_is_read_as_protobuf_writes_it() -> None:
    """Large and negative numbers, unknown fields, the last of a repeated field."""
    parsed = parse_record(message((9, b"new"), (2, 300), (1, 2**64 - 1), (4, b"a"), (4, b"bc")), GENHEAD_FIELDS)
    assert parsed == {"height": 300, "channels": 2**64 - 1, "image": b"bc"}
    assert parse_record(b"", GENHEAD_FIELDS) == {}


@pytest.mark.parametrize(
    "data",
    [b"\x80", b"\x22\x05ab", b"\x22" + b"\xff" * 9 + b"\x01", b"\xff" * 11, b"\x0d\x00\x00\x00\x00", b"\x0b"],
    ids=["no end", "short bytes", "huge length", "long number", "fixed32", "group"],
)
def test_damaged_records_are_value_errors(data: bytes) -> None:
    """Nothing is allocated by what a length claims."""
    with pytest.raises(ValueError, match=r"field|record|number"):
        parse_record(data, GENHEAD_FIELDS)


def test_hostile_files_end_in_one_sentence(tmp_path: Path) -> None:
    """Wrong counts, labels, pictures and records; each names the folder."""
    bad_label = labels()
    bad_label[0, 30] = np.nan
    cases = {
        "count": ([ffhq(1)], b"99999999999"),
        "word": ([ffhq(1)], b"__import__('os')"),
        "more": ([ffhq(1)], b"2"),
        "short": ([ffhq(1, label=b"abcd")], None),
        "nan": ([ffhq(1, label=bad_label.tobytes())], None),
        "cut": ([ffhq(1)[:-40]], None),
        "empty": ([b""], None),
    }
    for name, (records, count) in cases.items():
        with pytest.raises(FourdError, match=f"X_{name}"):
            LmdbPictures(store(tmp_path / f"X_{name}", records, count))
    pictures = {"noise": b"\x89PNG nothing", "gif": encoded(picture(1), "GIF"), "half": encoded(picture(1))[:100]}
    for name, data in pictures.items():
        source = LmdbPictures(store(tmp_path / f"P_{name}", [ffhq(1, image=data)]))
        with pytest.raises(FourdError, match="record 0: image"):
            source.row(0)
    with pytest.raises(FourdError, match=r"data\.mdb"):
        LmdbPictures(tmp_path)
    (tmp_path / "Z").mkdir()
    (tmp_path / "Z" / "data.mdb").write_bytes(b"\0" * 5000)
    with pytest.raises(FourdError, match="LMDB"):
        LmdbPictures(tmp_path / "Z")


def test_a_clip_whose_pixels_do_not_fit_is_refused(tmp_path: Path) -> None:
    """Sizes come from the record and are not trusted."""
    record = message((1, 3), (2, 4000), (3, 4000), (4, 3), (5, b"abc"), (6, b"abc"), (7, labels(3).tobytes()))
    with pytest.raises(FourdError, match="expected 144000000"):
        LmdbPictures(store(tmp_path / "V", [record])).row(0)
