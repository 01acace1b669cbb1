"""Camera paths around a head: orbit, turntable, and paths read from JSON. OpenCV axes, world y up."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from ..errors import FourdError


@dataclass(frozen=True)
class CameraPose:
    """world_to_camera [4,4]; intrinsics [3,3] pixels; width, height in pixels."""

    world_to_camera: np.ndarray
    intrinsics: np.ndarray
    width: int
    height: int


def turned_about(camera: CameraPose, centre: np.ndarray, yaw: float, pitch: float = 0.0) -> CameraPose:
    """The camera moved on a sphere about `centre` [3], still looking the same way at it.

    yaw, pitch in radians: positive yaw goes to the camera's right (the subject's left), positive pitch goes up.
    """
    rotation, offset = camera.world_to_camera[:3, :3], camera.world_to_camera[:3, 3]
    position = -rotation.T @ offset
    right = rotation[0]
    up = np.array([0.0, 1.0, 0.0])
    turn = _rotation_about(up, yaw) @ _rotation_about(right, -pitch)
    moved = centre + turn @ (position - centre)
    turned = rotation @ turn.T
    matrix = np.eye(4)
    matrix[:3, :3] = turned
    matrix[:3, 3] = -turned @ moved
    return CameraPose(matrix, camera.intrinsics, camera.width, camera.height)


def _rotation_about(axis: np.ndarray, angle: float) -> np.ndarray:
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def orbit_angles(frames: int, yaw_degrees: float, pitch_degrees: float = 0.0) -> np.ndarray:
    """Yaw and pitch [frames,2] in radians of one closed sweep: left, right and back, on a flat ellipse."""
    phase = np.arange(frames) * 2 * np.pi / max(frames, 1)
    return np.radians(np.stack([yaw_degrees * np.sin(phase), pitch_degrees * np.sin(2 * phase)], 1))


def turntable_angles(frames: int) -> np.ndarray:
    """Yaw and pitch [frames,2] in radians of one full turn."""
    phase = np.arange(frames) * 2 * np.pi / max(frames, 1)
    return np.stack([phase, np.zeros_like(phase)], 1)


def cameras_from_json(text: str, name: str, width: int, height: int) -> list[CameraPose]:
    """Cameras of a JSON list of {world_to_camera [4][4], intrinsics [3][3], width?, height?}.

    `name` stands for the file in errors. Raises FourdError in one sentence.
    """
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise FourdError(f"{name}: not valid JSON ({error}); give a list of cameras, see docs/conventions.md") from None
    if not isinstance(entries, list) or not entries:
        raise FourdError(f"{name}: expected a non-empty JSON list of cameras, got {type(entries).__name__}")
    return [_camera(entry, k, name, width, height) for k, entry in enumerate(entries)]


def _camera(entry: object, k: int, name: str, width: int, height: int) -> CameraPose:
    try:
        if not isinstance(entry, dict):
            raise TypeError("not an object")
        matrix = np.asarray(entry["world_to_camera"], np.float64)
        intrinsics = np.asarray(entry["intrinsics"], np.float64)
        size = int(entry.get("width", width)), int(entry.get("height", height))
    except (KeyError, TypeError, ValueError) as error:
        raise FourdError(f"{name}: camera {k} needs world_to_camera and intrinsics as numbers ({error})") from None
    if matrix.shape != (4, 4) or intrinsics.shape != (3, 3):
        raise FourdError(
            f"{name}: camera {k} has world_to_camera {matrix.shape} and intrinsics {intrinsics.shape}, "
            "expected (4, 4) and (3, 3)"
        )
    if not (np.isfinite(matrix).all() and np.isfinite(intrinsics).all()):
        raise FourdError(f"{name}: camera {k} has numbers that are not finite")
    rotation = matrix[:3, :3]
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) or np.linalg.det(rotation) < 0:
        raise FourdError(f"{name}: camera {k}: world_to_camera is no rigid transform; its upper 3x3 must be a rotation")
    if not (intrinsics[0, 0] > 0 and intrinsics[1, 1] > 0 and np.allclose(intrinsics[[0, 1, 2, 2], [1, 0, 0, 1]], 0)):
        raise FourdError(
            f"{name}: camera {k}: intrinsics must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] in pixels with fx, fy > 0"
        )
    if not (0 < size[0] <= 8192 and 0 < size[1] <= 8192):
        raise FourdError(f"{name}: camera {k} is {size[0]}x{size[1]}, and 1 to 8192 pixels a side are possible")
    return CameraPose(matrix, intrinsics, *size)
