"""Where the model is fatter than the person it is drawn in, and only there."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from fourdface.methods.splat.contour import CONTOUR_REGIONS, LARGEST_SHIFT, fit_contour
from fourdface.methods.splat.rig import Rig
from support.scenes import make_photo, open_head

SIZE = 144


def slim(pixels: int) -> np.ndarray:
    """The photo's matte, narrower by so many pixels on each side from the eyes down."""
    matte = make_photo(SIZE).head.copy()
    eroded = ndimage.binary_erosion(matte > 0.5, np.ones((1, 3)), iterations=pixels)
    lower = np.arange(SIZE)[:, None] > 0.4 * SIZE
    return np.where(lower, eroded, matte).astype(np.float32)


def outside(rig: Rig, matte: np.ndarray) -> np.ndarray:
    """Distance in pixels by which each contour vertex stands out beyond the matte."""
    view = make_photo(SIZE).view
    vertices = rig.pose(rig.source).numpy()[: open_head().vertex_count]
    regions = np.any([open_head().regions[name].numpy() for name in CONTOUR_REGIONS], axis=0)
    pixels, _ = view.project(vertices[regions])
    column, row = np.clip(pixels.astype(int), 0, SIZE - 1).T
    return ndimage.distance_transform_edt(matte < 0.5)[row, column]


@pytest.fixture(scope="module")
def fitted() -> tuple[Rig, np.ndarray]:
    photo, matte = make_photo(SIZE), slim(3)
    return fit_contour(photo.rig, matte, photo.view), matte


def test_the_head_ends_inside_the_matte(fitted: tuple[Rig, np.ndarray]) -> None:
    rig, matte = fitted
    before, after = outside(make_photo(SIZE).rig, matte), outside(rig, matte)
    assert before.max() > 2.5, "the test's matte is narrower"
    assert (after > 1.5).sum() < 0.05 * (before > 1.5).sum() and after.mean() < 0.15 * before.mean()


def test_shifts_are_small_smooth_and_parallel_to_the_picture(fitted: tuple[Rig, np.ndarray]) -> None:
    rig, _ = fitted
    offset = rig.offset.numpy()
    length = np.linalg.norm(offset, axis=1)
    assert np.isfinite(offset).all() and 0.001 < length.max() < 2.5 * LARGEST_SHIFT
    faces = open_head().faces.numpy()
    rigid = ("eyeball_left", "eyeball_right", "gums", "teeth_upper", "teeth_lower", "tongue")
    skin = ~np.any([open_head().regions[name].numpy() for name in rigid], axis=0)
    edges = faces[skin[faces].all(1)][:, :2]
    stretch = np.linalg.norm(offset[edges[:, 0]] - offset[edges[:, 1]], axis=1)
    assert np.percentile(stretch, 99) < 0.25 * length.max()
    assert np.abs(offset @ rig.source_rotation.numpy().T)[:, 2].max() < 1e-3, "no depth"


def test_features_stay_where_the_landmarks_put_them(fitted: tuple[Rig, np.ndarray]) -> None:
    length = fitted[0].offset.norm(dim=1)
    for name in ("eyeball_left", "eyeball_right", "lips", "nose", "eyelids"):
        assert float(length[open_head().regions[name]].mean()) < 0.0012, name


def test_a_person_as_wide_as_the_model_is_left_alone() -> None:
    photo = make_photo(SIZE)
    wide = ndimage.maximum_filter(photo.matte, 7)
    rig = fit_contour(photo.rig, wide, photo.view)
    assert float(rig.offset.norm(dim=1).max()) < 1e-4


def test_an_empty_matte_does_not_break_it() -> None:
    photo = make_photo(SIZE)
    rig = fit_contour(photo.rig, np.zeros((SIZE, SIZE), np.float32), photo.view)
    assert torch.isfinite(rig.offset).all() and float(rig.offset.norm(dim=1).max()) < 3 * LARGEST_SHIFT
