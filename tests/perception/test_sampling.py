"""Crops sampled from uint8 pictures against pictures whose value is a known function of place."""

from __future__ import annotations

import numpy as np
import pytest

from fourdface.perception.geometry import CropFrame
from fourdface.perception.sampling import letterbox, sample_crop


def ramp(height: int, width: int) -> np.ndarray:
    """Red = x, green = y of the pixel centre, in 1/2 levels so that 0..255 holds up to 510 pixels."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = (np.arange(width) / 2)[None]
    image[..., 1] = (np.arange(height) / 2)[:, None]
    return image


@pytest.mark.parametrize("angle", [0.0, 0.4, -1.2])
@pytest.mark.parametrize("half", [20.0, 60.0, 140.0])
def test_crop_reads_the_right_place(half: float, angle: float) -> None:
    frame = CropFrame(np.array([250.0, 220.0], np.float32), half, angle)
    crop = sample_crop(ramp(440, 500), frame, 64)[0].numpy() * 255
    place = (np.arange(64) + 0.5) / 32 - 1
    u = np.stack(np.meshgrid(place, place), axis=2)
    expected = (frame.to_image(u) - 0.5) / 2  # what the ramp holds there
    np.testing.assert_allclose(crop[0], expected[..., 0], atol=0.6)
    np.testing.assert_allclose(crop[1], expected[..., 1], atol=0.6)


@pytest.mark.parametrize("center", [(-500.0, 10.0), (50.0, 900.0), (0.0, 0.0), (99.5, 59.5)])
def test_crop_beyond_the_picture_repeats_its_edge(center: tuple[float, float]) -> None:
    image = np.full((60, 100, 3), 77, np.uint8)
    crop = sample_crop(image, CropFrame(np.array(center, np.float32), 30.0, 0.3), 32)
    assert crop.shape == (1, 3, 32, 32)
    np.testing.assert_allclose(crop.numpy(), 77 / 255, atol=1e-4)


def test_crop_does_not_alias() -> None:
    """One-pixel stripes shrunk eight times become grey, not stripes."""
    image = np.zeros((1024, 1024, 3), np.uint8)
    image[:, ::2] = 255
    crop = sample_crop(image, CropFrame(np.array([512.0, 512.0], np.float32), 500.0, 0.0), 125).numpy()
    assert abs(crop.mean() - 0.5) < 0.01
    assert crop.std() < 0.05


def test_tiny_pictures_work() -> None:
    crop = sample_crop(np.full((1, 1, 3), 10, np.uint8), CropFrame(np.array([0.5, 0.5], np.float32), 40.0, 0.1), 16)
    np.testing.assert_allclose(crop.numpy(), 10 / 255, atol=1e-4)


def test_read_only_pictures_work() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image.flags.writeable = False
    sample_crop(image, CropFrame(np.array([20.0, 20.0], np.float32), 10.0, 0.0), 16)
    letterbox(image, 32)


@pytest.mark.parametrize(("height", "width"), [(100, 400), (400, 100), (37, 37), (1, 900)])
def test_letterbox_keeps_proportions(height: int, width: int) -> None:
    image = np.full((height, width, 3), 255, np.uint8)
    picture, scale = letterbox(image, 96)
    assert picture.shape == (1, 3, 96, 96)
    assert scale == pytest.approx(max(height, width) / 96)
    filled = picture[0, 0] > 0.9
    assert int(filled.any(0).sum()) == max(1, round(width / scale))
    assert int(filled.any(1).sum()) == max(1, round(height / scale))
