"""`fourd train`: what it leaves, and what it says to a call that cannot work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from fourdface import __version__
from support.calling import files, fourd, good

TOY = "support.toy_recipe:RECIPE"
SHORT = ("--set", "train.image_every=0", "--device", "cpu")


def toy(folder: Path, *arguments: object) -> tuple[object, ...]:
    return ("train", TOY, "-o", folder, *SHORT, *arguments)


def test_a_run_and_its_manifest(tmp_path: Path) -> None:
    outcome = good(*toy(tmp_path / "run", "--steps", 3, "--seed", 7, "--set", "network.width=4"))
    assert outcome.out == b""
    assert {"checkpoints", "run.json", "scalars.csv", "weights.safetensors"} <= set(files(tmp_path / "run"))
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["recipe"] == TOY and manifest["seed"] == 7
    assert manifest["config"]["network"] == {"width": 4} and manifest["config"]["train"]["steps"] == 3
    assert manifest["versions"]["fourd"] == __version__ and manifest["versions"]["torch"]
    with safe_open(tmp_path / "run" / "weights.safetensors", "pt") as weights:
        assert weights.metadata()["step"] == "3"
        assert json.loads(weights.metadata()["config"]) == manifest["config"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "train.stepz=3"), "--set train.stepz=3 does not fit: there is no key train.stepz"),
        (("--set", "train.steps=many"), "--set train.steps=many does not fit: train.steps: Value 'many'"),
        (("--set", "train.steps"), "expected KEY=VALUE"),
        (("--set", "train.batch=0"), "train.batch is 0, and at least 1 is needed"),
        (("--set", "train.accumulate=3"), "train.batch is 8, and it must divide"),
        (("--config", "tiny"), "there is no configuration tiny"),
        (("--resume",), "holds no checkpoint to resume from"),
        (("--parallel", "fsdp2"), "start it with torchrun"),
        (("--config", "absent.yaml"), "there is no configuration absent.yaml"),
        (("--set", "train.precision=fp8"), "train.precision is 'fp8'; choose fp32 or bf16"),
        (("--set", "network=3"), "--set network=3 does not fit"),
    ],
)
def test_a_wrong_call_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    sentence = fourd(*toy(tmp_path / "run", *arguments)).sentence(2)
    assert words in sentence


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("nobody", "there is no recipe nobody; choose one of"),
        ("support.nowhere:RECIPE", "cannot be imported: No module named 'support.nowhere'"),
        ("support.toy_recipe:ToyRecipe", "is ABCMeta, and a RecipeFactory is wanted"),
    ],
)
def test_an_unknown_recipe(tmp_path: Path, recipe: str, words: str) -> None:
    assert words in fourd("train", recipe, "-o", tmp_path / "run").sentence(2)
    assert not (tmp_path / "run").exists()


def test_data_that_is_missing_or_empty(tmp_path: Path) -> None:
    sentence = fourd(*toy(tmp_path / "run", "--data", tmp_path / "views.h5")).sentence(1)
    assert "views.h5 does not exist; --data names the training data" in sentence
    assert "holds no sample" in fourd(*toy(tmp_path / "run", "--set", "samples=0")).sentence(1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("network: {width: 4}\ncolour: 1\n", "there is no key colour"),
        ("network: {width: wide}\n", "network.width: Value 'wide'"),
        ("- 1\n- 2\n", "holds no YAML mapping"),
        ("a: [1, 2\n", "cannot be read as YAML"),
        ("", None),
    ],
)
def test_configuration_files(tmp_path: Path, text: str, words: str | None) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    if words is None:
        good(*toy(tmp_path / "run", "--config", path, "--steps", 1))
    else:
        assert words in fourd(*toy(tmp_path / "run", "--config", path)).sentence(2)


def test_another_run_in_the_folder_is_refused_and_fresh_replaces_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    good(*toy(run_dir, "--steps", 2))
    (run_dir / "notes.txt").write_text("mine")
    sentence = fourd(*toy(run_dir, "--steps", 3, "--set", "network.width=8")).sentence(2)
    assert "another configuration: network.width (16, now 8)" in sentence and "--fresh to replace it" in sentence
    (run_dir / "run.json").write_text((run_dir / "run.json").read_text().replace(TOY, "genhead"))
    assert "holds a run of genhead" in fourd(*toy(run_dir, "--steps", 3)).sentence(2)
    (run_dir / "run.json").write_text("{")
    assert "cannot be read" in fourd(*toy(run_dir, "--steps", 3)).sentence(1)
    good(*toy(run_dir, "--steps", 3, "--fresh", "--set", "network.width=8"))
    assert files(run_dir / "checkpoints") == ["step-000000003.safetensors"]
    assert (run_dir / "notes.txt").read_text() == "mine"


def test_a_run_goes_on_with_more_steps_and_other_habits(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    good(*toy(run_dir, "--steps", 2))
    more = ("--steps", 5, "--resume", "--workers", 1, "--set", "train.log_every=1", "--set", "train.keep=1")
    assert "continuing at step 2 of 5" in good(*toy(run_dir, *more)).err
    assert files(run_dir / "checkpoints") == ["step-000000005.safetensors"]
    (tmp_path / "file").write_text("")
    assert "is a file, and a run needs a folder" in fourd(*toy(tmp_path / "file")).sentence(2)


def test_without_tensorboard_it_says_so_once_and_writes_tables_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    outcome = good("train", TOY, "-o", tmp_path, "--steps", 4, "--set", "train.image_every=2", "--device", "cpu")
    assert outcome.err.count("tensorboard is not installed") == 1
    assert files(tmp_path / "images") == ["points-000000002.png", "points-000000004.png"]
    assert "tensorboard" not in files(tmp_path) and (tmp_path / "scalars.csv").exists()


def test_a_gpu_that_is_not_there_or_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch sees no GPU here" in fourd("train", TOY, "-o", tmp_path / "a", "--device", "cuda").sentence(2)

    def full(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("fourdface.stages.train.run_loop", full)
    assert "raise train.accumulate" in fourd(*toy(tmp_path / "b")).sentence(1)
