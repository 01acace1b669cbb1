"""The crops of Portrait4D against its own, and against what they are defined by."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity.rule import parity_arrays

from fourdface.errors import FourdError
from fourdface.methods.portrait4d.alignment import (
    FACE_POINTS,
    FACE_SCALE,
    MOTION_TARGET,
    OFFSET,
    eyes_and_mouth,
    fit_face,
    five_points,
    motion_crop,
    motion_matrix,
    portrait_crop,
)


def waves(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return np.stack([np.sin(x / 17) * np.cos(y / 23), np.sin((x + y) / 31), np.cos(x / 11 - y / 41)], -1)


def test_portrait_crop_is_the_published_one() -> None:
    given = parity_arrays("image_alignment.npz")
    face = fit_face(given["five_points"].numpy())
    width, height, scale, x, up = given["trans_params"].tolist()
    assert FACE_SCALE / face[2] == pytest.approx(scale, rel=1e-5)
    assert (face[0], height - 1 - face[1]) == pytest.approx((x, up), abs=5e-3)
    crop = portrait_crop(face, (int(width), int(height)))
    image_u8 = ((waves(600, 800) + 1) * 127).astype(np.uint8)
    picture = crop.apply(image_u8)
    assert picture.shape == (512, 512, 3)
    difference = np.abs(picture[::4, ::4].astype(int) - given["crop_sub"].numpy().astype(int))
    assert difference.max() <= 1
    # The reference moves landmarks without the rounding of the window, by up to a pixel.
    for name in ("98", "68"):
        landmarks = crop.to_crop(given[f"l{name}_in"].numpy()[:, :2])
        assert np.abs(landmarks - given[f"ldmk{name}"].numpy()).max() < 1.6


def test_fit_face_recovers_a_projected_face() -> None:
    truth = 173.0
    flat = (FACE_POINTS + OFFSET)[:, :2] * truth
    points = np.array([300.0, 220.0]) + flat * [1, -1]
    assert fit_face(points) == pytest.approx([300.0, 220.0, truth], rel=1e-6)


def test_crop_maps_pixels_as_it_says() -> None:
    """A dot of the picture is found where `to_crop` says, near a border that is padded."""
    image = np.zeros((300, 420, 3), np.uint8)
    image[20:23, 390:393] = 255
    crop = portrait_crop(np.array([380.0, 60.0, 150.0]), (420, 300))
    picture = crop.apply(image)
    rows, cols = np.nonzero(picture[..., 0] > 100)
    assert crop.to_crop(np.array([391.5, 21.5])) == pytest.approx([cols.mean() + 0.5, rows.mean() + 0.5], abs=0.5)
    assert np.hstack([391.5, 21.5, 1]) @ crop.matrix().T == pytest.approx(crop.to_crop(np.array([391.5, 21.5])))


@pytest.mark.parametrize("face", [[100.0, 100.0, 0.0], [np.nan, 1.0, 20.0], [100.0, 100.0, 1e-4]])
def test_no_face_no_crop(face: list[float]) -> None:
    with pytest.raises(FourdError, match="too small"):
        portrait_crop(np.array(face), (640, 480))


def test_crop_outside_of_the_picture_is_refused() -> None:
    crop = portrait_crop(np.array([5000.0, 100.0, 150.0]), (420, 300))
    with pytest.raises(FourdError, match="outside"):
        crop.apply(np.zeros((300, 420, 3), np.uint8))


def test_motion_crop_is_the_published_one() -> None:
    given = parity_arrays("pdfgc_alignment.npz")
    matrices = [motion_matrix(landmarks) for landmarks in given["lmks"].numpy()]
    np.testing.assert_allclose(matrices, given["matrices"].numpy(), rtol=1e-4, atol=1e-3)
    image = torch.from_numpy(waves(512, 512)).permute(2, 0, 1)[None].float()
    crop = motion_crop(image, matrices[0])
    torch.testing.assert_close(crop[..., ::4, ::4], given["crop_224"], rtol=1e-4, atol=2e-3)


def test_dense_landmarks_give_the_same_points_as_a_face_of_them() -> None:
    """Eyes and mouth of the dense topology: their middles map to the three targets when they already stand there."""
    dense = np.zeros((478, 2))
    for indices, target in zip(
        ((33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380), (78, 81, 13, 311, 308, 402, 14, 178)),
        MOTION_TARGET, strict=True,
    ):  # fmt: skip
        dense[list(indices)] = target
    assert np.allclose(eyes_and_mouth(dense), MOTION_TARGET)
    assert np.allclose(motion_matrix(dense), np.eye(2, 3))
    assert five_points(dense).shape == (5, 2)


def test_landmarks_on_one_point_are_refused() -> None:
    with pytest.raises(FourdError, match="no face"):
        motion_matrix(np.ones((68, 2)))
