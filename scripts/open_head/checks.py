"""Checks of a head model that need nothing but the model: eyelids against eyeballs, lips against teeth, closedness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from fourdface.blocks.head_model import HeadModel

INSIDE_TRIANGLE = np.array([(a, b, 4 - a - b) for a in range(5) for b in range(5 - a)]) / 4


def evaluate(model: HeadModel, shape: torch.Tensor | None = None, jaw: float = 0.0, **expression: float) -> np.ndarray:
    """Vertices [V, 3] in metres, float64, of an identity [S] with named expressions and a jaw angle in radians."""
    coefficients = torch.zeros(1, model.expression_count)
    for name, value in expression.items():
        coefficients[0, model.expression_names.index(name)] = value
    turn = torch.tensor([[jaw, 0.0, 0.0]])
    with torch.no_grad():
        return model(None if shape is None else shape[None], coefficients, jaw=turn)[0].double().numpy()


def lid_clearance(model: HeadModel, vertices: np.ndarray, side: str) -> float:
    """Least distance in metres of the lid's skin (points within the triangles) from the eyeball's sphere."""
    regions = {k: v.numpy() for k, v in model.regions.items()}
    faces = model.faces.numpy()
    ball = vertices[regions[f"eyeball_{side}"]]
    center = 0.5 * (ball[0] + ball[-1])
    radius = float(np.linalg.norm(ball - center, axis=1).mean())
    lid = regions["eyelids"]
    mine = faces[lid[faces].all(1) & ~regions["eye_sockets"][faces].any(1)]
    points = np.einsum("kc,fcd->fkd", INSIDE_TRIANGLE, vertices[mine]).reshape(-1, 3)
    near = (points[:, 0] > 0) == (center[0] > 0)
    return float(np.linalg.norm(points[near] - center, axis=1).min() - radius)


def winding_number(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Generalized winding numbers [n] of a closed mesh around points [n, 3] (van Oosterom and Strackee, 1983)."""
    total = np.zeros(len(points))
    for chunk in np.array_split(np.arange(len(points)), max(1, len(points) // 64)):
        a, b, c = (vertices[faces[:, k]][None] - points[chunk][:, None] for k in range(3))
        la, lb, lc = (np.linalg.norm(x, axis=2) for x in (a, b, c))
        top = np.einsum("pfd,pfd->pf", a, np.cross(b, c))
        bottom = la * lb * lc + (a * b).sum(2) * lc + (b * c).sum(2) * la + (c * a).sum(2) * lb
        total[chunk] = 2 * np.arctan2(top, bottom).sum(1) / (4 * np.pi)
    return total


def lips_in_teeth(model: HeadModel, vertices: np.ndarray) -> float:
    """How deep in metres the lips' vertices lie inside the teeth (0 where none does)."""
    regions = {k: v.numpy() for k, v in model.regions.items()}
    faces = model.faces.numpy()
    teeth = regions["teeth_upper"] | regions["teeth_lower"]
    tooth_faces = faces[teeth[faces].all(1)]
    lips = vertices[regions["lips"]]
    inside = lips[winding_number(lips, vertices, tooth_faces) > 0.5]
    if not len(inside):
        return 0.0
    from open_head.remesh import closest_on_triangles

    corners = vertices[tooth_faces]
    p = np.broadcast_to(inside[:, None], (len(inside), len(corners), 3))
    c = np.broadcast_to(corners[None], (len(inside), *corners.shape))
    weights = closest_on_triangles(p, c[..., 0, :], c[..., 1, :], c[..., 2, :])
    return float(np.linalg.norm((weights[..., None] * c).sum(-2) - p, axis=-1).min(1).max())


def boundary_edges(faces: np.ndarray) -> tuple[np.ndarray, int]:
    """Edges [K, 2] that only one face uses, and how many edges more than two faces use."""
    e = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    unique, count = np.unique(e, axis=0, return_counts=True)
    return unique[count == 1], int((count > 2).sum())
