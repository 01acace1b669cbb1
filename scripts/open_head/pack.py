"""Write the head as one deterministic safetensors file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

MOVES = 5e-6
"""Metres below which an expression displacement is not stored."""


def sparse_expressions(basis: np.ndarray) -> dict[str, np.ndarray]:
    """Only the vertices that move: offsets [E + 1], vertices [K], deltas [K, 3] of modes [E, V, 3] in metres."""
    moved = [np.flatnonzero(np.abs(mode).max(1) > MOVES) for mode in basis]
    offsets = np.concatenate([[0], np.cumsum([len(m) for m in moved])])
    return {
        "expression_offsets": offsets.astype(np.int32),
        "expression_vertices": np.concatenate(moved).astype(np.uint16),
        "expression_deltas": np.concatenate([b[m] for b, m in zip(basis, moved, strict=True)]).astype(np.float16),
    }


def write_head(
    path: Path,
    arrays: dict[str, np.ndarray],
    expression_names: tuple[str, ...],
    regions: dict[str, np.ndarray],
    sources: dict[str, str],
) -> None:
    """Write the file that `fourdface.blocks.head_model.decode_open_head` reads."""
    from safetensors.numpy import save

    data = {k: v for k, v in arrays.items() if k != "expression_basis"} | sparse_expressions(arrays["expression_basis"])
    data["region_bits"] = np.packbits(np.stack(list(regions.values())), axis=1)
    names = {"expression": list(expression_names), "regions": list(regions)}
    content = {"name": "open", "version": 1, "names": names, "sources": sources}
    # One entry only: safetensors writes several in random order, and the build has to repeat its bytes.
    metadata = {"fourd_head": json.dumps(content, sort_keys=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save({k: np.ascontiguousarray(v) for k, v in sorted(data.items())}, metadata=metadata))
