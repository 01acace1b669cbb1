"""`fourd train`: data -> weights."""

from __future__ import annotations

import sys

import click


@click.command("train")
@click.argument("recipe")
@click.option("-o", "--output", "run_dir", required=True, metavar="RUN_DIR", help="Folder of the run.")
@click.option("--data", multiple=True, metavar="PATH", help="Training data (repeatable).")
@click.option("--config", metavar="tiny|small|paper|FILE", help="Configuration (default: the recipe's defaults).")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Change one value (repeatable).")
@click.option("--steps", type=click.IntRange(0), help="Length of the run (train.steps).")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Random seed (train.seed).")
@click.option("--resume", "continued", flag_value="resume", help="Insist on continuing the run in RUN_DIR.")
@click.option("--fresh", "continued", flag_value="fresh", help="Remove the run in RUN_DIR and start anew.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where it computes."
)
@click.option(
    "--parallel", type=click.Choice(["ddp", "fsdp2"]), default="ddp", show_default=True,
    help="With torchrun: whole networks on every process, or spread over them.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(0, 256), default=0, show_default=True, help="Processes that read the data."
)
def command(recipe: str, run_dir: str, data: tuple[str, ...], overrides: tuple[str, ...], **options: object) -> None:
    """Train RECIPE; a run that was interrupted goes on when the same command is given again.

    Leaves weights.safetensors, checkpoints, scalars.csv, image grids and run.json in RUN_DIR. RECIPE is a name (see
    docs/training.md) or MODULE:ATTRIBUTE of your own.
    """
    from pathlib import Path

    from fourdface.stages.train import TrainRequest, train

    continued = options.pop("continued") or "auto"
    train(TrainRequest(
        recipe, Path(run_dir), data, overrides=overrides, continued=continued, argv=tuple(sys.argv), **options  # type: ignore[arg-type]
    ))  # fmt: skip
