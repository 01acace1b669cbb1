"""Irises found in the picture: a drawn eye with the iris off the network's guess."""

from __future__ import annotations

import numpy as np
import pytest

from fourdface.perception.base import Face
from fourdface.perception.iris import refine_irises


def drawn_eyes(shift: float, width: float = 60.0) -> tuple[np.ndarray, Face]:
    """Two almond eyes whose irises stand `shift` eye widths to the right of their middles, which are the guess."""
    image = np.full((160, 320, 3), 190, np.uint8)
    landmarks = np.full((478, 2), 80.0, np.float32)
    rows, columns = np.mgrid[:160, :320] + 0.5
    for (first, second, upper, lower, iris), middle in zip(
        (
            (33, 133, (246, 161, 160, 159, 158, 157, 173), (155, 154, 153, 145, 144, 163, 7), range(468, 473)),
            (362, 263, (398, 384, 385, 386, 387, 388, 466), (249, 390, 373, 374, 380, 381, 382), range(473, 478)),
        ),
        (90.0, 230.0),
        strict=True,
    ):
        t = np.linspace(-1, 1, 9)[1:-1]
        lid = 0.26 * width * (1 - t**2)
        landmarks[first], landmarks[second] = (middle - width / 2, 80), (middle + width / 2, 80)
        landmarks[list(upper)] = np.stack([middle + t * width / 2, 80 - lid], 1)
        landmarks[list(lower)] = np.stack([middle + t[::-1] * width / 2, 80 + lid], 1)
        landmarks[list(iris)] = (middle, 80)
        x = (columns - middle) / (width / 2)
        opening = np.abs(rows - 80) < 0.26 * width * (1 - x**2)
        image[opening & (np.abs(x) < 1)] = 235
        disc = np.hypot(columns - middle - shift * width, rows - 80) < 0.195 * width
        image[opening & disc] = 60
    zeros = np.zeros(52, np.float32)
    return image, Face(np.zeros(4, np.float32), 1.0, 1.0, landmarks, zeros, np.zeros(3, np.float32))


@pytest.mark.parametrize("shift", [-0.2, -0.1, 0.0, 0.12, 0.22])
def test_irises_move_to_where_the_picture_shows_them(shift: float) -> None:
    image, face = drawn_eyes(shift)
    found = refine_irises(image, face)
    for iris, middle in ((468, 90.0), (473, 230.0)):
        moved = (found.landmarks[iris, 0] - middle) / 60
        assert moved == pytest.approx(0.85 * shift, abs=0.05)  # TRUST of the way, to a pixel of the cut-out
        assert abs(found.landmarks[iris, 1] - 80) < 4
    assert np.array_equal(found.landmarks[:468], face.landmarks[:468])


def test_closed_or_flat_eyes_change_nothing() -> None:
    image, face = drawn_eyes(0.1)
    blank = refine_irises(np.full_like(image, 128), face)
    assert np.array_equal(blank.landmarks, face.landmarks)
    shut = face.landmarks.copy()
    shut[:468, 1] = 80
    closed = Face(face.box, 1.0, 1.0, shut, face.coefficients, face.rotation)
    assert np.array_equal(refine_irises(image, closed).landmarks, shut)


def test_one_eye_against_the_other_is_not_believed() -> None:
    image, face = drawn_eyes(0.2)
    other, _ = drawn_eyes(-0.2)
    image[:, 160:] = other[:, 160:]
    moved = refine_irises(image, face).landmarks[468:] - face.landmarks[468:]
    assert np.abs(moved[:, 0]).max() < 3
