"""Several processes: started by torchrun, gradients averaged after the backward pass, or FSDP2.

torch's DDP wrapper sees calls of `forward` alone, and recipes call several methods of a network several times in a
step; so gradients are averaged here, in buckets, once a phase.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fourdface.errors import UsageError

BUCKET_BYTES = 25 << 20
PATIENCE = timedelta(hours=2)
"""How long processes wait for each other: rank 0 may compute scores and write checkpoints meanwhile."""


@dataclass(frozen=True)
class Ranks:
    """This process among all: rank 0 writes files. parallel: ddp or fsdp2."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    parallel: str = "ddp"

    @property
    def sharded(self) -> bool:
        """Whether parameters are spread over the processes (FSDP2)."""
        return self.parallel == "fsdp2"


@contextlib.contextmanager
def joined(device: str = "auto", parallel: str = "ddp") -> Iterator[Ranks]:
    """Join the processes that torchrun started (one process without it) and leave them at the end.

    device: auto, cpu or cuda; with several GPUs, process i of a machine takes GPU i. Raises UsageError for a device
    that is not there and for fsdp2 without torchrun.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device is cuda, and torch sees no GPU here; give --device cpu")
    kind = device if device != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        if (place.index or 0) >= torch.cuda.device_count():
            raise UsageError(
                f"process {place.index} of this machine has no GPU of its own; give --nproc-per-node "
                f"{torch.cuda.device_count()} to torchrun, or --device cpu"
            )
        torch.cuda.set_device(place)
    if "TORCHELASTIC_RUN_ID" not in os.environ and "WORLD_SIZE" not in os.environ:
        if parallel == "fsdp2":
            raise UsageError("--parallel fsdp2 spreads a network over processes; start it with torchrun")
        yield Ranks(device=place)
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=PATIENCE)
    if dist.get_rank() > 0:  # one process speaks
        logging.getLogger("fourdface").setLevel(logging.ERROR)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), place, parallel)
    finally:
        dist.destroy_process_group()


def share_start(networks: Mapping[str, nn.Module], ranks: Ranks) -> None:
    """Give every process the parameters and buffers of rank 0."""
    if ranks.world == 1:
        return
    with torch.no_grad():
        for module in networks.values():
            for value in [*module.parameters(), *module.buffers()]:
                dist.broadcast(value, 0)


def shard(networks: Mapping[str, nn.Module], methods: Mapping[str, Sequence[str]], ranks: Ranks) -> None:
    """Spread the parameters of networks over the processes (FSDP2), in place.

    methods: further methods of each network through which it is called; FSDP2 gathers parameters around those it knows.
    A recipe runs networks several times in a phase and differentiates twice (R1), so what was gathered stays until
    `gather_anew`: gradients, optimizer states and averages are spread always, weights between the phases.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(ranks.device.type, (ranks.world,))
    for name, module in networks.items():
        sharded: Any = fully_shard(module, mesh=mesh, reshard_after_forward=False)
        sharded.set_reshard_after_backward(False)
        for method in methods.get(name, ()):
            register_fsdp_forward_method(module, method)


def gather_anew(networks: Mapping[str, nn.Module], ranks: Ranks) -> None:
    """Let go of gathered parameters, which an update has made old (FSDP2)."""
    for module in networks.values() if ranks.sharded else ():
        sharded: Any = module
        sharded.reshard()


def average_gradients(parameters: Iterable[nn.Parameter], ranks: Ranks) -> None:
    """Replace every gradient by its mean over the processes.

    A parameter without a gradient on some processes counts as zero there; without one on all, it stays without.
    """
    if ranks.world == 1 or ranks.sharded:  # FSDP2 averages in its backward pass
        return
    everyone = list(parameters)
    has = torch.tensor([value.grad is not None for value in everyone], dtype=torch.float32, device=ranks.device)
    dist.all_reduce(has, dist.ReduceOp.MAX)
    for value, wanted in zip(everyone, has.tolist(), strict=True):
        if wanted and value.grad is None:
            value.grad = torch.zeros_like(value)
    mean_in_buckets([value.grad for value in everyone if value.grad is not None], ranks)


def mean_over_ranks(values: Tensor, ranks: Ranks) -> Tensor:
    """The mean of a small tensor over the processes."""
    if ranks.world == 1:
        return values
    total = values.to(ranks.device, copy=True)
    dist.all_reduce(total)
    return total / ranks.world


def any_rank(flag: bool, ranks: Ranks) -> bool:
    """Whether the flag is set on any process (every process learns it)."""
    if ranks.world == 1:
        return flag
    value = torch.tensor(float(flag), device=ranks.device)
    dist.all_reduce(value, dist.ReduceOp.MAX)
    return bool(value.item())


def wait_for_all(ranks: Ranks) -> None:
    """Go on when all processes have come here."""
    if ranks.world > 1:
        dist.barrier()


def full_state(module: nn.Module, ranks: Ranks) -> dict[str, Tensor]:
    """The whole state of a module; with FSDP2 gathered, on the CPU and on rank 0 alone (empty elsewhere)."""
    if not ranks.sharded:
        return module.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    return get_model_state_dict(  # type: ignore[return-value]
        module, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
    )


def load_full_state(module: nn.Module, state: dict[str, Tensor], ranks: Ranks) -> None:
    """Take over a whole state, on every process."""
    if not ranks.sharded:
        module.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))  # type: ignore[arg-type]


def full_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the sharded ones gathered."""
    return {name: value.full_tensor() if hasattr(value, "full_tensor") else value for name, value in tensors.items()}


def mean_in_buckets(tensors: Sequence[Tensor], ranks: Ranks) -> None:
    """Replace tensors by their means over the processes, many at once: one message for each 25 MB of one type."""
    if ranks.world == 1:
        return
    bucket: list[Tensor] = []
    size = 0
    for tensor in [*tensors, None]:
        if bucket and (tensor is None or tensor.dtype != bucket[0].dtype or size >= BUCKET_BYTES):
            flat = torch.cat([entry.reshape(-1) for entry in bucket])
            dist.all_reduce(flat)
            flat /= ranks.world
            parts = flat.split([entry.numel() for entry in bucket])
            for entry, part in zip(bucket, parts, strict=True):
                entry.copy_(part.view_as(entry))
            bucket, size = [], 0
        if tensor is not None:
            bucket.append(tensor)
            size += tensor.numel() * tensor.element_size()
