"""The recipes on painted balls: what is compared with what, which rows are static, and that a few steps help."""

from __future__ import annotations

from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.network import Picture, Reconstructor
from fourdface.methods.portrait4d.training import (
    OPEN_HEAD,
    PortraitRecipe,
    WithStatic,
    keep_variance,
    make,
    random_label,
)
from fourdface.methods.portrait4d.training_config import DataConfig, LossConfig, TrainingConfig
from fourdface.methods.portrait4d.training_losses import density_variation, foreground, picture_losses, truth_of
from fourdface.methods.portrait4d.weights import load_reconstructor, save_reconstructor
from fourdface.training import TrainOptions
from fourdface.training.data import steps_of_batches
from fourdface.training.recipe import TrainState
from support.balls import write_balls

CPU = torch.device("cpu")
QUIET = LossConfig(perceptual_network="features", identity=0.0, adversarial=0.0, depth_until=10**9)
CONFIG = TrainingConfig(
    size="tiny", loss=QUIET, data=DataConfig(targets=2, held_out=3), train=TrainOptions(batch=4), lr=2e-3,
    render_first=16,
)  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny` in a size that a test can train."""
    size = replace(SIZES["tiny"], resolution=64, render_size=16, coarse_samples=8, fine_samples=8)
    monkeypatch.setitem(SIZES, "tiny", size)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("views") / "balls.h5"
    write_balls(path, people=5)
    return str(path)


def first_batch(config: TrainingConfig, data: str) -> tuple[PortraitRecipe, dict[str, Tensor], TrainState]:
    torch.manual_seed(0)
    recipe, samples = make(config, [data], CPU)
    batch = next(steps_of_batches(samples, 0, config.train.batch, 1))[0]
    state = TrainState(0, config.train.batch, 100, CPU)
    return recipe, batch, state


def losses_of(
    recipe: PortraitRecipe, batch: dict[str, Tensor], state: TrainState, phase: str = "main"
) -> dict[str, Tensor]:
    state.begin(phase)
    return recipe.step(phase, batch, state)


def test_step_is_deterministic_and_reaches_every_parameter(data: str) -> None:
    recipe, batch, state = first_batch(CONFIG, data)
    one, two = losses_of(recipe, batch, state), losses_of(recipe, batch, state)
    assert set(one) == {"l1", "perceptual", "segmentation", "depth"}
    assert all(torch.equal(one[name], two[name]) and one[name] > 0 for name in one)
    torch.nn.init.normal_(recipe.psi.decoder.out_sigma.weight)
    for name, module in recipe.psi.encoder_canonical.named_modules():
        if name.endswith("attn2.proj"):  # zero at first, so that nothing before it has a gradient
            torch.nn.init.normal_(module.weight, std=0.02)  # type: ignore[arg-type]
    for block in (recipe.psi.superresolution.block0, recipe.psi.superresolution.block1):
        torch.nn.init.normal_(block.torgb.weight)
    sum(losses_of(recipe, batch, state).values()).backward()  # type: ignore[union-attr]
    idle = [name for name, value in recipe.psi.named_parameters() if value.grad is None or not value.grad.any()]
    assert all("noise" in name or "affine" in name for name in idle), idle


def test_truth_is_its_own_best_reconstruction(data: str) -> None:
    recipe, batch, _ = first_batch(CONFIG, data)
    truth = truth_of(batch, 32)
    perfect = Picture(
        truth.image, truth.foreground + (1 - truth.opacity) * (truth.background + 1), truth.background,
        truth.distance, 1 - truth.opacity,
    )  # fmt: skip
    assert (foreground(perfect) - truth.foreground).abs().max() < 1e-5
    assert (perfect.features - truth.render).abs().max() < 1e-5
    losses = picture_losses(perfect, truth, recipe.perceptual, QUIET)
    assert all(abs(float(value)) < 1e-4 for value in losses.values())
    worse = replace(perfect, ray_distance=perfect.ray_distance + 0.5, transmittance=1 - perfect.transmittance)
    found = picture_losses(worse, truth, recipe.perceptual, QUIET)
    assert float(found["depth"]) == pytest.approx(0.5, abs=1e-4)
    wrong = 2 * (2 * truth.opacity - 1).abs().mean()
    assert float(found["segmentation"]) == pytest.approx(0.3 * float(wrong), rel=1e-4)


def test_losses_are_means_over_pictures(data: str) -> None:
    """Those of a batch are the mean of its pictures' own, however many of a picture's points are inside the person."""
    recipe, batch, _ = first_batch(CONFIG, data)
    truth = truth_of(batch, 16)
    shape = truth.render.shape
    truth = replace(truth, distance=truth.distance * (torch.rand(truth.distance.shape) < torch.rand(shape[0], 1, 1, 1)))
    out = Picture(
        torch.rand(truth.image.shape), torch.rand(shape), torch.rand(shape), torch.rand(truth.distance.shape),
        torch.rand(truth.opacity.shape),
    )  # fmt: skip
    whole = picture_losses(out, truth, recipe.perceptual, QUIET)
    parts = []
    for k in range(shape[0]):
        one = [type(x)(**{name: value[k : k + 1] for name, value in vars(x).items()}) for x in (out, truth)]
        parts.append(picture_losses(*one, recipe.perceptual, QUIET))
    for name, value in whole.items():
        assert float(value) == pytest.approx(float(torch.stack([part[name] for part in parts]).mean()), rel=1e-5), name


def test_what_is_not_known_counts_as_right(data: str) -> None:
    recipe, batch, _ = first_batch(CONFIG, data)
    batch["known"] = torch.zeros_like(batch["known"])
    truth = truth_of(batch, 16)
    shape = truth.render.shape
    out = Picture(truth.image, truth.render, torch.rand(shape), torch.rand(truth.distance.shape), truth.opacity)
    losses = picture_losses(out, truth, recipe.perceptual, QUIET)
    assert all(abs(float(value)) < 1e-5 for value in losses.values())


def test_distances_agree_with_closed_form(data: str) -> None:
    """A ray's distance to the ball is known: depth_z over the cosine, three units to a metre."""
    _, batch, _ = first_batch(CONFIG, data)
    truth = truth_of(batch, 32)
    middle = truth.distance[:, 0, 15:17, 15:17].amax((1, 2))
    assert ((middle > 3.3) & (middle < 4.2)).all()  # cameras stand 4 away, the ball's front is at .09 + .36


def test_half_of_the_batch_is_static(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, batch, state = first_batch(CONFIG, data)
    seen: dict[str, object] = {}
    encode, planes = recipe.psi.encode_source, recipe.psi.planes

    def spy_encode(image: Tensor, motion: Tensor, scale: object) -> object:
        seen.update(image=image, source_motion=motion, neutral=scale)
        return encode(image, motion, scale)  # type: ignore[arg-type]

    def spy_planes(source: object, motion: Tensor, scale: object) -> Tensor:
        seen.update(motion=motion, scale=scale)
        return planes(source, motion, scale)  # type: ignore[arg-type]

    monkeypatch.setattr(recipe.psi, "encode_source", spy_encode)
    monkeypatch.setattr(recipe.psi, "planes", spy_planes)
    losses_of(recipe, batch, state)
    assert seen["scale"].flatten().tolist() == [1, 1, 0, 0]  # type: ignore[attr-defined]
    driver = batch["driver"].float() / 127.5 - 1
    assert torch.allclose(seen["image"][2:], driver[2:]) and torch.equal(seen["motion"][2:], seen["source_motion"][2:])  # type: ignore[index]
    assert torch.equal(seen["source_motion"][:2], batch["source_motion"][:2])  # type: ignore[index]
    assert (batch["source_motion"][:2] != batch["motion"][:2]).any(1).all()
    recipe.config = replace(CONFIG, de_expression=False, half_static=False)
    losses_of(recipe, batch, state)
    assert seen["neutral"] == 0.0 and seen["scale"].flatten().tolist() == [1, 1, 1, 1]  # type: ignore[attr-defined]


def test_cross_attention_of_static_rows_changes_nothing(data: str) -> None:
    recipe, batch, state = first_batch(replace(CONFIG, static=True), data)
    before = losses_of(recipe, batch, state)
    for name, module in recipe.psi.encoder_canonical.named_modules():
        if name.endswith("attn2.proj"):
            torch.nn.init.normal_(module.weight)  # type: ignore[arg-type]
    after = losses_of(recipe, batch, state)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_v2_looks_at_a_pseudo_view_every_fourth_step(data: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    still, _ = make(replace(CONFIG, static=True), [data], CPU)
    save_reconstructor(still.psi, tmp_path / "psi.safetensors")
    place = str(tmp_path / "psi.safetensors")
    config = replace(
        CONFIG, half_static=False, self_driven=True, pseudo_driver=0.5, initial=place, synthesizer=place,
        cross_lr_scale=2.5, data=DataConfig(held_out=3),
    )  # fmt: skip
    recipe, batch, state = first_batch(config, data)
    pseudo = next(phase for phase in recipe.phases if phase.name == "pseudo")
    assert [step for step in range(12) if pseudo.due(step)] == [0, 4, 8] and pseudo.lazy and pseudo.optimizer == "main"
    assert torch.equal(batch["targets"][:, 0], batch["driver"])
    with torch.no_grad():  # Psi starts as the synthesizer, and their sources differ only by the moment
        batch["source"], batch["source_label"] = batch["driver"], batch["driver_label"]
        for block in recipe.psi.encoder_canonical.modules():
            if hasattr(block, "attn2"):
                block.attn2.proj.weight.zero_(), block.attn2.proj.bias.zero_()
        alike = float(losses_of(recipe, batch, state, "pseudo")["pseudo"])
        recipe.psi.decoder.out_sigma.bias.add_(30)  # solid
        assert alike < 0.5 * float(losses_of(recipe, batch, state, "pseudo")["pseudo"])
    assert {"l1", "perceptual"} <= set(losses_of(recipe, batch, state))
    rates = dict(recipe.phases[0].adam.factors)
    assert set(rates.values()) == {1.0, 2.5}
    with pytest.raises(UsageError, match="synthesizer"):
        make(replace(config, synthesizer=""), [data], CPU)


def test_adversarial_loss_joins_when_it_is_due(data: str) -> None:
    loss = replace(QUIET, adversarial=0.01, adversarial_start=20)
    recipe, batch, state = first_batch(replace(CONFIG, loss=loss, train=TrainOptions(batch=4, steps=20)), data)
    judges = [phase for phase in recipe.phases if phase.name.startswith("judge")]
    assert [phase.start for phase in judges] == [5, 5] and judges[1].lazy
    assert "adversarial" not in losses_of(recipe, batch, state)
    state.step = 5
    assert "adversarial" in losses_of(recipe, batch, state)
    assert losses_of(recipe, batch, state, "judge")["judge"] > 0
    losses_of(recipe, batch, state, "judge-r1")["r1"].backward()
    with_none = replace(CONFIG, loss=replace(loss, adversarial_start=10**6))
    assert make(with_none, [data], CPU)[0].judge is None


def test_density_variation_is_zero_for_a_constant_field(data: str) -> None:
    recipe, _, state = first_batch(CONFIG, data)
    planes = torch.randn(2, 3, SIZES["tiny"].plane_channels, 32, 32)
    torch.nn.init.zeros_(recipe.psi.decoder.out_sigma.weight)
    assert float(density_variation(recipe.psi, planes, 0.004, state.generator).detach()) == 0
    torch.nn.init.normal_(recipe.psi.decoder.out_sigma.weight)
    near = density_variation(recipe.psi, planes, 0.004, state.generator)
    assert 0 < near < density_variation(recipe.psi, planes, 0.04, state.generator)


def test_twenty_steps_lower_the_loss_and_the_file_is_read(data: str, tmp_path: Path) -> None:
    from fourdface.training import train

    options = TrainOptions(batch=4, steps=20, log_every=5, image_every=20, score_every=20)
    config = replace(CONFIG, static=True, train=options)
    torch.manual_seed(0)
    recipe, samples = make(config, [data], CPU)
    batch = next(steps_of_batches(samples, 1, 4, 1))[0]
    state = TrainState(0, 4, 20, CPU)
    before = sum(float(value) for value in losses_of(recipe, batch, state).values())
    train(recipe, samples, config.train, tmp_path / "run")
    after = sum(float(value) for value in losses_of(recipe, batch, state).values())
    assert after < 0.8 * before
    network, _ = load_reconstructor(tmp_path / "run" / "weights.safetensors")
    assert network.config == config.network and network.config.motion_encoder == "coefficients"
    assert list((tmp_path / "run" / "images").iterdir())


def test_a_new_network_tells_pictures_apart() -> None:
    torch.manual_seed(0)
    network = Reconstructor(CONFIG.network)
    images, still = torch.rand(4, 3, 64, 64) * 2 - 1, torch.zeros(4, 61)
    images[2:] *= 0.2

    def told_apart() -> float:
        planes = network.planes(network.encode_source(images, still, 0.0), still, 0.0)
        return float(planes.std(0).mean() / planes.std())

    with torch.no_grad():
        before = told_apart()
        keep_variance(network)
        assert before < 0.02 and told_apart() > 0.05


def test_a_new_super_resolution_adds_nothing(data: str) -> None:
    recipe, _, _ = first_batch(CONFIG, data)
    render = torch.rand(1, 3, 16, 16) * 2 - 1
    features = torch.cat([render, torch.rand(1, CONFIG.network.plane_channels - 3, 16, 16)], 1)
    other = torch.cat([render, torch.rand(1, CONFIG.network.plane_channels - 3, 16, 16)], 1)
    with torch.no_grad():
        assert torch.equal(recipe.psi.enlarged(features), recipe.psi.enlarged(other))


def test_the_perceptual_loss_joins_when_it_is_due(data: str) -> None:
    recipe, batch, state = first_batch(replace(CONFIG, loss=replace(QUIET, perceptual_start=8)), data)
    assert "perceptual" not in losses_of(recipe, batch, state)
    state.step = 2
    assert "perceptual" in losses_of(recipe, batch, state)


def test_layers_have_the_rates_of_the_configuration(data: str) -> None:
    config = replace(CONFIG, lr=1e-3, cross_lr_scale=2.0, equalised_lr_scale=5.0, density_lr_scale=3.0)
    recipe, _, _ = first_batch(config, data)
    factors = recipe.phases[0].adam.factors

    def factor(name: str) -> float:
        matching = [value for pattern, value in factors.items() if fnmatch(f"psi.{name}", pattern)]
        return matching[-1] if matching else 1.0

    names = [name for name, _ in recipe.psi.named_parameters()]
    assert {factor(name) for name in names if "encoder_detail" in name or "generator_triplane" in name} == {1.0}
    assert {factor(name) for name in names if ".attn2." in name} == {2.0}
    assert {factor(name) for name in names if name.startswith("superresolution.")} == {5.0}
    assert {factor(name) for name in names if "out_sigma" in name} == {15.0}


def test_static_people_are_others(data: str) -> None:
    config = replace(CONFIG, half_static=True, data=DataConfig(held_out=0, people=2, static=(data,)))
    recipe, samples = make(config, [data], CPU)
    assert isinstance(samples, WithStatic)
    assert len(samples.samples.of_person) == 2 and len(samples.static.of_person) == 3
    assert not set(samples.samples.of_person) & set(samples.static.of_person)
    sample = samples[0]
    assert sample["static_source"].shape == sample["source"].shape
    assert recipe.held_out is None


def test_schedule_of_the_render_size() -> None:
    config = replace(CONFIG, render_first=8, growth_start=100, growth_length=100)
    assert [config.render_size(images) for images in (0, 100, 150, 200, 999)] == [8, 8, 12, 16, 16]


def test_random_cameras_stay_in_their_ranges() -> None:
    label = random_label(torch.rand(100, 7))
    place = label[:, [3, 7, 11]] - torch.tensor(OPEN_HEAD)
    radius = place.norm(dim=1)
    assert radius.min() >= 3.65 and radius.max() <= 4.45
    assert torch.atan2(place[:, 0], place[:, 2]).abs().max() <= 0.79


def test_missing_networks_are_said_and_replaced(data: str, caplog: pytest.LogCaptureFixture) -> None:
    loss = replace(QUIET, perceptual_network="lpips-vgg", identity=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fourdface.methods.portrait4d.training_losses.load_lpips", _missing)
        recipe, _ = make(replace(CONFIG, loss=loss), [data], CPU)
    assert recipe.perceptual_name == "features"
    assert "perceptual_fallback" in caplog.text and "identity is off" in caplog.text
    with pytest.raises(UsageError, match="perceptual_network"):
        replace(CONFIG, loss=replace(QUIET, perceptual_network="vgg"))


def _missing(name: str) -> object:
    raise FourdError(f"{name} is not there")
