"""train: data -> weights, by one of the recipes in the registry."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..artifacts.atomic import reason
from ..errors import FourdError, UsageError
from ..training import RecipeFactory, TrainState, checkpoint, distributed, manifest
from ..training.config import as_dict, load_config, with_train
from ..training.loop import train as run_loop
from ..training.records import IMAGES, SCALARS
from ..training.run import SKIPPED, WEIGHTS
from ..training.seeds import seed_everything

RECIPES: dict[str, str] = {
    "genhead": "fourdface.stages.train_genhead:FACTORY",
    "portrait4d-static": "fourdface.methods.portrait4d.training:portrait4d",
    "portrait4d": "fourdface.methods.portrait4d.training:portrait4d",
    "portrait4d-v2": "fourdface.methods.portrait4d.training:portrait4d",
}
"""Name -> "module:attribute" of a RecipeFactory, imported when it is asked for."""


@dataclass(frozen=True)
class TrainRequest:
    """A run as it is asked for. config: tiny, small, paper, a YAML file or None; overrides: KEY=VALUE.

    continued: take up what run_dir holds ("auto"), insist on it ("resume"), or remove it first ("fresh").
    """

    recipe: str
    run_dir: Path
    data: tuple[str, ...] = ()
    config: str | None = None
    overrides: tuple[str, ...] = ()
    steps: int | None = None
    seed: int | None = None
    continued: str = "auto"
    device: str = "auto"
    parallel: str = "ddp"
    workers: int = 0
    argv: tuple[str, ...] = ()


def find_recipe(name: str) -> RecipeFactory:
    """The recipe of a name in the registry, or MODULE:ATTRIBUTE; raises UsageError that lists the names."""
    place = RECIPES.get(name, name)
    module, colon, attribute = place.partition(":")
    if not colon:
        known = ", ".join(RECIPES) or "none yet"
        raise UsageError(f"there is no recipe {name}; choose one of {known}, or MODULE:ATTRIBUTE of your own")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"the recipe {place} cannot be imported: {error}") from error
    if not isinstance(factory, RecipeFactory):
        raise UsageError(f"{place} is {type(factory).__name__}, and a RecipeFactory is wanted")
    return factory


def resolve(request: TrainRequest) -> tuple[RecipeFactory, Any]:
    """The recipe and the configuration of a request; raises UsageError for what is unknown or of a wrong type."""
    factory = find_recipe(request.recipe)
    config = load_config(factory.config, request.config, request.overrides, recipe=request.recipe)
    given = {"steps": request.steps, "seed": request.seed}
    return factory, with_train(config, **{key: value for key, value in given.items() if value is not None})


def train(request: TrainRequest) -> TrainState:
    """Run or continue what is asked for; see training/loop.py for what is left in run_dir.

    Raises UsageError where run_dir holds another run, FourdError for missing data.
    """
    factory, config = resolve(request)
    for path in request.data:
        if not Path(path).exists():
            raise FourdError(f"{path} does not exist; --data names the training data")
    with distributed.joined(request.device, request.parallel) as ranks:
        values = as_dict(config)
        with prepared(request, values, ranks):
            seed_everything(config.train.seed)
            recipe, samples = factory.make(config, request.data, ranks.device)
            if ranks.rank == 0:
                content = manifest.describe(request.recipe, request.argv, values, request.data, recipe.assets)
                manifest.write(request.run_dir, content)
            try:
                return run_loop(
                    recipe, samples, config.train, request.run_dir, ranks=ranks, workers=request.workers, config=values
                )
            except torch.OutOfMemoryError as error:
                raise FourdError(
                    "the GPU's memory is full; raise train.accumulate (the result stays the same), lower train.batch, "
                    "or give --set train.precision=bf16"
                ) from error


@contextlib.contextmanager
def prepared(request: TrainRequest, values: dict[str, Any], ranks: distributed.Ranks) -> Iterator[None]:
    """The run's folder made, checked, swept and kept for this run alone (by rank 0, the others wait)."""
    run_dir = request.run_dir
    with contextlib.ExitStack() as stack:
        problem: FourdError | None = None
        if ranks.rank == 0:
            try:
                stack.enter_context(_claimed(request, values))
            except FourdError as error:
                problem = error
        if distributed.any_rank(problem is not None, ranks):
            raise problem or FourdError(f"rank 0 cannot use {run_dir}")
        yield


@contextlib.contextmanager
def _claimed(request: TrainRequest, values: dict[str, Any]) -> Iterator[None]:
    run_dir = request.run_dir
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"{run_dir} is a file, and a run needs a folder")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FourdError(f"cannot make the folder {run_dir}: {reason(error)}") from error
    with checkpoint.locked(run_dir):
        if request.continued == "fresh":
            remove_run(run_dir)
        manifest.check_same_run(run_dir, request.recipe, values)
        checkpoint.sweep(run_dir)
        if request.continued == "resume" and not checkpoint.found(run_dir):
            raise UsageError(f"{run_dir} holds no checkpoint to resume from; leave --resume out to start")
        yield


def remove_run(run_dir: Path) -> None:
    """Remove what a run leaves in its folder, and nothing else."""
    for name in (checkpoint.FOLDER, IMAGES, SKIPPED, "tensorboard"):
        shutil.rmtree(run_dir / name, ignore_errors=True)
    for name in (SCALARS, WEIGHTS, manifest.FILE):
        (run_dir / name).unlink(missing_ok=True)
