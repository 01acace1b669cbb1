"""The stream contract with real processes: pipes, terminals, closed readers, full devices, killed writers."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from fourdface.artifacts import Avatar, Motion
from fourdface.cli.stream import check_folder, output_folder
from fourdface.errors import FourdError, UsageError
from support.artifacts import assert_same, make_avatar, make_motion

TESTS = str(Path(__file__).resolve().parents[1])
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([TESTS, os.environ.get("PYTHONPATH", "")])}
PROBE = f"{sys.executable} -m support.probe"


def fourd(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a probe command; stdin is empty unless given."""
    options.setdefault("stdin", subprocess.DEVNULL) if "input" not in options else None
    return subprocess.run(
        [sys.executable, "-m", "support.probe", *map(str, arguments)],
        capture_output="stdout" not in options,
        env=ENVIRONMENT,
        timeout=60,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def shell(script: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a bash pipeline in a folder, `fourd` standing for the probe."""
    function = f'fourd() {{ {PROBE} "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", function + script], cwd=folder, env=ENVIRONMENT, capture_output=True, timeout=60, check=False
    )


def one_sentence(result: subprocess.CompletedProcess[bytes]) -> str:
    text = result.stderr.decode()
    assert text.count("\n") == 1 and text.startswith("fourd") and "Traceback" not in text, text
    return text


def files(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# ------------------------------------------------------------------------------------------------------------- pipes


def test_a_pipeline_of_two_commands(tmp_path: Path) -> None:
    result = shell("set -o pipefail; echo driver > d.mp4; fourd make | fourd use d.mp4 -o m.h5; echo $?", tmp_path)
    assert result.stdout == b"0\n" and result.stderr == b""
    assert_same(Motion.read(tmp_path / "m.h5"), make_motion(1, embeddings={}, width=8))


def test_stdout_and_file_get_the_same_bytes(tmp_path: Path) -> None:
    piped = fourd("make")
    assert fourd("make", "-o", tmp_path / "a.h5").returncode == 0
    assert piped.returncode == 0 and piped.stdout == (tmp_path / "a.h5").read_bytes()
    assert fourd("make", "-o", "-").stdout == piped.stdout
    assert_same(Avatar.read(tmp_path / "a.h5"), make_avatar())


def test_a_failing_command_writes_nothing_and_its_reader_says_why_it_stops(tmp_path: Path) -> None:
    result = shell('fourd make --fail face | fourd use -o m.h5; echo "${PIPESTATUS[@]}"', tmp_path)
    assert result.stdout == b"1 1\n"
    first, second = sorted(result.stderr.decode().splitlines())
    assert first == "fourd make: no face was found in in.jpg"
    assert second.startswith("fourd use: standard input is empty, and the avatar artifact is wanted: the command")
    assert files(tmp_path) == []
    assert fourd("make", "--fail", "face").stdout == b""


def test_a_reader_that_leaves_early_is_no_error_message(tmp_path: Path) -> None:
    result = shell('fourd make --count 200000 | head -c 10 | wc -c; echo "${PIPESTATUS[0]}"', tmp_path)
    assert result.stdout.split() == [b"10", b"1"] and result.stderr == b""


def test_dev_stdout_is_written_and_not_replaced(tmp_path: Path) -> None:
    result = shell("fourd make -o /dev/stdout | fourd use -o m.h5", tmp_path)
    assert result.returncode == 0, result.stderr
    assert Path("/dev/stdout").exists()
    result = shell("fourd make -o /dev/null --overwrite; ls -l /dev/null", tmp_path)
    assert result.stdout.startswith(b"c"), result


# ---------------------------------------------------------------------------------------------------------- terminals


def open_terminal() -> tuple[int, int]:
    """A new terminal of 24 lines of 80 characters: the user's end and the program's."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return master, slave


def read_terminal(master: int) -> bytes:
    """All that the terminal was sent, once the program has ended."""
    seen = b""
    while True:
        try:
            piece = os.read(master, 1 << 16)
        except OSError:  # how Linux says that the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(master)
    return seen


def on_terminal(arguments: list[str], stream: str) -> tuple[int, str]:
    """Run a probe with a terminal as stdin or stdout; returns exit code and stderr."""
    master, slave = open_terminal()
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, stream: slave}
    process = subprocess.Popen(
        [sys.executable, "-m", "support.probe", *arguments], stderr=subprocess.PIPE, env=ENVIRONMENT, **streams
    )
    os.close(slave)
    _, err = process.communicate(timeout=60)
    assert read_terminal(master) == b"", "bytes reached the terminal"
    return process.returncode, err.decode()


def test_binary_never_goes_to_a_terminal_and_nothing_is_computed(tmp_path: Path) -> None:
    code, err = on_terminal(["make", "--trace", str(tmp_path / "trace")], "stdout")
    assert code == 2 and err.count("\n") == 1
    assert "standard output is the terminal" in err and "-o a.h5" in err and "fourd make | fourd use" in err
    assert not (tmp_path / "trace").exists()


def test_an_artifact_is_never_read_from_a_terminal() -> None:
    code, err = on_terminal(["use"], "stdin")
    assert code == 2 and err.count("\n") == 1
    assert "standard input, which is the terminal" in err and "`fourd lift PHOTO`" in err and "--avatar FILE" in err


# ------------------------------------------------------------------------------------------------------------- inputs


def test_what_comes_through_stdin_is_named(tmp_path: Path) -> None:
    good = fourd("make").stdout
    make_motion().write(tmp_path / "m.h5")
    cases = [
        (b"", 1, "standard input is empty"),
        (b"\0\0\0\x20ftypisom" + bytes(90), 2, "standard input is an MP4 video, not a fourd artifact"),
        (b"\x89PNG\r\n\x1a\n" + bytes(90), 2, "standard input is a PNG picture"),
        ((tmp_path / "m.h5").read_bytes(), 2, "is a motion artifact (schema 1), and an avatar artifact is wanted; run"),
        (good[:-1], 1, "standard input is cut off"),
        (good[: len(good) // 2], 1, "standard input is cut off"),
        (good + good, 1, "a second artifact follows the first"),
        (good + b"\n", 1, "1 bytes follow the artifact"),
    ]
    for content, code, words in cases:
        result = fourd("use", input=content)
        assert result.returncode == code and result.stdout == b"", words
        assert words in one_sentence(result)


def test_one_stdin_serves_one_input(tmp_path: Path) -> None:
    result = fourd("use", "-", input=b"x")
    assert result.returncode == 2
    assert "avatar and driver cannot both come from standard input (-)" in one_sentence(result)
    assert fourd("make", "-o", tmp_path / "a.h5").returncode == 0
    result = fourd("use", "--avatar", tmp_path / "a.h5", "-", "-o", tmp_path / "m.h5", input=b"12345")
    assert result.returncode == 0, result.stderr
    assert Motion.read(tmp_path / "m.h5").width == 6


def test_absent_files_and_wrong_calls(tmp_path: Path) -> None:
    for arguments, code, words in [
        (["use", "--avatar", "no.h5"], 1, "fourd use: no.h5 does not exist; the avatar artifact is wanted"),
        (["make", "--zzz"], 2, "No such option '--zzz'; `fourd make --help` lists what it takes"),
        (["make", "--size", "513"], 2, "--size is 513, and a video needs an even number of pixels; give 514"),
        (["make", "--size", "10"], 2, "`fourd make --help` lists what it takes"),
        (["make", "--shard", "8/8"], 2, "--shard is '8/8', expected I/N with 0 <= I < N"),
        (["liftt"], 2, "fourd: No such command 'liftt'"),
    ]:
        result = fourd(*arguments)
        assert result.returncode == code, arguments
        assert words in one_sentence(result)


# ------------------------------------------------------------------------------------------------------------ outputs


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    place = tmp_path / "a.h5"
    assert fourd("make", "-o", place).returncode == 0
    result = fourd("make", "-o", place, "--seed", 1, "--trace", tmp_path / "trace")
    assert result.returncode == 2 and "give --overwrite to replace it" in one_sentence(result)
    assert not (tmp_path / "trace").exists()
    assert fourd("make", "-o", place, "--seed", 1, "--overwrite").returncode == 0
    assert_same(Avatar.read(place), make_avatar(seed=1))


def test_places_that_cannot_be_written_are_refused_before_computing(tmp_path: Path) -> None:
    for place, code in [(tmp_path / "no" / "a.h5", 1), (tmp_path, 2)]:
        result = fourd("make", "-o", place, "--trace", tmp_path / "trace")
        assert result.returncode == code and one_sentence(result)
        assert not (tmp_path / "trace").exists()


def test_a_full_device_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        result = fourd("make", stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == 1
    assert one_sentence(result) == "fourd make: cannot write to standard output: no space left on the device\n"
    result = fourd("make", "-o", "/dev/full")
    assert result.returncode == 1 and "no space left on the device" in one_sentence(result)


def test_a_full_folder_for_temporary_files_is_one_sentence(tmp_path: Path) -> None:
    """The spooled input hits the limit on file sizes, which stands for a full $TMPDIR."""
    script = f'trap "" XFSZ; ulimit -f 1; cat {tmp_path}/a.h5 | fourd use -o {tmp_path}/m.h5'
    assert fourd("make", "-o", tmp_path / "a.h5", "--count", 50_000).returncode == 0
    result = shell(script, tmp_path)
    assert result.returncode == 1 and "spooling standard input to" in one_sentence(result)
    assert files(tmp_path) == ["a.h5"]


def test_closed_streams() -> None:
    result = subprocess.run(
        ["bash", "-c", f"{PROBE} use <&-"], env=ENVIRONMENT, capture_output=True, timeout=60, check=False
    )
    assert result.returncode == 1 and "standard input is closed" in one_sentence(result)
    result = subprocess.run(
        ["bash", "-c", f"{PROBE} make >&-"], env=ENVIRONMENT, stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert result.returncode == 1 and "standard output is closed" in one_sentence(result)


# ------------------------------------------------------------------------------------------------- errors and signals


@pytest.mark.parametrize(
    ("failure", "code", "sentence"),
    [
        ("face", 1, "fourd make: no face was found in in.jpg"),
        ("memory", 1, "fourd make: out of memory; try a smaller --size"),
        ("disk", 1, "fourd make: no space left on device: /big"),
        ("interrupt", 130, "fourd make: interrupted"),
        ("bug", 1, "fourd make: unexpected TypeError: a thing went wrong; this is a bug: -v shows the traceback"),
    ],
)
def test_each_failure_is_one_sentence_with_its_code(failure: str, code: int, sentence: str, tmp_path: Path) -> None:
    result = fourd("make", "--fail", failure, "-o", tmp_path / "a.h5")
    text = result.stderr.decode().strip()
    assert result.returncode == code and text.startswith(sentence) and "\n" not in text
    assert files(tmp_path) == []


def test_v_shows_the_traceback_before_and_after_the_command() -> None:
    for arguments in (["-v", "make", "--fail", "bug"], ["make", "-v", "--fail", "bug"]):
        err = fourd(*arguments).stderr.decode()
        assert "Traceback" in err and err.rstrip().endswith("for a report")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_leave_no_litter(number: int, code: int, tmp_path: Path) -> None:
    arguments = ["make", "--sleep", "30", "-o", str(tmp_path / "a.h5"), "--trace", str(tmp_path / "trace")]
    process = subprocess.Popen(
        [sys.executable, "-m", "support.probe", *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE
    )
    wait_for(tmp_path / "trace")
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code and b"Traceback" not in err
    assert files(tmp_path) == ["trace"]


def test_kill_9_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "a.h5"
    make_avatar().write(place)
    arguments = ["make", "--count", "3000000", "-o", str(place), "--overwrite", "--trace", str(tmp_path / "trace")]
    process = subprocess.Popen([sys.executable, "-m", "support.probe", *arguments], env=ENVIRONMENT)
    deadline = time.monotonic() + 30
    while not any(name.endswith(".tmp.h5") for name in files(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.kill()
    assert process.wait(timeout=30) == -signal.SIGKILL
    assert_same(Avatar.read(place), make_avatar())


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------- logging


def test_nothing_but_errors_is_said_where_stderr_is_no_terminal() -> None:
    assert fourd("make").stderr == b""


def test_progress_and_colour_on_a_terminal() -> None:
    master, slave = open_terminal()
    process = subprocess.Popen(
        [sys.executable, "-m", "support.probe", "make"], stdout=subprocess.DEVNULL, stderr=slave, env=ENVIRONMENT
    )
    os.close(slave)
    seen = read_terminal(master)
    assert process.wait(timeout=30) == 0
    assert b"making" in seen and b"3/3" in seen


# ------------------------------------------------------------------------------------------------------------- folders


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    place = tmp_path / "frames"
    with output_folder(place, overwrite=False) as folder:
        (folder / "0.png").write_text("0")
        assert not place.exists() and folder.parent == tmp_path
    assert files(tmp_path) == ["frames"] and files(place) == ["0.png"]
    with pytest.raises(RuntimeError), output_folder(place, overwrite=True) as folder:
        (folder / "1.png").write_text("1")
        raise RuntimeError
    assert files(tmp_path) == ["frames"] and files(place) == ["0.png"]
    with output_folder(place, overwrite=True) as folder:
        (folder / "1.png").write_text("1")
    assert files(tmp_path) == ["frames"] and files(place) == ["1.png"]


def test_a_folder_with_files_needs_overwrite_and_an_empty_one_does_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with output_folder(tmp_path / "empty", overwrite=False) as folder:
        (folder / "0.png").touch()
    with pytest.raises(UsageError, match="is a folder with files in it; give --overwrite"):
        check_folder(tmp_path / "empty", overwrite=False)
    with pytest.raises(UsageError, match="is a file, and a folder is wanted"):
        check_folder(tmp_path / "empty" / "0.png", overwrite=True)
    with pytest.raises(FourdError, match="does not exist"):
        check_folder(tmp_path / "no" / "frames", overwrite=False)
