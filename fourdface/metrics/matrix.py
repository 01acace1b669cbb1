"""Multi-view scores of Coherent3D (equations 11-15): the score matrix S[t,i,j] and what is made of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MatrixScores:
    """synthesis: mean of S (eq. 12); novel_view: mean of i != j (eq. 13); nvv, ivv: variations (eqs. 14, 15)."""

    synthesis: float
    novel_view: float
    novel_view_variation: float
    input_view_variation: float


def matrix_scores(scores: np.ndarray) -> MatrixScores:
    """Scores from S [T,N,N]: frame, input camera i, output camera j (eq. 11); NaN where a pair was not measured.

    NVV: standard deviation over output cameras j of one row, mean over frames and rows (eq. 14); IVV: over input
    cameras i of one column, mean over frames and columns (eq. 15). Both with population deviations. Raises ValueError
    for another shape.
    """
    s = np.asarray(scores, dtype=np.float64)
    if s.ndim != 3 or s.shape[1] != s.shape[2]:
        raise ValueError(f"scores must be [T, N, N], got {list(s.shape)}")
    off = s[:, ~np.eye(s.shape[1], dtype=bool)]
    return MatrixScores(_mean(s), _mean(off), _mean(_deviation(s, 2)), _mean(_deviation(s, 1)))


def _mean(values: np.ndarray) -> float:
    numbers = values[np.isfinite(values)]
    return math.fsum(numbers.tolist()) / numbers.size if numbers.size else math.nan


def _deviation(s: np.ndarray, axis: int) -> np.ndarray:
    """Standard deviation over one axis of the measured entries; NaN where fewer than two were."""
    measured = np.isfinite(s)
    count = measured.sum(axis=axis)
    filled = np.where(measured, s, 0.0)
    mean = filled.sum(axis=axis) / np.maximum(count, 1)
    squares = np.where(measured, (s - np.expand_dims(mean, axis)) ** 2, 0.0).sum(axis=axis)
    return np.where(count >= 2, np.sqrt(squares / np.maximum(count, 1)), np.nan)
