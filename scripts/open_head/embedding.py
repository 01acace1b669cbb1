"""MediaPipe's 478 points on the head: found on renders, stored as points on the mean head, attached in the build."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from open_head import eyeballs
from open_head.assemble import Head
from open_head.remesh import closest_on_triangles


def dense(head: Head, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Faces [478] and barycentrics [478, 3]: 468 stored points on the skin, irises on the eyeballs.

    The stored points are source units from the source's origin; `lower` tells which belong to the lower lip.
    """
    stored = json.loads(path.read_text())
    points, lower = np.array(stored["points"]), np.array(stored["lower"], bool)
    faces, weights = attach_visible(head, points, lower)
    iris_faces, iris_weights = iris_points(head)
    return np.concatenate([faces, iris_faces]), np.concatenate([weights, iris_weights])


def attach_visible(head: Head, points: np.ndarray, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Nearest visible skin for points [K, 3]; near the lips only the point's own lip counts."""
    hidden = head.mask("bag", "socket_left", "socket_right")
    skin = head.mask("skin")[head.faces].all(1) & ~hidden[head.faces].any(1)
    centre = head.template[head.faces].mean(1)
    rim = head.template[head.labels["lip_rim"]]
    line = np.interp(np.abs(centre[:, 0]), *_lip_line(rim))
    near_mouth = (np.abs(centre[:, 0]) < rim[:, 0].max()) & (centre[:, 2] > 8) & (np.abs(centre[:, 1] + 3.4) < 2.5)
    out_faces, out_weights = np.zeros(len(points), int), np.zeros((len(points), 3))
    for is_lower in (False, True):
        allowed = skin & ~(near_mouth & ((centre[:, 1] < line) != is_lower))
        mine = np.flatnonzero(allowed)
        chosen = np.flatnonzero(lower == is_lower)
        c = head.template[head.faces[mine]]
        for k in chosen:
            p = np.broadcast_to(points[k], (len(mine), 3))
            near = np.argsort(np.linalg.norm(centre[mine] - points[k], axis=1), kind="stable")[:60]
            w = closest_on_triangles(p[near], c[near, 0], c[near, 1], c[near, 2])
            best = int(np.linalg.norm((w[..., None] * c[near]).sum(1) - points[k], axis=1).argmin())
            out_faces[k], out_weights[k] = mine[near[best]], w[best]
    return out_faces, out_weights


def _lip_line(rim: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Height of the line between the lips over |x|: x ascending, y."""
    x = np.linspace(0, rim[:, 0].max(), 12)
    y = [0.5 * (rim[near, 1].max() + rim[near, 1].min()) for near in (np.abs(np.abs(rim[:, 0]) - v) < 0.25 for v in x)]
    return x, np.array(y)


def iris_points(head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Centre and four rim points of the right, then the left iris: faces [10], barycentrics [10, 3].

    MediaPipe's order on the rim: towards the picture's right, up, left, down (centre first).
    """
    faces, weights = [], []
    quarter = eyeballs.SEGMENTS // 4
    for side in ("right", "left"):
        start = head.spans[f"eyeball_{side}"].start
        ring = start + 1 + eyeballs.LIMBUS_RING * eyeballs.SEGMENTS
        for vertex in (start, ring, ring + quarter, ring + 2 * quarter, ring + 3 * quarter):
            face = int(np.flatnonzero((head.faces == vertex).any(1))[0])
            faces.append(face)
            weights.append((head.faces[face] == vertex).astype(float))
    return np.array(faces), np.array(weights)
