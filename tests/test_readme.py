"""What README and docs/ promise is there: commands, options, files, targets, pictures, line numbers."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from fourdface.cli.main import COMMANDS, FourdGroup, cli

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def command(name: str) -> click.Command:
    """A `fourd` command by name."""
    assert isinstance(cli, FourdGroup)
    found = cli.get_command(click.Context(cli), name)
    assert found is not None, f"fourd {name} does not exist"
    return found


def options(found: click.Command) -> set[str]:
    return {text for parameter in found.params for text in parameter.opts if text.startswith("-")}


def calls(page: Path) -> Iterator[list[str]]:
    """Words of every `fourd ...` call in code blocks and in backticks, pipes taken apart."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", text, re.S) + re.findall(r"^ {4}(\S.*)$", text, re.M)
    for line in "\n".join(blocks).splitlines() + re.findall(r"`(fourd [^`\n]+)`", text):
        if not re.match(r"\S*fourd |.*\| fourd |sbatch", line):
            continue
        for part in re.sub(r"\s#.*", "", line).replace('"', " ").split("|"):
            if (words := shlex.split(part)) and "fourd" in words:
                yield words[words.index("fourd") + 1 :]


def test_set_up_takes_one_command_and_stands_near_the_top() -> None:
    top = README.read_text(encoding="utf-8").splitlines()[:20]
    assert any(line.strip().startswith("make demo") for line in top)
    assert any(line.strip().startswith("make test") for line in top)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = re.findall(r"(?:^ {4}|`)make (?:[A-Z]+=\S+ )*([a-z][a-z-]*)", page.read_text(encoding="utf-8"), re.M)
    assert set(named) <= targets


def test_the_table_lists_the_commands_that_exist_and_no_others() -> None:
    text = README.read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `fourd ([a-z-]+)` \|", text, re.M)) == set(COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target) or target.startswith("#"):
            continue
        file, _, anchor = target.partition("#")
        assert (page.parent / file).exists(), f"{page.name} links to {target}"
        if anchor and file.endswith(".md"):
            headings = re.findall(r"^#+ (.+)$", (page.parent / file).read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_calls_use_commands_and_options_that_exist(page: Path) -> None:
    for words in calls(page):
        name = words[0] if words else "COMMAND"
        if name.startswith("-") or name == "COMMAND":
            continue
        found = command(name)
        if isinstance(found, click.Group) and len(words) > 1:
            sub = found.get_command(click.Context(found), words[1])
            stands_for_one = words[1].startswith("-") or words[1].isupper()  # PROTOCOL
            assert sub is not None or stands_for_one, f"{page.name}: fourd {' '.join(words)}"
            found = sub or found
        for word in words[1:]:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in options(found) | {"--help"}, f"{page.name}: fourd {' '.join(words)}"


def test_the_calls_are_found() -> None:
    """The test above looks at something."""
    seen = [words[0] for words in calls(README)]
    assert {"lift", "reenact", "render", "preprocess", "info", "doctor"} <= set(seen)


def test_every_option_is_explained() -> None:
    text = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = {part.split("`")[1].split()[1]: part for part in text.split("\n## ")[1:]}
    assert set(sections) == set(COMMANDS)
    everywhere = text.partition("\n## ")[0]
    for name, section in sections.items():
        missing = {option for option in options(command(name)) if option not in section and option not in everywhere}
        assert not missing, f"docs/commands.md, fourd {name}: {sorted(missing)}"


def test_pictures_are_small() -> None:
    shown = [ROOT / target for target in LINK.findall(README.read_text(encoding="utf-8")) if target.endswith(".jpg")]
    assert shown and all(path.stat().st_size <= 400_000 for path in shown)


def number_references() -> ModuleType:
    spec = importlib.util.spec_from_file_location("number_references", ROOT / "scripts" / "number_references.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_references_into_the_code_hold(page: Path) -> None:
    """Names must exist. Lines may drift by a few while code is edited: scripts/number_references.py sets them."""
    _, wrong = number_references().numbered(page)
    far = []
    for line in wrong:
        numbers = re.findall(r"at line (\d+), not (\d+)", line)
        if not numbers or abs(int(numbers[0][0]) - int(numbers[0][1])) > 40:
            far.append(line)
    assert not far, "run scripts/number_references.py:\n" + "\n".join(far)


def test_references_are_counted_and_mended(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text("A = 1\n\n\ndef f() -> None:\n    pass\n")
    page = tmp_path / "page.md"
    page.write_text("[`m.f`](code.py#L1) [`A`](code.py#L1) [`gone`](code.py#L3)")
    text, wrong = number_references().numbered(page)
    assert "[`m.f`](code.py#L4) [`A`](code.py#L1)" in text
    assert wrong == ["page.md: m.f is at line 4, not 1", "page.md: gone is not in code.py"]
