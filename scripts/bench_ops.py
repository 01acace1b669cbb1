"""Time the ops on the CPU: native kernels against the torch references, in one run on one machine (make bench).

    python scripts/bench_ops.py [--op splat --op ...] [--threads 2] [--count 100000] [--size 512] [--skip-reference]

Prints a Markdown table. "wall" is the median of the repeats, "best" the fastest one (what a quiet machine would give),
"CPU" the processor time of all threads: it hardly depends on what else runs on the machine, so it is the figure to
compare between runs.
"""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import click
import torch
from bench_cases import OPS, Setting

from fourdface.ops import _native


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call."""

    wall: float
    best: float
    cpu: float


def measure(call: Callable[[], object], repeats: int, warm_up: bool = True) -> Timing:
    """Call it once to warm up, then `repeats` times."""
    if warm_up:
        call()
    walls = []
    cpu = time.process_time()
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        walls.append((time.perf_counter() - start) * 1e3)
    return Timing(statistics.median(walls), min(walls), (time.process_time() - cpu) * 1e3 / repeats)


@click.command()
@click.option("--op", "ops", multiple=True, type=click.Choice(list(OPS)), help="Only this op; may be repeated.")
@click.option("--threads", default=2, show_default=True, help="Threads of torch and of the kernels.")
@click.option("--count", default=100_000, show_default=True, help="Gaussians.")
@click.option("--size", default=512, show_default=True, help="Width and height of the pictures, pixels.")
@click.option("--repeats", default=30, show_default=True, help="Calls of each native op (the references get two).")
@click.option("--instruction-set", type=click.Choice(["plain", "avx2", "avx512"]), help="Use at most this set.")
@click.option("--skip-reference", is_flag=True, help="Time the native kernels only.")
def main(
    ops: tuple[str, ...],
    threads: int,
    count: int,
    size: int,
    repeats: int,
    instruction_set: str | None,
    skip_reference: bool,
) -> None:
    """Print the table of timings in milliseconds."""
    torch.set_num_threads(threads)
    library = _native.library()
    if library is not None and instruction_set:
        library.fourd_limit_instruction_set(["plain", "avx2", "avx512"].index(instruction_set))
    status = _native.status()
    if not status["built"]:
        raise click.ClickException(f"no native library: {status['reason']}")
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    click.echo(
        f"{platform.machine()}, {os.cpu_count()} cores, {threads} threads, {status['instruction_set']}, "
        f"torch {torch.__version__}, load average {load}\n"
    )
    click.echo("| op | native wall | best | CPU | goal (wall) | reference wall | CPU | ratio (CPU) |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name in ops or OPS:
        for case in OPS[name](Setting(torch.device("cpu"), count, size)):
            fast = measure(case.native, repeats)
            goal = f"{case.goals['cpu']:.1f}" if "cpu" in case.goals else ""
            line = f"| {case.name} | {fast.wall:.1f} | {fast.best:.1f} | {fast.cpu:.1f} | {goal} |"
            if skip_reference or case.reference is None:
                click.echo(f"{line} | | |")
                continue
            slow = measure(case.reference, 2, warm_up=False)
            click.echo(f"{line} {slow.wall:.0f} | {slow.cpu:.0f} | {slow.cpu / fast.cpu:.0f} x |")


if __name__ == "__main__":
    main()
