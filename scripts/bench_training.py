"""What training costs: pictures a second of every recipe here, and the work of the published runs on 8 GPUs.

Usage: python scripts/bench_training.py throughput [--recipe NAME ...] [--size tiny] [--batch 2 4 8] [--device cpu]
           [--steps 16] [--warm 2] [--threads N] [--workers 0] [--data PATH ...] [--set KEY=VALUE ...]
       python scripts/bench_training.py cost [--recipe NAME ...] [--size paper] [--utilisation 0.3]

`throughput` times steps of the engine at the end of a run, where every loss is on and renders have their last size; 16
steps are a whole period of the lazy phases (R1 every 16th, pseudo views every 4th). Each line is a process of its own,
so that memory is its own too. Without --data, people of the open head are made.

`cost` counts the floating-point operations of one training picture, forward and backward, phase by phase, with torch's
counter, and multiplies them by the pictures of the configuration. The counter knows matrix products, convolutions and
attention; lookups in tri-planes have the formulas below; work on single elements, on meshes and of the optimizers is
not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.data import default_collate
from torch.utils.flop_counter import flop_registry

from fourdface.artifacts import Provenance
from fourdface.blocks.perceptual import Lpips
from fourdface.errors import FourdError
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.weights import save_reconstructor
from fourdface.stages.synth_data import make_shard
from fourdface.stages.synthesis.open_head import OpenHeads
from fourdface.stages.synthesis.rows import ViewPlan
from fourdface.stages.train import RECIPES, find_recipe
from fourdface.training.config import load_config
from fourdface.training.data import Samples, steps_of_batches, to_device
from fourdface.training.distributed import Ranks
from fourdface.training.loop import update
from fourdface.training.optimization import PhaseOptimizers
from fourdface.training.recipe import Phase, Recipe, TrainState
from fourdface.training.run import Run, deterministic

GPUS = 8
KINDS = ("convolutions", "products", "lookups")
PEAKS = {"A100 tf32": 156e12, "A100 bf16": 312e12, "H200 tf32": 495e12, "H200 bf16": 989e12}
"""Dense operations a second that the manufacturer states for tensor cores."""
PERIOD = 16
"""Steps after which all lazy phases have run in their proportions."""


# -------------------------------------------------------------------------------------------- recipes, ready to step


@dataclass(frozen=True)
class Case:
    """A recipe at a size, on some data; overrides: KEY=VALUE, the last ones count. batch: None is the size's own."""

    recipe: str
    size: str
    data: tuple[str, ...]
    folder: str
    batch: int | None = None
    device: str = "cpu"
    threads: int = 0
    steps: int = PERIOD
    warm: int = 2
    workers: int = 0
    overrides: tuple[str, ...] = ()
    open_head: bool = True


def make_views(folder: Path, size: int, people: int = 6, motions: int = 2, views: int = 4) -> str:
    """Pictures of people who do not exist, as `fourd synth-data open-head` makes them; the file's path."""
    synthesizer = OpenHeads(ViewPlan(motions, views, size), 0, ())
    shard, _ = make_shard(synthesizer, range(people), Provenance())
    path = folder / f"views-{size}.h5"
    shard.write(path, overwrite=True)
    return str(path)


def configured(case: Case, *, networks: bool = True) -> Any:
    """The configuration of a case; with `networks`, Psi_3d is there for the recipe that starts from it."""
    overrides = [] if case.batch is None else [f"train.batch={case.batch}"]
    if case.recipe == "genhead":
        overrides += ["network.head=open"] if case.open_head else []
    else:
        overrides += ["data.held_out=0"]
    factory = find_recipe(case.recipe)
    config = load_config(factory.config, case.size, [*overrides, *case.overrides], recipe=case.recipe)
    if case.recipe == "portrait4d-v2" and networks and not config.synthesizer:
        place = Path(case.folder) / f"psi3d-{case.size}.safetensors"
        if not place.exists():
            save_reconstructor(Reconstructor(config.network), place)
        overrides += [f"initial={place}", f"synthesizer={place}"]
        config = load_config(factory.config, case.size, [*overrides, *case.overrides], recipe=case.recipe)
    return config


def prepared(case: Case) -> tuple[Any, Recipe, Samples]:
    """Configuration, recipe and samples of a case; tells of fallbacks once, on stderr, as a training does."""
    config = configured(case)
    recipe, samples = find_recipe(case.recipe).make(config, case.data, torch.device(case.device))
    return config, recipe, samples


# --------------------------------------------------------------------------------------------------------- throughput


@dataclass(frozen=True)
class Speed:
    """Seconds of one step on average, and the most memory in MiB: of the process, or of the GPU."""

    batch: int
    seconds: float
    memory: float

    @property
    def rate(self) -> float:
        """Pictures a second."""
        return self.batch / self.seconds


def step(run: Run, micros: list[dict[str, torch.Tensor]]) -> None:
    """One step of the engine's loop, without its logs and files."""
    for phase in run.recipe.phases:
        if phase.due(run.state.step):
            update(run, phase, micros)
    run.state.step += 1
    run.averages.update(run.state.images)


def measure(case: Case) -> Speed:
    """Time the last steps of a run, the first `case.warm` of them not counted."""
    if case.threads:
        torch.set_num_threads(case.threads)
    config, recipe, samples = prepared(case)
    options, ranks = config.train, Ranks(device=torch.device(case.device))
    run = Run(recipe, options, Path(case.folder), ranks, len(samples))
    run.state.step = max(0, options.steps - case.warm - case.steps)
    batches = steps_of_batches(
        samples, options.seed, options.batch, options.accumulate, step=run.state.step, workers=case.workers,
        device=ranks.device,
    )  # fmt: skip
    begin = 0.0
    with deterministic(ranks):
        for number in range(case.warm + case.steps):
            if number == case.warm:
                begin = now(case.device)
            step(run, next(batches))
    seconds = (now(case.device) - begin) / case.steps
    if run.state.skipped:
        raise FourdError(f"{run.state.skipped} updates of {case.recipe} were not finite, and took no time")
    return Speed(options.batch, seconds, peak_memory(case.device))


def now(device: str) -> float:
    """Seconds, after all that the device was asked for."""
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def peak_memory(device: str) -> float:
    """Most memory so far in MiB, of the GPU or of this process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measured_alone(case: Case) -> Speed:
    """`measure` in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, case).result()


def throughput(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the table of speeds."""
    print("| recipe | batch | pictures/s | ms a step | peak memory, MiB |")
    print("|---|---|---|---|---|")
    made: dict[int, str] = {}
    for recipe in arguments.recipe:
        case = Case(recipe, arguments.size, tuple(arguments.data), str(folder), open_head=not arguments.data)
        if not arguments.data:
            side = configured(case, networks=False).network.resolution
            if side not in made:
                made[side] = make_views(folder, side)
            case = replace(case, data=(made[side],))
        for batch in arguments.batch:
            speed = measured_alone(replace(
                case, batch=batch, device=arguments.device, threads=arguments.threads, steps=arguments.steps,
                warm=arguments.warm, workers=arguments.workers, overrides=tuple(arguments.set),
            ))  # fmt: skip
            row = f"{speed.rate:.3g} | {1e3 * speed.seconds:.0f} | {speed.memory:.0f}"
            print(f"| `{recipe}` | {speed.batch} | {row} |", flush=True)


# ------------------------------------------------------------------------------------------------------------- counting


def convolution_backward(
    gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], _bias: Any, _stride: Any, _padding: Any,
    _dilation: Any, transposed: bool, _output_padding: Any, _groups: int, wanted: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    """Gradients of a convolution by input and by weight: as much as the convolution, each (torch's own formula takes
    groups for full convolutions)."""
    places = math.prod((x if transposed else gradient)[2:])
    return 2 * x[0] * places * math.prod(weight) * sum(wanted[:2])


def plane_lookup(planes: Sequence[int], points: Sequence[int], *_: Any, **__: Any) -> int:
    """Bilinear lookups in three planes [B, 3, C, H, W] at points [B, N, 3]: four texels, a product and a sum each."""
    return 8 * 3 * planes[2] * points[0] * points[1]


def plane_lookup_backward(gradient: Sequence[int], _planes: Any, _points: Any, *rest: Any, **_: Any) -> int:
    """The same, spread to the texels; twice as much for gradients of the points. gradient [B, N, C]."""
    of_planes, of_points = rest[3], rest[4]
    return 8 * 3 * math.prod(gradient) * (of_planes + 2 * of_points)


def grid_lookup(picture: Sequence[int], grid: Sequence[int], *_: Any, **__: Any) -> int:
    """Bilinear lookups in pictures [B, C, H, W] at places [B, h, w, 2]."""
    return 8 * picture[1] * math.prod(grid[:3])


def grid_lookup_backward(gradient: Sequence[int], _picture: Any, _grid: Any, *rest: Any, **_: Any) -> int:
    """As `plane_lookup_backward`; gradient [B, C, h, w]."""
    of_picture, of_grid = rest[-1] if rest and isinstance(rest[-1], (list, tuple)) else (True, True)
    return 8 * math.prod(gradient) * (of_picture + 2 * of_grid)


def attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any, **__: Any) -> int:
    """Scores and sums of heads [B, H, M, D] over [B, H, N, D]."""
    return 2 * math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def attention_backward(_gradient: Any, query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: Any,
                       **__: Any) -> int:  # fmt: skip
    """Scores once more, and two products for each of the two of the forward pass."""
    return 2 * math.prod(query[:-1]) * key[-2] * (3 * query[-1] + 2 * value[-1])


def formulas() -> dict[Any, Any]:
    """What torch's counter does not know or gets wrong, by operation; they take shapes in place of tensors."""
    aten = torch.ops.aten
    return LOOKUPS | {
        aten.convolution_backward: convolution_backward,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }


LOOKUPS = {
    torch.ops.aten.grid_sampler_2d: grid_lookup,
    torch.ops.aten.grid_sampler_2d_backward: grid_lookup_backward,
    torch.ops.fourd.triplane_sample: plane_lookup,
    torch.ops.fourd.triplane_sample_backward: plane_lookup_backward,
}


class Counter(TorchDispatchMode):
    """Count the operations of a block by kind: convolutions, products (of matrices, and attention) and lookups.

    The formulas are those of torch's FlopCounterMode, which itself refuses the second derivatives of R1 (it follows
    modules, and torch.autograd.grad hides them).
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, float] = {}
        self._own = formulas()

    @property
    def total(self) -> float:
        """All so far."""
        return sum(self.counts.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do the operation and add its count."""
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return True  # a tensor without content is asked whether any sample needs something: in a batch of 32, yes
        out = func(*args, **kwargs)
        kind = func.overloadpacket
        if kind in self._own:
            shapes, named = tree_map(lambda x: x.shape if isinstance(x, torch.Tensor) else x, (args, kwargs))
            self._add(kind, self._own[kind](*shapes, **named))
        elif kind in flop_registry:
            self._add(kind, flop_registry[kind](*args, **kwargs, out_val=out))
        return out

    def _add(self, kind: Any, count: float) -> None:
        convolves = "conv" in str(kind)
        word = KINDS[2 if kind in LOOKUPS else 0 if convolves else 1]
        self.counts[word] = self.counts.get(word, 0) + count


Costs = dict[str, dict[str, float]]
"""Operations of a phase for one picture of the batch, as often as it runs, by their kind."""


def phase_costs(recipe: Recipe, config: Any, batch: dict[str, torch.Tensor], images: int) -> Costs:
    """Costs of the phases that are on after so many images; `batch` lies where the recipe does."""
    options, device = config.train, next(iter(batch.values())).device
    optimizers = PhaseOptimizers(recipe.networks, recipe.phases, options)
    state = TrainState(options.seed, options.batch, options.steps, device)
    state.step = images // options.batch
    found = {}
    count = len(next(iter(batch.values())))
    for phase in recipe.phases:
        if state.step < phase.start:
            continue
        with Counter() as counter:
            run_phase(recipe, phase, batch, state, optimizers)
        found[phase.name] = {kind: value / (count * phase.every) for kind, value in counter.counts.items()}
    return found


def run_phase(
    recipe: Recipe, phase: Phase, batch: dict[str, torch.Tensor], state: TrainState, optimizers: PhaseOptimizers
) -> None:
    """Forward and backward of a phase, as the engine does it."""
    optimizers.begin(phase)
    state.begin(phase.name)
    losses = recipe.step(phase.name, batch, state)
    total = torch.stack([value.float() for value in losses.values()]).sum()
    if total.requires_grad:
        total.backward()
    optimizers.end()


def sections(config: Any) -> list[tuple[int, float]]:
    """Parts of a run between its switch-on times: images in the middle of each, and its share of the run."""
    total = config.train.steps * config.train.batch
    times = {0, total}
    if hasattr(config, "growth_start"):
        times |= {config.growth_start, config.growth_start + config.growth_length, config.loss.adversarial_start}
        times |= {config.loss.perceptual_start}
    ends = sorted(time for time in times if time <= total)
    return [((a + b) // 2, (b - a) / total) for a, b in pairwise(ends)]


def without_autocast() -> Any:
    """Let torch.autocast do nothing: it refuses tensors without content, and changes no number of operations."""
    return mock.patch("torch.autocast", lambda *_, **__: contextlib.nullcontext())


def picture_costs(case: Case) -> tuple[int, Costs]:
    """Pictures of the whole run, and what one of them costs on average over the run.

    Psi is counted without being computed (on tensors without content); GenHead computes, because which samples its
    eyes and mouth look up depends on the picture.
    """
    torch.manual_seed(0)
    config, recipe, samples = prepared(case)
    if hasattr(recipe, "perceptual") and config.loss.perceptual_network.startswith("lpips-"):  # whatever its weights
        recipe.perceptual = Lpips(config.loss.perceptual_network.removeprefix("lpips-")).to(case.device)
    count = 2 if case.device == "meta" else 1  # two: one of them static, in the recipe that has both
    batch = to_device(default_collate([samples[k] for k in range(count)]), torch.device(case.device))
    mean: Costs = {}
    with without_autocast() if case.device == "meta" else contextlib.nullcontext():
        for images, share in sections(config):
            for name, counts in phase_costs(recipe, config, dict(batch), images).items():
                before = mean.setdefault(name, {})
                for kind, value in counts.items():
                    before[kind] = before.get(kind, 0) + share * value
    return config.train.steps * config.train.batch, mean


def cost(arguments: argparse.Namespace, folder: Path) -> None:
    """Print the operations of every recipe and the time they take at a stated part of the peak."""
    data = make_views(folder, 64, people=1, motions=2, views=2)
    print("| recipe | TFLOP a picture, by phase | all | convolutions, products, lookups | pictures | FLOP |")
    print("|---|---|---|---|---|---|")
    totals = {}
    for name in arguments.recipe:
        device = "cpu" if name == "genhead" else "meta"
        images, phases = picture_costs(Case(name, arguments.size, (data,), str(folder), device=device))
        kinds = [sum(phase.get(kind, 0) for phase in phases.values()) for kind in KINDS]
        each = sum(kinds)
        totals[name] = images * each
        parts = ", ".join(f"{phase} {sum(value.values()) / 1e12:.3g}" for phase, value in phases.items())
        shares = ", ".join(f"{value / each:.1%}" for value in kinds)
        row = f"{each / 1e12:.3g} | {shares} | {images / 1e6:.3g} million | {totals[name]:.3g}"
        print(f"| `{name}` | {parts} | {row} |", flush=True)
    print(f"\nGPU hours (days on {GPUS} GPUs) at {arguments.utilisation:.0%} of the peak:\n")
    print("| recipe | " + " | ".join(f"{name}, {peak / 1e12:.0f} TFLOP/s" for name, peak in PEAKS.items()) + " |")
    print("|---" * (1 + len(PEAKS)) + "|")
    for name, total in totals.items():
        hours = [total / (peak * arguments.utilisation) / 3600 for peak in PEAKS.values()]
        print(f"| `{name}` | " + " | ".join(f"{h:.0f} ({h / GPUS / 24:.1f})" for h in hours) + " |")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure or count, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    timed, worked = commands.add_parser("throughput"), commands.add_parser("cost")
    for command, size in ((timed, "tiny"), (worked, "paper")):
        command.add_argument("--recipe", nargs="+", choices=RECIPES, default=list(RECIPES))
        command.add_argument("--size", default=size)
    timed.add_argument("--batch", type=int, nargs="+", default=[2, 4, 8])
    timed.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    timed.add_argument("--steps", type=int, default=PERIOD)
    timed.add_argument("--warm", type=int, default=2)
    timed.add_argument("--threads", type=int, default=0)
    timed.add_argument("--workers", type=int, default=0, help="processes that read the data; 0 reads it in between")
    timed.add_argument("--data", nargs="+", default=[])
    timed.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    worked.add_argument("--utilisation", type=float, default=0.3)
    timed.set_defaults(call=throughput)
    worked.set_defaults(call=cost)
    chosen = parser.parse_args(arguments)
    if chosen.call is cost:  # whose networks need no weights: warnings about missing ones would mislead
        logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            chosen.call(chosen, Path(folder))
    finally:
        logging.disable(logging.NOTSET)


if __name__ == "__main__":
    main()
