"""The benchmarks of the ops: they start, and say in one sentence what they lack."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fourdface.ops import _native

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / arguments[0]), *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_without_a_gpu_one_sentence_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    done = run("bench_cuda.py")
    assert done.returncode == 1 and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and "needs an NVIDIA GPU" in done.stderr


def test_table_of_one_op() -> None:
    if _native.library() is None:
        pytest.skip(f"no native library: {_native.status()['reason']}")
    done = run("bench_ops.py", "--op", "rasterize_mesh", "--size", "32", "--repeats", "1")
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| rasterize_mesh, open head")]
    assert len(rows) == 2 and all(row.rstrip(" |").endswith(" x") for row in rows)
