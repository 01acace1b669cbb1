"""MediaPipe's 478 points on the head."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from open_head import eyeballs
from open_head.assemble import Head, attach


def dense(head: Head, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Faces [478] and barycentrics [478, 3]: 468 stored points (source units) on the skin, irises on the eyeballs."""
    points = np.array(json.loads(path.read_text())["points"])
    faces, weights = attach(head, points)
    iris_faces, iris_weights = iris_points(head)
    return np.concatenate([faces, iris_faces]), np.concatenate([weights, iris_weights])


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
