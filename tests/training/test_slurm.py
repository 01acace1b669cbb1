"""The batch scripts and submitit, on a Slurm of one node and without Slurm."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from fourdface.training import checkpoint
from support.folders import ROOT
from support.slurm import cluster, say, why_not
from support.training import TOY, environment

EXAMPLES = ROOT / "examples"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Mapping[str, str]]:
    if reason := why_not():
        pytest.skip(reason)
    with cluster(tmp_path / "slurm") as variables:
        yield {**environment(), **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def wait(what: str, ready: Callable[[], object], job: str, variables: Mapping[str, str], log: Path) -> None:
    end = time.monotonic() + 240
    while not ready():
        if time.monotonic() > end or state(job, variables) in ("FAILED", "CANCELLED", "TIMEOUT"):
            said = log.read_text() if log.exists() else ""
            raise AssertionError(f"{what} did not come:\n{said}\n{say(['scontrol', 'show', 'job'], variables)}")
        time.sleep(0.5)


def state(job: str, variables: Mapping[str, str]) -> str:
    fields = dict(word.partition("=")[::2] for word in say(["scontrol", "show", "job", job], variables).split())
    return fields.get("JobState", "")


@pytest.mark.slurm
@pytest.mark.ddp
def test_a_job_of_two_processes_that_is_told_to_stop_is_queued_again_and_ends(
    slurm: Mapping[str, str], tmp_path: Path
) -> None:
    run_dir, log = tmp_path / "run", tmp_path / "log"
    words = ["sbatch", "--parsable", "--cpus-per-task=2", f"--output={log}", "--export=ALL,PROCESSES=2"]
    train = [TOY, "-o", str(run_dir), "--device", "cpu", "--set", "train.image_every=0", "--set", "train.save_every=10"]
    job = say([*words, str(EXAMPLES / "slurm" / "train.sbatch"), *train, "--steps", "300"], slurm).strip()
    assert job.isdigit(), job
    wait("a checkpoint", lambda: checkpoint.found(run_dir), job, slurm, log)
    say(["scancel", "--batch", "--signal=USR1", job], slurm)  # what comes before the time limit
    wait("the stop", lambda: "the same command continues" in log.read_text(), job, slurm, log)
    wait("the end", lambda: state(job, slurm) == "COMPLETED", job, slurm, log)
    said = log.read_text()
    assert "continuing at step" in said and checkpoint.found(run_dir)[-1][0] == 300


@pytest.mark.slurm
def test_an_array_makes_all_shards(slurm: Mapping[str, str], tmp_path: Path) -> None:
    folder, log = tmp_path / "views", tmp_path / "log-%a"
    words = ["sbatch", "--parsable", "--wait", "--array=0-1", f"--output={log}"]
    make = ["open-head", "--count", "4", "--per-shard", "2", "--motions", "1", "--views", "1", "--size", "32"]
    say([*words, str(EXAMPLES / "slurm" / "synth-data.sbatch"), *make, "-o", str(folder)], slurm)
    logs = [(tmp_path / f"log-{task}").read_text() for task in (0, 1)]
    assert len(sorted(folder.glob("*.h5"))) == 2, logs


def test_submitit_runs_the_job_on_this_machine(tmp_path: Path) -> None:
    if importlib.util.find_spec("submitit") is None:
        pytest.skip("submitit is not installed")
    words = ["--local", "--wait", "--logs", str(tmp_path / "logs"), "--", TOY, "-o", str(tmp_path / "run")]
    script = [sys.executable, str(EXAMPLES / "submit_train.py"), *words, "--steps", "3", "--device", "cpu"]
    done = subprocess.run(script, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert checkpoint.found(tmp_path / "run")[-1][0] == 3


@pytest.mark.parametrize("path", sorted((EXAMPLES / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_batch_scripts_are_valid_bash_and_say_how_they_are_used(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert f"sbatch --{'array' if 'synth' in path.name else 'nodes'}" in path.read_text()
    assert f"examples/slurm/{path.name}" in path.read_text()
