"""Files are whole or absent: full disks, killed writers, existing files, links, devices."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fourdface.artifacts import Avatar
from fourdface.artifacts.atomic import replacing
from fourdface.errors import FourdError, UsageError
from support.artifacts import assert_same, make_avatar

TESTS = str(Path(__file__).resolve().parents[1])


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_an_existing_file_needs_overwrite(tmp_path: Path) -> None:
    place = tmp_path / "a.h5"
    make_avatar().write(place)
    with pytest.raises(UsageError, match=r"a\.h5 exists; give --overwrite to replace it"):
        make_avatar(seed=1).write(place)
    assert_same(Avatar.read(place), make_avatar())
    make_avatar(seed=1).write(place, overwrite=True)
    assert_same(Avatar.read(place), make_avatar(seed=1))
    assert names(tmp_path) == ["a.h5"]


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    place = tmp_path / "a.txt"
    place.write_text("old")
    with pytest.raises(RuntimeError), replacing(place, overwrite=True) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert place.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_the_temporary_file_keeps_the_suffix_and_lies_beside(tmp_path: Path) -> None:
    with replacing(tmp_path / "out.mp4") as temporary:
        assert temporary.suffix == ".mp4" and temporary.parent == tmp_path
        temporary.write_text("x")
    assert names(tmp_path) == ["out.mp4"]


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        make_avatar().write(tmp_path / "a.h5")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.h5").stat().st_mode) == 0o640


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FourdError, match=r"the folder .*absent does not exist"):
        make_avatar().write(tmp_path / "absent" / "a.h5")
    with pytest.raises(UsageError, match="is a folder; name a file"):
        make_avatar().write(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("permissions do not bind this user")
    with pytest.raises(FourdError, match="no permission to write in the folder"):
        make_avatar().write(closed / "a.h5")


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    make_avatar().write(tmp_path / "real" / "a.h5")
    (tmp_path / "link.h5").symlink_to(tmp_path / "real" / "a.h5")
    make_avatar(seed=1).write(tmp_path / "link.h5", overwrite=True)
    assert (tmp_path / "link.h5").is_symlink()
    assert_same(Avatar.read(tmp_path / "real" / "a.h5"), make_avatar(seed=1))


def test_a_pipe_is_written_into_and_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with subprocess.Popen(["timeout", "20", "cat", str(fifo)], stdout=subprocess.PIPE) as reader:
        make_avatar().write(fifo)
        content = reader.communicate()[0]
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    (tmp_path / "copy.h5").write_bytes(content)
    assert_same(Avatar.read(tmp_path / "copy.h5"), make_avatar())


def python(code: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])},
    )


def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the file size stands for the full disk: the write fails in the same places, inside HDF5."""
    place = tmp_path / "a.h5"
    make_avatar().write(place)
    process = python(
        """
        import resource, signal, sys
        from support.artifacts import make_avatar
        from fourdface.errors import FourdError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for limit in (0, 100, 3000, 100_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            try:
                make_avatar(20_000, seed=1).write(sys.argv[1], overwrite=True)
            except FourdError as error:
                print(error)
        """,
        place,
    )
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = out.splitlines()
    assert len(lines) == 4 and all(line.startswith("cannot write ") and "Traceback" not in line for line in lines)
    assert all("large" in line for line in lines), lines
    assert_same(Avatar.read(place), make_avatar())
    assert names(tmp_path) == ["a.h5"]


def test_kill_9_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "a.h5"
    make_avatar().write(place)
    process = python(
        """
        import sys
        from support.artifacts import make_avatar
        avatar = make_avatar(400_000, seed=1)
        print("start", flush=True)
        while True:
            avatar.write(sys.argv[1], overwrite=True)
            print("written", flush=True)
            break
        """,
        place,
    )
    assert process.stdout is not None and process.stdout.readline() == "start\n"
    deadline = time.monotonic() + 30
    while not any(entry.startswith(".a.") for entry in names(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=20) == -signal.SIGKILL
    out = process.stdout.read()
    process.stdout.close()
    assert process.stderr is not None
    process.stderr.close()
    assert "written" not in out, "the writer was faster than the test: make the avatar larger"
    assert_same(Avatar.read(place), make_avatar())
