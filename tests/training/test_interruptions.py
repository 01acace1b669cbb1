"""A run that is killed, stopped, or meets a full disk goes on as if nothing had been."""

from __future__ import annotations

import random
import resource
import signal
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fourdface.training import checkpoint
from fourdface.training.run import Interruption
from support.calling import fourd, good
from support.training import command, finish, furthest, last_checkpoint, start

STEPS = 60
SETTINGS = ("--set", f"train.steps={STEPS}", "--set", "train.image_every=7", "--set", "train.save_every=1")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    finish(command(folder, *SETTINGS))
    return folder


def wait_for(folder: Path, step: int) -> None:
    """Until the checkpoint of a step, or a later one, is there."""
    for _ in range(12000):
        if any(number >= step for number, _ in checkpoint.found(folder)):
            return
        time.sleep(0.01)
    raise AssertionError(f"no checkpoint of step {step}")


def test_killed_at_any_moment_it_comes_to_the_same_bits(whole: Path, tmp_path: Path) -> None:
    """Checkpoints are written all the time, so a kill falls into a write as well as between two."""
    random.seed(0)
    folder = tmp_path / "run"
    for step in (3, 20):
        process = start(command(folder, *SETTINGS))
        wait_for(folder, step)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
    said = finish(command(folder, *SETTINGS))
    assert "continuing at step" in said
    assert furthest(last_checkpoint(folder), last_checkpoint(whole)) == 0
    assert furthest(load_file(folder / "weights.safetensors"), load_file(whole / "weights.safetensors")) == 0
    assert {path.name for path in (folder / "images").iterdir()} == {p.name for p in (whole / "images").iterdir()}
    assert not list(folder.rglob(".*.tmp.*"))


def test_a_terminated_run_saves_first(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    seldom = (*SETTINGS[:-1], "train.save_every=0")
    process = start(command(folder, *seldom, "--steps", 100000))
    for _ in range(6000):
        if (folder / "scalars.csv").exists():
            break
        time.sleep(0.01)
    process.terminate()
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "the same command continues" in said
    assert len(checkpoint.found(folder)) == 1


def toy(folder: Path, *arguments: object) -> list[object]:
    return [*command(folder, "--set", "train.image_every=0", fourd=False), *arguments]


def test_a_full_disk_leaves_the_previous_checkpoint(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fourdface.training.records._tensorboard", lambda *arguments: None)
    run_dir = tmp_path / "run"
    good(*toy(run_dir, "--steps", 4))
    before = last_checkpoint(run_dir)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        sentence = fourd(*toy(run_dir, "--steps", 8)).err.splitlines()[-1]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in sentence and "make room and run the same command again" in sentence
    assert [step for step, _ in checkpoint.found(run_dir)] == [4]
    assert furthest(last_checkpoint(run_dir), before) == 0 and not list(run_dir.rglob(".*.tmp.*"))
    good(*toy(run_dir, "--steps", 8))
    good(*toy(tmp_path / "straight", "--steps", 8))
    assert furthest(last_checkpoint(run_dir), last_checkpoint(tmp_path / "straight")) == 0


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    save = ("--set", "train.save_every=2")
    good(*toy(run_dir, *save, "--steps", 6))
    whole = last_checkpoint(run_dir)
    newest = run_dir / "checkpoints" / "step-000000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    outcome = good(*toy(run_dir, *save, "--steps", 6))
    assert "is no whole checkpoint" in outcome.err and "continuing at step 4 of 6" in outcome.err
    assert furthest(last_checkpoint(run_dir), whole) == 0
    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(b"")
    assert "is no whole checkpoint" in fourd(*toy(run_dir, "--steps", 8)).err.splitlines()[-1]


def test_a_rank_that_only_heard_of_the_signal_ends_with_its_code() -> None:
    assert Interruption().exit_code == 128 + signal.SIGTERM


def test_one_run_at_a_time(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with checkpoint.locked(run_dir):
        assert "another run is writing" in fourd(*toy(run_dir)).sentence(1)
