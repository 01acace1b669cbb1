"""Crops: definition, invariance to roll, and round trips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdface.perception import geometry


def face_points(seed: int = 0) -> np.ndarray:
    """A cloud of 478 points with eyes, forehead and chin where a frontal face has them; 200 px wide."""
    random = np.random.default_rng(seed)
    points = random.uniform([-100, -120], [100, 120], (478, 2))
    points[geometry.EYE_OUTER_RIGHT] = (-60, -30)
    points[geometry.EYE_OUTER_LEFT] = (60, -30)
    points[geometry.FOREHEAD] = (0, -125)
    points[geometry.CHIN] = (0, 125)
    return (points + np.array([300, 260])).astype(np.float32)


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((points - [300, 260]) @ turn.T + [300, 260]).astype(np.float32)


def test_crop_of_upright_face_is_its_box_with_margin() -> None:
    frame = geometry.crop_from_landmarks(face_points())
    assert frame.angle == pytest.approx(0, abs=1e-6)
    assert frame.half == pytest.approx(125 * geometry.CROP_MARGIN, rel=1e-3)
    assert frame.center[1] == pytest.approx(260, abs=1e-2)


@settings(max_examples=40, deadline=None)
@given(st.floats(-179, 179))
def test_crop_turns_with_the_head(degrees: float) -> None:
    """The landmarks' crop coordinates are the same however the head is rolled."""
    points = face_points()
    upright = geometry.crop_from_landmarks(points).to_crop(points)
    rolled = turned(points, degrees)
    frame = geometry.crop_from_landmarks(rolled)
    np.testing.assert_allclose(frame.to_crop(rolled), upright, atol=2e-4)
    assert np.cos(frame.angle - np.radians(degrees)) == pytest.approx(1, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.floats(-500, 2500), st.floats(-500, 2500), st.floats(2, 900), st.floats(-3.1, 3.1))
def test_crop_round_trip(x: float, y: float, half: float, angle: float) -> None:
    frame = geometry.CropFrame(np.array([x, y], dtype=np.float32), half, angle)
    points = np.random.default_rng(1).uniform(-1.5, 1.5, (20, 2)).astype(np.float32)
    np.testing.assert_allclose(
        frame.to_crop(frame.to_image(points)), points, atol=2e-3 + 4e-4 * (abs(x) + abs(y)) / half
    )


def test_crop_from_box_is_square_and_centred() -> None:
    frame = geometry.crop_from_box([10, 20, 50, 100])
    assert frame.half == pytest.approx(40 * geometry.CROP_MARGIN)
    np.testing.assert_allclose(frame.to_image([[0, 0]])[0], [30, 60])
    np.testing.assert_allclose(frame.to_image([[1, 1]])[0], [30 + frame.half, 60 + frame.half])


@pytest.mark.parametrize("bad", [np.zeros((68, 2)), np.full((478, 2), np.nan), np.zeros((478, 2))])
def test_bad_landmarks_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"landmarks"):
        geometry.crop_from_landmarks(bad.astype(np.float32))


def test_roll_of_picture_is_rotation_about_the_view() -> None:
    """A head rolled clockwise as seen has its left ear (x right in the picture for the viewer) going down."""
    rotation = geometry.rotation_about_view(np.radians(30))
    right_in_picture = rotation @ np.array([1, 0, 0])
    assert right_in_picture[1] == pytest.approx(-0.5, abs=1e-6)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-6)


def test_index_sets_are_of_the_dense_topology() -> None:
    assert len(geometry.LANDMARK68) == 68
    assert len(set(geometry.LANDMARK68)) == 68
    for group in (geometry.EYE_LEFT, geometry.EYE_RIGHT, geometry.LIPS_INNER, geometry.LIPS_OUTER, geometry.FACE_OVAL):
        assert len(set(group)) == len(group)
        assert min(group) >= 0 and max(group) < 468
    assert set(geometry.IRIS_LEFT) | set(geometry.IRIS_RIGHT) == set(range(468, 478))
