"""`fourd synth-data`: the same shards however the work is divided, resumed after any end, refusals in one sentence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fourdface.artifacts import Views
from support.calling import fourd, good
from support.lifted import avatar_artifact

PEOPLE = 5
SMALL = ("--motions", 2, "--views", 2, "--size", 32, "--per-shard", 1)


@pytest.fixture(scope="module")
def avatars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("avatars")
    for k in range(PEOPLE):
        avatar_artifact().write(folder / f"person{k}.h5")
    return folder


@pytest.fixture(scope="module")
def whole(avatars: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All shards, made by one call."""
    folder = tmp_path_factory.mktemp("whole")
    good("synth-data", "avatars", avatars, "-o", folder, *SMALL, "--sheet", folder / "sheet.png")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("views-*.h5"))}


def test_what_a_shard_holds(whole: Path) -> None:
    assert list(contents(whole)) == [f"views-{k:05d}.h5" for k in range(PEOPLE)]
    views = Views.read(whole / "views-00003.h5")
    assert views.identity.tolist() == [3] * 4 and views.index.tolist() == [12, 13, 14, 15]
    assert views.motion.tolist() == [0, 0, 1, 1] and views.view.tolist() == [0, 1, 0, 1]
    assert views.names == {3: "person3.h5"} and views.provenance.synthetic_media
    assert [source.name for source in views.provenance.sources] == ["person3.h5"]
    assert {"open-head", "perception"} <= {weights.asset for weights in views.provenance.weights}
    with Image.open(whole / "sheet.png") as sheet:
        assert sheet.size == (32 * 6, 32)


def test_five_shards_are_the_same_bytes_as_one_call(avatars: Path, whole: Path, tmp_path: Path) -> None:
    for k in (4, 0, 2, 1, 3):
        good("synth-data", "avatars", avatars, "-o", tmp_path, *SMALL, "--shard", f"{k}/5")
    assert contents(tmp_path) == contents(whole)


def test_workers_are_the_same_bytes_as_one_process(avatars: Path, whole: Path, tmp_path: Path) -> None:
    good("synth-data", "avatars", avatars, "-o", tmp_path, *SMALL, "--workers", 2, "--count", 3)
    assert contents(tmp_path) == {k: v for k, v in contents(whole).items() if k < "views-00003.h5"}


def test_another_seed_gives_other_pictures(avatars: Path, whole: Path, tmp_path: Path) -> None:
    good("synth-data", "avatars", avatars, "-o", tmp_path, *SMALL, "--seed", 1, "--count", 1)
    other, first = Views.read(tmp_path / "views-00000.h5"), Views.read(whole / "views-00000.h5")
    assert not np.array_equal(other.world_to_camera, first.world_to_camera) and other.images[0] != first.images[0]


def test_complete_shards_are_left_alone_and_a_grown_one_is_made_again(avatars: Path, tmp_path: Path) -> None:
    call = ("synth-data", "avatars", avatars, "-o", tmp_path, *SMALL[:-1], 2)
    good(*call, "--count", 3)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("views-*.h5")}
    assert "2 of 2 shards are complete" in good(*call, "--count", 3).err
    assert before == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("views-*.h5")}
    good(*call, "--count", 5)
    after = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("views-*.h5")}
    assert len(after) == 3 and after["views-00000.h5"] == before["views-00000.h5"]
    assert len(np.unique(Views.read(tmp_path / "views-00001.h5").identity)) == 2
    assert "made with other settings" in fourd(*call, "--count", 5, "--neck", 1).sentence(2)


def test_killed_at_any_moment_it_leaves_whole_shards(avatars: Path, whole: Path, tmp_path: Path) -> None:
    call = [str(word) for word in ("synth-data", "avatars", avatars, "-o", tmp_path, *SMALL)]
    program = "from fourdface.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", program, *call], stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not any(tmp_path.glob("views-*.h5")) and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    for path in tmp_path.glob("views-*.h5"):
        assert path.read_bytes() == contents(whole)[path.name]
    good(*call)
    assert contents(tmp_path) == contents(whole)


def test_who_cannot_be_lifted_is_left_out_and_said(avatars: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.h5").write_bytes((avatars / "person0.h5").read_bytes())
    Image.new("RGB", (80, 80), (120, 90, 60)).save(folder / "b.png")
    result = fourd("synth-data", "avatars", folder, "-o", tmp_path / "out", *SMALL[:-1], 2, "--perception", "embedded")
    assert result.code == 1 and "left out:" in result.err and "b.png" in result.err
    assert Views.read(tmp_path / "out" / "views-00000.h5").names == {0: "a.h5"}
    (folder / "a.h5").unlink()
    alone = ("synth-data", "avatars", folder, "-o", tmp_path / "none", *SMALL, "--perception", "embedded")
    assert "not one of 1 people could be rendered" in fourd(*alone).sentence(1)


def test_people_of_the_open_head_need_no_file(tmp_path: Path) -> None:
    call = ("synth-data", "open-head", *SMALL)
    good(*call, "-o", tmp_path / "a", "--count", 2, "--sheet", tmp_path / "sheet.jpg")
    good(*call, "-o", tmp_path / "b", "--count", 2, "--shard", "1/2")
    assert (tmp_path / "a" / "views-00001.h5").read_bytes() == (tmp_path / "b" / "views-00001.h5").read_bytes()
    assert "say how many with --count" in fourd(*call, "-o", tmp_path / "c").sentence(2)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("avatars", "NOWHERE", "-o", "OUT"), 1, "does not exist; a folder of avatars"),
        (("avatars", "EMPTY", "-o", "OUT"), 1, "holds no avatar and no photo"),
        (("avatars", "FILE", "-o", "OUT"), 2, "is a file, and a folder of avatars or photos is wanted"),
        (("avatars", "AVATARS", "-o", "FILE"), 2, "is a file, and a folder for the shards is wanted"),
        (("avatars", "AVATARS", "-o", "OUT", "--count", 9), 2, "--count is 9, and there are 5 people"),
        (("avatars", "AVATARS", "-o", "OUT", "--sheet", "x.gif"), 2, "use NAME.png or NAME.jpg"),
        (("avatars", "AVATARS", "-o", "OUT", "--shard", "7/9"), 2, "this part has nothing to do"),
    ],
)
def test_refusals(words: tuple, code: int, sentence: str, avatars: Path, tmp_path: Path) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "FILE").write_text("x")
    places = {name: tmp_path / name for name in ("NOWHERE", "EMPTY", "FILE", "OUT")} | {"AVATARS": avatars}
    assert sentence in fourd("synth-data", *(places.get(word, word) for word in words)).sentence(code)
    assert not (tmp_path / "OUT").exists()
