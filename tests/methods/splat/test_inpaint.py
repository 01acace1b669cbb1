"""Holes are filled with the picture's own structure: lines go on, what is known stays."""

from __future__ import annotations

import numpy as np
import pytest

from fourdface.methods.splat.inpaint import fill_with_patches
from fourdface.methods.splat.plate import fill_behind, fill_smoothly


def hole(height: int, width: int, radius: float) -> np.ndarray:
    """What is known [H,W]: everything but a disc in the middle."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    return np.hypot(rows - height / 2, columns - width / 2) > radius


def shelves(size: int) -> np.ndarray:
    """Bright boards with dark gaps [size,size,3] that get a little darker to the right."""
    rows, columns = np.mgrid[:size, :size]
    board = np.where(rows % 24 < 5, 0.15, 0.75) * (1 - 0.15 * columns / size)
    return (board[..., None] * np.array([1.0, 0.8, 0.5])).astype(np.float32)


def test_lines_go_on_behind_the_hole() -> None:
    image, known = shelves(192), hole(192, 192, 40)
    error = {}
    for name, guess in (("smooth", fill_smoothly(image, known)), ("mirror", fill_behind(image, known))):
        filled = fill_with_patches(image, known, guess)
        error[name] = float(np.abs(filled - image)[~known].mean())
        assert error[name] < 0.5 * np.abs(guess - image)[~known].mean()
    assert error["mirror"] < 0.1


def test_what_is_known_stays_and_colours_stay_in_range() -> None:
    image = np.random.default_rng(0).random((70, 90, 3), dtype=np.float32)
    known = hole(70, 90, 15)
    filled = fill_with_patches(image, known, fill_smoothly(image, known))
    assert filled.dtype == np.float32 and np.array_equal(filled[known], image[known])
    assert filled.min() >= 0 and filled.max() <= 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 31), (31, 32), (33, 8), (257, 33)])
def test_small_and_narrow_pictures(shape: tuple[int, int]) -> None:
    image = np.random.default_rng(1).random((*shape, 3), dtype=np.float32)
    known = hole(*shape, min(shape) / 4)
    filled = fill_with_patches(image, known, np.full_like(image, 0.5))
    assert filled.shape == image.shape and np.array_equal(filled[known], image[known])


def test_nothing_or_everything_known() -> None:
    image = np.random.default_rng(2).random((40, 40, 3), dtype=np.float32)
    start = np.full_like(image, 0.25)
    assert np.array_equal(fill_with_patches(image, np.zeros((40, 40), bool), start), start)
    assert np.array_equal(fill_with_patches(image, np.ones((40, 40), bool), start), image)


def test_arrays_with_gaps_in_memory() -> None:
    image, known = shelves(128)[::2, ::-2], hole(64, 64, 12)
    same = fill_with_patches(np.ascontiguousarray(image), known, fill_smoothly(image, known))
    assert np.array_equal(fill_with_patches(image, known, fill_smoothly(image, known)), same)
