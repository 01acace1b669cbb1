"""`fourd assets`, with a publisher of our own on this machine."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from fourdface.assets import asset_path, find_asset, get_asset, load_registry
from fourdface.assets.registry import CLASSES, read_registry
from fourdface.cli.main import cli
from fourdface.errors import FourdError

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Publisher(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
        elif self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "http://example.org/good")
            self.end_headers()
        elif self.path == "/gone":
            self.send_error(404, "Not Found")
        else:
            body = {"/short": CONTENT[:100], "/other": CONTENT[::-1], "/long": CONTENT + b"x"}.get(self.path, CONTENT)
            self.send_response(200)
            if self.path != "/long":
                self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Publisher)
    server.paths = []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def entry(**changes: Any) -> dict[str, Any]:
    values = {
        "class": "open",
        "purpose": "a test",
        "file": "net.bin",
        "bytes": len(CONTENT),
        "sha256": SHA256,
        "licence": "MIT",
        "commercial_use": True,
        "source": "https://example.org",
    }
    return values | changes


@pytest.fixture
def world(publisher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registry with one entry for each behaviour of the publisher, and an empty asset folder."""
    base = f"http://127.0.0.1:{publisher.server_address[1]}"
    entries = {name: entry(url=f"{base}/{name}") for name in ("good", "moved", "elsewhere", "gone", "short", "other")}
    entries["long"] = entry(url=f"{base}/long")
    entries["plain"] = entry(url="http://example.org/net.bin")
    entries["research"] = entry(url=f"{base}/good", commercial_use=False, licence="research only")
    entries["flame"] = {**entry(commercial_use=False, licence="on registration"), "class": "gated"}
    entries["flame"]["steps"] = ["register at https://example.org", "run `fourd assets add flame net.bin`"]
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump(entries))
    monkeypatch.setenv("FOURD_REGISTRY", str(tmp_path / "registry.yaml"))
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "assets"))
    for name in ("FOURD_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "assets"


def assets(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["assets", *map(str, arguments)])


def refused(*arguments: object, code: int = 1) -> str:
    result = assets(*arguments)
    assert result.exit_code == code and result.stdout == "", result.output
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("fourd assets: ")
    return result.stderr


def litter(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "licences.json")]


# ----------------------------------------------------------------------------------------------------------- registry


def test_the_packaged_registry_is_sound() -> None:
    registry = load_registry()
    assert {"open-head", "perception", "mediapipe-face-landmarker", "flame2023"} <= set(registry)
    for asset in registry.values():
        assert asset.kind in CLASSES and asset.purpose and asset.licence and asset.source
        if asset.kind == "open":
            assert asset.url and asset.url.startswith("https://")
            assert asset.sha256 or re.search(r"-[0-9a-f]{8}\.pth$", asset.file)  # torch's names hold its beginning
        if asset.kind == "gated":
            verb = "import " if asset.converted else f"add {asset.id} "
            assert asset.steps and any(f"fourd assets {verb}" in step for step in asset.steps)


def test_embedded_assets_are_here_and_pinned() -> None:
    """After building one anew: python scripts/pin_assets.py."""
    for asset in load_registry().values():
        if asset.kind == "embedded":
            assert asset_path(asset.id).is_file()
    script = Path(__file__).resolve().parents[2] / "scripts" / "pin_assets.py"
    subprocess.run([sys.executable, str(script), "--check"], check=True, timeout=60)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class": "free"}, "class is 'free'"),
        ({"file": "../net.bin"}, "expected a plain file name"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"commercial_use": "yes"}, "true or false"),
        ({"purpose": ""}, "purpose must be text"),
        ({"url": None}, "an open asset has a url"),
        ({"bytes": -1}, "bytes must be a whole number"),
        ({"colour": "red"}, "unexpected keyword argument 'colour'"),
    ],
)
def test_mistakes_in_a_registry_are_named(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    place = tmp_path / "r.yaml"
    place.write_text(yaml.safe_dump({"net": entry(url="https://example.org/net.bin") | change}))
    with pytest.raises(FourdError, match="asset 'net' in") as caught:
        read_registry(place)
    assert words in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "Big Id: {}", "net: 3", "\x00"])
def test_files_that_are_no_registry(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(FourdError) as caught:
        read_registry(tmp_path / "r.yaml")
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ list and path


def test_list_and_licences(world: Path) -> None:
    rows = {row["id"]: row for row in json.loads(assets("list", "--json").output)}
    assert rows["open-head"]["present"] and rows["open-head"]["class"] == "embedded"
    assert not rows["good"]["present"] and rows["good"]["path"] == str(world / "good" / "net.bin")
    assert "good                          open      missing  a test" in assets("list").output
    licences = {row["id"]: row for row in json.loads(assets("licences", "--json").output)}
    assert licences["research"]["needs_acceptance"] and not licences["research"]["accepted"]
    assert not licences["good"]["needs_acceptance"]
    assert "research only (no commercial use; not accepted)" in assets("licences").output


def test_a_missing_asset_comes_with_steps_and_the_place(world: Path) -> None:
    text = refused("path", "flame")
    assert "(1) register at https://example.org; (2) run `fourd assets add flame net.bin`" in text
    assert f"looked in {world}/flame/net.bin" in text
    assert "run `fourd assets fetch good` (MIT)" in refused("path", "good")
    assert "there is no asset 'nothing'; the known ones are open-head, " in refused("path", "nothing")


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fourdface.assets import asset_folder

    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "a"))
    assert asset_folder() == tmp_path / "a"
    monkeypatch.delenv("FOURD_ASSETS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert asset_folder() == tmp_path / "x" / "fourd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "h"))
    assert asset_folder() == tmp_path / "h" / ".cache" / "fourd"


# -------------------------------------------------------------------------------------------------------------- fetch


@pytest.mark.parametrize("name", ["good", "moved"])
def test_fetch_checks_and_keeps(name: str, world: Path, publisher: Any) -> None:
    result = assets("fetch", name)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(world / name / "net.bin") == str(asset_path(name))
    assert asset_path(name).read_bytes() == CONTENT
    asked = len(publisher.paths)
    assert assets("fetch", name).exit_code == 0 and len(publisher.paths) == asked
    assert litter(world) == [str(world / name / "net.bin")]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "the server answered 404 Not Found"),
        ("short", "cannot fetch short"),
        ("long", "sent more than the 7000 bytes expected"),
        ("other", f"its SHA-256 is {hashlib.sha256(CONTENT[::-1]).hexdigest()}, expected {SHA256}"),
        ("plain", "will not fetch from http://example.org/net.bin: only https is used"),
        ("elsewhere", "will not fetch from http://example.org/good: only https is used"),
    ],
)
def test_what_can_go_wrong_with_a_fetch(name: str, words: str, world: Path) -> None:
    assert words in refused("fetch", name)
    assert find_asset(name) is None and litter(world) == []


def test_an_unreachable_publisher(world: Path, publisher: Any) -> None:
    publisher.shutdown()
    publisher.server_close()
    assert "nothing was kept, try again" in refused("fetch", "good")


@pytest.mark.parametrize("name", ["FOURD_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(name: str, world: Path, publisher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert f"switched off by {name}" in refused("fetch", "good")
    monkeypatch.setenv(name, "0")
    assert assets("fetch", "good").exit_code == 0
    monkeypatch.setenv(name, "1")
    assert assets("fetch", "good").exit_code == 0


def test_classes_that_are_not_fetched(world: Path) -> None:
    assert "is part of fourd and needs no fetching" in refused("fetch", "open-head", code=2)
    assert "(1) register at" in refused("fetch", "flame", code=2)


def test_a_licence_is_accepted_once(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = refused("fetch", "research", code=2)
    assert "research only (commercial use is not allowed; https://example.org); give --accept-licence" in text
    assert assets("fetch", "research", "--accept-licence").exit_code == 0
    asset_path("research").unlink()
    assert assets("fetch", "research").exit_code == 0
    assert json.loads((world / "licences.json").read_text()) == {"research": "research only"}
    assert "research only (no commercial use; accepted)" in assets("licences").output
    registry = Path(os.environ["FOURD_REGISTRY"])
    registry.write_text(registry.read_text().replace("research only", "other terms"))
    asset_path("research").unlink()
    assert "other terms" in refused("fetch", "research", code=2)


def test_two_processes_fetch_once(world: Path, publisher: Any) -> None:
    command = [sys.executable, "-c", "from fourdface.cli.main import main; main()", "assets", "fetch", "good"]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    results = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], results
    assert publisher.paths == ["/good"]


# ----------------------------------------------------------------------------------------------------- add and verify


def test_add_copies_after_the_checks(world: Path, tmp_path: Path) -> None:
    mine = tmp_path / "download.bin"
    mine.write_bytes(CONTENT)
    assert "give --accept-licence" in refused("add", "flame", mine, code=2)
    assert assets("add", "flame", mine, "--accept-licence").exit_code == 0
    assert asset_path("flame").read_bytes() == CONTENT and mine.exists()
    mine.write_bytes(CONTENT[::-1])
    assert "is not net.bin: its SHA-256 is" in refused("add", "good", mine)
    mine.write_bytes(b"short")
    assert "it has 5 bytes, expected 7000" in refused("add", "good", mine)
    assert "does not exist or is not a file" in refused("add", "good", tmp_path)
    assert "cannot be replaced" in refused("add", "open-head", mine, code=2)


def test_verify_finds_damage(world: Path) -> None:
    assert assets("fetch", "good").exit_code == 0
    result = assets("verify", "good")
    assert result.exit_code == 0 and "good                          ok        7000 bytes" in result.output
    asset_path("good").write_bytes(b"x" + CONTENT[1:])
    result = assets("verify")
    assert result.exit_code == 1 and f"expected {SHA256}" in result.output
    assert "moved" not in result.output, "what was never fetched is not checked unless it is named"
    assert assets("verify", "moved").exit_code == 1


def test_an_asset_folder_that_cannot_be_written(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path / "file" / "assets"))
    assert "set FOURD_ASSETS to another" in refused("fetch", "good")


def test_a_known_asset_has_a_reliable_hash() -> None:
    asset = get_asset("mediapipe-face-landmarker")
    assert asset.sha256 == "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff"


@pytest.mark.real
def test_the_real_landmarker_is_what_the_registry_says(
    test_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FOURD_ASSETS", str(tmp_path))
    file = test_data / "models" / "face_landmarker_v2_with_blendshapes.task"
    result = assets("add", "mediapipe-face-landmarker", file)
    assert result.exit_code == 0, result.output
    assert asset_path("mediapipe-face-landmarker").stat().st_size == get_asset("mediapipe-face-landmarker").bytes
