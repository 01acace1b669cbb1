"""A file that is forged, broken or unknown is refused in one sentence within a second, and nothing in it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fourdface.assets.formats.errors import FormatError
from fourdface.assets.formats.safe_pickle import Global, PersistentId, Stub, read_pickle
from support.calling import fourd
from support.hostile import MARKER, corpus

SECONDS = 1.0

WATCHED = """
import json, sys, time
from pathlib import Path
from fourdface.assets.importer import import_file
from fourdface.assets.manifests import all_manifests
from fourdface.errors import FourdError

all_manifests()  # read once from the package
folder, results, events, armed = Path(sys.argv[1]), {}, [], False

def watch(event, args):
    if not armed or event in ("mmap.__new__", "builtins.id"):
        return
    if event == "open" and args[1] in ("r", "rb") and str(args[0]).startswith(str(folder)):
        return
    events.append(f"{event} {str(args)[:200]}")

files = sorted(folder.iterdir(), key=lambda path: int(path.name))
for path in files[:1] + files:  # the first one twice: modules are imported lazily
    if len(results) == 1 and not armed:
        sys.addaudithook(watch)
        armed = True
    before, start, sentence = len(events), time.process_time(), None
    try:
        import_file(path)
    except FourdError as error:
        sentence = str(error)
    except BaseException as error:
        sentence = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    results[path.name] = [sentence, seconds, events[before:]]
armed = False
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, list[str]]]:
    """Every crafted file -> the sentence, processor seconds and audit events of its import in a watched process."""
    folder, assets = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("home") / "assets"
    Path(MARKER).unlink(missing_ok=True)
    crafted = corpus()
    for number, content in enumerate(crafted.values()):
        (folder / str(number)).write_bytes(content)
    environment = {**os.environ, "FOURD_ASSETS": str(assets)}
    command = [sys.executable, "-c", WATCHED, str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250, check=True)
    assert result.stderr == "" and not assets.exists(), "a refused file left something behind"
    found: dict[str, Any] = json.loads(result.stdout)
    return {name: found[str(number)] for number, name in enumerate(crafted)}


def test_the_corpus_is_large() -> None:
    assert len(corpus()) >= 200


def test_every_crafted_file_is_refused_in_one_sentence(refusals: dict[str, Any]) -> None:
    for name, (sentence, _, _) in refusals.items():
        assert sentence is not None, f"{name} was accepted"
        assert " was refused: it" in sentence or " was refused: a" in sentence or "was refused: the" in sentence, (
            name,
            sentence,
        )
        assert "\n" not in sentence and len(sentence) < 500, (name, sentence)


def test_nothing_executes(refusals: dict[str, Any]) -> None:
    """No import, compilation, process, socket or write: the audit hook sees nothing but reading the file itself."""
    assert {name: events for name, (_, _, events) in refusals.items() if events} == {}
    assert not Path(MARKER).exists()


def test_refusals_are_fast(refusals: dict[str, Any]) -> None:
    slow = {name: seconds for name, (_, seconds, _) in refusals.items() if seconds > SECONDS}
    assert slow == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reduce4 os system", "asks for os.system, which runs code"),
        ("inst builtins eval", "asks for builtins.eval, which runs code"),
        ("right weights beside a call", "asks for posix.system"),
        ("bytes8 of 2^62", "announces 4611686018427387904 bytes where 2 are left"),
        ("zip bomb", "it is a zip archive that grows from"),
        ("too many opcodes", "more than 500000 instructions"),
        ("modules that double", "more than 20000 tensors or modules"),
        ("tuples as a key", "a key that is no plain value"),
        ("maps.0.weight transposed", "maps.0.weight has the shape 144x512, expected 512x144"),
        ("maps.2.bias missing", "almost bfm2flame, but maps.2.bias is missing"),
        ("maps.2.bias of whole numbers", "maps.2.bias holds whole numbers, expected floating-point numbers"),
        ("one tensor too many", "maps.4.weight is not expected"),
        ("maps.0.bias with nan", "'maps.0.bias' has numbers that are not finite"),
        ("file: page", "a web page"),
        ("file: empty", "it is empty"),
        ("zip with '../../etc/x.npy'", "points outside of it"),
        ("npy with code in an npz", "describes no plain array"),
    ],
)
def test_the_sentence_says_what_is_wrong(name: str, words: str, refusals: dict[str, Any]) -> None:
    assert words in refusals[name][0]


def test_the_command_line_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    crafted = corpus()
    for name in ("reduce4 os system", "zip bomb", "file: noise", "maps.0.weight missing", "maps.0.bias with nan"):
        (tmp_path / "x.pkl").write_bytes(crafted[name])
        assert "x.pkl was refused: " in fourd("assets", "import", tmp_path / "x.pkl").sentence()
    assert "it does not exist" in fourd("assets", "import", tmp_path / "none.pkl").sentence()
    assert "it is not a file" in fourd("assets", "import", tmp_path).sentence()
    assert not (tmp_path / "assets").exists()


def test_values_of_every_opcode_are_those_of_pickle() -> None:
    """An independent truth for plain values: Python's own pickler, in every protocol."""
    import pickle

    values = [
        *(None, True, False, 0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**70, -(2**70), 1.5, -0.0, 1e300),
        *(
            "",
            "a",
            "ü€\U0001f600",
            "x" * 300,
            "line\nend\\u0041",
            b"",
            b"abc",
            b"\xff" * 300,
            (),
            (1,),
            (1, 2),
            (1, 2, 3),
        ),
        *((1, 2, 3, 4), [], [1], list(range(2000)), {}, {"a": 1}, {i: str(i) for i in range(1500)}, [[1, [2, [3]]]]),
    ]
    for protocol in range(6):
        for value in values:
            if isinstance(value, bytes) and protocol < 3:
                continue  # written as a call of _codecs.encode
            assert read_pickle(pickle.dumps(value, protocol))[0] == value
    for protocol in (4, 5):
        assert read_pickle(pickle.dumps({1, "a", (2, 3)}, protocol))[0] == {1, "a", (2, 3)}
        assert read_pickle(pickle.dumps(frozenset({1}), protocol))[0] == frozenset({1})
    shared = ["x"]
    first, second = read_pickle(pickle.dumps((shared, shared)))[0]
    assert first is second
    long = read_pickle(pickle.dumps(b"y" * 9999))[0]
    assert isinstance(long, memoryview) and bytes(long) == b"y" * 9999


def test_calls_become_stubs() -> None:
    value, end = read_pickle(b"\x80\x02ca.b\nC\n(K\x01tR}X\x01\x00\x00\x00xK\x02sb.rest")
    assert (
        isinstance(value, Stub)
        and value.path == "a.b.C"
        and value.args == (1,)
        and value.state == {"x": 2}
        and end == 26
    )
    value, _ = read_pickle(b"\x80\x02cm\nf\nK\x05Q\x86.")
    assert isinstance(value[0], Global) and isinstance(value[1], PersistentId) and value[1].value == 5
    with pytest.raises(FormatError, match="cut off"):
        read_pickle(b"\x80\x04")
