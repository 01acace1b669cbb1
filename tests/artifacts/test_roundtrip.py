"""What is written is what is read, bit for bit, and equal content gives equal bytes."""

from __future__ import annotations

import string
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fourdface.artifacts import KINDS, Avatar, Blobs, Motion, Provenance, Source, Tracked, Weights, read_any
from support.artifacts import MAKERS, assert_same, make_avatar, make_motion, make_tracked

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)
KEYS = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=20)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 3, 33])
def test_every_kind_comes_back_bit_for_bit(kind: str, count: int, tmp_path: Path) -> None:
    artifact = MAKERS[kind](count)
    artifact.write(tmp_path / "a.h5")
    assert_same(artifact, KINDS[kind].read(tmp_path / "a.h5"))
    assert_same(artifact, read_any(tmp_path / "a.h5"))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_content_gives_equal_bytes(kind: str, tmp_path: Path) -> None:
    for name in ("a.h5", "b.h5"):
        MAKERS[kind]().write(tmp_path / name)
    KINDS[kind].read(tmp_path / "a.h5").write(tmp_path / "c.h5")
    first = (tmp_path / "a.h5").read_bytes()
    assert first == (tmp_path / "b.h5").read_bytes() == (tmp_path / "c.h5").read_bytes()
    MAKERS[kind](seed=1).write(tmp_path / "d.h5")
    assert first != (tmp_path / "d.h5").read_bytes()


def test_optional_parts_may_be_absent(tmp_path: Path) -> None:
    reference = {"source_path": "clip.mp4", "source_sha256": "a" * 64}
    tracked = make_tracked(head=False, frame_blobs=None, matte_blobs=None, **reference)
    tracked.write(tmp_path / "t.h5")
    back = Tracked.read(tmp_path / "t.h5")
    assert_same(tracked, back)
    assert not back.has_head and back.frame_blobs is None
    bare = make_motion(audio=None, embeddings={})
    bare.write(tmp_path / "m.h5")
    assert_same(bare, Motion.read(tmp_path / "m.h5"))


def test_spooled_blobs_write_the_same_file_as_a_list(tmp_path: Path) -> None:
    entries = [b"one", b"", b"three" * 1000]
    make_tracked(frame_blobs=entries).write(tmp_path / "list.h5")
    make_tracked(frame_blobs=Blobs(entries)).write(tmp_path / "spooled.h5")
    assert (tmp_path / "list.h5").read_bytes() == (tmp_path / "spooled.h5").read_bytes()


def test_non_contiguous_and_big_endian_arrays_are_stored_by_value(tmp_path: Path) -> None:
    wide = np.arange(40, dtype="f4").reshape(10, 4)
    tensors = {"strided": wide[::2, 1:3], "swapped": wide.astype(">f4"), "fortran": np.asfortranarray(wide)}
    make_avatar(tensors=tensors, tensor_axes={}, tensor_units={}).write(tmp_path / "a.h5")
    back = Avatar.read(tmp_path / "a.h5").tensors
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name], value)


def test_frames_outlive_the_file_they_were_read_from(tmp_path: Path) -> None:
    make_tracked().write(tmp_path / "t.h5")
    tracked = Tracked.read(tmp_path / "t.h5")
    (tmp_path / "t.h5").unlink()
    assert list(tracked.frame_blobs or []) == list(make_tracked().frame_blobs or [])


def test_what_the_file_says_to_other_readers(tmp_path: Path) -> None:
    make_avatar().write(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["fourd_kind"] == b"avatar" and file.attrs["schema_version"] == 1
        assert bool(file.attrs["synthetic_media"]) is True
        assert dict(file["world_to_camera"].attrs)["frame"] == b"world to camera"
        assert file["tensors/color"].attrs["axes"] == b"N,3"
        assert file["rotation"].attrs["units"] == b"axis-angle radians"


@QUICK
@given(
    blobs=st.lists(st.binary(max_size=200), max_size=6),
    config=TEXT,
    command=TEXT,
    seed=st.integers(0, 2**63 - 1),
    sources=st.lists(st.builds(Source, TEXT, TEXT), max_size=3).map(tuple),
    weights=st.lists(st.builds(Weights, TEXT, TEXT, TEXT, st.booleans()), max_size=2).map(tuple),
)
def test_any_blobs_and_provenance(blobs, config, command, seed, sources, weights) -> None:
    provenance = Provenance(command, config, seed, sources, weights, synthetic_media=bool(seed % 2))
    tracked = make_tracked(len(blobs), frame_blobs=blobs, provenance=provenance)
    with tempfile.TemporaryDirectory() as folder:
        tracked.write(Path(folder) / "t.h5")
        assert_same(tracked, Tracked.read(Path(folder) / "t.h5"))


@QUICK
@given(
    tensors=st.dictionaries(
        KEYS,
        hnp.arrays(
            st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]).map(np.dtype),
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
            fill=st.nothing(),
        ).filter(lambda value: value.dtype.kind != "f" or bool(np.isfinite(value).all())),
        max_size=4,
    ),
    data=st.data(),
)
def test_any_tensors(tensors, data) -> None:
    axes = data.draw(st.dictionaries(st.sampled_from(sorted(tensors)), TEXT.filter(bool))) if tensors else {}
    avatar = make_avatar(tensors=tensors, tensor_axes=axes, tensor_units={})
    with tempfile.TemporaryDirectory() as folder:
        avatar.write(Path(folder) / "a.h5")
        back = Avatar.read(Path(folder) / "a.h5")
    assert_same(avatar, back)
