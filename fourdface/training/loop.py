"""The loop of every training run. It knows nothing of faces: a recipe gives networks, phases and losses."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fourdface.training import distributed
from fourdface.training.buffers import BufferGuard
from fourdface.training.config import TrainOptions
from fourdface.training.data import Samples, check_split, steps_of_batches
from fourdface.training.distributed import Ranks
from fourdface.training.recipe import Phase, Recipe, TrainState
from fourdface.training.records import Records
from fourdface.training.run import Run, deterministic, interruptible

logger = logging.getLogger(__name__)


def train(
    recipe: Recipe, samples: Samples, options: TrainOptions, run_dir: Path, *, ranks: Ranks | None = None,
    workers: int = 0, config: Mapping[str, Any] | None = None,
) -> TrainState:  # fmt: skip
    """Train until `options.steps`, from the newest checkpoint in `run_dir` if there is one; returns the final state.

    Leaves checkpoints/, weights.safetensors, scalars.csv and images/ in `run_dir`. A run that is stopped by SIGTERM,
    SIGINT or SIGUSR1 saves first and then raises SystemExit(128 + signal). Raises FourdError for data, a checkpoint or
    a disk that does not do.
    """
    ranks = ranks or Ranks()
    check_split(options.batch, options.accumulate, ranks.world)
    run = Run(recipe, options, run_dir, ranks, len(samples))
    state, config = run.state, config or {}
    if run.restore():
        logger.info("continuing at step %d of %d", state.step, options.steps)
    batches = steps_of_batches(
        samples, options.seed, options.batch, options.accumulate, rank=ranks.rank, world=ranks.world, step=state.step,
        workers=workers, device=ranks.device,
    )  # fmt: skip
    with deterministic(ranks), interruptible() as interruption, Records(run_dir, options, state) as records:
        while state.step < options.steps:
            micros = next(batches)
            for phase in recipe.phases:
                if phase.due(state.step):
                    records.add(phase.name, update(run, phase, micros))
            state.step += 1
            run.averages.update(state.images)
            records.step(options.log_every)
            observe(run, records)
            stop = distributed.any_rank(bool(interruption.signal), ranks)
            if stop or state.step == options.steps or is_due(state.step, options.save_every):
                run.save(config)
            if stop and state.step < options.steps:
                logger.warning("stopped at step %d; the same command continues", state.step)
                raise SystemExit(interruption.exit_code)
    return state


def update(run: Run, phase: Phase, micros: list[dict[str, Tensor]]) -> dict[str, float]:
    """One update of the networks of a phase; returns the means of its losses over batch and ranks, and its gradient's
    norm. What is not finite is skipped: weights, optimizer and buffers stay as they were."""
    options, state, ranks = run.options, run.state, run.ranks
    guard = BufferGuard(run.recipe.networks, len(micros), ranks)
    totals: dict[str, Tensor] = {}
    run.optimizers.begin(phase)
    for number, batch in enumerate(micros):
        state.reports = {}
        state.begin(phase.name, number, len(micros))
        with torch.autocast(ranks.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            losses = run.recipe.step(phase.name, batch, state)
        total = torch.stack([value.float() for value in losses.values()]).sum() / len(micros)
        if total.requires_grad:  # not where all losses are still switched off
            (total * (phase.every if phase.lazy else 1)).backward()
        guard.collect()
        for name, value in {**losses, **state.reports}.items():
            totals[name] = totals.get(name, 0) + value.detach().float() / len(micros)
    distributed.average_gradients(run.optimizers.parameters[phase.name].values(), ranks)
    guard.finish()
    norm = run.optimizers.clip(phase)
    means = distributed.mean_over_ranks(torch.stack([*totals.values(), norm.to(ranks.device)]), ranks).tolist()
    values = dict(zip([*totals, "gradient_norm"], means, strict=True))
    if all(math.isfinite(values[name]) for name in [*losses, "gradient_norm"]):
        run.optimizers.update(phase, state.step)
        state.skipped_in_a_row = 0
    else:
        guard.restore()
        run.skip(phase.name, micros)
    run.optimizers.end()
    distributed.gather_anew(run.recipe.networks, ranks)
    return values


def observe(run: Run, records: Records) -> None:
    """Grids and scores where they are due, from fixed seeds; every rank computes them, rank 0 writes."""
    step, options = run.state.step, run.options
    for name, every in (("images", options.image_every), ("scores", options.score_every)):
        if not every or not (step == options.steps or is_due(step, every)):
            continue
        networks = run.shown()
        modes = {key: module.training for key, module in networks.items()}
        for module in networks.values():
            module.eval()
        with torch.no_grad():
            run.state.begin_fixed(name)
            result: Any = getattr(run.recipe, name)(networks, run.state)
        distributed.gather_anew(networks, run.ranks)
        getattr(records, name)(result)
        for key, module in networks.items():
            module.train(modes[key])


def is_due(step: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after this one."""
    return bool(every) and step % every == 0
