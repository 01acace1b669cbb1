"""A GAN on points of the plane: two networks, lazy regularisation, an average, running buffers; no faces in it."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fourdface.errors import FourdError
from fourdface.training import Adam, Phase, Recipe, RecipeFactory, TrainOptions, TrainState


@dataclass(frozen=True)
class NetworkOptions:
    width: int = 16


@dataclass(frozen=True)
class LossOptions:
    r1: float = 0.1
    noise: float = 0.05


@dataclass(frozen=True)
class ToyConfig:
    network: NetworkOptions = field(default_factory=NetworkOptions)
    loss: LossOptions = field(default_factory=LossOptions)
    train: TrainOptions = field(default_factory=lambda: TrainOptions(batch=8, steps=20, log_every=5, image_every=10))
    samples: int = 40
    poisoned: int = -1
    """Index of a sample that is not finite (-1: none)."""
    die_at: int = -1
    """Step at which the last rank kills itself, unless torchrun has started it anew (-1: never)."""


class Generator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, 2))
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, z: Tensor) -> Tensor:
        points = self.layers(z)
        if self.training:
            self.mean.lerp_(points.detach().float().mean(0), 0.01)
        return points


class Discriminator(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.2), nn.Linear(width, 1))

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(points)


class ToyRecipe(Recipe):
    averaged = ("generator",)

    def __init__(self, config: ToyConfig) -> None:
        self.config = config
        width = config.network.width
        self.networks = {"generator": Generator(width), "discriminator": Discriminator(width)}
        adam = Adam(lr=2e-3, betas=(0.0, 0.99), factors={"discriminator.layers.0.*": 0.5})
        self.phases = (
            Phase("generator", ("generator",), Adam(lr=2e-3, betas=(0.0, 0.99))),
            Phase("discriminator", ("discriminator",), adam),
            Phase("r1", ("discriminator",), adam, optimizer="discriminator", every=4, lazy=True),
        )
        self.variables = {"seen": torch.zeros(1)}

    def step(self, phase: str, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        if state.step == self.config.die_at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL if state.rank == state.world - 1 else 0)
        real = batch["point"]
        softplus = nn.functional.softplus
        if phase == "r1":
            real = real.detach().requires_grad_(True)
            (gradient,) = torch.autograd.grad(self.networks["discriminator"](real).sum(), real, create_graph=True)
            return {"r1": self.config.loss.r1 * gradient.square().sum(1).mean()}
        fake = self.networks["generator"](state.randn(len(real), 2))
        if phase == "generator":
            return {"adversarial": softplus(-self.networks["discriminator"](fake)).mean()}
        self.variables["seen"] += len(real) * state.world
        real = real + self.config.loss.noise * state.randn(len(real), 2)
        state.report("real_logit", self.networks["discriminator"](real).mean())
        return {
            "real": softplus(-self.networks["discriminator"](real)).mean(),
            "fake": softplus(self.networks["discriminator"](fake.detach())).mean(),
        }

    def images(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, Tensor]:
        points = networks["generator"](state.randn(3, 2))
        return {"points": points.reshape(3, 2, 1, 1).expand(3, 2, 4, 4).repeat(1, 2, 1, 1)[:, :3].sigmoid()}

    def scores(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, float]:
        points = networks["generator"](state.randn(256, 2))
        return {"radius_error": float((points.norm(dim=1) - 1).abs().mean())}


class Circle:
    """Points of the unit circle."""

    def __init__(self, count: int, poisoned: int = -1) -> None:
        self.count, self.poisoned = count, poisoned

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        angle = torch.tensor(6.283185307 * index / self.count)
        point = torch.stack([angle.cos(), angle.sin()])
        return {"point": point * (float("nan") if index == self.poisoned else 1.0), "index": torch.tensor(index)}


def make(config: ToyConfig, data: Sequence[str], device: torch.device) -> tuple[Recipe, Circle]:
    if config.samples < 0:
        raise FourdError("the toy has no data")
    return ToyRecipe(config), Circle(config.samples, config.poisoned)


RECIPE = RecipeFactory(ToyConfig, make)
