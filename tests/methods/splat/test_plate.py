"""Background plate, mattes and foreground colours on pictures whose layers are known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fourdface.methods.splat.plate import background_plate, fill_smoothly, foreground_colours, sharpen_matte

SIZE = 96


def disc(radius: float, size: int = SIZE) -> np.ndarray:
    """Anti-aliased disc [size,size] in the middle."""
    rows, columns = np.mgrid[:size, :size] + 0.5
    return np.clip(radius - np.hypot(columns - size / 2, rows - size / 2) + 0.5, 0, 1).astype(np.float32)


def ramp(size: int = SIZE) -> np.ndarray:
    """A smooth background [size,size,3]."""
    rows, columns = np.mgrid[:size, :size] / size
    return np.stack([0.2 + 0.5 * columns, 0.6 - 0.3 * rows, 0.3 + 0.2 * rows * columns], -1).astype(np.float32)


def over(alpha: np.ndarray, front: np.ndarray, back: np.ndarray) -> np.ndarray:
    return (alpha[..., None] * front + (1 - alpha[..., None]) * back).astype(np.float32)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4), st.integers(0, 2**32 - 1), st.floats(0.02, 1))
@settings(max_examples=60, deadline=None)
def test_filling_keeps_what_is_known_and_invents_no_extremes(
    height: int, width: int, channels: int, seed: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    image = random.random((height, width, channels), dtype=np.float32)
    known = random.random((height, width)) < share
    known[random.integers(height), random.integers(width)] = True
    filled = fill_smoothly(image, known)
    assert filled.shape == image.shape and filled.dtype == np.float32
    assert np.allclose(filled[known], image[known], atol=1e-6)
    low, high = image[known].min(0), image[known].max(0)
    assert (filled >= low - 1e-4).all() and (filled <= high + 1e-4).all()


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_constant_stays_constant(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    known = random.random((height, width)) * (random.random((height, width)) < 0.1)
    known[0, 0] = 1.0
    assert np.allclose(fill_smoothly(np.full((height, width, 2), 0.7), known), 0.7, atol=1e-4)


def test_a_hole_takes_the_colours_around_it() -> None:
    filled = fill_smoothly(ramp(), disc(20) == 0)
    assert np.abs(filled - ramp()).max() < 0.06
    assert np.abs(np.diff(filled, axis=0)).max() < 0.02, "no steps, no blocks"


def test_plate_shows_no_person_and_no_outline() -> None:
    alpha = ndimage.gaussian_filter(disc(24), 1.0)
    image = over(alpha, np.array([1.0, 0.0, 0.0]), ramp())
    plate = background_plate(image, alpha)
    assert np.abs(plate - ramp()).max() < 0.09
    edges = np.abs(ndimage.laplace(plate.mean(-1)))
    assert edges.max() < 0.02, "nothing sharp where the person's outline was"
    assert plate.dtype == np.float32 and plate.min() >= 0 and plate.max() <= 1


def test_plate_is_the_photo_where_nobody_stands() -> None:
    random = np.random.default_rng(0)
    image = random.random((SIZE, SIZE, 3), dtype=np.float32)
    alpha = disc(20)
    plate = background_plate(image, alpha)
    far = ndimage.distance_transform_edt(alpha <= 0.04) > 6
    assert np.allclose(plate[far], image[far], atol=1e-6)


def test_plate_of_a_photo_full_of_person_is_its_mean() -> None:
    image = ramp()
    plate = background_plate(image, np.ones((SIZE, SIZE), np.float32))
    assert np.allclose(plate, image.mean((0, 1)), atol=1e-6)


@pytest.mark.parametrize("wrong", ["soft", "wide", "narrow"])
def test_sharpening_brings_the_matte_to_the_truth(wrong: str) -> None:
    """The rim of a network's matte is soft, too wide or too narrow; the colours know better."""
    size = 256
    truth = disc(70, size)
    image = over(truth, np.array([0.9, 0.7, 0.6]), ramp(size) * 0.5)
    given_matte = {"soft": ndimage.gaussian_filter(truth, 1.5), "wide": disc(71.2, size), "narrow": disc(68.8, size)}
    matte = given_matte[wrong].astype(np.float32)
    sharp = sharpen_matte(image, matte)
    before, after = np.abs(matte - truth).sum(), np.abs(sharp - truth).sum()
    assert after < 0.45 * before
    far = np.abs(ndimage.distance_transform_edt(truth > 0.5) - ndimage.distance_transform_edt(truth <= 0.5)) > 6
    assert np.array_equal(sharp[far], matte[far]), "only the rim is touched"
    assert sharp.min() >= 0 and sharp.max() <= 1


def test_sharpening_leaves_a_matte_alone_where_colours_do_not_differ() -> None:
    matte = ndimage.gaussian_filter(disc(30), 2)
    image = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    assert np.allclose(sharpen_matte(image, matte), matte, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_sharpening_an_empty_or_full_matte(value: float) -> None:
    matte = np.full((SIZE, SIZE), value, np.float32)
    assert np.array_equal(sharpen_matte(ramp(), matte), matte)


def test_foreground_without_the_backgrounds_spill() -> None:
    alpha = ndimage.gaussian_filter(disc(30), 1.5).astype(np.float32)
    front, back = np.array([0.8, 0.6, 0.5], np.float32), np.array([0.1, 0.9, 0.2], np.float32)
    image = over(alpha, front, np.broadcast_to(back, (SIZE, SIZE, 3)))
    colours = foreground_colours(image, alpha, np.broadcast_to(back, image.shape))
    there = alpha > 0.05
    assert np.abs(colours[there] - front).max() < 0.05, "no green rim"
    solid = alpha > 0.95
    assert np.abs(over(alpha, colours, np.broadcast_to(back, image.shape)) - image)[solid].max() < 1e-3
    assert colours.min() >= 0 and colours.max() <= 1


def test_composition_gives_the_photo_back_where_the_matte_is_solid() -> None:
    """matte * F + (1 - matte) * B = image, for detailed pictures too."""
    random = np.random.default_rng(1)
    image = 0.2 + 0.6 * random.random((SIZE, SIZE, 3), dtype=np.float32)
    alpha = disc(30)
    plate = background_plate(image, alpha)
    again = over(alpha, foreground_colours(image, alpha, plate), plate)
    solid = alpha > 0.96
    assert np.abs(again - image)[solid].max() < 2e-3
