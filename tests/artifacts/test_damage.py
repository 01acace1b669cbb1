"""Files that are no artifacts, or broken ones: always one sentence, never a crash, never wrong content."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from fourdface.artifacts import KINDS, Avatar, Motion, Tracked, read_any
from fourdface.errors import FourdError, UsageError
from support.artifacts import MAKERS, assert_same, make_avatar, make_motion, make_tracked


@pytest.fixture
def avatar_file(tmp_path: Path) -> Path:
    make_avatar().write(tmp_path / "avatar.h5")
    return tmp_path / "avatar.h5"


def sentence(path: Path, cls: Any = Avatar, error: type[FourdError] = FourdError) -> str:
    with pytest.raises(FourdError) as caught:
        cls.read(path)
    assert type(caught.value) is error
    text = str(caught.value)
    assert "\n" not in text and str(path) in text and len(text) < 400
    return text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x89PNG\r\n\x1a\n" + bytes(30), "a PNG picture"),
        (b"\xff\xd8\xff\xe0" + bytes(30), "a JPEG picture"),
        (b"\0\0\0\x20ftypisom" + bytes(30), "an MP4 video"),
        (b"hello, this is a note\n", "plain text"),
        (bytes(range(1, 200)), "data of no known kind"),
    ],
)
def test_other_files_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    text = sentence(tmp_path / "x.h5", error=UsageError)
    assert f"is {words}, not a fourd artifact; make one with" in text


def test_absent_empty_folder_and_foreign(tmp_path: Path) -> None:
    assert "does not exist" in sentence(tmp_path / "no.h5")
    (tmp_path / "empty.h5").touch()
    assert "is empty: the command that should have made it failed" in sentence(tmp_path / "empty.h5")
    assert "cannot read" in sentence(tmp_path)
    for libver in ("earliest", "v108"):
        with h5py.File(tmp_path / "other.h5", "w", libver=(libver, "v108")) as file:
            file["x"] = 1
        assert "an HDF5 file that fourd did not write" in sentence(tmp_path / "other.h5", error=UsageError)


@pytest.mark.parametrize("wanted", KINDS)
@pytest.mark.parametrize("given", KINDS)
def test_the_wrong_kind_names_both_and_what_to_run(wanted: str, given: str, tmp_path: Path) -> None:
    MAKERS[given]().write(tmp_path / "x.h5")
    if wanted == given:
        KINDS[wanted].read(tmp_path / "x.h5")
        return
    text = sentence(tmp_path / "x.h5", KINDS[wanted], UsageError)
    assert f"{given} artifact (schema 1)" in text and f"{wanted} artifact is wanted; run `fourd " in text


def test_every_cut_is_noticed(avatar_file: Path) -> None:
    whole = avatar_file.read_bytes()
    cuts = [1, 4, 8, 47, 48, 100, len(whole) // 2, len(whole) - 1]
    for cut in cuts:
        avatar_file.write_bytes(whole[:cut])
        assert "is cut off: it holds" in sentence(avatar_file)


@pytest.mark.parametrize(
    ("extra", "words"), [(b"\0", "1 bytes follow the artifact"), (None, "a second artifact follows the first")]
)
def test_bytes_after_the_end_are_noticed(extra: bytes | None, words: str, avatar_file: Path) -> None:
    whole = avatar_file.read_bytes()
    avatar_file.write_bytes(whole + (whole if extra is None else extra))
    assert words in sentence(avatar_file)


def edited(path: Path, edit: Callable[[Any], None]) -> Path:
    with h5py.File(path, "r+", libver=("v108", "v110")) as file:
        edit(file)
    return path


def test_a_newer_schema_is_refused_with_both_numbers(avatar_file: Path) -> None:
    edited(avatar_file, lambda file: file.attrs.modify("schema_version", 7))
    text = sentence(avatar_file)
    assert "schema 7" in text and "up to schema 1" in text and "update fourd" in text


def test_an_unknown_kind(avatar_file: Path) -> None:
    edited(avatar_file, lambda file: file.attrs.create("fourd_kind", np.bytes_(b"hologram")))
    assert "a 'hologram' artifact, which fourd" in sentence(avatar_file, error=UsageError)


def test_all_missing_fields_are_listed_at_once(avatar_file: Path) -> None:
    def edit(file: Any) -> None:
        del file["rotation"], file["coefficients"], file.attrs["head_model"]

    assert "lacks head_model, rotation, coefficients" in sentence(edited(avatar_file, edit))


def test_a_head_group_must_be_complete(tmp_path: Path) -> None:
    make_tracked().write(tmp_path / "t.h5")

    def edit(file: Any) -> None:
        del file["head/jaw"]

    assert "lacks head/jaw" in sentence(edited(tmp_path / "t.h5", edit), Tracked)


def test_unknown_groups_are_ignored(avatar_file: Path) -> None:
    edited(avatar_file, lambda file: file.create_dataset("later/idea", data=[1, 2]))
    assert_same(Avatar.read(avatar_file), make_avatar())


def replace(name: str, **how: Any) -> Callable[[Any], None]:
    def edit(file: Any) -> None:
        del file[name]
        dataset = file.create_dataset(name, **how)
        dataset.attrs["crc32"] = np.uint32(0)

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda file: file["shape"].write_direct(np.ones(5, "f4")), "the checksum of shape does not fit"),
        (replace("shape", data=np.zeros(5)), "shape holds float64, expected float32"),
        (replace("shape", data=np.zeros((5, 1), "f4")), "the checksum of shape does not fit"),
        (replace("shape", shape=(1 << 40,), dtype="f4"), "claims 4398046511104 bytes that the file does not hold"),
        (replace("shape", data=np.zeros(500, "f4"), compression="gzip"), "compressed"),
        (replace("shape", data=np.zeros(500, "f4"), chunks=(10,)), "stored in pieces"),
        (replace("shape", data=[b"a"], dtype=h5py.string_dtype()), "shape holds object"),
        (replace("shape", data=np.zeros(2, [("a", "f4")])), "expected float32"),
        (replace("shape", data=h5py.Empty("f4")), "shape has shape None"),
        (replace("background_blob", data=np.zeros((2, 2), "u1")), "background_blob has shape (2, 2)"),
        (lambda file: file["shape"].attrs.__delitem__("crc32"), "shape has no checksum"),
        (lambda file: file.attrs.create("command", "variable length"), "attribute command is not a single str"),
        (lambda file: file.attrs.create("seed", [1, 2]), "attribute seed is not a single int"),
        (lambda file: file.attrs.create("width", np.bytes_(b"64")), "attribute width is not a single int"),
        (lambda file: file.attrs.create("sources_json", np.bytes_(b"{")), "sources_json is not the expected JSON"),
        (lambda file: file.attrs.create("sources_json", np.bytes_(b'[{"name": 1, "sha256": ""}]')), "no str"),
        (lambda file: file.attrs.create("method", np.bytes_(b"\xff\xfe")), "can't decode byte"),
        (lambda file: file.attrs.create("schema_version", 0), "its schema version is 0"),
    ],
)
def test_what_no_fourd_writes_is_refused(edit: Callable[[Any], None], words: str, avatar_file: Path) -> None:
    assert words in sentence(edited(avatar_file, edit))


def relink(link: Any) -> Callable[[Any], None]:
    def edit(file: Any) -> None:
        del file["shape"]
        file["shape"] = link

    return edit


def test_links_out_of_the_file_are_never_followed(avatar_file: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.zeros(5, "f4")
    whole = avatar_file.read_bytes()
    for link in (h5py.ExternalLink("secret.h5", "/x"), h5py.SoftLink("/neck"), h5py.ExternalLink("absent.h5", "/x")):
        avatar_file.write_bytes(whole)
        assert "shape is a link to somewhere else" in sentence(edited(avatar_file, relink(link)))


def test_external_and_virtual_storage_is_refused(avatar_file: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(20))
    whole = avatar_file.read_bytes()
    edit = replace("shape", shape=(5,), dtype="f4", external=[(str(tmp_path / "raw"), 0, 20)])
    assert "in another file" in sentence(edited(avatar_file, edit))
    avatar_file.write_bytes(whole)

    def virtual(file: Any) -> None:
        del file["shape"]
        layout = h5py.VirtualLayout((5,), "f4")
        layout[...] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (5,))
        file.create_virtual_dataset("shape", layout)

    assert "in another file" in sentence(edited(avatar_file, virtual))


@pytest.mark.parametrize(
    ("offsets", "words"),
    [
        ([0, 0, 20, 61], "do not fit its data"),
        ([1, 1, 20, 60], "do not fit its data"),
        ([0, 50, 20, 60], "do not increase"),
        ([0, 0, 60], "do not fit its data"),
        ([], "do not fit its data"),
    ],
)
def test_offsets_of_blobs(offsets: list[int], words: str, tmp_path: Path) -> None:
    make_tracked().write(tmp_path / "t.h5")

    def edit(file: Any) -> None:
        import zlib

        del file["frame_blobs/offsets"]
        value = np.array(offsets, "u8")
        dataset = file.create_dataset("frame_blobs/offsets", data=value)
        dataset.attrs["crc32"] = np.uint32(zlib.crc32(value.tobytes()))

    assert words in sentence(edited(tmp_path / "t.h5", edit), Tracked)


def test_a_damaged_frame_is_noticed_when_it_is_taken(tmp_path: Path) -> None:
    make_tracked(frame_blobs=[b"first", b"SECOND", b"third"]).write(tmp_path / "t.h5")
    content = (tmp_path / "t.h5").read_bytes()
    (tmp_path / "t.h5").write_bytes(content.replace(b"SECOND", b"SECONd"))
    blobs = Tracked.read(tmp_path / "t.h5").frame_blobs or []
    assert blobs[0] == b"first" and blobs[2] == b"third"
    with pytest.raises(FourdError, match=r"frame_blobs of .*t\.h5 is damaged: the checksum of entry 1"):
        blobs[1]


def test_a_superblock_that_lies_about_the_length(avatar_file: Path) -> None:
    content = bytearray(avatar_file.read_bytes())
    content[28:36] = struct.pack("<Q", len(content) - 10)
    avatar_file.write_bytes(content)
    assert "10 bytes follow" in sentence(avatar_file)
    avatar_file.write_bytes(content[:-10])
    sentence(avatar_file)


def mutate(content: bytes, seed: int) -> bytes:
    """Flip bits, set bytes, blank runs or copy runs to another place, as the seed says."""
    chance = random.Random(seed)
    out = bytearray(content)
    for _ in range(chance.choice([1, 1, 1, 2, 8, 64])):
        at, mode = chance.randrange(len(out)), chance.randrange(4)
        if mode == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif mode == 1:
            out[at] = chance.randrange(256)
        else:
            length = min(chance.randrange(1, 32), len(out) - at)
            start = chance.randrange(len(out) - length)
            out[at : at + length] = bytes(length) if mode == 2 else out[start : start + length]
    return bytes(out)


@pytest.mark.parametrize("kind", KINDS)
def test_fuzzed_files_give_one_sentence_or_the_true_content(kind: str, tmp_path: Path) -> None:
    """100 mutated files of each kind. A mutation in a gap between objects changes nothing, and may be accepted."""
    path = tmp_path / "fuzzed.h5"
    original = MAKERS[kind]()
    original.write(path)
    content = path.read_bytes()
    refused = 0
    for seed in range(100):
        path.write_bytes(mutate(content, seed))
        try:
            assert_same(read_any(path), original)
        except FourdError as error:
            refused += 1
            text = str(error)
            assert text and "\n" not in text and len(text) < 500
    assert refused > 50


def test_random_bytes_after_the_signature(tmp_path: Path) -> None:
    path = tmp_path / "noise.h5"
    for seed in range(50):
        noise = random.Random(seed).randbytes(600)
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0]) + noise[:16] + struct.pack("<Q", 636) + noise)
        sentence(path, Motion)


def test_a_motion_survives_what_an_avatar_does_not(tmp_path: Path) -> None:
    """The same edit is harmless where the field is not declared: only declared names are looked at."""
    make_motion().write(tmp_path / "m.h5")
    edited(tmp_path / "m.h5", lambda file: file.create_dataset("shape", data=[b"x"], dtype=h5py.string_dtype()))
    assert_same(Motion.read(tmp_path / "m.h5"), make_motion())
