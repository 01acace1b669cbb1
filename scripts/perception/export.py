"""Folds batch normalisation, rounds to float16 and writes the weights that ship."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from fourdface.perception.networks import DetectorNet, LandmarkNet, MatteNet, fuse

NETWORKS = {"detector": DetectorNet, "landmarks": LandmarkNet, "matte": MatteNet}
LIMIT = 8_000_000


def export(work: Path, output: Path) -> None:
    """The moving averages of WORK/NET.pt -> OUTPUT/perception.safetensors (float16)."""
    state: dict[str, torch.Tensor] = {}
    metadata = {"format": "fourd-perception", "version": "1"}
    for name, kind in NETWORKS.items():
        network = kind()
        checkpoint = work / f"{name}.pt"
        if checkpoint.exists():
            saved = torch.load(checkpoint, weights_only=True)
            network.load_state_dict(saved["mean"])
            metadata[f"{name}_steps"] = str(saved["step"])
        else:
            tqdm.write(f"{checkpoint} is missing: {name} is exported untrained")
        state.update({f"{name}.{key}": value.half().contiguous() for key, value in fuse(network).items()})
    if not all(bool(torch.isfinite(value).all()) for value in state.values()):
        raise ValueError("some weights are not finite in float16")
    output.mkdir(parents=True, exist_ok=True)
    path = output / "perception.safetensors"
    save_file(state, path, metadata=metadata)
    size = path.stat().st_size
    tqdm.write(f"{path}: {size} bytes, {sum(v.numel() for v in state.values())} numbers")
    if size > LIMIT:
        raise ValueError(f"{path} has {size} bytes, more than {LIMIT}")
