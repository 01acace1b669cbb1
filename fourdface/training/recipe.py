"""What a method tells the engine: its networks, its phases, and the losses of one step.

A recipe knows the method and nothing of ranks, checkpoints or logs; the engine knows those and nothing of faces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fourdface.training.data import Samples
from fourdface.training.seeds import seed_everything, seed_of


@dataclass(frozen=True)
class Adam:
    """Settings of one optimizer (Adam, or AdamW where `weight_decay` is not 0).

    factors: factor on the learning rate of parameters by pattern of "NETWORK.PARAMETER" (fnmatch; the last that fits
    counts); a factor of 0 leaves the parameter alone: it takes no part in the phase.
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    factors: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Phase:
    """One update of some networks within a step.

    networks: names of what it trains; all others are frozen meanwhile (gradients still flow through them).
    optimizer: phases with the same word share one optimizer, with the settings of the first ("": the phase's own).
    every: it runs at steps start, start + every, start + 2 every, ... Phases run in the order of the recipe.
    lazy: the losses are multiplied by `every`, and the optimizer's lr and betas corrected for the updates that it makes
    beside those of its main phase (lazy regularisation, StyleGAN2, appendix B).
    """

    name: str
    networks: tuple[str, ...]
    adam: Adam = Adam()
    optimizer: str = ""
    every: int = 1
    start: int = 0
    lazy: bool = False

    def due(self, step: int) -> bool:
        """Whether the phase runs at a step."""
        return step >= self.start and (step - self.start) % self.every == 0


class TrainState:
    """Where the run stands; handed to every call of the recipe.

    step: steps done; images: samples seen by all ranks; rank, world; device. During `Recipe.step`, all that is drawn
    from `generator`, `randn`, `rand` or torch's own generator is a function of (seed, step, phase, rank), so that a run
    continued from a checkpoint draws the same. `randn` and `rand` even draw the same for any number of ranks and
    micro-batches.
    """

    def __init__(self, seed: int, batch: int, steps: int, device: torch.device, rank: int = 0, world: int = 1) -> None:
        self.seed, self.batch, self.steps, self.device, self.rank, self.world = seed, batch, steps, device, rank, world
        self.step = 0
        self.skipped = 0
        """Updates that were skipped because something was not finite."""
        self.skipped_in_a_row = 0
        self.generator = torch.Generator()
        """On the CPU; its numbers differ between ranks and micro-batches."""
        self._shared = torch.Generator()
        self._blocks, self._block = 1, 0
        self.reports: dict[str, Tensor] = {}

    @property
    def images(self) -> int:
        """Samples seen so far by all ranks."""
        return self.step * self.batch

    @property
    def progress(self) -> float:
        """Part of the run that is done, 0 to 1."""
        return min(1.0, self.step / max(1, self.steps))

    def report(self, name: str, value: Tensor | float) -> None:
        """Log a scalar that is no loss (a mean logit, a probability)."""
        self.reports[name] = torch.as_tensor(value).detach()

    def randn(self, *shape: int) -> Tensor:
        """Normal numbers on the run's device; shape[0] counts samples: each gets the same for any number of ranks."""
        return self._own_rows(torch.randn, shape)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), otherwise as `randn`."""
        return self._own_rows(torch.rand, shape)

    def _own_rows(self, draw: Callable[..., Tensor], shape: Sequence[int]) -> Tensor:
        count = shape[0]
        everyone = draw(count * self._blocks, *shape[1:], generator=self._shared)
        return everyone[self._block * count : (self._block + 1) * count].to(self.device)

    def begin(self, purpose: str, micro: int = 0, micros: int = 1) -> None:
        """Seed everything for one micro-batch of a phase (called by the engine)."""
        self._blocks, self._block = self.world * micros, self.rank * micros + micro
        self._shared.manual_seed(seed_of(self.seed, self.step, purpose))
        self.generator.manual_seed(seed_of(self.seed, self.step, purpose, self._block))
        seed_everything(seed_of(self.seed, self.step, purpose, self._block, "global"))

    def begin_fixed(self, purpose: str) -> None:
        """Seed everything for grids and scores: the same at every step and on every rank."""
        self._blocks, self._block = 1, 0
        for generator in (self._shared, self.generator):
            generator.manual_seed(seed_of(self.seed, purpose))
        seed_everything(seed_of(self.seed, purpose, "global"))


class Recipe(ABC):
    """What a method gives to the engine."""

    networks: dict[str, nn.Module]
    """Name -> module: trained and saved. Frozen helpers (a perceptual network) are not in it."""
    phases: Sequence[Phase]
    averaged: Sequence[str] = ()
    """Names of networks of which a running average is kept (EMA)."""
    variables: Mapping[str, Tensor] = {}
    """Further tensors of the recipe, changed in place, that a continued run needs (an augmentation probability)."""
    forward_methods: Mapping[str, Sequence[str]] = {}
    """Network -> its methods, other than forward, that `step` calls (needed with FSDP2)."""
    assets: Mapping[str, str] = {}
    """Id -> sha256 of weights that the recipe uses, for run.json."""

    @abstractmethod
    def step(self, phase: str, batch: dict[str, Tensor], state: TrainState) -> dict[str, Tensor]:
        """Named, weighted losses (scalars, means over the batch [M, ...]); their sum is back-propagated."""

    def images(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, Tensor]:
        """Grids by name: pictures [K,3,H,W] in 0..1, from fixed seeds. `networks` holds the averages where kept."""
        return {}

    def scores(self, networks: Mapping[str, nn.Module], state: TrainState) -> dict[str, float]:
        """Measures by name (FID, PSNR). `networks` holds the averages where kept."""
        return {}

    def export(self, networks: Mapping[str, nn.Module]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Tensors and metadata of weights.safetensors: by default the averaged networks (all, where none is), each
        parameter as NETWORK.PARAMETER."""
        names = list(self.averaged) or list(networks)
        return {f"{name}.{key}": value for name in names for key, value in networks[name].state_dict().items()}, {}


@dataclass(frozen=True)
class RecipeFactory:
    """An entry of the registry: the schema of the configuration and `make(config, data_paths, device)`.

    The schema is a frozen dataclass with a field `train: TrainOptions`. `make` raises UsageError or FourdError for data
    that is missing or of the wrong kind.
    """

    config: type[Any]
    make: Callable[[Any, Sequence[str], torch.device], tuple[Recipe, Samples]]
