"""Cameras of portrait crops, and the adapters between labels and cameras."""

from __future__ import annotations

import math

import numpy as np
import torch

from fourdface.blocks.head_model import HeadModel
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.methods.portrait4d.alignment import FACE_SCALE, FIVE_DENSE_POINTS, fit_face
from fourdface.methods.portrait4d.view import (
    FACE_ANCHOR,
    OPEN_FACE_ANCHOR,
    camera_of_label,
    face_anchor,
    label_of_camera,
    portrait_label,
)
from fourdface.priors.genhead.camera import WORLD_SCALE, frontal_label
from fourdface.priors.genhead.head import HeadGeometry


def project(camera, point: np.ndarray) -> np.ndarray:
    seen = camera.world_to_camera @ np.append(point, 1.0)
    return (camera.intrinsics @ seen[:3])[:2] / seen[2]


def test_a_straight_head_is_seen_as_published() -> None:
    assert torch.equal(portrait_label(torch.zeros(1, 3)), frontal_label())


def test_the_face_of_a_turned_head_stays_in_the_middle() -> None:
    for turn in ([0.0, 0.7, 0.0], [0.4, -0.2, 0.1]):
        rotation = torch.tensor([turn])
        camera = camera_of_label(portrait_label(rotation), 512)
        anchor = axis_angle_to_matrix(rotation)[0].numpy() @ np.array(FACE_ANCHOR) / WORLD_SCALE
        assert np.allclose(project(camera, anchor), [256, 256], atol=1e-3)


def test_the_open_head_is_seen_as_the_crop_would_show_it() -> None:
    """Its neck joint is not where FLAME's is; the crop of its straight face is the picture itself."""
    model = HeadModel.load()
    points = model.landmarks(model.template[None])[0, list(FIVE_DENSE_POINTS)].double().numpy()
    camera = camera_of_label(portrait_label(torch.zeros(1, 3), OPEN_FACE_ANCHOR), 512)
    x, y, size = fit_face(np.stack([project(camera, point) for point in points]))
    assert abs(x - 256) < 2 and abs(y - 256) < 3 and abs(size / FACE_SCALE - 1) < 0.01
    assert face_anchor(HeadGeometry.from_head_model(model)) == OPEN_FACE_ANCHOR and face_anchor(None) == FACE_ANCHOR


def test_label_and_camera_are_each_others_inverse() -> None:
    label = portrait_label(torch.tensor([[0.2, 0.5, -0.1]]))
    torch.testing.assert_close(label_of_camera(camera_of_label(label, 512)), label, atol=1e-6, rtol=1e-6)
    camera = camera_of_label(frontal_label(), 512)
    assert math.isclose(camera.world_to_camera[2, 3] * WORLD_SCALE, 4.2, rel_tol=1e-6)
    assert math.isclose(2 * math.degrees(math.atan(256 / camera.intrinsics[0, 0])), 12, rel_tol=1e-5)


def test_the_camera_sees_a_face_at_the_size_of_the_crop() -> None:
    """One unit of the alignment's mean face, about a tenth of a metre, covers as many pixels as the crop gives it."""
    camera = camera_of_label(frontal_label(), 512)
    across = project(camera, np.array([0.05, 0, 0])) - project(camera, np.array([-0.05, 0, 0]))
    assert 0.9 < across[0] / FACE_SCALE < 1.05
