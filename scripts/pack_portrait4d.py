"""Make an asset that ships out of a trained reconstructor: half precision, its settings, nothing else.

Usage: python scripts/pack_portrait4d.py RUN/weights.safetensors fourdface/assets/files/portrait4d_v2_tiny.safetensors

To ship it: an entry of class `embedded` in fourdface/assets/registry.yaml with the id that `weights.METHODS` names
(portrait4d-static-tiny, portrait4d-v2-tiny; bytes and sha256 null), `python scripts/pin_assets.py`, and a card in
docs/models/. `fourd lift --method lp3d` or `portrait4d-v2` then takes it where the published weights are missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from fourdface.errors import FourdError
from fourdface.methods.portrait4d.weights import load_reconstructor, packed

LARGEST = 16_000_000
"""Bytes that such a file may have."""


def pack(source: Path, target: Path) -> int:
    """Write `target` and return its size in bytes. FourdError for weights that are not finite in half precision."""
    network, _ = load_reconstructor(source)
    state, metadata = packed(network)
    half = {name: value.to(torch.float16).contiguous() for name, value in state.items()}
    if bad := [name for name, value in half.items() if not torch.isfinite(value).all()]:
        raise FourdError(f"{source}: {bad[0]} is not finite in half precision; train with a smaller learning rate")
    save_file(half, str(target), metadata=metadata)
    size = target.stat().st_size
    if size > LARGEST:
        raise FourdError(f"{target} has {size} bytes, and {LARGEST} may be shipped; take a smaller network")
    return size


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
