"""The recipe `genhead`: its data, its steps, what the discriminator sees, grids and scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fourdface.errors import FourdError, UsageError
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.load import load_trained
from fourdface.priors.genhead.training import GenHeadRecipe
from fourdface.priors.genhead.training_config import GenHeadData, GenHeadTraining
from fourdface.priors.genhead.training_data import Pictures, camera_yaw, pose_of, repeated_rows, turned
from fourdface.priors.genhead.training_grids import MOTIONS, PEOPLE, VIEWS
from fourdface.training import TrainState, train
from fourdface.training.config import as_dict, load_config
from support.training_pictures import SHAPES, MadePictures

SMALL = (
    "network.coarse_samples=4", "network.fine_samples=0", "network.channel_base=256", "discriminator.channel_base=256",
    "train.batch=4", "train.steps=10", "train.image_every=0", "train.score_every=0", "train.save_every=0",
    "update.density_every=4", "score.pictures=4",
)  # fmt: skip


def config(*overrides: str) -> GenHeadTraining:
    """`tiny`, with fewer channels and samples."""
    return load_config(GenHeadTraining, "tiny", [*SMALL, *overrides], recipe="genhead")


def recipe(*overrides: str) -> tuple[GenHeadRecipe, Pictures]:
    torch.manual_seed(0)
    settings = config(*overrides)
    pictures = Pictures([MadePictures()], settings.network.resolution, settings.data)
    return GenHeadRecipe(settings, pictures, torch.device("cpu")), pictures


@pytest.fixture(scope="module")
def made() -> tuple[GenHeadRecipe, Pictures]:
    return recipe()


def state(images: int = 0) -> TrainState:
    out = TrainState(0, 4, 10, torch.device("cpu"))
    out.step = images // 4
    out.begin("test")
    return out


@pytest.mark.parametrize("size", ["tiny", "small", "paper"])
def test_configurations_are_whole(size: str) -> None:
    """Every file fits the schema; `paper` holds the published numbers."""
    settings = load_config(GenHeadTraining, size, [], recipe="genhead")
    if size == "paper":
        loss = settings.loss
        assert (loss.r1_picture, loss.r1_correspondence, loss.r1_silhouette) == (1, 10, 1)
        assert (loss.blur_sigma, loss.blur_images, loss.swap_end, loss.swap_images) == (10, 200_000, 0.5, 1_000_000)
        assert settings.train.batch * settings.train.steps == 25_000_000


def test_sizes_that_do_not_fit_are_refused() -> None:
    """One sentence with both numbers."""
    with pytest.raises(UsageError, match=r"discriminator\.resolution is 128"):
        config("discriminator.resolution=128")


def test_yaw_and_rebalancing() -> None:
    """Degrees of a camera to the side, and how often its row counts."""
    yaw = torch.tensor([-0.6, -0.2, 0.0, 0.3, 1.4])
    labels = turned(frontal_label()[0], yaw).numpy()
    np.testing.assert_allclose(camera_yaw(labels), np.degrees(yaw.numpy()), atol=1e-4)
    assert repeated_rows(labels, GenHeadData()).tolist() == [0, 1, 2, 3, 4]
    often = repeated_rows(labels, GenHeadData(rebalance_degrees=15, rebalance_most=4))
    assert often.tolist() == [0, 0, 0, 1, 2, 3, 3, 4, 4, 4, 4]


def test_zoom_is_a_camera_of_longer_focal_length() -> None:
    """A point that the zoomed camera sees in the middle of its picture's border lay at 1 / zoom of the way."""
    plain, zoomed = (Pictures([MadePictures()], 64, GenHeadData(zoom=z))[2] for z in (1.0, 2.0))
    assert torch.equal(plain["label"][:16], zoomed["label"][:16])
    assert float(zoomed["label"][16]) == pytest.approx(2 * float(plain["label"][16]))
    assert float(zoomed["label"][18]) == 0.5
    middle = plain["image"][:, 16:48, 16:48].float().mean()
    assert float(zoomed["image"].float().mean()) == pytest.approx(float(middle), abs=3)


def test_pictures_that_are_not_square_are_refused() -> None:
    """They were not aligned."""

    class Wide(MadePictures):
        def row(self, index: int):  # type: ignore[no-untyped-def]
            import dataclasses

            row = super().row(index)
            return dataclasses.replace(row, image_u8=np.zeros((40, 64, 3), np.uint8))

    with pytest.raises(FourdError, match="64 x 40"):
        _ = Pictures([Wide()], 64)[0]


def test_the_discriminator_sees_all_four_pictures(made: tuple[GenHeadRecipe, Pictures]) -> None:
    """Each has a gradient that is not zero, the correspondence map among them."""
    trainer, pictures = made
    batch = pictures.spread(4)
    inputs = [x.detach().requires_grad_() for x in trainer.real(batch, 0)]
    logits = trainer.discriminator(inputs[0], tuple(inputs[1:]), batch["label"])
    for gradient in torch.autograd.grad(logits.sum(), inputs):
        assert float(gradient.abs().amax(dim=(1, 2, 3)).min()) > 0
    correspondence = inputs[2]
    assert float(correspondence.detach().abs().amax(dim=(1, 2, 3)).min()) > 0.3, "no face in the map"


def test_blur_fades(made: tuple[GenHeadRecipe, Pictures]) -> None:
    """Strong at first; after the schedule the picture is judged as it is."""
    trainer, pictures = made
    batch = pictures.spread(2)
    sharp = batch["image"].float() / 127.5 - 1
    assert torch.equal(trainer.real(batch, 10**9)[0], sharp)
    early = trainer.real(batch, 0)[0]
    assert float(early.diff(dim=-1).abs().amax()) < 0.6 * float(sharp.diff(dim=-1).abs().amax())


def test_a_phase_draws_the_same_again(made: tuple[GenHeadRecipe, Pictures]) -> None:
    """The same step twice gives the same losses to the last bit."""
    trainer, pictures = made
    for phase in ("generator", "density", "discriminator", "r1"):
        values = []
        for _ in range(2):
            trainer._made.clear()
            losses = trainer.step(phase, pictures.spread(4), state())
            values.append({name: float(value.detach()) for name, value in losses.items()})
        assert values[0] == values[1], phase
        assert all(np.isfinite(list(values[0].values()))), phase


def test_reused_pictures_are_those_of_the_generator() -> None:
    """One generation a step; without reuse the discriminator makes its own."""
    for reuse, left in (("true", 1), ("false", 0)):
        trainer, pictures = recipe(f"update.reuse_pictures={reuse}")
        batch = pictures.spread(4)
        trainer.step("generator", batch, state())
        assert len(trainer._made) == left
        trainer.step("discriminator", batch, state())
        assert not trainer._made


def test_ten_steps_move_both_networks_and_the_mean_style(tmp_path: Path) -> None:
    """The engine runs the recipe; losses are finite; weights.safetensors loads as a GenHead."""
    trainer, pictures = recipe()
    before = {name: [p.detach().clone() for p in net.parameters()] for name, net in trainer.networks.items()}
    final = train(trainer, pictures, trainer.config.train, tmp_path, config=as_dict(trainer.config))
    assert final.step == 10 and final.skipped == 0
    for name, network in trainer.networks.items():
        moved = [not torch.equal(p.detach(), q) for p, q in zip(network.parameters(), before[name], strict=True)]
        assert sum(moved) > 0.9 * sum(p.requires_grad for p in network.parameters()), name
    assert float(trainer.generator.backbone.mapping.w_avg.abs().max()) > 0
    loaded = load_trained(tmp_path / "weights.safetensors")
    assert loaded.config == trainer.config.network and loaded.head.shape_count == SHAPES
    z, batch = torch.zeros(1, 64), pictures.spread(1)
    assert bool(torch.isfinite(loaded(z, pose_of(batch), batch["label"]).image).all())
    (tmp_path / "torn.safetensors").write_bytes((tmp_path / "weights.safetensors").read_bytes()[:5000])
    with pytest.raises(FourdError, match="no trained GenHead"):
        load_trained(tmp_path / "torn.safetensors")


def test_grids_and_scores(made: tuple[GenHeadRecipe, Pictures]) -> None:
    """Shapes, ranges, and names that say which network the features are of."""
    trainer, _ = made
    networks = {"generator": trainer.generator.eval()}
    with torch.no_grad():
        found = trainer.images(networks, state())
        scores = trainer.scores(networks, state())
    trainer.generator.train()
    assert len(found["expressions"]) == PEOPLE * len(MOTIONS) and len(found["views"]) == PEOPLE * len(VIEWS)
    assert found["samples"].shape[1:] == (3, 64, 64)
    assert all(float(grid.min()) >= 0 and float(grid.max()) <= 1 for grid in found.values())
    assert set(scores) == {"kid_perception"} and np.isfinite(scores["kid_perception"])


def test_scores_are_near_zero_for_the_pictures_themselves() -> None:
    """KID of two halves of one set is small beside that of another set."""
    from fourdface.priors.genhead.training_scores import set_scores

    rng = np.random.default_rng(0)
    real, same, other = (rng.normal(shift, 1, (60, 8)) for shift in (0, 0, 2))
    near, far = (set_scores(x, real, "perception") for x in (same, other))
    assert abs(near["kid_perception"]) < 0.1 * far["kid_perception"]
    assert near["fid_perception"] < 0.2 * far["fid_perception"]
    assert set(set_scores(same, real, "inception")) == {"kid", "fid"}
