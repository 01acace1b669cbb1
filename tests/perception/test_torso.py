"""The torso's motion: a textured body that is moved in the picture by a known similarity."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from fourdface.blocks.head_fitting import CAMERA_DISTANCE
from fourdface.perception.glimpse import Glimpse, glimpse_of
from fourdface.perception.torso import TorsoMotion, TorsoTracker, torso_in_world

SIZE = 192
FACE = np.array([[70.0, 20.0], [122.0, 92.0]])


def body(shift: tuple[float, float] = (0.0, 0.0), roll: float = 0.0, size: float = 1.0, light: float = 1.0):
    """Picture [H,W,3] and matte [H,W] of shoulders, moved about the picture's middle."""
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    x, y = (columns - SIZE / 2 - shift[0]) / size, (rows - SIZE / 2 - shift[1]) / size
    x, y = np.cos(roll) * x + np.sin(roll) * y, -np.sin(roll) * x + np.cos(roll) * y
    matte = 1 / (1 + np.exp((np.abs(x) - 55 - 0.8 * y) * 1.0)) * (y > -10)
    cloth = 120 + 50 * np.sin(x / 6) * np.cos(y / 8) + 25 * np.sin((x + y) / 11)
    grey = light * (matte * cloth + (1 - matte) * 200)
    return np.repeat(np.clip(grey, 0, 255).round().astype(np.uint8)[..., None], 3, 2), matte


def glimpse(**motion: object) -> Glimpse:
    return glimpse_of(body(**motion)[0], 120.0)  # type: ignore[arg-type]


def tracker() -> TorsoTracker:
    made = TorsoTracker(glimpse(), body()[1], FACE)
    assert made.usable
    return made


def moved(motion: TorsoMotion, point: np.ndarray) -> np.ndarray:
    turn = np.array([[np.cos(motion.roll), -np.sin(motion.roll)], [np.sin(motion.roll), np.cos(motion.roll)]])
    return motion.pivot + motion.shift + motion.size * turn @ (point - motion.pivot)


@pytest.mark.parametrize(
    ("shift", "roll", "size", "light"),
    [((0, 0), 0.0, 1.0, 1.0), ((4, -3), 0.0, 1.0, 1.0), ((0, 2), 0.05, 1.0, 0.8), ((0, 0), 0.0, 1.04, 1.0)],
)  # fmt: skip
def test_a_known_motion_is_found(shift: tuple[float, float], roll: float, size: float, light: float) -> None:
    made = tracker()
    for share in (0.5, 1.0, 1.0):
        found = made.step(
            glimpse(shift=tuple(share * np.array(shift)), roll=share * roll, size=size**share, light=light)
        )
    point = np.array([120.0, 150.0])
    offset = size * (point - SIZE / 2)
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    true = SIZE / 2 + np.array(shift) + turn @ offset
    np.testing.assert_allclose(moved(found, point), true, atol=0.6)


def test_something_else_in_front_keeps_the_last_motion() -> None:
    made = tracker()
    before = made.step(glimpse(shift=(2.0, 0.0)))
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((SIZE, SIZE)), 3)
    covered = np.repeat((255 * (noise > 0.5)).astype(np.uint8)[..., None], 3, 2)
    np.testing.assert_array_equal(made.step(glimpse_of(covered, 120.0)).shift, before.shift)


def test_no_torso_no_tracking() -> None:
    low_face = FACE + np.array([0, SIZE - FACE[1, 1] - 4])
    assert not TorsoTracker(glimpse(), body()[1], low_face).usable
    assert not TorsoTracker(glimpse(), np.zeros((SIZE, SIZE)), FACE).usable


def test_pixels_become_metres_at_the_neck() -> None:
    """The neck joint, moved in the world and projected again, is where the picture's motion takes its pixel."""
    focal, size, neck = 300.0, (SIZE, SIZE), np.array([0.03, -0.05, 0.2])
    motion = TorsoMotion(np.array([5.0, -4.0]), 0.1, 1.1, np.array([90.0, 110.0]))
    world = torso_in_world(motion, neck, focal, size)

    def project(point: np.ndarray) -> np.ndarray:
        return SIZE / 2 + focal * point[:2] * [1, -1] / (CAMERA_DISTANCE - point[2])

    np.testing.assert_allclose(project(neck + world[3:]), moved(motion, project(neck)), atol=1e-9)
    np.testing.assert_allclose(world[:3], [0, 0, -0.1])
    assert CAMERA_DISTANCE - (neck + world[3:])[2] == pytest.approx((CAMERA_DISTANCE - neck[2]) / 1.1)
