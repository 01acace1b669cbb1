"""The driver's background against one that is known: a disc stands for the person."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fourdface.methods.portrait4d.tracking import crops_of
from fourdface.perception.tracking import FrameStatus
from fourdface.stages.driver_background import DriverBackground
from fourdface.stages.reenact import DriverFrame
from support.seeing import FakePerception, picture

WIDTH, HEIGHT, SIZE = 128, 96, 64
RADIUS = 9


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    return FakePerception().faces(picture(WIDTH, HEIGHT, 1))[0].landmarks


def scene() -> np.ndarray:
    """A smooth background, uint8 [H, W, 3]."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([2 * columns, 2 * rows, columns + rows], -1).clip(0, 255).astype(np.uint8)


def disc(centre: tuple[float, float]) -> np.ndarray:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (np.hypot(columns - centre[0], rows - centre[1]) < RADIUS).astype(np.float32)


def frame(landmarks: np.ndarray | None, alpha: np.ndarray, time: float = 0.0) -> DriverFrame:
    image = np.where(alpha[..., None] > 0, np.uint8(255), scene())
    status = FrameStatus.OK if landmarks is not None else FrameStatus.MISSING
    return DriverFrame(None, time, status, image, landmarks)


def mattes(*alphas: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    rest = iter(alphas)
    return lambda image_u8, points: next(rest)


def truth(landmarks: np.ndarray) -> np.ndarray:
    return crops_of(landmarks, (WIDTH, HEIGHT), SIZE).portrait.apply(scene()).astype(int)


def test_what_was_uncovered_is_remembered(landmarks: np.ndarray) -> None:
    middle = tuple(landmarks.mean(0))
    there, aside = disc(middle), disc((middle[0] + 26, middle[1]))
    background = DriverBackground(mattes(there, aside, there), SIZE)
    first = background.step(frame(landmarks, there))
    background.step(frame(landmarks, aside, 0.1))
    third = background.step(frame(landmarks, there, 0.2))
    assert first is not None and third is not None
    errors = [np.abs(found - truth(landmarks)).max(-1) for found in (first, third)]
    assert errors[1].max() <= 4, "all of it was seen once"
    assert errors[0].max() > errors[1].max() and errors[0].max() < 60, "and before, it is filled from around"


def test_the_window_stays_where_the_first_face_was(landmarks: np.ndarray) -> None:
    empty = np.zeros((HEIGHT, WIDTH), np.float32)
    background = DriverBackground(lambda *_: empty, SIZE)
    first = background.step(frame(landmarks, empty))
    moved = background.step(frame(landmarks + 7, empty, 0.1))
    assert first is not None and moved is not None and first.dtype == np.uint8
    assert np.array_equal(first, truth(landmarks)) and np.array_equal(moved, first)


def test_frames_without_a_face_keep_the_last(landmarks: np.ndarray) -> None:
    empty = np.zeros((HEIGHT, WIDTH), np.float32)
    background = DriverBackground(mattes(empty), SIZE)
    assert background.step(frame(None, empty)) is None
    first = background.step(frame(landmarks, empty))
    assert background.step(frame(None, empty, 0.1)) is first


def test_a_person_everywhere_leaves_one_colour(landmarks: np.ndarray) -> None:
    full = np.ones((HEIGHT, WIDTH), np.float32)
    found = DriverBackground(mattes(full), SIZE).step(frame(landmarks, full))
    assert found is not None and np.array_equal(found, np.full_like(found, 255))
