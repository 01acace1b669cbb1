"""Options that several commands share, so that they are spelled and explained the same way everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from fourdface.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def output_options(what: str) -> Callable[[F], F]:
    """`-o FILE` and `--overwrite`; the command receives `output` and `overwrite`."""

    def decorate(function: F) -> F:
        function = click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")(function)
        return click.option(
            "-o", "--output", metavar="FILE", help=f"Where {what} goes (default: standard output, never a terminal)."
        )(function)

    return decorate


def avatar_option(function: F) -> F:
    """`--avatar FILE`, by default "-"; the command receives `avatar`."""
    return click.option("--avatar", default="-", metavar="FILE", help="The avatar artifact (default: standard input).")(
        function
    )


def size_option(default: int = 512) -> Callable[[F], F]:
    """`--size N` in pixels, even, 64 to 2048; the command receives `size`."""
    return click.option(
        "--size", type=click.IntRange(64, 2048), default=default, show_default=True, callback=_even, help="Pixels."
    )


def network_options(function: F) -> F:
    """How networks run; the command receives the fields of `networks.NetworkRequest`."""
    for option in reversed(
        (
            click.option("--weights", metavar="ID|FILE", help="Portrait4D: weights (default: the method's own asset)."),
            click.option("--motion-weights", metavar="ID|FILE", help="Portrait4D: weights of the motion encoder."),
            click.option(
                "--precision", type=click.Choice(["auto", "fp32", "bf16", "fp16"]), default="auto", show_default=True,
                help="Portrait4D: of the networks; auto is bf16 where the processor computes in it.",
            ),
            click.option(
                "--render-size", type=click.Choice(["64", "128", "256", "512"]), callback=_whole_number,
                help="Portrait4D: rays per side (default: the network's); 256 and more skip the super-resolution.",
            ),
            click.option(
                "--seed", type=click.IntRange(0, 2**63 - 1),
                help="Portrait4D: jitter the rays' samples by this number (default: no chance).",
            ),
            click.option(
                "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                help="Portrait4D: where the networks run.",
            ),
            click.option(
                "--batch", type=click.IntRange(1, 64),
                help="Portrait4D: frames at once (default: 4 on a GPU, 1 on a CPU).",
            ),
            click.option(
                "--compile", is_flag=True,
                help="Portrait4D: compile the networks first (a minute or more) for long clips.",
            ),
        )
    ):  # fmt: skip
        function = option(function)
    return function


def _whole_number(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    return None if value is None else int(value)


def seed_option(function: F) -> F:
    """`--seed N`; the command receives `seed`."""
    return click.option("--seed", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True, help="Random seed.")(
        function
    )


def json_option(function: F) -> F:
    """`--json`; the command receives `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(function)


def shard_option(function: F) -> F:
    """`--shard I/N`, by default what a Slurm array job says; the command receives `shard` as (index, count) or None."""
    return click.option(
        "--shard", metavar="I/N", callback=_shard, help="Do the I-th of N parts, counted from 0 (default: Slurm's)."
    )(function)


def parse_shard(text: str) -> tuple[int, int]:
    """Read "I/N" as (index, count) with 0 <= index < count; raises UsageError for anything else."""
    index, _, count = text.partition("/")
    if not (index.isascii() and index.isdigit() and count.isascii() and count.isdigit()) or int(index) >= int(count):
        raise UsageError(f"--shard is {text!r}, expected I/N with 0 <= I < N, such as 0/8")
    return int(index), int(count)


def _shard(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is not None:
        return parse_shard(value)
    task, count = (os.environ.get(f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "COUNT"))
    if task is None or count is None:
        return None
    first = os.environ.get("SLURM_ARRAY_TASK_MIN", "0")
    return parse_shard(f"{int(task) - int(first)}/{count}")


def _even(ctx: click.Context, parameter: click.Parameter, value: int) -> int:
    if value % 2:
        raise UsageError(f"--size is {value}, and a video needs an even number of pixels; give {value + 1}")
    return value
