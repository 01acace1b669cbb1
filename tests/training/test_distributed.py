"""Several processes come to what one comes to, also when one of them dies on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.calling import good
from support.training import command, finish, furthest, last_checkpoint

SETTINGS = ("--set", "train.steps=12", "--set", "train.save_every=4", "--set", "train.clip=0.1", "--set")

pytestmark = pytest.mark.ddp


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    good(*command(folder, *SETTINGS, "die_at=-1", "--set", "train.keep=3", fourd=False))
    return folder


def test_two_ranks_equal_one_and_a_rank_that_dies_is_started_anew(alone: Path, tmp_path: Path) -> None:
    said = finish(command(tmp_path / "run", *SETTINGS, "die_at=6", "--set", "train.accumulate=2", ranks=2, restarts=1))
    assert said.count("continuing at step 4 of 12") == 1
    assert furthest(last_checkpoint(tmp_path / "run"), last_checkpoint(alone)) <= 1e-6


def test_fsdp2_takes_up_a_run_of_one_process_and_equals_it(alone: Path, tmp_path: Path) -> None:
    shutil.copytree(alone, tmp_path / "run")
    for step in (8, 12):
        (tmp_path / "run" / "checkpoints" / f"step-{step:09d}.safetensors").unlink()
    finish(command(tmp_path / "run", *SETTINGS, "die_at=-1", "--parallel", "fsdp2", ranks=2))
    assert furthest(last_checkpoint(tmp_path / "run"), last_checkpoint(alone)) <= 1e-6
