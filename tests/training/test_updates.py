"""Single updates against what they must come to: lazy regularisation, rates, clipping, averages, what is not finite."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fourdface.errors import FourdError, UsageError
from fourdface.training import Adam, Phase, Recipe, TrainOptions, TrainState, train
from fourdface.training.ema import decay
from fourdface.training.optimization import lazy_factor
from fourdface.training.records import read_scalars
from support.toy_recipe import Circle, ToyConfig, ToyRecipe

QUIET = TrainOptions(batch=4, steps=8, image_every=0, log_every=1, ema_ramp=0.0)


class One(Recipe):
    """One weight w, whose loss in a phase is given as a function of it and the batch."""

    averaged = ("net",)

    def __init__(self, phases: tuple[Phase, ...], loss: Callable[[str, Tensor, Tensor, TrainState], Tensor]) -> None:
        net = nn.Linear(1, 1, bias=False)
        nn.init.ones_(net.weight)
        self.networks = {"net": net, "other": nn.Linear(1, 1)}
        self.phases, self.loss = phases, loss
        self.calls: list[tuple[int, str]] = []

    def step(self, phase: str, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        self.calls.append((state.step, phase))
        return {"loss": self.loss(phase, self.networks["net"].weight.sum(), batch["point"], state)}

    @property
    def weight(self) -> float:
        return float(self.networks["net"].weight.detach())


def linear(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
    return weight


def go(recipe: Recipe, folder: Path, **options: object) -> TrainState:
    return train(recipe, Circle(16), dataclasses.replace(QUIET, **options), folder)


def test_phases_run_when_they_are_due(tmp_path: Path) -> None:
    phases = (Phase("main", ("net",)), Phase("late", ("net",), start=3, every=2))
    recipe = One(phases, linear)
    go(recipe, tmp_path)
    assert [step for step, name in recipe.calls if name == "late"] == [3, 5, 7]
    assert [step for step, name in recipe.calls if name == "main"] == list(range(8))


def test_lazy_regularisation_gains_and_shares_a_corrected_optimizer(tmp_path: Path) -> None:
    """StyleGAN2, appendix B: with k = 4, lr and the exponents of the betas are scaled by 4/5, the loss by 4."""
    adam = Adam(lr=0.01, betas=(0.5, 0.9))
    phases = (Phase("main", ("net",), adam), Phase("lazy", ("net",), optimizer="main", every=4, lazy=True))
    recipe = One(phases, linear)
    go(recipe, tmp_path, steps=1)
    weight = torch.ones((), requires_grad=True)
    truth = torch.optim.Adam([weight], lr=0.01 * 0.8, betas=(0.5**0.8, 0.9**0.8))
    for gain in (1.0, 4.0):
        weight.grad = torch.tensor(gain)
        truth.step()
    assert recipe.weight == pytest.approx(float(weight.detach()), abs=1e-7)
    assert lazy_factor(phases[:1]) == 1 and lazy_factor(phases) == pytest.approx(0.8)


def test_rates_of_parameters_and_of_the_schedule(tmp_path: Path) -> None:
    """Adam's first step is as long as its rate."""
    halved = Phase("main", ("net",), Adam(lr=0.01, factors={"*": 3.0, "net.*": 0.5}))
    recipe = One((halved,), linear)
    go(recipe, tmp_path / "a", steps=1)
    assert recipe.weight == pytest.approx(1 - 0.005, abs=1e-6)
    recipe = One((Phase("main", ("net",), Adam(lr=0.01)),), linear)
    go(recipe, tmp_path / "b", steps=1, warmup=10)
    assert recipe.weight == pytest.approx(1 - 0.001, abs=1e-6)
    cosine = TrainOptions(steps=110, warmup=10, decay="cosine")
    assert [round(cosine.rate_factor(step), 3) for step in (0, 9, 10, 60, 110)] == [0.1, 1.0, 1.0, 0.5, 0.0]


def test_a_factor_of_zero_and_frozen_weights_stay_as_they_are(tmp_path: Path) -> None:
    phases = (Phase("main", ("net", "other"), Adam(factors={"other.weight": 0.0}, weight_decay=0.1)),)
    recipe = One(phases, linear)
    recipe.networks["other"].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in recipe.networks["other"].state_dict().items()}
    go(recipe, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in recipe.networks["other"].state_dict().items())
    with pytest.raises(UsageError, match="the phase none has no parameter to train"):
        go(One((Phase("none", ("net",), Adam(factors={"*": 0.0})),), linear), tmp_path / "none")
    with pytest.raises(UsageError, match="trains nobody, which is no network"):
        go(One((Phase("main", ("nobody",)),), linear), tmp_path / "nobody")


def test_gradients_are_clipped_and_their_norm_is_told(tmp_path: Path) -> None:
    def steep(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
        return weight * 1000

    seen: list[float] = []
    recipe = One((Phase("main", ("net",)),), steep)
    recipe.networks["net"].weight.register_post_accumulate_grad_hook(lambda value: None)
    original = torch.optim.Adam.step

    def spy(optimizer: torch.optim.Adam, *arguments: object) -> object:
        seen.append(float(optimizer.param_groups[0]["params"][0].grad))
        return original(optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", spy)
        go(recipe, tmp_path, steps=1, clip=0.25)
    assert seen == [pytest.approx(0.25, rel=1e-4)]
    assert read_scalars(tmp_path)["main/gradient_norm"] == [(1, 1000.0)]


def test_the_average_has_its_half_life(tmp_path: Path) -> None:
    """A weight that jumps once is half forgotten after `ema_half_life` images."""
    recipe = One((Phase("main", ("net",), Adam(lr=1.0, betas=(0.0, 0.0))),), linear)
    phases = dataclasses.replace(recipe.phases[0], every=1000)  # one update of length 1, at step 0
    recipe.phases = (phases,)
    go(recipe, tmp_path, steps=4, ema_half_life=16.0)
    average = load_file(tmp_path / "weights.safetensors")["net.weight"]
    assert recipe.weight == pytest.approx(0.0, abs=1e-5) and float(average) == pytest.approx(0.5, abs=1e-5)
    ramped = dataclasses.replace(QUIET, ema_half_life=1000.0, ema_ramp=0.05)
    assert decay(ramped, 80) == pytest.approx(0.5) and decay(ramped, 10**6) == pytest.approx(0.5 ** (4 / 1000))


def test_bf16_runs_the_step_under_autocast_and_keeps_the_weights_float32(tmp_path: Path) -> None:
    kinds = []

    class Looking(ToyRecipe):
        def step(self, phase: str, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
            kinds.append(self.networks["discriminator"](batch["point"]).dtype)
            return super().step(phase, batch, state)

    train(Looking(ToyConfig()), Circle(16), dataclasses.replace(QUIET, precision="bf16"), tmp_path)
    assert set(kinds) == {torch.bfloat16}
    tensors = load_file(tmp_path / "checkpoints" / "step-000000008.safetensors")
    assert {value.dtype for value in tensors.values()} == {torch.float32}


def test_a_poisoned_sample_does_not_end_the_run(tmp_path: Path) -> None:
    """40 samples, 8 a step: the poisoned one comes once in every five steps."""
    config = ToyConfig(poisoned=13)
    state = train(ToyRecipe(config), Circle(40, 13), dataclasses.replace(QUIET, batch=8, steps=12), tmp_path)
    assert state.step == 12 and 2 <= state.skipped <= 6
    tensors = load_file(tmp_path / "checkpoints" / "step-000000012.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())
    kept = sorted((tmp_path / "skipped").iterdir())
    assert len(kept) == state.skipped
    assert "13" in map(str, load_file(kept[0])["index"].tolist())
    assert read_scalars(tmp_path)["skipped"][-1] == (12, float(state.skipped))


def test_a_skipped_update_changes_nothing(tmp_path: Path) -> None:
    def once(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
        return weight * (float("inf") if state.step == 2 else 1.0)

    skipping, plain = (One((Phase("main", ("net",), Adam(lr=0.01)),), loss) for loss in (once, linear))
    go(skipping, tmp_path / "a", steps=8)
    go(plain, tmp_path / "b", steps=7)
    assert skipping.weight == plain.weight


def test_too_many_in_a_row_end_the_run_and_the_batch_is_kept(tmp_path: Path) -> None:
    def broken(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
        return weight * points.sum() * float("nan")

    words = r"step 2, phase main.*3 times in a row; the batch is in .*step-000000002-main"
    with pytest.raises(FourdError, match=words):
        go(One((Phase("main", ("net",)),), broken), tmp_path, skip_limit=3)
    batch = load_file(tmp_path / "skipped" / "step-000000002-main-rank-0.safetensors")
    assert batch["point"].shape == (4, 2)


def test_losses_that_are_switched_off_move_nothing(tmp_path: Path) -> None:
    recipe = One((Phase("main", ("net",)),), lambda phase, weight, points, state: torch.zeros(()))
    assert go(recipe, tmp_path).skipped == 0 and recipe.weight == 1.0
    assert read_scalars(tmp_path)["main/loss"][-1] == (8, 0.0)


def test_reports_are_means_over_micro_batches(tmp_path: Path) -> None:
    def telling(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
        state.report("rows", float(len(points)))
        return weight

    go(One((Phase("main", ("net",)),), telling), tmp_path, accumulate=2)
    assert {value for _, value in read_scalars(tmp_path)["main/rows"]} == {2.0}


def test_a_skipped_update_leaves_running_means_as_they_were(tmp_path: Path) -> None:
    def poisoned(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
        bad = float("nan") if state.step == 2 else 1.0
        mean.add_(bad)
        return weight * bad

    recipe = One((Phase("main", ("net",)),), poisoned)
    recipe.networks["net"].register_buffer("mean", torch.zeros(1))
    mean = recipe.networks["net"].get_buffer("mean")
    go(recipe, tmp_path)
    assert float(mean) == 7  # eight steps, one of them skipped


def test_what_is_drawn_differs_between_steps_and_phases_and_not_between_runs(tmp_path: Path) -> None:
    drawn: list[tuple[float, ...]] = []

    def drawing(phase: str, weight: Tensor, points: Tensor, state: TrainState) -> Tensor:
        own = torch.randn((), generator=state.generator)
        drawn.append((float(state.randn(1, 1)), float(state.rand(1)), float(own), float(torch.randn(()))))
        return weight

    for name in ("a", "b"):
        go(One((Phase("main", ("net",)), Phase("other", ("net",))), drawing), tmp_path / name)
    first, second = drawn[:16], drawn[16:]
    assert first == second
    assert all(len(set(column)) == 16 for column in zip(*first, strict=True))
