"""One training loop for the three networks: AdamW, cosine over wall-clock time, moving average, resumable."""

from __future__ import annotations

import copy
import os
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

CHECKPOINT_SECONDS = 120.0
FIGURES_SECONDS = 480.0  # measuring takes a noticeable share of a slow machine
WARM_UP_STEPS = 200
AVERAGE_DECAY = 0.9985


def _task(net: str, work: Path, masks: list[Path]) -> Any:
    if net == "landmarks":
        from perception.landmark_train import LandmarkTask

        return LandmarkTask(work)
    if net == "detector":
        from perception.detector_train import DetectorTask

        return DetectorTask(work)
    from perception.matte_train import MatteTask

    return MatteTask(work, masks)


def _average(mean: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for a, b in zip(mean.state_dict().values(), network.state_dict().values(), strict=True):
            if a.dtype.is_floating_point:
                a.lerp_(b, 1 - decay)
            else:
                a.copy_(b)


def _save(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(
    net: str, work: Path, minutes: float, batch: int, rate: float, threads: int, fresh: bool, masks: list[Path]
) -> None:
    """Train `net` until `minutes` of training (earlier runs included) are used; checkpoints to WORK/NET.pt."""
    torch.set_num_threads(threads)
    task = _task(net, work, masks)
    network = task.network.to(memory_format=torch.channels_last).train()
    mean = copy.deepcopy(network)
    decay = [p for p in network.parameters() if p.ndim >= 2]
    others = [p for p in network.parameters() if p.ndim < 2]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.99))
    path, step, spent = work / f"{net}.pt", 0, 0.0
    if path.exists() and not fresh:
        state = torch.load(path, weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        step, spent = state["step"], state["spent"]
    else:
        task.start()
        mean.load_state_dict(network.state_dict())
    began = saved = measured = time.monotonic()
    sums: dict[str, float] = {"_from": float(step)}
    while True:
        used = spent + time.monotonic() - began
        progress = min(1.0, used / (minutes * 60))
        for group in optimizer.param_groups:
            group["lr"] = (
                rate
                * min(1.0, (step + 1) / WARM_UP_STEPS)
                * (0.5 + 0.5 * float(torch.cos(torch.tensor(progress * torch.pi))))
            )
        values = task.batch(batch)
        with torch.autocast("cpu", torch.bfloat16):
            terms = task.loss(network, values)
        total = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        if torch.isfinite(total):
            optimizer.step()
        step += 1
        _average(mean, network, min(AVERAGE_DECAY, (1 + step) / (10 + step)))
        for name, value in terms.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach())
        if time.monotonic() - saved > CHECKPOINT_SECONDS or progress >= 1.0:
            saved = time.monotonic()
            state = {"network": network.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict()}
            _save(path, {**state, "step": step, "spent": used})
            count = max(1, step - int(sums.pop("_from", 0)))
            line = " ".join(f"{name} {value / count:.4f}" for name, value in sums.items())
            figures = ""
            if saved - measured > FIGURES_SECONDS or progress >= 1.0:
                measured = saved
                figures = " ".join(f"{name} {value:.4f}" for name, value in task.figures(mean).items())
            rate_now = optimizer.param_groups[0]["lr"]
            tqdm.write(f"{net} {used / 60:.1f} min step {step} lr {rate_now:.5f} | {line} | {figures}")
            sums = {"_from": float(step)}
            if progress >= 1.0:
                return
            if task.refresh():
                tqdm.write("shards were added: data reloaded")
