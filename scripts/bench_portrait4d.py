"""Time a reenacted frame of Portrait4D, against the plain eager path of the same network in the same run.

Usage: python scripts/bench_portrait4d.py [--size paper] [--device cpu] [--repeats 3] [--threads 2] [--batch 1]
       [--compile]

Plain: everything for every frame in float32, volume rendering in torch, the neck's field at every sample. Engine: what
`fourd reenact` runs, in float32 and bfloat16. Weights are random, which changes no time. Prints milliseconds a frame.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch

from fourdface.blocks.head_model import HeadModel
from fourdface.methods.portrait4d.alignment import motion_crop
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.engine import Engine, EngineOptions, Frame, neck_pose
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.priors.genhead.camera import frontal_label
from fourdface.priors.genhead.head import HeadGeometry

MATRIX = np.array([[0.437, 0.0, 0.0], [0.0, 0.437, 0.0]])
"""Picture of 512 pixels -> the 224 of the motion encoder."""


def best(call: Callable[[], object], repeats: int, device: str) -> float:
    """The shortest of `repeats` runs in milliseconds, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return min(times[1:])


def networks(size: str) -> tuple[Reconstructor, MotionEncoder]:
    """Both networks, with a density that is neither empty nor solid."""
    torch.manual_seed(0)
    network = Reconstructor(SIZES[size], HeadGeometry.from_head_model(HeadModel.load("open")))
    torch.nn.init.normal_(network.decoder.out_sigma.weight)
    return network.eval().requires_grad_(False), MotionEncoder().eval().requires_grad_(False)


@torch.inference_mode()
def plain(size: str, crop_u8: np.ndarray, turn: torch.Tensor, device: str, repeats: int) -> tuple[float, np.ndarray]:
    """Milliseconds and picture of the plain path."""
    network, encoder = networks(size)
    network, encoder, label = network.to(device), encoder.to(device), frontal_label().to(device)
    image = torch.from_numpy(crop_u8).to(device).permute(2, 0, 1)[None].float() / 127.5 - 1
    if network.deformer is None:
        raise ValueError("the networks have a head")
    pose = neck_pose(network.deformer.flame_deform, turn[None])

    def frame() -> torch.Tensor:
        source_motion = encoder(motion_crop(image, MATRIX)).embedding()
        motion = encoder(motion_crop(image.flip(3), MATRIX)).embedding()
        source = network.encode_source(image, source_motion)
        planes = network.planes(source, motion)
        warp = network.warp(pose)
        return network.render(planes, label, source.background, warp=warp, backend="reference").picture

    milliseconds = best(frame, repeats, device)
    return milliseconds, (frame()[0].permute(1, 2, 0) * 127.5 + 127.5).clamp(0, 255).cpu().numpy()


def engine(
    size: str, options: EngineOptions, crop_u8: np.ndarray, turn: torch.Tensor, repeats: int
) -> tuple[dict[str, float], Frame]:
    """Milliseconds of the steps of a reenacted frame, and the frame."""
    running, count, device = Engine(*networks(size), 1.0, options), options.batch, options.device
    flipped, labels, turns = np.ascontiguousarray(crop_u8[:, ::-1]), frontal_label(batch=count), turn.expand(count, -1)
    motion = running.motion(crop_u8, MATRIX)
    times = {"source (once)": best(lambda: running.encode(crop_u8, motion), 1, device)}
    source = running.adopt(running.encode(crop_u8, motion))
    motions = running.motion(flipped, MATRIX).expand(count, -1)
    planes = running.planes(source, motions)
    times["motion"] = best(lambda: running.motion(flipped, MATRIX), repeats, device)

    def render(made: torch.Tensor) -> list[Frame]:
        return running.render_all(made, source.background, labels, turns)

    def frames() -> list[Frame]:
        seen = torch.cat([running.motion(flipped, MATRIX) for _ in range(count)])
        return render(running.planes(source, seen))

    steps: dict[str, Callable[[], object]] = {
        "planes": lambda: running.planes(source, motions), "neck": lambda: running.warp(turns),
        "render, neck, super-resolution": lambda: render(planes), "frame": frames,
    }  # fmt: skip
    times |= {name: best(call, repeats, device) / count for name, call in steps.items()}
    return times, frames()[0]


def memory(device: str) -> float:
    """Most memory that was in use so far, in GB: of the GPU, or of the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="paper")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    side = SIZES[options.size].resolution
    crop_u8 = np.random.default_rng(0).integers(0, 256, (side // 8, side // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    turn = torch.tensor([0.1, 0.3, 0.0])
    before, truth = plain(options.size, crop_u8, turn, options.device, max(1, options.repeats - 1))
    print(f"plain eager, float32: {before:.0f}", flush=True)
    for precision in ("fp32", "bf16"):
        chosen = EngineOptions(precision, device=options.device, batch=options.batch, compile=options.compile)
        times, frame = engine(options.size, chosen, crop_u8, turn, options.repeats)
        steps = ", ".join(f"{name} {value:.0f}" for name, value in times.items())
        decibels = 10 * np.log10(255**2 / np.mean((frame.picture_u8.astype(np.float64) - truth) ** 2))
        speed = f"{before / times['frame']:.1f} times, {memory(options.device):.1f} GB at most"
        print(f"engine, {precision}: {steps}; {speed}; {decibels:.1f} dB", flush=True)


if __name__ == "__main__":
    main()
