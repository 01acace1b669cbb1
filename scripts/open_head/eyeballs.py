"""Eyeballs: spheres of our own, placed by a fit to the source's scleras in the neutral and in every identity mode."""

from __future__ import annotations

import numpy as np

from open_head.sources import VERTICES, Ict

# Angle from the optical axis of each ring, degrees: pupil, inner iris, limbus (iris rim), then the sclera.
RINGS = (7.5, 15.5, 23.0, 27.5, 33.0, 40.0, 48.0, 57.0, 68.0, 82.0, 100.0, 125.0, 152.0)
PUPIL_RING, LIMBUS_RING = 0, 2
SEGMENTS = 24
SHRINK = 0.05
"""The sphere through the source's sclera touches the lids; ours is smaller by this (source units), since lids that move
along straight lines cut the corner of the sphere by up to travel^2 / (8 radius)."""


def unit_eyeball() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit sphere, poles on z: vertices [n, 3] (front pole first, back pole last), faces [m, 3], ring index [n]."""
    angle = 2 * np.pi * np.arange(SEGMENTS) / SEGMENTS
    points, ring = [np.array([[0.0, 0.0, 1.0]])], [np.array([-1])]
    for k, degrees in enumerate(RINGS):
        s, c = np.sin(np.deg2rad(degrees)), np.cos(np.deg2rad(degrees))
        points.append(np.stack([s * np.cos(angle), s * np.sin(angle), np.full(SEGMENTS, c)], 1))
        ring.append(np.full(SEGMENTS, k))
    points.append(np.array([[0.0, 0.0, -1.0]]))
    ring.append(np.array([len(RINGS)]))
    faces, last = [], 1 + len(RINGS) * SEGMENTS
    for i in range(SEGMENTS):
        j = (i + 1) % SEGMENTS
        faces.append([0, 1 + i, 1 + j])
        for k in range(len(RINGS) - 1):
            a, b = 1 + k * SEGMENTS, 1 + (k + 1) * SEGMENTS
            faces += [[a + i, b + i, b + j], [a + i, b + j, a + j]]
        a = 1 + (len(RINGS) - 1) * SEGMENTS
        faces.append([a + i, last, a + j])
    return np.concatenate(points), np.array(faces), np.concatenate(ring)


def mirror_eyeball() -> np.ndarray:
    """Vertex permutation [n] of the mirror x -> -x of the unit eyeball."""
    turn = (SEGMENTS // 2 - np.arange(SEGMENTS)) % SEGMENTS
    blocks = [1 + k * SEGMENTS + turn for k in range(len(RINGS))]
    return np.concatenate([[0], *blocks, [1 + len(RINGS) * SEGMENTS]])


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the least-squares sphere through points [n, 3]."""
    a = np.c_[2 * points, np.ones(len(points))]
    solution = np.linalg.lstsq(a, (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


class EyeFit:
    """Sphere of one eye of the source, and how it follows the source's morphs."""

    def __init__(self, ict: Ict, side: str) -> None:
        first, end = VERTICES[f"sclera_{side}"]
        points = ict.neutral[first:end]
        sclera = points[:, 2] < points[:, 2].min() + 0.68 * np.ptp(points[:, 2])  # without the bulge of the cornea
        self.index = first + np.flatnonzero(sclera)
        self.arm = ict.neutral[self.index]
        self.center, self.radius = fit_sphere(self.arm)
        self.arm = self.arm - self.center
        self.radius -= SHRINK

    def follow(self, delta: np.ndarray) -> tuple[np.ndarray, float]:
        """Shift [3] of the centre and change of the radius for source displacements [N, 3], by least squares."""
        moved = delta[self.index]
        mean_arm, mean_move = self.arm.mean(0), moved.mean(0)
        arm = self.arm - mean_arm
        scale = float((arm * (moved - mean_move)).sum() / (arm * arm).sum())
        return mean_move - scale * mean_arm, scale * self.radius
