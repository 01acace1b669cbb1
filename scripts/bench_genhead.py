"""Time GenHead's parts at the published size, with random weights over the open head.

Usage: python scripts/bench_genhead.py [--threads 1 2] [--repeats 3]
The plain resampling (a batch of single-channel pictures) is timed beside ours in the same run.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from fourdface.blocks.volume_renderer import RaySampling
from fourdface.ops.upfirdn2d import binomial_filter, upfirdn2d
from fourdface.priors.genhead.camera import conditioning_label
from fourdface.priors.genhead.config import GenHeadConfig
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.load import build_genhead
from fourdface.priors.genhead.masks import part_masks


def best(call: Callable[[], object], repeats: int) -> float:
    """Shortest of some runs in milliseconds, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def by_channel(x: Tensor, taps: Tensor) -> Tensor:
    """The filter over a batch of single-channel pictures: the plain way."""
    return conv2d(x.flatten(0, 1)[:, None], taps[None, None], padding=1).reshape(
        *x.shape[:2], *(s - 1 for s in x.shape[2:])
    )


def parts(network: GenHead) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    config, head = network.config, network.head
    z, pose, label = torch.randn(1, config.z_dim), head.neutral(), conditioning_label()
    planes, background = network.planes(z, pose.shape, label), network.background_features(z)
    features = torch.randn(1, config.plane_channels, config.render_size, config.render_size)
    style = torch.ones(1, 1, config.w_dim)
    masks = part_masks(head, pose, label, config.render_size, config.resolution)
    sampling = RaySampling(config.coarse_samples, config.fine_samples, placement="centres")
    wide, taps = torch.randn(1, 128, 513, 513), binomial_filter()
    return {
        "filter 128 x 513²": lambda: upfirdn2d(wide, taps, padding=(1, 1, 1, 1)),
        "filter 128 x 513², plain": lambda: by_channel(wide, taps),
        "planes": lambda: network.planes(z, pose.shape, label),
        "background": lambda: network.background_features(z),
        "neck field": lambda: network.deformer.neck_field(pose),
        "masks": lambda: part_masks(head, pose, label, config.render_size, config.resolution),
        "volume render": lambda: network._volume(planes, pose, label, config.render_size, masks, sampling, None),
        "super-resolution": lambda: network.superresolution(features[:, :3], features, style),
        "picture from planes": lambda: network.render(planes, background, pose, label),
    }


@torch.no_grad()
def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    network = build_genhead(GenHeadConfig(head="open")).eval()
    rows: dict[str, list[str]] = {}
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        for name, call in parts(network).items():
            rows.setdefault(name, []).append(f"{best(call, arguments.repeats):.0f}")
    print("| part | " + " | ".join(f"{n} threads, ms" for n in arguments.threads) + " |")
    print("|---" * (1 + len(arguments.threads)) + "|")
    for name, values in rows.items():
        print(f"| {name} | " + " | ".join(values) + " |")


if __name__ == "__main__":
    main()
