"""Cameras for training pictures: the paper's random ones, and such as a portrait crop has.

The head stands still at the world's origin and looks along +z; the camera carries the head's pose.
"""

from __future__ import annotations

import numpy as np

from ...priors.genhead.camera import FOCAL, camera_from_label
from ...priors.genhead.camera_ranges import random_labels

ORBIT = np.array([0.0, 0.068, 0.058])
"""Where the published head model's neck joint, about which its cameras turn, lies in the open head, metres: at the same
place before the face. The open head's own joint is further down and back."""
YAW, PITCH, ROLL = (0.26, 0.60), (0.13, 0.35), (0.07, 0.20)
"""Standard deviation and limit in radians of how heads stand in portraits."""


def intrinsics_of(size: int) -> np.ndarray:
    """Camera matrix [3,3] in pixels of a square picture with Portrait4D's field of view of 12 degrees."""
    return np.array([[FOCAL * size, 0, size / 2], [0, FOCAL * size, size / 2], [0, 0, 1]])


def random_camera(rng: np.random.Generator) -> np.ndarray:
    """world_to_camera [4,4] drawn from the paper's ranges: yaw to 45 degrees, distance 1.22 to 1.48 metres."""
    world_to_camera, _ = camera_from_label(random_labels(rng, 1), 1, 1)
    matrix = np.array(world_to_camera[0].numpy())
    matrix[:3, 3] -= matrix[:3, :3] @ ORBIT
    return matrix


def portrait_rotation(rng: np.random.Generator) -> np.ndarray:
    """Rotation [3,3] of a head in a portrait: mostly frontal, yaw to 34, pitch to 20, roll to 11 degrees."""
    yaw, pitch, roll = (float(np.clip(rng.normal(0, sigma), -most, most)) for sigma, most in (YAW, PITCH, ROLL))
    return _about(2, roll) @ _about(0, pitch) @ _about(1, yaw)


def _about(axis: int, angle: float) -> np.ndarray:
    """Rotation [3,3] about a coordinate axis."""
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = np.cos(angle)
    matrix[j, i], matrix[i, j] = np.sin(angle), -np.sin(angle)
    return matrix
