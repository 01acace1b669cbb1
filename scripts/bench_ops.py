"""Time the ops: native kernels against the torch references, in one run on one machine.

    python scripts/bench_ops.py [--threads 2] [--count 100000] [--size 512] [--repeats 30] [--skip-reference]

Prints a Markdown table. "wall" is the median of the repeats, "best" the fastest one (what a quiet machine would give),
"CPU" the processor time of all threads: it hardly depends on what else runs on the machine, so it is the figure to
compare between runs.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import click
import numpy as np
import torch

from fourdface.ops import _native
from fourdface.ops.bind_gaussians import bind_gaussians, bind_gaussians_reference
from fourdface.ops.rasterize_mesh import rasterize_mesh, rasterize_mesh_reference
from fourdface.ops.splat import covariance_from_quaternion_scale, splat, splat_reference, splat_to_u8

FOCAL = 1000.0  # pixels, for a picture of 512
DISTANCE = 0.6  # metres from the camera to the middle of the head


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one call."""

    wall: float
    best: float
    cpu: float


@dataclass(frozen=True)
class Case:
    """One line of the table: the op twice; `limit` is the time it is meant to stay under, in milliseconds."""

    name: str
    native: Callable[[], object]
    reference: Callable[[], object] | None
    limit: float


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


def camera(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A camera on the z axis that looks at the origin."""
    world_to_camera = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    world_to_camera[2, 3] = DISTANCE
    focal = FOCAL * size / 512
    return world_to_camera, torch.tensor([[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1.0]])


def shell(count: int, size: int) -> tuple[torch.Tensor, ...]:
    """Gaussians of every orientation on a sphere of 12 cm, deviations 0.5-3 mm (0.8-5 pixels), opacities 0.1-0.95."""
    draw = torch.Generator().manual_seed(0)
    direction = torch.randn(count, 3, generator=draw)
    radius = 0.12 * (1 + 0.02 * torch.randn(count, 1, generator=draw))
    means = radius * direction / direction.norm(dim=1, keepdim=True)
    scales = torch.exp(torch.empty(count, 3).uniform_(math.log(0.0005), math.log(0.003), generator=draw))
    covariances = covariance_from_quaternion_scale(torch.randn(count, 4, generator=draw), scales)
    opacities = torch.empty(count).uniform_(0.1, 0.95, generator=draw)
    return means, covariances, torch.rand(count, 3, generator=draw), opacities, *camera(size)


def photo(count: int, size: int) -> tuple[torch.Tensor, ...]:
    """A photo lifted pixel by pixel: a square grid on a curved front, deviations 0.8-1.6 pixels, opacity 0.95."""
    draw = torch.Generator().manual_seed(0)
    side = math.isqrt(count)
    intrinsics = camera(size)[1]
    focal = float(intrinsics[0, 0])
    step = 0.8 * size / side
    rows, cols = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    x, y = ((i.flatten() + 0.5 - side / 2) * step for i in (cols, rows))
    z = DISTANCE + 0.05 * torch.sin(x / 40) * torch.cos(y / 37)
    means = torch.stack([x / focal * z, -y / focal * z, DISTANCE - z], dim=1)
    deviations = (z / focal)[:, None] * torch.empty(side * side, 3).uniform_(0.8, 1.6, generator=draw)
    covariances = covariance_from_quaternion_scale(torch.randn(side * side, 4, generator=draw), deviations)
    return (
        means,
        covariances,
        torch.rand(side * side, 3, generator=draw),
        torch.full((side * side,), 0.95),
        *camera(size),
    )


def head_mesh(rings: int = 84) -> tuple[torch.Tensor, torch.Tensor]:
    """A closed sphere of about 14,000 triangles."""
    theta = torch.linspace(0.02, math.pi - 0.02, rings)[:, None]
    phi = torch.linspace(0.0, 2 * math.pi, rings)[None]
    points = torch.stack([theta.sin() * phi.sin(), theta.cos() * torch.ones_like(phi), theta.sin() * phi.cos()], -1)
    index = torch.arange(rings * rings).reshape(rings, rings)
    a, b, c, d = index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]
    faces = torch.cat([torch.stack([a, b, c], -1).reshape(-1, 3), torch.stack([a, c, d], -1).reshape(-1, 3)])
    return points.reshape(-1, 3) * 0.12, faces.to(torch.int32)


def cases(count: int, size: int, with_reference: bool) -> list[Case]:
    """All lines of the table."""
    plate_u8 = np.zeros((size, size, 3), np.uint8)
    found = []
    for label, scene in (("photo", photo(count, size)), ("shell", shell(count, size))):
        name = f"splat, {label}, {len(scene[0]):,} Gaussians, {size} x {size}"

        def draw(scene: tuple[torch.Tensor, ...] = scene) -> object:
            return splat(*scene, size, size, backend="native")

        def draw_u8(scene: tuple[torch.Tensor, ...] = scene) -> object:
            return splat_to_u8(*scene, plate_u8, backend="native")

        def draw_reference(scene: tuple[torch.Tensor, ...] = scene) -> object:
            return splat_reference(*scene, size, size)

        def train(backend: str, scene: tuple[torch.Tensor, ...] = scene) -> object:
            leaves = [t.clone().requires_grad_() for t in scene[:4]]
            splat(*leaves, *scene[4:], size, size, backend=backend).image.square().mean().backward()
            return leaves

        found.append(Case(name + ", image + alpha + depth", draw, draw_reference if with_reference else None, 12.0))
        found.append(Case(name + ", 8 bit", draw_u8, None, 12.0))
        slow = partial(train, "reference") if with_reference else None
        found.append(Case(name + ", forward + backward", partial(train, "native"), slow, 100.0))
    vertices, faces = head_mesh()
    eye = camera(size)
    draw_from = torch.Generator().manual_seed(0)
    riders = 150_000
    triangle = torch.randint(0, len(faces), (riders,), generator=draw_from, dtype=torch.int32).sort().values
    half = torch.randn(riders, 3, 3, generator=draw_from) * 0.2
    local = (half @ half.transpose(1, 2)).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]].contiguous()
    mean = torch.rand(riders, 3, generator=draw_from)
    bound = (vertices, faces, triangle, mean, local)
    found.append(
        Case(
            f"bind_gaussians, {riders:,} on {len(faces):,} triangles",
            lambda: bind_gaussians(*bound, max_trace=1e-5, backend="native"),
            (lambda: bind_gaussians_reference(*bound, max_trace=1e-5)) if with_reference else None,
            1.5,
        )
    )
    found.append(
        Case(
            f"rasterize_mesh, {len(faces):,} triangles, {size} x {size}",
            lambda: rasterize_mesh(vertices, faces, *eye, size, size, backend="native"),
            (lambda: rasterize_mesh_reference(vertices, faces, *eye, size, size)) if with_reference else None,
            3.0,
        )
    )
    return found


@click.command()
@click.option("--threads", default=2, show_default=True, help="Threads of torch and of the kernels.")
@click.option("--count", default=100_000, show_default=True, help="Gaussians.")
@click.option("--size", default=512, show_default=True, help="Width and height of the picture, pixels.")
@click.option("--repeats", default=30, show_default=True, help="Calls of each native op (the references get two).")
@click.option("--instruction-set", type=click.Choice(["plain", "avx2", "avx512"]), help="Use at most this set.")
@click.option("--skip-reference", is_flag=True, help="Time the native kernels only.")
def main(threads: int, count: int, size: int, repeats: int, instruction_set: str | None, skip_reference: bool) -> None:
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
    for case in cases(count, size, not skip_reference):
        fast = measure(case.native, repeats)
        line = f"| {case.name} | {fast.wall:.1f} | {fast.best:.1f} | {fast.cpu:.1f} | {case.limit:.1f} |"
        if case.reference is None:
            click.echo(f"{line} | | |")
            continue
        slow = measure(case.reference, 2, warm_up=False)
        click.echo(f"{line} {slow.wall:.0f} | {slow.cpu:.0f} | {slow.cpu / fast.cpu:.0f} x |")


if __name__ == "__main__":
    main()
