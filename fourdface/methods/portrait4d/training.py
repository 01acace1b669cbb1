"""The recipes of Portrait4D: Psi_3d (v2 equation 2), Portrait4D (v1 equation 4) and Portrait4D-v2 (equations 4 and 5).

They are one recipe with different settings, as in the papers: Psi_3d is Psi with cross attention off; v1 makes half of
every batch such static reconstruction; v2 starts from Psi_3d, takes the driving picture itself as target, reads the
motion in pseudo views of it, and compares a random view with that of the frozen Psi_3d every fourth step.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fourdface.blocks.adversarial import discriminator_loss, generator_loss, r1_penalty
from fourdface.blocks.discriminator import DiscriminatorConfig, DualDiscriminator
from fourdface.blocks.volume_renderer import RaySampling
from fourdface.errors import UsageError
from fourdface.methods.portrait4d.modules import SLOPE
from fourdface.methods.portrait4d.network import Picture, Reconstructor
from fourdface.methods.portrait4d.perceived_motion import PerceivedMotion
from fourdface.methods.portrait4d.training_config import LossConfig, TrainingConfig
from fourdface.methods.portrait4d.training_data import PortraitViews
from fourdface.methods.portrait4d.training_lmdb import LmdbClips, open_samples, require_perceived
from fourdface.methods.portrait4d.training_losses import (
    choose_perceptual,
    density_variation,
    foreground,
    picture_losses,
    truth_of,
)
from fourdface.methods.portrait4d.training_scores import held_out_batch, novel_view_scores, row_of_pictures
from fourdface.methods.portrait4d.training_teacher import POINTS, Teacher, open_teacher, teacher_losses
from fourdface.methods.portrait4d.view import OPEN_FACE_ANCHOR, OPEN_HEAD, face_anchor, moved_label
from fourdface.methods.portrait4d.weights import load_reconstructor, packed
from fourdface.priors.genhead.camera_ranges import labels_in_ranges
from fourdface.training.data import Samples
from fourdface.training.recipe import Adam, Phase, Recipe, RecipeFactory, TrainState

__all__ = ["PortraitRecipe", "WithStatic", "keep_variance", "make", "portrait4d", "random_label",
           "silent_superresolution", "zero_cross_attention"]  # fmt: skip

log = logging.getLogger(__name__)
CROSS_LAYERS = ("*encoder_canonical.*maps*", "*encoder_canonical.*proj_y*", "*encoder_canonical.*norm2*",
                "*encoder_canonical.*attn2*")  # fmt: skip
"""Parameters that take the motion in: `cross_lr_scale` is theirs."""
EQUALISED_LAYERS = ("decoder.*", "superresolution.*")
"""`equalised_lr_scale` is theirs: weights of unit size with a gain, which a step hardly changes."""


class PortraitRecipe(Recipe):
    """Psi with its losses, and a discriminator where the run is long enough for it to be switched on.

    held_out: people for scores and grids, or None. teacher: the GenHead that made the people, or None.
    """

    averaged = ("psi",)
    forward_methods: Mapping[str, Sequence[str]] = {"psi": ("encode_source", "planes", "render")}

    def __init__(
        self, config: TrainingConfig, device: torch.device, held_out: PortraitViews | LmdbClips | None = None,
        teacher: Teacher | None = None,
    ) -> None:  # fmt: skip
        self.config, self.device, self.held_out, self.teacher = config, device, held_out, teacher
        self.assets = {} if teacher is None else {"teacher": teacher.sha256}
        self.psi = _initial(config).to(device)
        self.psi.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.networks = {"psi": self.psi}
        self.fixed = _synthesizer(config, device)
        self.perceived = _perceiver(config, device)
        self.perceptual, self.perceptual_name = choose_perceptual(config.loss, device)
        if config.loss.identity:
            log.warning("loss.identity is off: there is no face recognition network that gradients pass through")
        self.judge = _discriminator(config)
        if self.judge is not None:
            self.judge.to(device)
            self.networks["judge"] = self.judge
        self.phases = self._phases()

    def _phases(self) -> Sequence[Phase]:
        config, loss = self.config, self.config.loss
        factors = {f"psi.{name}": config.cross_lr_scale for name in CROSS_LAYERS}
        factors |= {f"psi.{name}": config.equalised_lr_scale for name in EQUALISED_LAYERS}
        factors["psi.decoder.out_sigma.*"] = config.equalised_lr_scale * config.density_lr_scale
        adam = Adam(config.lr, (0.9, 0.999), 1e-5, factors=factors)
        phases = [Phase("main", ("psi",), adam)]
        if self.fixed is not None and loss.pseudo:
            phases.append(Phase("pseudo", ("psi",), adam, "main", every=loss.pseudo_every, lazy=True))
        if loss.density_tv:
            phases.append(Phase("density", ("psi",), adam, "main", every=loss.density_every, lazy=True))
        if self.judge is not None:
            start, judging = self._adversarial_step(), Adam(config.lr, (0.9, 0.999), 1e-5)
            phases.append(Phase("judge", ("judge",), judging, start=start))
            phases.append(Phase("judge-r1", ("judge",), judging, "judge", every=loss.r1_every, start=start, lazy=True))
        return phases

    def _adversarial_step(self) -> int:
        return math.ceil(self.config.loss.adversarial_start / self.config.train.batch)

    def step(self, phase: str, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        """The weighted losses of a phase: main, pseudo, density, judge or judge-r1."""
        if phase == "pseudo":
            return {"pseudo": self.config.loss.pseudo * self._pseudo_view(self._arranged(batch), state)}
        if phase == "density":
            batch = self._arranged(batch)
            planes, _ = self._planes(batch, state)
            variation = density_variation(self.psi, planes.float(), self.config.loss.density_step, state.generator)
            return {"density": self.config.loss.density_tv * variation}
        if phase == "judge-r1":
            return {"r1": self._r1(batch, state)}
        batch = self._arranged(batch)
        if phase == "judge":
            with torch.no_grad():
                out = self._render(batch, state)
            return {"judge": self._judged(out, batch, state)}
        planes, background = self._planes(batch, state)
        out = self._shown(planes, background, batch, state)
        truth = truth_of(batch, out.features.shape[-1])
        losses = picture_losses(out, truth, self.perceptual, self._weights(state))
        if self.judge is not None and state.step >= self._adversarial_step():
            fake = self.judge(out.picture.float(), (out.features[:, :3], 1 - 2 * out.transmittance), _labels(batch))
            losses["adversarial"] = self.config.loss.adversarial * generator_loss(fake)
        if self.teacher is not None and state.images < self.config.loss.features_until:
            losses |= self._taught(self.teacher, out, planes, batch, state)
        with torch.no_grad():
            error = (out.picture.float() - truth.image).clamp(-2, 2).square().mean((1, 2, 3))
            state.report("psnr", (10 * torch.log10(4 / error.clamp_min(1e-8))).mean())
        return losses

    def _weights(self, state: TrainState) -> LossConfig:
        loss = self.config.loss
        if state.images < loss.perceptual_start:
            loss = replace(loss, perceptual=0.0)
        return loss if state.images < loss.depth_until else replace(loss, depth=0.0)

    def _arranged(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch as the network is to see it, with `scale` [B, 1, 1]: of the static rows source and target show
        the same moment and cross attention is off."""
        count = len(batch["source"])
        static = count if self.config.static else count // 2 if self.config.half_static else 0
        others = {name.removeprefix("static_"): value for name, value in batch.items() if name.startswith("static_")}
        batch = {name: value for name, value in batch.items() if not name.startswith("static_")}
        for name, value in others.items():
            batch[name] = torch.cat([batch[name][: count - static], value[:static]])
        scale = torch.ones(count, 1, 1, device=self.device)
        scale[count - static :] = 0
        still = scale[:, 0, 0] == 0
        for name, moved in (("source", "driver"), ("source_motion", "motion"), ("source_label", "driver_label")):
            mask = still.reshape(-1, *[1] * (batch[name].ndim - 1))
            batch[name] = torch.where(mask, batch[moved], batch[name])
        return batch | {"scale": scale}

    def _planes(self, batch: dict[str, Tensor], state: TrainState) -> tuple[Tensor, Tensor]:
        """Tri-planes [B, 3, C, R, R] of an arranged batch and backgrounds [B, C, S, S]."""
        scale: float | Tensor = 0.0 if self.config.static else batch["scale"]
        neutral = scale if self.config.de_expression else 0.0
        source_motion, motion = self._motions(batch, state)
        source = self.psi.encode_source(_pm1(batch["source"]), source_motion, neutral)
        return self.psi.planes(source, motion, scale), source.background

    def _motions(self, batch: dict[str, Tensor], state: TrainState) -> tuple[Tensor, Tensor]:
        """Motion [B, M] of sources and drivers; the driver's, with `pseudo_driver`, as seen in a pseudo view."""
        if self.config.static:  # nothing reads it
            return (torch.zeros(len(batch["source"]), self.config.network.motion, device=self.device),) * 2
        batch = self._read(batch)
        source_motion, motion = batch["source_motion"], batch["motion"]
        if self.fixed is None or not self.config.pseudo_driver:
            return source_motion, motion
        count = len(motion)
        label = random_label(state.rand(count, 7))
        chosen = state.rand(count, 1) < self.config.pseudo_driver
        if not chosen.any():
            return source_motion, motion
        picture = _static_view(self.fixed, _pm1(batch["driver"]), label, self.config.network.render_size).picture
        return source_motion, torch.where(chosen, self._perceive(picture, label), motion)

    def _read(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with the motions that the configuration wants: its own, or those seen in its pictures."""
        if self.config.motion == "truth" or self.config.static:
            return batch
        names = {"source_motion": "source", "motion": "driver"}
        return batch | {name: self._perceive(_pm1(batch[seen]), batch[f"{seen}_label"]) for name, seen in names.items()}

    def _perceive(self, image_pm1: Tensor, label: Tensor) -> Tensor:
        if self.perceived is None:
            raise ValueError("this run was made without a network that reads motion")
        with torch.autocast(self.device.type, enabled=False):
            return self.perceived(image_pm1, label)

    def _render(self, batch: dict[str, Tensor], state: TrainState) -> Picture:
        """Pictures of the targets, [B * V, ...]."""
        return self._shown(*self._planes(batch, state), batch, state)

    def _shown(self, planes: Tensor, background: Tensor, batch: dict[str, Tensor], state: TrainState) -> Picture:
        views = batch["targets"].shape[1]
        return self.psi.render(
            planes.float().repeat_interleave(views, 0), _labels(batch), background.float().repeat_interleave(views, 0),
            size=self.config.render_size(state.images), sampling=self._sampling(state),
        )  # fmt: skip

    def _taught(
        self, teacher: Teacher, out: Picture, planes: Tensor, batch: dict[str, Tensor], state: TrainState
    ) -> dict[str, Tensor]:
        count, views = batch["targets"].shape[:2]
        taught = teacher.taught(batch, out.features.shape[-1], state.rand(count, views, POINTS, 2).flatten(0, 1))
        planes = planes.float().repeat_interleave(views, 0)
        return teacher_losses(out, planes, self.config.network.box_size, taught, self.config.loss)

    def _sampling(self, state: TrainState) -> RaySampling:
        seed = int(torch.randint(1 << 40, (), generator=state.generator))
        network = self.config.network
        return RaySampling(network.coarse_samples, network.fine_samples, placement="jitter", seed=seed)

    def _pseudo_view(self, batch: dict[str, Tensor], state: TrainState) -> Tensor:
        """v2: distance between foregrounds of Psi and of the frozen Psi_3d of the driver at a random camera."""
        if self.fixed is None or self.perceptual is None:
            raise ValueError("pseudo views need the synthesizer and a perceptual network")
        label = random_label(state.rand(len(batch["source"]), 7))
        size = self.config.render_size(state.images)
        wanted = _static_view(self.fixed, _pm1(batch["driver"]), label, size)
        planes, background = self._planes(batch, state)
        out = self.psi.render(planes.float(), label, background.float(), size=size, sampling=self._sampling(state))
        return self.perceptual((foreground(out) + 1) / 2, (foreground(wanted) + 1) / 2).mean()

    def _judged(self, out: Picture, batch: dict[str, Tensor], state: TrainState) -> Tensor:
        if self.judge is None:
            raise ValueError("this run has no discriminator")
        real = self._real(batch, out.features.shape[-1])
        fake = (out.picture.float(), out.features[:, :3], 1 - 2 * out.transmittance)
        labels = _labels(batch)
        true, false = self.judge(real[0], real[1:], labels), self.judge(fake[0], fake[1:], labels)
        state.report("logit-real", true.mean())
        state.report("logit-fake", false.mean())
        return discriminator_loss(true, false)

    def _real(self, batch: dict[str, Tensor], size: int) -> tuple[Tensor, Tensor, Tensor]:
        truth = truth_of(batch, size)
        return truth.image, truth.render, 2 * truth.opacity - 1

    def _r1(self, batch: dict[str, Tensor], state: TrainState) -> Tensor:
        if self.judge is None:
            raise ValueError("this run has no discriminator")
        inputs = [x.requires_grad_() for x in self._real(batch, self.config.render_size(state.images))]
        logits = self.judge(inputs[0], (inputs[1], inputs[2]), _labels(batch))
        return r1_penalty(logits, inputs, [self.config.loss.r1] * 3)

    def images(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, Tensor]:
        """Rows of source, driver, result and truth of people that were held out."""
        if self.held_out is None:
            return {}
        batch = self._read(self._arranged(held_out_batch(self.held_out, 6, self.device)))
        return {"held-out": row_of_pictures(self._of(networks), batch, self._scale())}

    def scores(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, float]:
        """See `novel_view_scores`; of people that were held out."""
        if self.held_out is None:
            return {}
        return novel_view_scores(self._of(networks), self.held_out, self.device, self._scale(), read=self._read)

    def _scale(self) -> float:
        return 0.0 if self.config.static else 1.0

    def _of(self, networks: Mapping[str, nn.Module]) -> Reconstructor:
        network = networks["psi"]
        if not isinstance(network, Reconstructor):
            raise TypeError("psi must be a Reconstructor")
        return network

    def export(self, networks: Mapping[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """What `fourd lift --weights` reads."""
        return packed(self._of(networks))


class WithStatic:
    """Samples with those of another data set beside them, as `static_NAME`: people for the static half of a batch."""

    def __init__(self, samples: PortraitViews | LmdbClips, static: PortraitViews | LmdbClips) -> None:
        self.samples, self.static = samples, static

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """See `PortraitViews`."""
        return self.draw(index, torch.Generator().manual_seed(index))

    def draw(self, index: int, generator: torch.Generator) -> dict[str, Tensor]:
        """See `PortraitViews.draw`; the static sample is any of the other data set."""
        sample = self.samples.draw(index, generator)
        other = self.static.draw(int(torch.randint(len(self.static), (), generator=generator)), generator)
        sample["depths"], other["depths"] = torch.broadcast_tensors(sample["depths"], other["depths"])
        return sample | {f"static_{name}": value for name, value in other.items()}


def random_label(uniform: Tensor) -> Tensor:
    """Labels [B, 25] of the papers' random cameras about the open head, see `labels_in_ranges`."""
    return moved_label(labels_in_ranges(uniform), OPEN_HEAD)


def zero_cross_attention(network: Reconstructor) -> None:
    """Let the cross attention add nothing at first, so that a network that starts from Psi_3d starts as Psi_3d."""
    for name, module in network.encoder_canonical.named_modules():
        if name.endswith("attn2.proj") and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def keep_variance(network: Reconstructor) -> None:
    """He's initialisation of all convolutions before the planes and of the background's.

    There is no normalisation between the picture and the planes: with torch's default weights a new network's planes
    differ between pictures by 0.3 % of their own spread, and training spends its first thousand steps on that.
    """
    for part in (network.encoder_global, network.encoder_detail, network.encoder_canonical, network.generator_triplane,
                 network.background):  # fmt: skip
        for module in part.modules():
            if isinstance(module, nn.Conv2d) and module.groups == 1:
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def silent_superresolution(network: Reconstructor) -> None:
    """Let the super-resolution add nothing at first: the picture is at first the enlarged render, not noise over it."""
    for block in (network.superresolution.block0, network.superresolution.block1):
        nn.init.zeros_(block.torgb.weight)


def make(config: TrainingConfig, data_paths: Sequence[str], device: torch.device) -> tuple[PortraitRecipe, Samples]:
    """Recipe and samples of a configuration. UsageError or FourdError for data or weights that do not fit."""
    size, driven = config.network.resolution, config.self_driven
    require_perceived(data_paths, config)
    teacher = open_teacher(config, device)
    made_by = "" if teacher is None else teacher.sha256
    people = open_samples(data_paths, size, config.data, self_driven=driven, made_by=made_by)
    samples: Samples = people
    if config.data.static:
        others, further = replace(config.data, people=0), config.data.static
        static = open_samples(further, size, others, self_driven=driven, without=people, made_by=made_by)
        samples = WithStatic(people, static)
    held_out = open_samples(data_paths, size, config.data, held_out=True) if config.data.held_out else None
    return PortraitRecipe(config, device, held_out, teacher), samples


portrait4d = RecipeFactory(TrainingConfig, make)
"""All three recipes: what they differ in stands in their configurations."""


def _initial(config: TrainingConfig) -> Reconstructor:
    if not config.initial:
        network = Reconstructor(config.network)
        keep_variance(network)
        zero_cross_attention(network)
        silent_superresolution(network)
        return network
    network, _ = load_reconstructor(Path(config.initial))
    if network.config != config.network:
        raise UsageError(f"{config.initial} holds a network of another size than the configuration's; give that size")
    network.deformer = None
    return network.train().requires_grad_(True)


def _synthesizer(config: TrainingConfig, device: torch.device) -> Reconstructor | None:
    wanted = (config.self_driven and config.loss.pseudo > 0) or config.pseudo_driver > 0
    if not wanted:
        return None
    if not config.synthesizer:
        raise UsageError("pseudo views need Psi_3d: give --set synthesizer=RUN/weights.safetensors (portrait4d-static)")
    network, _ = load_reconstructor(Path(config.synthesizer))
    return network.to(device)


def _perceiver(config: TrainingConfig, device: torch.device) -> PerceivedMotion | None:
    return PerceivedMotion().to(device) if config.motion == "perceived" or config.pseudo_driver > 0 else None


def _discriminator(config: TrainingConfig) -> DualDiscriminator | None:
    loss, train = config.loss, config.train
    if not loss.adversarial or loss.adversarial_start >= train.steps * train.batch:
        return None
    small = config.network.resolution < 512
    base, widest, layers = (2048, 128, 2) if small else (32768, 512, 8)
    return DualDiscriminator(
        DiscriminatorConfig(config.network.resolution, 7, channel_base=base, channel_max=widest, mapping_layers=layers)
    )


def _labels(batch: dict[str, Tensor]) -> Tensor:
    return batch["labels"].flatten(0, 1)


def _pm1(image_u8: Tensor) -> Tensor:
    return (image_u8.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _static_view(network: Reconstructor, image_pm1: Tensor, label: Tensor, size: int) -> Picture:
    """The picture by a frozen Psi_3d; a published one, which brings FLAME along, stands in FLAME's world."""
    still = image_pm1.new_zeros(len(label), network.config.motion)
    if network.deformer is not None and face_anchor(network.deformer.flame_deform) != OPEN_FACE_ANCHOR:
        label = moved_label(label, [-x for x in OPEN_HEAD])
    return network(image_pm1, still, still, label, motion_scale=0.0, size=size)
