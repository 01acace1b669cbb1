"""Joints and skinning weights, read off the source's own jaw motion and off the shape of the neck."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix, diags
from scipy.spatial.transform import Rotation

from open_head.sources import edges_of

NECK_JOINT = np.array([0.0, -5.2, -1.3])
"""In source units: behind the jaw, some centimetres below the ear lobes, where the neck starts to bend."""


def fit_jaw_axis(points: np.ndarray, moved: np.ndarray) -> tuple[np.ndarray, float]:
    """The axis along x and the angle that best carry the lower teeth [n, 3] to their place in jawOpen [n, 3].

    Returns:
        A point [3] on the axis (x = 0) and the angle in radians (positive opens).
    """

    def error(parameters: np.ndarray) -> float:
        y, z, angle = parameters
        origin = np.array([0.0, y, z])
        turned = Rotation.from_rotvec([angle, 0, 0]).apply(points - origin) + origin
        return float(((turned - moved) ** 2).sum(1).mean())

    best = minimize(
        error,
        np.array([0.0, 0.5, 0.35]),
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-12, "maxiter": 4000},
    )
    y, z, angle = best.x
    return np.array([0.0, y, z]), float(angle)


def smooth(values: np.ndarray, faces: np.ndarray, count: int, fixed: np.ndarray, rounds: int = 10) -> np.ndarray:
    """Average vertex values [n] over neighbours, keeping those under `fixed` [n]."""
    e = edges_of(faces)[0]
    both = np.concatenate([e, e[:, ::-1]])
    graph = csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(count, count))
    graph = diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph
    for _ in range(rounds):
        values = np.where(fixed, values, 0.5 * values + 0.5 * (graph @ values))
    return values


def jaw_weight(rest: np.ndarray, jaw_open: np.ndarray, axis: np.ndarray, angle: float) -> np.ndarray:
    """How far each vertex [n] follows the jaw: its jawOpen displacement as a part of the full rotation's."""
    full = Rotation.from_rotvec([angle, 0, 0]).apply(rest - axis) + axis - rest
    weight = (full * jaw_open).sum(1) / np.maximum((full * full).sum(1), 1e-9)
    return np.clip(weight, 0, 1)


def smoothstep(x: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, C2 between."""
    x = np.clip(x, 0, 1)
    return x * x * x * (x * (6 * x - 15) + 10)


def regressor(points: np.ndarray, subset: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Smallest weights [n] on a subset (bool [n]) that sum to one and carry the points [n, 3] to `target` [3]."""
    chosen = np.flatnonzero(subset)
    a = np.vstack([points[chosen].T, np.ones(len(chosen))])
    start = np.full(len(chosen), 1 / len(chosen))
    weights = np.zeros(len(points))
    weights[chosen] = start + np.linalg.pinv(a) @ (np.append(target, 1.0) - a @ start)
    return weights
