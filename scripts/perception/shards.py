"""Reads the shards that scripts/perception/label.py wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FACE_COLUMNS = ("crops", "landmarks", "coefficients", "rotation", "held_out", "group")
SCENE_COLUMNS = ("scenes", "alpha", "extent", "scene_landmarks", "scene_held_out", "scene_group")


def finished_shards(work: Path) -> list[Path]:
    """Folders of finished shards, by name."""
    return sorted(p for p in (work / "shards").iterdir() if (p / "done").exists())


def load_columns(shards: list[Path], columns: tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    """The named columns of all shards joined, and `source`: the index of the shard of each row."""
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*columns, "source")}
    for index, shard in enumerate(shards):
        if not (shard / f"{columns[0]}.npy").exists():
            continue
        for name in columns:
            parts[name].append(np.load(shard / f"{name}.npy"))
        parts["source"].append(np.full(len(parts[columns[0]][-1]), index))
    return {name: np.concatenate(values) for name, values in parts.items()}


def mirror_permutation(landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Index [478] of each landmark's mirror image, from landmarks [n,478,2] in roll-normalised crop coordinates.

    The mean shape of many faces and its mirror image are matched one to one.
    """
    from scipy.optimize import linear_sum_assignment

    mean = landmarks.mean(axis=0)
    middle = mean[:, 0].mean()
    mirrored = mean * [-1, 1] + [2 * middle, 0]
    cost = np.square(mean[:, None] - mirrored[None]).sum(axis=2)
    cost[:468, 468:] = cost[468:, :468] = 1e3  # irises only match irises
    permutation = linear_sum_assignment(cost)[1]
    if not np.array_equal(permutation[permutation], np.arange(len(permutation))):
        raise ValueError("the landmarks' mean shape is not symmetric enough to find mirrored pairs")
    return permutation


def mirrored_coefficients() -> npt.NDArray[np.int64]:
    """Index [52] that swaps left and right in a coefficient vector."""
    from fourdface.blocks.arkit import ARKIT_INDEX, ARKIT_NAMES

    def other(name: str) -> str:
        if name.endswith("Left"):
            return name[:-4] + "Right"
        return name[:-5] + "Left" if name.endswith("Right") else name

    return np.array([ARKIT_INDEX[other(name)] for name in ARKIT_NAMES])
