"""`fourd doctor`."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fourdface.cli import doctor
from fourdface.cli.main import cli


def test_json_says_what_is_used_and_why() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    report = json.loads(result.stdout)
    assert result.exit_code == (1 if report["problems"] else 0)
    assert report["packages"]["torch"] and report["compute"]["torch_threads"] >= 1
    assert set(report["perception"]["backends"]) >= {"embedded", "mediapipe"}
    assert report["gaussians"]["used"] in report["gaussians"]["backends"]
    assert {row["id"] for row in report["assets"]} >= {"open-head", "perception", "mediapipe-face-landmarker"}


def test_an_installation_that_is_complete_has_no_problems() -> None:
    result = CliRunner().invoke(cli, ["doctor"])
    assert "PROBLEM" not in result.output, result.output
    assert result.exit_code == 0 and "Everything for the main job is here." in result.output


def test_missing_packages_are_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", ("torch", "surely-not-there"))
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "PROBLEM: the package surely-not-there is missing: pip install surely-not-there" in result.output


def test_a_part_that_breaks_is_reported_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    from fourdface import perception

    def broken() -> dict[str, str]:
        raise RuntimeError("no such\nluck")

    monkeypatch.setattr(perception, "available_backends", broken)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == 1
    assert "PROBLEM: fourdface.perception does not work: no such luck" in result.output


def test_without_the_native_library_the_reference_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from fourdface.ops import _native

    monkeypatch.setattr(_native, "status", lambda: {"built": False, "reason": "no compiler"})
    result = CliRunner().invoke(cli, ["doctor"])
    assert "gaussians   reference" in result.output and "native CPU  no: no compiler" in result.output


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({"used": True, "built": True, "reason": "built at install"}, "native CUDA used: built at install"),
        (
            {"used": False, "built": True, "reason": "torch sees no CUDA device"},
            "native CUDA built, not used: torch sees no CUDA device",
        ),
        (
            {"used": False, "built": False, "reason": "nvcc was not found"},
            "native CUDA no: nvcc was not found",
        ),
    ],
)
def test_cuda_library_is_reported(monkeypatch: pytest.MonkeyPatch, status: dict[str, object], line: str) -> None:
    from fourdface.ops import _native

    monkeypatch.setattr(_native, "cuda_status", lambda: status)
    assert line in CliRunner().invoke(cli, ["doctor"]).output.splitlines()


def test_cpu_library_is_reported() -> None:
    from fourdface.ops import _native

    status = _native.status()
    lines = [row for row in CliRunner().invoke(cli, ["doctor"]).output.splitlines() if row.startswith("native CPU")]
    if status["built"]:
        assert lines == [f"native CPU  yes: {status['instruction_set']}, {status['reason']}"]
    else:
        assert lines == [f"native CPU  no: {status['reason']}"]
