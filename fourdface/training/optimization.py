"""Optimizers of the phases, with lazy regularisation, clipping, and the guard against what is not finite."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from fourdface.errors import UsageError
from fourdface.training.config import TrainOptions
from fourdface.training.recipe import Adam, Phase

Named = dict[str, nn.Parameter]


class PhaseOptimizers:
    """One Adam for each group of phases that shares it, and the parameters that each phase trains."""

    def __init__(self, networks: Mapping[str, nn.Module], phases: Sequence[Phase], options: TrainOptions) -> None:
        """Raises UsageError where a phase names a network that is not there or trains nothing."""
        self.options = options
        self.parameters: dict[str, Named] = {}
        self.optimizers: dict[str, torch.optim.Adam] = {}
        self._base_rates: dict[str, list[float]] = {}
        self._owner = {phase.name: phase.optimizer or phase.name for phase in phases}
        everything = {
            f"{name}.{key}": value for name, module in networks.items() for key, value in module.named_parameters()
        }
        self._trainable = {name: value for name, value in everything.items() if value.requires_grad}
        for phase in phases:
            if missing := sorted(set(phase.networks) - set(networks)):
                raise UsageError(f"the phase {phase.name} trains {missing[0]}, which is no network of the recipe")
            self.parameters[phase.name] = {
                name: value
                for name, value in self._trainable.items()
                if name.partition(".")[0] in phase.networks and rate_factor(phase.adam, name) != 0
            }
            if not self.parameters[phase.name]:
                raise UsageError(f"the phase {phase.name} has no parameter to train")
        for owner in dict.fromkeys(self._owner.values()):
            self._build(owner, [phase for phase in phases if self._owner[phase.name] == owner])

    def _build(self, owner: str, sharing: list[Phase]) -> None:
        adam = sharing[0].adam
        factor = lazy_factor(sharing)
        named: Named = {}
        for phase in sharing:
            named |= self.parameters[phase.name]
        by_rate: dict[float, list[nn.Parameter]] = {}
        for name, value in named.items():
            by_rate.setdefault(adam.lr * factor * rate_factor(adam, name), []).append(value)
        kind = torch.optim.AdamW if adam.weight_decay else torch.optim.Adam
        self.optimizers[owner] = kind(
            [{"params": values, "lr": rate} for rate, values in by_rate.items()],
            betas=(adam.betas[0] ** factor, adam.betas[1] ** factor), eps=adam.eps, weight_decay=adam.weight_decay,
        )  # fmt: skip
        self._base_rates[owner] = list(by_rate)

    def begin(self, phase: Phase) -> None:
        """Let gradients reach the phase's parameters alone."""
        mine = {id(value) for value in self.parameters[phase.name].values()}
        for value in self._trainable.values():
            value.grad = None
            value.requires_grad_(id(value) in mine)

    def clip(self, phase: Phase) -> Tensor:
        """Norm of the phase's gradient before it is clipped to `options.clip` (scalar; not finite where any entry is
        not)."""
        gradients = [value.grad for value in self.parameters[phase.name].values() if value.grad is not None]
        if not gradients:
            return torch.zeros(())
        norm = torch.nn.utils.get_total_norm(gradients)
        norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        if self.options.clip:
            factor = (self.options.clip / (norm + 1e-6)).clamp(max=1.0)
            for gradient in gradients:
                gradient.mul_(factor)
        return norm

    def update(self, phase: Phase, step: int) -> None:
        """One step of the phase's optimizer at the learning rate of the step."""
        owner = self._owner[phase.name]
        optimizer = self.optimizers[owner]
        factor = self.options.rate_factor(step)
        for group, rate in zip(optimizer.param_groups, self._base_rates[owner], strict=True):
            group["lr"] = rate * factor
        optimizer.step()

    def end(self) -> None:
        """Drop all gradients and let every parameter take one again."""
        for value in self._trainable.values():
            value.grad = None
            value.requires_grad_(True)

    def state(self) -> dict[str, Tensor]:
        """Adam's moments and counts as OPTIMIZER/NETWORK.PARAMETER/KEY, for a checkpoint."""
        names = {id(value): name for name, value in self._trainable.items()}
        return {
            f"{owner}/{names[id(parameter)]}/{key}": value
            for owner, optimizer in self.optimizers.items()
            for parameter, entries in optimizer.state.items()
            for key, value in entries.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave; raises KeyError for an optimizer or parameter that is not there."""
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        for place, value in tensors.items():
            owner, name, key = place.split("/")
            parameter = self._trainable[name]
            here = value.clone() if key == "step" else like(value.clone(), parameter)  # the file is mapped, not read
            self.optimizers[owner].state[parameter][key] = here


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """A full tensor on the device, and with the sharding, of a parameter."""
    value = value.to(parameter.device)
    if not hasattr(parameter, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]


def rate_factor(adam: Adam, name: str) -> float:
    """Factor on the learning rate of the parameter NETWORK.PARAMETER."""
    factor = 1.0
    for pattern, value in adam.factors.items():
        if fnmatch.fnmatchcase(name, pattern):
            factor = float(value)
    return factor


def lazy_factor(sharing: Iterable[Phase]) -> float:
    """Correction of lr and exponent of the betas for an optimizer that lazy phases share: 1 / (1 + sum of 1 / every).

    With one lazy phase this is StyleGAN2's every / (every + 1): as far as without it in the same number of steps.
    """
    return 1 / (1 + sum(1 / phase.every for phase in sharing if phase.lazy))
