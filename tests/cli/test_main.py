"""The group: lazy commands, help, version, log levels."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from fourdface import __version__
from fourdface.cli.main import COMMANDS, cli, explain
from fourdface.cli.options import parse_shard
from fourdface.errors import FourdError, UsageError

HEAVY = ("torch", "numpy", "h5py", "av", "scipy", "PIL", "skimage", "tqdm", "yaml", "omegaconf")


def modules_after(arguments: list[str]) -> set[str]:
    code = (
        "import sys\nfrom fourdface.cli.main import cli\n"
        f"try: cli.main({arguments!r})\nexcept SystemExit: pass\n"
        "print(*sorted(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.strip(), result.stderr
    return set(result.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    """`fourd --help` in under 0.3 s: modules are counted, since a clock would measure the machine's load."""
    loaded = modules_after(arguments)
    assert not loaded & set(HEAVY)
    ours = {name for name in loaded if name.startswith("fourdface")}
    assert ours == {"fourdface", "fourdface.cli", "fourdface.cli.main", "fourdface.errors"}
    assert len(loaded) < 250


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_exists_and_helps_without_torch(name: str) -> None:
    loaded = modules_after([name, "--help"])
    assert "torch" not in loaded


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_repeats_each_commands_own_first_line(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command) and command.help
    assert COMMANDS[name][1].endswith(".") and len(COMMANDS[name][1]) < 70


def test_help_lists_the_commands_in_the_order_of_the_work() -> None:
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    places = [result.output.index(f"  {name} ") for name in COMMANDS]
    assert places == sorted(places)
    assert "fourd lift in.jpg | fourd reenact drive.mp4 -o out.mp4" in result.output


def test_version() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"fourd, version {__version__}\n"


def test_no_command_shows_the_help_and_is_a_wrong_call() -> None:
    result = CliRunner().invoke(cli, [])
    assert result.exit_code == 2 and "Commands:" in result.output


@pytest.mark.parametrize(("flags", "level"), [([], logging.INFO), (["-q"], logging.ERROR), (["-v"], logging.DEBUG)])
def test_verbosity(flags: list[str], level: int) -> None:
    for arguments in ([*flags, "info"], ["info", *flags]):
        CliRunner().invoke(cli, arguments)
        assert logging.getLogger("fourdface").level == level


def test_explain() -> None:
    assert explain(FourdError("a\nb")) == (1, "a b")
    assert explain(UsageError("a")) == (2, "a")
    assert explain(KeyboardInterrupt()) == (130, "interrupted")
    assert explain(BrokenPipeError()) == (1, "")
    assert explain(PermissionError(13, "Permission denied", "x.h5")) == (1, "permission denied: x.h5")


@pytest.mark.parametrize("text", ["", "1", "1/", "/2", "2/2", "-1/2", "a/b", "1/0", "0/0", "1/2/3", "\uff10/\uff11"])
def test_wrong_shards(text: str) -> None:
    with pytest.raises(UsageError, match="expected I/N"):
        parse_shard(text)


def test_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    from fourdface.cli.options import shard_option

    seen = []

    @click.command()
    @shard_option
    def probe(shard: tuple[int, int] | None) -> None:
        seen.append(shard)

    CliRunner().invoke(probe, [])
    CliRunner().invoke(probe, ["--shard", "3/8"])
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "4")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "3")
    CliRunner().invoke(probe, [])
    assert seen == [None, (3, 8), (2, 4)]
