"""Build, test and time the CUDA kernels on this machine's GPU (make bench-cuda).

    python scripts/bench_cuda.py [--op splat --op ...] [--repeats 100] [--skip-tests] [--skip-sanitizer]

Compiles the library for the present card, runs the tests marked `cuda` with it, once more under compute-sanitizer where
that is installed, and prints a Markdown table for docs/benchmarks.md: each op natively, by the torch reference on the
same GPU, and by gsplat where that can do it. Milliseconds per call between two events of the stream, all calls queued.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click
import torch
from bench_cases import OPS, Case, Setting

from fourdface.ops import _build, _native

ROOT = Path(__file__).resolve().parents[1]
NO_GPU = (
    "bench-cuda needs an NVIDIA GPU, and torch sees none here ({why}): run it on a machine with one, with a CUDA build "
    "of torch and nvcc"
)


def describe() -> str:
    """Card, driver, torch, nvcc and how fast the card copies memory."""
    index = torch.cuda.current_device()
    capability = ".".join(str(n) for n in torch.cuda.get_device_capability(index))
    driver = "unknown driver"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", f"--id={index}", "--query-gpu=driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        driver = f"driver {done.stdout.strip()}" if done.returncode == 0 else driver
    block = torch.empty(2**28, dtype=torch.uint8, device="cuda")
    other = torch.empty_like(block)
    seconds = measure(lambda: other.copy_(block), 20) / 1e3
    return (
        f"{torch.cuda.get_device_name(index)} (compute capability {capability}), {driver}, torch {torch.__version__}, "
        f"CUDA {torch.version.cuda}; copies {2 * block.numel() / seconds / 1e9:,.0f} GB/s"
    )


def measure(call: Callable[[], object], repeats: int) -> float:
    """Milliseconds of one call on the GPU, after three to warm up."""
    for _ in range(3):
        call()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / repeats


def run_tests(sanitizer: bool) -> bool:
    """Run the tests marked `cuda`; True if they pass."""
    before = ["compute-sanitizer", "--error-exitcode", "9", "--target-processes", "all"] if sanitizer else []
    command = [*before, sys.executable, "-m", "pytest", "-q", "-m", "cuda", "tests/ops"]
    click.echo(f"\n$ {' '.join(command)}")
    return subprocess.run(command, cwd=ROOT, check=False).returncode == 0


def line_of(case: Case, repeats: int) -> str:
    """One line of the table; what cannot run says why."""
    try:
        fast = measure(case.native, repeats)
    except (RuntimeError, ValueError, AttributeError) as error:
        return f"| {case.name} | not run: {' '.join(str(error).split())[:150]} | | | |"
    goal = f"{case.goals['cuda']:.2f}" if "cuda" in case.goals else ""
    cells = [case.name, f"{fast:.3f}", goal, f"{1000 / fast:,.0f}"]
    rivals = {"eager torch": case.reference, **case.others}
    found = []
    for name, call in rivals.items():
        if call is None:
            continue
        try:
            slow = measure(call, max(2, repeats // 20))
            found.append(f"{name} {slow:.2f} ({slow / fast:.0f} x)")
        except (RuntimeError, ValueError, ImportError) as error:
            found.append(f"{name} not run: {' '.join(str(error).split())[:80]}")
    return f"| {' | '.join(cells)} | {'; '.join(found)} |"


@click.command()
@click.option("--op", "ops", multiple=True, type=click.Choice(list(OPS)), help="Only this op; may be repeated.")
@click.option("--repeats", default=100, show_default=True, help="Calls of each native op.")
@click.option("--skip-tests", is_flag=True, help="Only build and time.")
@click.option("--skip-sanitizer", is_flag=True, help="No second run of the tests under compute-sanitizer.")
def main(ops: tuple[str, ...], repeats: int, skip_tests: bool, skip_sanitizer: bool) -> None:
    """Build for the present card, test, time; exits with 1 where anything failed."""
    if not torch.cuda.is_available():
        why = "a CPU build of torch" if torch.version.cuda is None else "no device or driver"
        raise click.ClickException(NO_GPU.format(why=why))
    click.echo(f"{describe()}\ncommand: {' '.join(['python', *sys.argv])}")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / _build.CUDA_LIBRARY_NAME
        major, minor = torch.cuda.get_device_capability()
        try:
            _build.build_cuda_library(library, ROOT / "cuda", (10 * major + minor,))
        except _build.BuildError as error:
            raise click.ClickException(f"the CUDA library was not built: {error}") from error
        os.environ["FOURD_CUDA"] = str(library)
        _native.require_library(torch.device("cuda"))
        passed = skip_tests or run_tests(sanitizer=False)
        if not skip_tests and not skip_sanitizer:
            if shutil.which("compute-sanitizer"):
                passed = run_tests(sanitizer=True) and passed
            else:
                click.echo("compute-sanitizer is not installed: left out")
        click.echo("\n| op | native, ms | goal, ms | calls a second | the same otherwise, ms |\n|---|---|---|---|---|")
        setting = Setting(torch.device("cuda"))
        for name in ops or OPS:
            for case in OPS[name](setting):
                click.echo(line_of(case, repeats))
    if not passed:
        raise click.ClickException("tests failed, see above")


if __name__ == "__main__":
    main()
