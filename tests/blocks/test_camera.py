"""Camera paths: geometry of turns, closed sweeps, and files with cameras."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdface.blocks.camera import CameraPose, cameras_from_json, orbit_angles, turned_about, turntable_angles
from fourdface.blocks.head_fitting import tracking_world_to_camera
from fourdface.errors import FourdError

CENTRE = np.array([0.05, 0.02, 0.1])
BASE = CameraPose(tracking_world_to_camera(), np.array([[500.0, 0, 256], [0, 500.0, 256], [0, 0, 1]]), 512, 512)


def position(camera: CameraPose) -> np.ndarray:
    """Where the camera stands in the world [3]."""
    return -camera.world_to_camera[:3, :3].T @ camera.world_to_camera[:3, 3]


def seen(camera: CameraPose, point: np.ndarray) -> np.ndarray:
    """A world point in camera axes [3]."""
    return camera.world_to_camera[:3, :3] @ point + camera.world_to_camera[:3, 3]


@given(st.floats(-7, 7), st.floats(-1.4, 1.4))
@settings(max_examples=50, deadline=None)
def test_a_turn_keeps_the_centre_in_place(yaw: float, pitch: float) -> None:
    """Distance to the centre and its pixel stay the same, and the camera stays a rigid transform."""
    turned = turned_about(BASE, CENTRE, yaw, pitch)
    rotation = turned.world_to_camera[:3, :3]
    assert np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9) and np.linalg.det(rotation) == pytest.approx(1)
    assert np.allclose(seen(turned, CENTRE), seen(BASE, CENTRE), atol=1e-9)
    assert np.linalg.norm(position(turned) - CENTRE) == pytest.approx(np.linalg.norm(position(BASE) - CENTRE))
    assert (turned.width, turned.height) == (512, 512)
    assert np.array_equal(turned.intrinsics, BASE.intrinsics)


def test_directions_of_yaw_and_pitch() -> None:
    """+yaw: to the camera's right, which shows the subject's left; +pitch: up. The horizon stays level under yaw."""
    right = position(turned_about(BASE, CENTRE, 0.5)) - position(BASE)
    assert right[0] > 0.1 and abs(right[1]) < 1e-12
    assert position(turned_about(BASE, CENTRE, 0.0, 0.5))[1] > 0.1
    assert np.allclose(turned_about(BASE, CENTRE, 0.7).world_to_camera[:3, :3] @ [0, 1, 0], [0, -1, 0])


def test_no_turn_and_a_full_turn_are_the_same_camera() -> None:
    for yaw in (0.0, 2 * np.pi):
        assert np.allclose(turned_about(BASE, CENTRE, yaw).world_to_camera, BASE.world_to_camera, atol=1e-12)


def test_a_quarter_turn_looks_from_the_side() -> None:
    turned = turned_about(BASE, np.zeros(3), np.pi / 2)
    assert np.allclose(position(turned), [1, 0, 0], atol=1e-12)
    assert np.allclose(seen(turned, np.array([0.2, 0, 0])), [0, 0, 0.8], atol=1e-12)


def test_orbit_is_a_closed_sweep_of_the_asked_width() -> None:
    angles = np.degrees(orbit_angles(100, 30, 10))
    assert angles.shape == (100, 2)
    assert np.allclose(angles[0], 0) and angles[:, 0].max() == pytest.approx(30, abs=0.1)
    assert angles[:, 0].min() == pytest.approx(-30, abs=0.1)
    assert np.abs(angles[:, 1]).max() == pytest.approx(10, abs=0.1)
    steps = np.abs(np.diff(np.vstack([angles, angles[:1]]), axis=0)).max()  # the last frame leads back to the first
    assert steps < 2.5


def test_turntable_goes_round_once_in_equal_steps() -> None:
    angles = turntable_angles(36)
    assert np.allclose(np.diff(angles[:, 0]), np.radians(10)) and np.allclose(angles[:, 1], 0)
    assert angles[-1, 0] == pytest.approx(np.radians(350))


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_short_paths(frames: int) -> None:
    assert orbit_angles(frames, 30).shape == turntable_angles(frames).shape == (frames, 2)


def entry(**changes: object) -> dict[str, object]:
    values = {"world_to_camera": BASE.world_to_camera.tolist(), "intrinsics": BASE.intrinsics.tolist()}
    return values | changes


def test_cameras_are_read_with_their_size_or_the_default() -> None:
    cameras = cameras_from_json(json.dumps([entry(), entry(width=200, height=100)]), "c.json", 64, 48)
    assert [(c.width, c.height) for c in cameras] == [(64, 48), (200, 100)]
    assert np.allclose(cameras[0].world_to_camera, BASE.world_to_camera)
    assert np.allclose(cameras[1].intrinsics, BASE.intrinsics)


BAD = {
    "no json": "{",
    "empty": "[]",
    "an object": "{}",
    "a number": "7",
    "no objects": "[1]",
    "nothing in it": "[{}]",
    "words": json.dumps([entry(world_to_camera="here")]),
    "ragged": json.dumps([entry(world_to_camera=[[1, 2], [3]])]),
    "3x4": json.dumps([entry(world_to_camera=BASE.world_to_camera[:3].tolist())]),
    "4x4 intrinsics": json.dumps([entry(intrinsics=np.eye(4).tolist())]),
    "not finite": json.dumps([entry(world_to_camera=(np.eye(4) * np.nan).tolist())]),
    "intrinsics not finite": json.dumps([entry(intrinsics=np.full((3, 3), np.inf).tolist())]),
    "focal zero": json.dumps([entry(intrinsics=np.diag([0.0, 0, 1]).tolist())]),
    "skewed": json.dumps([entry(intrinsics=(np.eye(3) + np.eye(3, k=1)).tolist())]),
    "scaled": json.dumps([entry(world_to_camera=(2 * np.eye(4)).tolist())]),
    "mirrored": json.dumps([entry(world_to_camera=np.diag([-1.0, 1, 1, 1]).tolist())]),
    "no size": json.dumps([entry(width=0)]),
    "too large": json.dumps([entry(height=100000)]),
    "null width": json.dumps([entry(width=None)]),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_wrong_files_get_one_sentence(text: str) -> None:
    with pytest.raises(FourdError) as caught:
        cameras_from_json(text, "path.json", 64, 64)
    message = str(caught.value)
    assert message.startswith("path.json:") and "\n" not in message and len(message) < 250
