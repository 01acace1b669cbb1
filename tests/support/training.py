"""Start `fourd train` with the toy recipe in processes of its own, and compare what it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

from support.folders import ROOT

TOY = "support.toy_recipe:RECIPE"
FOURD = "from fourdface.cli.main import main; main()"


def command(run_dir: Path, *arguments: object, ranks: int = 0, restarts: int = 0, fourd: bool = True) -> list[str]:
    """The words of `fourd train` with the toy, under torchrun where `ranks` is not 0; without `fourd` its arguments."""
    words = ["train", TOY, "-o", str(run_dir), "--device", "cpu", *map(str, arguments)]
    if not fourd:
        return words
    if not ranks:
        return [sys.executable, "-c", FOURD, *words]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    script = run_dir.parent / "fourd.py"
    script.write_text(FOURD)
    return [sys.executable, *launcher, "--max-restarts", str(restarts), str(script), *words]


def environment() -> dict[str, str]:
    """One thread, and the toy within reach."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "TORCHELASTIC"))}
    kept["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"  # or ranks started anew meet the addresses of the dead
    return {**kept, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "tests")}


def start(words: list[str]) -> subprocess.Popen[str]:
    """Start a command whose output is collected."""
    return subprocess.Popen(
        words, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(words: list[str], code: int = 0) -> str:
    """Run a command to its end and return what it said."""
    process = start(words)
    try:
        said, _ = process.communicate(timeout=150)
    finally:
        process.kill()
    assert process.returncode == code, said
    return said


def last_checkpoint(run_dir: Path) -> dict[str, torch.Tensor]:
    """All tensors of the newest checkpoint, independent of the file (which is mapped into memory)."""
    newest = sorted((run_dir / "checkpoints").glob("step-*.safetensors"))[-1]
    return {name: value.clone() for name, value in load_file(newest).items()}


def furthest(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """The largest difference of two sets of tensors of the same names."""
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)
