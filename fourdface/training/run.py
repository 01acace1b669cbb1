"""A run: networks, optimizers, averages and counts together, as they are stored and taken up again."""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fourdface.errors import FourdError
from fourdface.training import checkpoint, distributed
from fourdface.training.config import TrainOptions
from fourdface.training.distributed import Ranks
from fourdface.training.ema import Averages
from fourdface.training.optimization import PhaseOptimizers
from fourdface.training.recipe import Recipe, TrainState

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"
SKIPPED = "skipped"


class Run:
    """All that changes while a recipe is trained."""

    def __init__(self, recipe: Recipe, options: TrainOptions, run_dir: Path, ranks: Ranks, samples: int) -> None:
        self.recipe, self.options, self.run_dir, self.ranks, self.samples = recipe, options, run_dir, ranks, samples
        for module in recipe.networks.values():
            module.to(ranks.device).train()
        distributed.share_start(recipe.networks, ranks)
        self.averages = Averages(recipe.networks, recipe.averaged, options)
        if ranks.sharded:
            for networks in (recipe.networks, self.averages.networks):
                distributed.shard(networks, recipe.forward_methods, ranks)
        self.optimizers = PhaseOptimizers(recipe.networks, recipe.phases, options)
        self.state = TrainState(options.seed, options.batch, options.steps, ranks.device, ranks.rank, ranks.world)

    def shown(self) -> dict[str, nn.Module]:
        """The networks for grids, scores and export: the averages where kept."""
        return {**self.recipe.networks, **self.averages.networks}

    def save(self, config: Mapping[str, Any]) -> None:
        """Write weights.safetensors, then a checkpoint (in this order: what is killed between them is made again);
        every rank takes part, rank 0 writes."""
        self._export(config)
        tensors: dict[str, Tensor] = {}
        for group, networks in (("network", self.recipe.networks), ("average", self.averages.networks)):
            for name, module in networks.items():
                whole = distributed.full_state(module, self.ranks)
                tensors |= {f"{group}/{name}/{key}": value for key, value in whole.items()}
        optimizers = distributed.full_tensors(self.optimizers.state())
        tensors |= {f"optimizer/{name}": value for name, value in optimizers.items()}
        tensors |= {f"variable/{name}": value for name, value in self.recipe.variables.items()}
        if self.ranks.rank == 0:
            facts = {
                "step": self.state.step, "skipped": self.state.skipped, "samples": self.samples,
                "skipped_in_a_row": self.state.skipped_in_a_row, "batch": self.options.batch, "seed": self.options.seed,
            }  # fmt: skip
            checkpoint.save(self.run_dir, tensors, facts, self.options.keep)
        distributed.wait_for_all(self.ranks)

    def _export(self, config: Mapping[str, Any]) -> None:
        import json

        tensors, metadata = self.recipe.export(self.shown())
        tensors = distributed.full_tensors(tensors)
        if self.ranks.rank == 0:
            facts = {"config": json.dumps(config, sort_keys=True), "step": str(self.state.step)}
            facts |= {"images": str(self.state.images), **metadata}
            checkpoint.write_tensors(self.run_dir / WEIGHTS, tensors, facts)

    def restore(self) -> bool:
        """Take up the newest whole checkpoint; False where there is none. Raises FourdError for one that does not
        belong to this run."""
        stored = checkpoint.newest(self.run_dir)
        if stored is None:
            return False
        now = {"samples": self.samples, "batch": self.options.batch, "seed": self.options.seed}
        for name, value in now.items():
            if stored.facts[name] != value:
                raise FourdError(
                    f"{stored.path} was made with {name} {stored.facts[name]}, and {name} is {value} now; give the "
                    "same data and configuration, or --fresh to start anew"
                )
        for group, networks in (("network", self.recipe.networks), ("average", self.averages.networks)):
            for name, module in networks.items():
                whole = stored.matching(f"{group}/{name}", module.state_dict())
                distributed.load_full_state(module, whole, self.ranks)
        for name, tensor in stored.matching("variable", self.recipe.variables).items():
            self.recipe.variables[name].copy_(tensor)
        try:
            self.optimizers.load(stored.group("optimizer"))
        except (KeyError, ValueError) as error:
            words = f"{stored.path} was made with other optimizers ({error}); give --fresh to start anew"
            raise FourdError(words) from error
        self.state.step = int(stored.facts["step"])
        self.state.skipped = int(stored.facts["skipped"])
        self.state.skipped_in_a_row = int(stored.facts["skipped_in_a_row"])
        return True

    def skip(self, phase: str, batches: list[dict[str, Tensor]]) -> None:
        """Count an update that is not finite, keep its batch, and end the run after too many in a row.

        Raises FourdError after `skip_limit`, naming the file with the batch.
        """
        self.state.skipped += 1
        self.state.skipped_in_a_row += 1
        stop = self.state.skipped_in_a_row >= self.options.skip_limit
        folder = self.run_dir / SKIPPED
        path = folder / f"step-{self.state.step:09d}-{phase}-rank-{self.ranks.rank}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        if stop or len(list(folder.iterdir())) < self.options.skip_limit:
            names = batches[0]
            whole = {name: torch.cat([batch[name] for batch in batches]).cpu().contiguous() for name in names}
            with contextlib.suppress(OSError):  # the disk may be full, and the run shall go on
                save_file(whole, path)
        where = f"step {self.state.step}, phase {phase}: a loss or gradient is not finite"
        if stop:
            raise FourdError(
                f"{where}, {self.state.skipped_in_a_row} times in a row; the batch is in {path}; "
                "lower the learning rate, give --set train.clip=1, or look at that batch"
            )
        logger.warning("%s; the update is skipped, its batch is in %s", where, path)


class Interruption:
    """Set by SIGTERM, SIGINT or SIGUSR1 (what Slurm sends before the end of a job): stop after the present step."""

    def __init__(self) -> None:
        self.signal = 0
        self._first = 0.0

    @property
    def exit_code(self) -> int:
        """128 + signal, also on a rank that has only heard of it."""
        return 128 + (self.signal or signal.SIGTERM)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Remember the first signal. Ctrl-C once more ends the process at once (launchers hand a signal on that the
        process has received already, so not within a second)."""
        now = time.monotonic()
        if self.signal and number == signal.SIGINT and now - self._first > 1:
            raise SystemExit(128 + number)
        if not self.signal:
            self.signal, self._first = number, now


@contextlib.contextmanager
def interruptible() -> Iterator[Interruption]:
    """Let signals stop the run between two steps; the former handlers come back at the end."""
    interruption = Interruption()
    former: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            former[number] = signal.signal(number, interruption)
    except ValueError:  # not the main thread: signals are not ours
        pass
    try:
        yield interruption
    finally:
        for stopped, handler in former.items():
            signal.signal(stopped, handler)


@contextlib.contextmanager
def deterministic(ranks: Ranks) -> Iterator[None]:
    """On the CPU, choose the deterministic form of every operation: a continued run must come to the same bits."""
    before = torch.are_deterministic_algorithms_enabled()
    settings: Any = torch.utils.deterministic
    fill = settings.fill_uninitialized_memory
    if ranks.device.type == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
        settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        settings.fill_uninitialized_memory = fill
