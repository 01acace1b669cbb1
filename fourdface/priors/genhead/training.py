"""The recipe `genhead`: GenHead against a discriminator that sees picture, render, correspondence map and silhouette.

Portrait4D (Deng et al., CVPR 2024), section 3.1 and supplement, with the numbers of the published code. A step trains
the generator, the discriminator, and every few steps density variation and R1. Generated pictures take the cameras and
heads of the batch's own pictures, jointly, so both sides of the discriminator see one distribution of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fourdface.blocks.adversarial import (
    blurred,
    discriminator_loss,
    generator_loss,
    linear_schedule,
    partly_rolled,
    r1_penalty,
)
from fourdface.blocks.discriminator import DualDiscriminator
from fourdface.blocks.volume_renderer import RaySampling
from fourdface.priors.genhead.generator import GenHead, GenHeadPictures
from fourdface.priors.genhead.load import build_genhead
from fourdface.priors.genhead.masks import correspondence_map
from fourdface.priors.genhead.training_config import GenHeadTraining
from fourdface.priors.genhead.training_data import Pictures, pose_of
from fourdface.priors.genhead.training_grids import Examples, grids
from fourdface.priors.genhead.training_losses import density_variation, part_losses
from fourdface.priors.genhead.training_scores import PictureFeatures, set_scores
from fourdface.training import Adam, Phase, Recipe, TrainState

__all__ = ["GenHeadRecipe"]

Judged = tuple[Tensor, Tensor, Tensor, Tensor]
"""What the discriminator sees: picture, render, correspondence map, silhouette, in -1..1."""


def pm1(values_u8: Tensor) -> Tensor:
    """uint8 -> -1..1 float32."""
    return values_u8.float() / 127.5 - 1


class GenHeadRecipe(Recipe):
    """Networks `generator` (averaged) and `discriminator`; phases as described above."""

    averaged: Sequence[str] = ("generator",)
    forward_methods: Mapping[str, Sequence[str]] = {"generator": ("planes", "background_features", "render")}

    def __init__(self, config: GenHeadTraining, pictures: Pictures, device: torch.device) -> None:
        self.config, self.pictures, self.device = config, pictures, device
        self.generator = build_genhead(config.network)
        self.discriminator = DualDiscriminator(config.discriminator)
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "discriminator": self.discriminator}
        update = config.update
        generates = Adam(lr=update.generator_lr, betas=(0.0, 0.99))
        judges = Adam(lr=update.discriminator_lr, betas=(0.0, 0.99))
        self.phases: Sequence[Phase] = (
            Phase("generator", ("generator",), generates, optimizer="generator"),
            Phase("density", ("generator",), generates, "generator", every=update.density_every, lazy=True),
            Phase("discriminator", ("discriminator",), judges, optimizer="discriminator"),
            Phase("r1", ("discriminator",), judges, "discriminator", every=update.r1_every, lazy=True),
        )
        self._made: deque[Judged] = deque()
        self._features: PictureFeatures | None = None
        self._real_features: Tensor | None = None
        self._examples: Examples | None = None

    # --- the losses of a step -----------------------------------------------------------------------------------

    def step(self, phase: str, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        """Losses of one phase; `batch` as `Pictures` gives it."""
        return {
            "generator": self._generator_step,
            "density": self._density_step,
            "discriminator": self._discriminator_step,
            "r1": self._r1_step,
        }[phase](batch, state)

    def _generator_step(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        made = self._generated(batch, state, average=True)
        judged = self._judged(made, batch, state)
        logits = self.discriminator(judged[0], judged[1:], batch["label"])
        state.report("logit_generated", logits.mean())
        if self.config.update.reuse_pictures:
            self._made.append(_detached(judged))
        return {"adversarial": generator_loss(logits), **part_losses(made, self.config.loss)}

    def _discriminator_step(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        if self._made:
            made = self._made.popleft()
        else:
            with torch.no_grad():
                made = self._judged(self._generated(batch, state), batch, state)
        real = self.real(batch, state.images)
        on_made = self.discriminator(made[0], made[1:], batch["label"])
        on_real = self.discriminator(real[0], real[1:], batch["label"])
        state.report("logit_real", on_real.mean())
        return {"adversarial": discriminator_loss(on_real, on_made)}

    def _r1_step(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        loss = self.config.loss
        inputs = [x.detach().requires_grad_() for x in self.real(batch, state.images)]
        logits = self.discriminator(inputs[0], tuple(inputs[1:]), batch["label"])
        gammas = (loss.r1_picture, loss.r1_picture, loss.r1_correspondence, loss.r1_silhouette)
        return {"r1": r1_penalty(logits, inputs, gammas)}

    def _density_step(self, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        loss, count = self.config.loss, len(batch["label"])
        planes = self._planes(batch, state, state.randn(count, self.config.network.z_dim))
        points = 2 * state.rand(count, loss.variation_points, 3) - 1
        steps = loss.variation_distance * state.randn(count, loss.variation_points, 3)
        return {"variation": loss.density_variation * density_variation(self.generator, planes, points, steps)}

    # --- pictures -----------------------------------------------------------------------------------------------

    def _planes(self, batch: dict[str, Tensor], state: TrainState, z: Tensor, average: bool = False) -> Tensor:
        """Planes of latents z, told the camera and identity of the sample or, with a probability, of another one."""
        loss = self.config.loss
        swap = linear_schedule(state.images, loss.swap_start, loss.swap_end, loss.swap_images)
        told = torch.cat([batch["label"], batch["shape"]], dim=1)
        told = partly_rolled(told, state.rand(len(z), 1)[:, 0], swap)
        return self.generator.planes(z, told[:, 25:], told[:, :25], noise_mode="random", update_average=average)

    def _generated(self, batch: dict[str, Tensor], state: TrainState, *, average: bool = False) -> GenHeadPictures:
        network = self.config.network
        z = state.randn(len(batch["label"]), network.z_dim)
        planes = self._planes(batch, state, z, average)
        behind = self.generator.background_features(z, "random")
        seed = int(torch.randint(2**31, (), generator=state.generator))
        sampling = RaySampling(network.coarse_samples, network.fine_samples, placement="jitter", seed=seed)
        return self.generator.render(
            planes, behind, pose_of(batch), batch["label"], sampling=sampling, keep_samples=average
        )

    def _judged(self, made: GenHeadPictures, batch: dict[str, Tensor], state: TrainState) -> Judged:
        """Generated pictures as the discriminator sees them."""
        picture = blurred(made.image, self._blur(state.images))
        return picture, made.render, self._correspondence(batch), made.silhouette

    def real(self, batch: dict[str, Tensor], images: int) -> Judged:
        """Real pictures as the discriminator sees them after `images` pictures: blurred as the generated ones are; the
        render's stand-in and the silhouette have the render's size first, so that sharpness tells nothing."""
        picture = blurred(pm1(batch["image"]), self._blur(images))
        size = self.config.network.render_size
        small, silhouette = (
            interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)
            for x in (picture, pm1(batch["silhouette"]))
        )
        return picture, small, self._correspondence(batch), silhouette

    def _blur(self, images: int) -> float:
        return linear_schedule(images, self.config.loss.blur_sigma, 0.0, self.config.loss.blur_images)

    def _correspondence(self, batch: dict[str, Tensor]) -> Tensor:
        """Rendered here and not stored: maps in 8 bits make the training unstable (published code)."""
        if "correspondence" not in batch:  # the phases of a step share it
            size = self.config.network.resolution
            batch["correspondence"] = correspondence_map(self.generator.head, pose_of(batch), batch["label"], size)[0]
        return batch["correspondence"]

    # --- what is watched ----------------------------------------------------------------------------------------

    def images(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, Tensor]:
        """Grids of the averaged generator: `samples`, one latent code per row in expressions and in views."""
        if self._examples is None:
            self._examples = Examples.of(self.pictures, self.config.network.z_dim, self.device)
        return grids(_genhead(networks["generator"]), self._examples)

    def scores(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, float]:
        """FID and KID of the averaged generator against the training pictures, in their cameras and poses."""
        settings, generator = self.config.score, _genhead(networks["generator"])
        if self._features is None:
            self._features = PictureFeatures(settings.features)
        samples = self.pictures.spread(settings.pictures)
        parts = [
            {name: value[k : k + settings.batch].to(self.device) for name, value in samples.items()}
            for k in range(0, len(samples["label"]), settings.batch)
        ]
        if self._real_features is None:
            real = [self._features(part["image"].float() / 255) for part in parts]
            self._real_features = torch.cat([torch.from_numpy(rows) for rows in real])
        fake = []
        for part in parts:
            z = torch.randn(len(part["label"]), self.config.network.z_dim, generator=state.generator)
            made = generator(z.to(self.device), pose_of(part), part["label"])
            fake.append(torch.from_numpy(self._features((made.image + 1) / 2)))
        return set_scores(torch.cat(fake).numpy(), self._real_features.numpy(), self._features.name)

    def export(self, networks: Mapping[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """The averaged generator under the published names; the metadata names the kind of network."""
        state = {name: value for name, value in networks["generator"].state_dict().items()}
        return state, {"network": "genhead"}


def _genhead(module: nn.Module) -> GenHead:
    if not isinstance(module, GenHead):
        raise TypeError(f"the recipe's generator is a {type(module).__name__}, expected GenHead")
    return module


def _detached(judged: Judged) -> Judged:
    picture, render, correspondence, silhouette = (x.detach() for x in judged)
    return picture, render, correspondence, silhouette
