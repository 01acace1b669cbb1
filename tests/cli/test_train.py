"""`fourd train`: what it leaves, and what it says to a call that cannot work."""

from __future__ import annotations

import json
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
    ],
)
def test_a_wrong_call_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    sentence = fourd(*toy(tmp_path / "run", *arguments)).sentence(2)
    assert words in sentence
