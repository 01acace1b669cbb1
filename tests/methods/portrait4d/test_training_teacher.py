"""The teacher makes stored people again; its losses are right, reach Psi, end in time, and refuse what does not fit."""

from __future__ import annotations

import io
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fourdface.artifacts import Views
from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.network import Picture, Reconstructor
from fourdface.methods.portrait4d.training import PortraitRecipe, make
from fourdface.methods.portrait4d.training_config import DataConfig, LossConfig, TrainingConfig
from fourdface.methods.portrait4d.training_data import PortraitViews
from fourdface.methods.portrait4d.training_losses import foreground
from fourdface.methods.portrait4d.training_teacher import Taught, Teacher, open_teacher, teacher_losses
from fourdface.ops.triplane_sample import triplane_sample
from fourdface.priors.genhead.camera import camera_from_label
from fourdface.priors.genhead.config import SIZES as GENHEADS
from fourdface.stages.synthesis.genhead import to_u8
from fourdface.training import TrainOptions
from fourdface.training.data import steps_of_batches
from fourdface.training.recipe import TrainState
from support.calling import good
from support.generated import write_genhead

CPU = torch.device("cpu")
LOSSES = {"feature_foreground", "feature_background", "triplane"}
LOSS = LossConfig(perceptual_network="none", perceptual_fallback="none", identity=0.0, adversarial=0.0)
SIDE = 16


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """`tiny` in a size that a test can train."""
    size = replace(SIZES["tiny"], resolution=64, render_size=SIDE, coarse_samples=8, fine_samples=8)
    monkeypatch.setitem(SIZES, "tiny", size)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genhead(tmp_path_factory.mktemp("genhead"))


@pytest.fixture(scope="module")
def data(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("views")
    good("synth-data", "genhead", checkpoint, "--count", 3, "--motions", 2, "--views", 2, "--size", 64, "-o", folder)
    return folder / "views-00000.h5"


def config_of(checkpoint: Path, **changes: object) -> TrainingConfig:
    values = {"data": DataConfig(targets=2, held_out=0), "train": TrainOptions(batch=2), "render_first": SIDE}
    return TrainingConfig(size="tiny", loss=LOSS, teacher=str(checkpoint), **(values | changes))  # type: ignore[arg-type]


@pytest.fixture
def teacher(checkpoint: Path) -> Teacher:
    found = open_teacher(config_of(checkpoint), CPU)
    assert found is not None
    return found


def batch_of(teacher: Teacher, data: Path, count: int = 2) -> dict[str, Tensor]:
    samples = PortraitViews([str(data)], 64, DataConfig(targets=2, held_out=0), made_by=teacher.sha256)
    drawn = [samples[2 * k] for k in range(count)]
    return {name: torch.stack([sample[name] for sample in drawn]) for name in drawn[0]}


def everywhere(count: int, steps: int = 24) -> Tensor:
    """Places [count, SIDE² * steps, 2]: every ray at as many steps."""
    ray = (torch.arange(SIDE * SIDE) + 0.5) / (SIDE * SIDE)
    along = (torch.arange(steps) + 0.5) / steps
    return torch.stack(torch.meshgrid(ray, along, indexing="ij"), -1).reshape(1, -1, 2).expand(count, -1, -1)


def test_the_teacher_shows_the_stored_pictures(teacher: Teacher, data: Path) -> None:
    views = Views.read(data)
    assert views.latents is not None and views.latents.shape == (3, 64)
    for row in range(0, len(views), 3):
        one = PortraitViews([str(data)], 64, DataConfig(held_out=0), made_by=teacher.sha256)
        moment = next(m for m in one.moments if row in m.rows)
        sample = one.sample(moment, row, moment, row, [row])
        head = sample["head"][None]
        planes, behind = teacher.people.planes(sample["latent"][None], head[:, : teacher.network.head.shape_count])
        made = teacher.network.render(planes, behind, teacher.pose(head), sample["labels"])
        stored = np.asarray(Image.open(io.BytesIO(views.images[row]))).astype(float)
        error = np.square(stored - to_u8(made.image, 64)).mean()
        contrast = np.square(stored - stored.mean((0, 1))).mean()
        assert 10 * np.log10(255**2 / error) > 38 and contrast > 20 * error, (row, error, contrast)


def test_psi_with_the_teachers_own_head_has_no_loss(teacher: Teacher, data: Path) -> None:
    """In the canonical pose nothing is deformed: the planes of the head, rendered by Psi, are the teacher's picture but
    for eyes and mouth; the same points have the same features."""
    batch = batch_of(teacher, data)
    network = teacher.network
    batch["head"] = torch.zeros_like(batch["head"])
    batch["head"][:, network.head.shape_count + network.head.expression_count + 3] = 0.3  # the jaw
    pose = teacher.pose(batch["head"])
    assert (network.head.vertices(pose) - network.head.canonical_shape).abs().max() < 1e-5
    planes, behind = network.requires_grad_(False) and teacher.people.planes(batch["latent"], pose.shape)
    sizes = replace(
        SIZES["tiny"], box_size=network.config.box_size, decoder_units=network.config.decoder_hidden,
        coarse_samples=network.config.coarse_samples, fine_samples=network.config.fine_samples,
    )  # fmt: skip
    psi = Reconstructor(sizes)
    psi.decoder.load_state_dict(network.decoder.state_dict())
    labels, ours = batch["labels"].flatten(0, 1), planes[:, 3:].repeat_interleave(2, 0)
    with torch.no_grad():
        out = psi.render(ours, labels, behind.repeat_interleave(2, 0), size=SIDE)
    taught = teacher.taught(batch, SIDE, everywhere(4))
    losses = teacher_losses(out, ours, sizes.box_size, taught, LOSS)
    assert float(losses["triplane"]) < 1e-6 and float(losses["feature_background"]) < 1e-6
    made = network.render(planes.repeat_interleave(2, 0), behind.repeat_interleave(2, 0),
                          teacher.pose(batch["head"].repeat_interleave(2, 0)), labels)  # fmt: skip
    plain = (made.masks.eyes + made.masks.mouth) == 0
    difference = (foreground(out, None) - taught.foreground).abs() * plain
    assert plain.float().mean() > 0.7 and difference.max() < 1e-3
    assert (foreground(out, None) + 1)[plain.expand_as(difference)].mean() > 0.05, "a head is seen"


def test_losses_are_means_of_what_differs(teacher: Teacher, data: Path) -> None:
    batch = batch_of(teacher, data)
    taught = teacher.taught(batch, SIDE, torch.rand(4, 500, 2))
    transmittance = torch.rand(4, 1, SIDE, SIDE)

    def shown(by: float, behind: float) -> Picture:
        background = taught.background + behind
        features = taught.foreground + by + transmittance * (background + 1)
        return Picture(features[:, :3], features, background, transmittance, transmittance)

    planes = torch.zeros(4, 3, 16, 32, 32)
    zero = replace(taught, features=torch.zeros_like(taught.features))
    found = teacher_losses(shown(0, 0), planes, 1.2, zero, LOSS)
    assert set(found) == LOSSES and all(float(value) < 1e-6 for value in found.values())
    one = replace(zero, features=zero.features + 0.3)
    found = teacher_losses(shown(0.1, 0.25), planes, 1.2, one, LOSS)
    assert float(found["feature_foreground"]) == pytest.approx(0.1, rel=1e-4)
    assert float(found["feature_background"]) == pytest.approx(0.25, rel=1e-4)
    assert float(found["triplane"]) == pytest.approx(0.1 * 0.3, rel=1e-4)
    # what does not count is not compared; a picture in which nothing counts has no loss; each picture weighs the same
    some = replace(one, counted=one.counted & (torch.arange(4) > 0)[:, None])
    some.features[:, ::2][~some.counted[:, ::2]] = 100.0
    assert float(teacher_losses(shown(0, 0), planes, 1.2, some, LOSS)["triplane"]) == pytest.approx(0.0225, rel=1e-3)
    larger = Picture(*(torch.nn.functional.interpolate(x, scale_factor=2) for x in vars(shown(0.1, 0.25)).values()))
    assert float(teacher_losses(larger, planes, 1.2, one, LOSS)["feature_background"]) == pytest.approx(0.25, rel=1e-3)


def test_points_are_of_the_head_without_eyes_and_mouth(teacher: Teacher, data: Path) -> None:
    batch = batch_of(teacher, data, 3)
    jaw = teacher.network.head.shape_count + teacher.network.head.expression_count + 3
    batch["head"][:, jaw - 3 - 52 : jaw - 3] = 0
    batch["head"][:, jaw] = 0.35
    taught = teacher.taught(batch, SIDE, everywhere(6, 64))
    assert taught.points.shape == (6, SIDE * SIDE * 64, 3)
    assert 0.5 < taught.counted.float().mean() < 0.99
    assert taught.points[taught.counted].abs().max() < 0.65 < taught.points.abs().max(), (
        "the cube's outside is left out"
    )
    five = 3 * torch.from_numpy(teacher.people.five_points(teacher.pose(batch["head"]))).float().repeat_interleave(2, 0)
    # projected by hand: a landmark's ray, and the point on it that is nearest to the landmark
    matrix, intrinsics = camera_from_label(batch["labels"].flatten(0, 1), SIDE, SIDE)
    seen = (matrix[:, :3, :3] @ five.transpose(1, 2) / 3 + matrix[:, :3, 3:]).transpose(1, 2)
    pixel = (intrinsics @ seen.transpose(1, 2)).transpose(1, 2)
    column, row = (pixel[..., :2] / pixel[..., 2:]).unbind(-1)
    for b in range(6):
        inside = (column[b] >= 0) & (column[b] < SIDE) & (row[b] >= 0) & (row[b] < SIDE)
        for name, k in (("eye", 0), ("eye", 1), ("nose", 2)):
            if not inside[k]:
                continue
            ray = int(row[b, k]) * SIDE + int(column[b, k])
            points, counted = (x[b].reshape(SIDE * SIDE, 64, -1)[ray] for x in (taught.points, taught.counted))
            nearest = int((points - five[b, k]).norm(dim=-1).argmin())
            assert bool(counted[nearest]) == (name == "nose"), (b, name)
            assert counted[: nearest - 12].any(), "the air before an eye counts"
        middle = five[b, 3:].mean(0)  # between the corners of an open mouth
        distance = (taught.points[b] - middle).norm(dim=-1)
        assert not taught.counted[b][distance < 0.02].any() and taught.counted[b][distance > 0.3].any()


def first_step(config: TrainingConfig, data: Path, step: int = 0) -> tuple[PortraitRecipe, dict[str, Tensor]]:
    torch.manual_seed(0)
    recipe, samples = make(config, [str(data)], CPU)
    batch = next(steps_of_batches(samples, 0, config.train.batch, 1))[0]
    state = TrainState(0, config.train.batch, 100, CPU)
    state.step = step
    state.begin("main")
    return recipe, recipe.step("main", batch, state)


@pytest.mark.parametrize("static", [False, True])
def test_losses_reach_psi_and_end_in_time(static: bool, checkpoint: Path, data: Path) -> None:
    loss = replace(LOSS, features_until=4)
    config = replace(config_of(checkpoint, static=static, half_static=not static), loss=loss)
    recipe, losses = first_step(config, data)
    again = first_step(config, data)[1]
    assert set(losses) > LOSSES and all(torch.equal(losses[name], again[name]) for name in LOSSES)
    alone = first_step(replace(config, teacher=""), data)[1]
    assert all(torch.equal(losses[name], alone[name]) for name in alone), "a teacher changes nothing else"
    reached = {}
    for name in LOSSES:
        assert losses[name] > 0
        recipe.psi.zero_grad()
        losses[name].backward(retain_graph=True)
        reached[name] = {part.split(".")[0] for part, value in recipe.psi.named_parameters()
                         if value.grad is not None and value.grad.any()}  # fmt: skip
    assert {"generator_triplane", "encoder_global", "encoder_detail"} <= reached["triplane"]
    assert "decoder" not in reached["triplane"] and "background" not in reached["triplane"]
    assert reached["feature_background"] == {"background"}
    assert {"generator_triplane", "decoder"} <= reached["feature_foreground"]
    assert all(value.grad is None for value in recipe.teacher.network.parameters())  # type: ignore[union-attr]
    assert set(first_step(config, data, 1)[1]) > LOSSES, "after two images"
    assert not LOSSES & set(first_step(config, data, 2)[1]), "after four images"
    assert set(recipe.networks) == {"psi"} and recipe.assets["teacher"] == recipe.teacher.sha256  # type: ignore[union-attr]


def test_without_a_teacher_the_log_says_so(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TrainingConfig(size="tiny", loss=LOSS, data=DataConfig(held_out=0), train=TrainOptions(batch=2))
    with caplog.at_level(logging.WARNING):
        _, losses = first_step(config, data)
    assert not LOSSES & set(losses) and "there is no teacher" in caplog.text
    caplog.clear()
    assert open_teacher(replace(config, self_driven=True), CPU) is None and not caplog.text


def test_refusals(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    config = config_of(checkpoint)
    for changes, sentence in (
        ({"self_driven": True}, "leave teacher out"),
        ({"data": DataConfig(colour=0.1)}, "data.colour=0"),
        ({"data": DataConfig(mirror=0.5)}, "data.mirror=0"),
        ({"teacher": str(tmp_path / "absent.safetensors")}, "does not exist"),
        ({"size": "small"}, "planes of 16 channels and size=small has 32; set size=tiny"),
    ):
        with pytest.raises((UsageError, FourdError), match=sentence):
            make(replace(config, **changes), [str(data)], CPU)
    (tmp_path / "text.safetensors").write_text("nothing")
    with pytest.raises(FourdError, match="holds no trained GenHead"):
        open_teacher(replace(config, teacher=str(tmp_path / "text.safetensors")), CPU)
    other = write_genhead(tmp_path, GENHEADS["tiny"], denser=5.0)
    with pytest.raises(FourdError, match=r"made by another network .*give as teacher the checkpoint"):
        make(replace(config, teacher=str(other)), [str(data)], CPU)
    replace(Views.read(data), latents=None).write(tmp_path / "old.h5")
    assert Views.read(tmp_path / "old.h5").latents is None
    with pytest.raises(FourdError, match="keeps no latents"):
        make(config, [str(tmp_path / "old.h5")], CPU)
    with pytest.raises(FourdError, match="keeps no latents"):
        make(replace(config, data=DataConfig(held_out=0, static=(str(tmp_path / "old.h5"),))), [str(data)], CPU)


def test_features_of_points_are_the_planes_mean(teacher: Teacher, data: Path) -> None:
    """Where the head is canonical, features are those of its planes at the very points."""
    batch = batch_of(teacher, data, 1)
    batch["head"] = torch.zeros_like(batch["head"])
    batch["head"][:, teacher.network.head.shape_count + 52 + 3] = 0.3
    taught: Taught = teacher.taught(batch, SIDE, torch.rand(2, 33, 2))
    planes, _ = teacher.people.planes(batch["latent"], batch["head"][:, : teacher.network.head.shape_count])
    for plane_set, equal in ((planes[:, 3:], True), (planes[:, :3], False)):
        found = triplane_sample(plane_set.repeat_interleave(2, 0), taught.points, axes="portrait4d", box_size=1.3)
        assert torch.allclose(found, taught.features, atol=1e-5) == equal
