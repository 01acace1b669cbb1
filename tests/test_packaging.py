"""What a wheel holds, and that it runs without the checkout."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that the checkout stays clean."""
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("wheel") is None:
        pytest.skip("building a wheel needs setuptools and wheel: pip install -e .[dev]")
    copy = tmp_path_factory.mktemp("sources")
    unwanted = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info", "build")
    for name in ("fourdface", "cli", "configs", "cuda"):
        shutil.copytree(ROOT / name, copy / name, ignore=unwanted)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, copy)
    command = [sys.executable, "-m", "pip", "wheel", "-q", ".", "--no-deps", "--no-build-isolation", "-w", "out"]
    environment = {**os.environ, "FOURD_CUDA": "0"}  # five architectures take a minute and say nothing of packaging
    result = subprocess.run(
        command, cwd=copy, capture_output=True, text=True, timeout=280, check=False, env=environment
    )
    assert result.returncode == 0, result.stderr
    return next((copy / "out").glob("fourd-*.whl"))


def test_the_wheel_is_complete_and_claims_no_foreign_names(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"fourdface"}
    for wanted in (
        *("fourdface/cli/main.py", "fourdface/assets/registry.yaml", "fourdface/py.typed"),
        *("fourdface/assets/files/open_head.safetensors", "fourdface/cuda/splat.h", "fourdface/cuda/splat_cpu.cpp"),
        *("fourdface/configs/eval/self-reenact.yaml", "fourdface/configs/portrait4d/paper.yaml"),
        *("fourdface/cuda/splat.cu", "fourdface/cuda/device.cuh"),
    ):
        assert wanted in names
    here = {str(path.relative_to(ROOT)) for path in (ROOT / "fourdface").rglob("*.py")}
    here |= {f"fourdface/{path.relative_to(ROOT)}" for path in (ROOT / "cli").glob("*.py")}
    assert here <= set(names), f"not in the wheel: {sorted(here - set(names))[:5]}"


def test_the_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import fourdface.cli.main as m, fourdface.cuda, fourdface.assets as a\n"
        "print(m.__file__, fourdface.cuda.__file__, a.asset_path('open-head'), sep='\\n')\n"
        "from fourdface.ops import _native\n"
        "print(_native.status()['path'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    lines = result.stdout.split("\n")
    assert all(line.startswith(str(tmp_path)) for line in lines[:3]), lines
    if shutil.which("g++") or shutil.which("c++"):
        assert lines[3].startswith(str(tmp_path)), f"the library of the wheel is not used, but {lines[3]}"
