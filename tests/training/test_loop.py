"""The loop with a toy GAN: it runs, continues, and does not care how a batch is split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fourdface.errors import FourdError
from fourdface.training import TrainOptions, train
from fourdface.training.records import read_scalars
from fourdface.training.seeds import seed_everything
from support.toy_recipe import Circle, ToyConfig, ToyRecipe

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
OPTIONS = TrainOptions(batch=8, steps=12, log_every=4, image_every=6, score_every=6, save_every=4)


Tensors = dict[str, torch.Tensor]


def run(folder: Path, config: ToyConfig | None = None, *, workers: int = 0, **options: object) -> Tensors:
    """Train the toy and return the tensors of its last checkpoint."""
    config = config or ToyConfig()
    seed_everything(0)
    chosen = dataclasses.replace(OPTIONS, **options)
    state = train(ToyRecipe(config), Circle(config.samples, config.poisoned), chosen, folder, workers=workers)
    assert state.step == chosen.steps and state.images == chosen.steps * chosen.batch
    return load_file(folder / "checkpoints" / f"step-{chosen.steps:09d}.safetensors")


def same(a: Tensors, b: Tensors, tolerance: float = 0.0) -> bool:
    assert a.keys() == b.keys()
    return all(torch.allclose(a[name], b[name], rtol=0, atol=tolerance) for name in a)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors]:
    folder = tmp_path_factory.mktemp("reference")
    return folder, run(folder)


def test_a_run_leaves_what_it_promises(reference: tuple[Path, Tensors]) -> None:
    folder, tensors = reference
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-000000008.safetensors",
        "step-000000012.safetensors",
    ]
    weights = load_file(folder / "weights.safetensors")
    layers = [f"layers.{number}.{kind}" for number in (0, 2) for kind in ("weight", "bias")]
    assert weights.keys() == {f"generator.{key}" for key in (*layers, "mean")}
    assert torch.equal(weights["generator.mean"], tensors["average/generator/mean"])
    assert {path.name for path in (folder / "images").iterdir()} == {"points-000000006.png", "points-000000012.png"}
    scalars = read_scalars(folder)
    assert [step for step, _ in scalars["generator/adversarial"]] == [4, 8, 12]
    assert [step for step, _ in scalars["score/radius_error"]] == [6, 12]
    assert float(tensors["variable/seen"]) == 96


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    reference: tuple[Path, Tensors], tmp_path: Path
) -> None:
    assert same(run(tmp_path / "a"), reference[1])
    assert not same(run(tmp_path / "b", seed=1), reference[1])


def test_a_run_cut_anywhere_comes_to_the_same_bits(reference: tuple[Path, Tensors], tmp_path: Path) -> None:
    for steps in (3, 7, 12):
        tensors = run(tmp_path, steps=steps)
    assert same(tensors, reference[1])
    rows = {name: [step for step, _ in row] for name, row in read_scalars(tmp_path).items()}
    assert rows["discriminator/real"] == sorted(set(rows["discriminator/real"]))


def test_accumulation_equals_the_whole_batch(reference: tuple[Path, Tensors], tmp_path: Path) -> None:
    assert same(run(tmp_path, accumulate=4), reference[1], 1e-6)


def test_workers_change_nothing(reference: tuple[Path, Tensors], tmp_path: Path) -> None:
    assert same(run(tmp_path / "1", workers=1), reference[1])
    assert same(run(tmp_path / "4", workers=4), reference[1])


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run(tmp_path, steps=2)
    from support.toy_recipe import NetworkOptions

    with pytest.raises(FourdError, match=r"another network: network/generator/layers\.0\.bias is \[16\], and \[8\]"):
        run(tmp_path, ToyConfig(network=NetworkOptions(8)))
    with pytest.raises(FourdError, match="made with samples 40, and samples is 41 now"):
        run(tmp_path, ToyConfig(samples=41))
