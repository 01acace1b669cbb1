"""render: canvases, camera paths, and pictures with and without background."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fourdface.stages.render import (
    as_camera,
    as_pose,
    head_centre,
    make_canvas,
    orbit_path,
    render_frames,
    render_one,
    source_camera,
    turntable_path,
)
from support.lifted import lifted_photo
from support.scenes import make_photo

SIZE = 144


@pytest.fixture(scope="module")
def avatar():
    return lifted_photo()[1]


def test_backgrounds(avatar) -> None:
    keep = make_canvas(avatar, "keep", None, None)
    assert (keep.width, keep.height) == (SIZE, SIZE) and np.array_equal(keep.background_u8, avatar.plate_u8)
    assert (make_canvas(avatar, "white", None, 64).background_u8 == 255).all()
    assert make_canvas(avatar, "transparent", None, None).background_u8 is None
    image = np.zeros((50, 300, 3), np.uint8)
    image[:, 140:160] = 200
    own = make_canvas(avatar, "image", image, 64).background_u8
    assert own is not None and own.shape == (64, 64, 3) and own[32, 32, 0] > 150 and own[32, 2, 0] < 20, "cropped"
    with pytest.raises(ValueError, match="image_u8"):
        make_canvas(avatar, "image", None, None)


@pytest.mark.parametrize("size", [64, 100, 200])
def test_the_view_is_the_same_in_every_size(avatar, size: int) -> None:
    """A smaller or larger picture shows the same, so shrinking the photo gives the render."""
    from fourdface.media.resize import resize

    canvas = make_canvas(avatar, "keep", None, size)
    picture = render_one(avatar, avatar.rig.source, source_camera(avatar, canvas), canvas.background_u8)
    assert picture.shape == (size, size, 3) and picture.dtype == np.uint8
    wanted = resize(make_photo().image_u8, size, size)
    error = np.mean((picture.astype(float) - wanted) ** 2)
    assert 10 * np.log10(255**2 / error) > 24


def test_transparent_pictures_have_straight_alpha(avatar) -> None:
    canvas = make_canvas(avatar, "transparent", None, None)
    rgba = render_one(avatar, avatar.rig.source, source_camera(avatar, canvas), None)
    assert rgba.shape == (SIZE, SIZE, 4) and rgba.dtype == np.uint8
    assert rgba[10, 10, 3] == 0 and rgba[SIZE // 2, SIZE // 2, 3] > 240
    alpha = rgba[..., 3:] / 255
    over = alpha * rgba[..., :3] + (1 - alpha) * avatar.plate_u8
    keep = render_one(avatar, avatar.rig.source, avatar.camera, avatar.plate_u8)
    assert np.abs(over - keep).max() < 6 and np.abs(over - keep).mean() < 0.5


def test_the_background_follows_the_cameras_size(avatar) -> None:
    camera = avatar.camera.scaled(80, 60)
    assert render_one(avatar, avatar.rig.source, camera, avatar.plate_u8).shape == (60, 80, 3)


def test_cameras_there_and_back(avatar) -> None:
    again = as_camera(as_pose(avatar.camera))
    assert torch.allclose(again.world_to_camera, avatar.camera.world_to_camera)
    assert torch.allclose(again.intrinsics, avatar.camera.intrinsics) and again.width == avatar.camera.width


def test_paths_turn_about_the_middle_of_the_head(avatar) -> None:
    canvas, centre = make_canvas(avatar, "white", None, None), head_centre(avatar)
    assert abs(centre[0]) < 0.01 and abs(centre[1]) < 0.05
    for camera in (*orbit_path(avatar, canvas, 8, 40, 10), *turntable_path(avatar, canvas, 8)):
        point = camera.world_to_camera[:3, :3].double().numpy() @ centre + camera.world_to_camera[:3, 3].numpy()
        here = avatar.camera.world_to_camera.numpy()
        assert np.allclose(point, here[:3, :3] @ centre + here[:3, 3], atol=1e-5)
    first = next(iter(orbit_path(avatar, canvas, 8, 40, 0)))
    assert torch.allclose(first.world_to_camera, avatar.camera.world_to_camera, atol=1e-6)


def test_an_orbit_shows_the_head_from_both_sides(avatar) -> None:
    """From the subject's left (+yaw) the subject's left ear is near: the face looks to the picture's left."""
    canvas = make_canvas(avatar, "transparent", None, None)
    cameras = list(orbit_path(avatar, canvas, 4, 40, 0))
    shots = list(render_frames(avatar, itertools.repeat(avatar.rig.source), cameras, None))
    assert len(shots) == 4
    blue = [_column_of_the_irises(shot) for shot in (shots[1], shots[0], shots[3])]
    assert blue[0] < blue[1] - 8 and blue[2] > blue[1] + 8


def _column_of_the_irises(rgba: np.ndarray) -> float:
    iris = (rgba[..., 0] < 90) & (rgba[..., 1] < 130) & (rgba[..., 2] > 180) & (rgba[..., 3] > 200)
    assert iris.sum() > 3
    return float(np.nonzero(iris)[1].mean())


def test_as_many_frames_as_the_shorter_of_the_two(avatar) -> None:
    states = [avatar.rig.source] * 3
    assert len(list(render_frames(avatar, states, [avatar.camera] * 2, avatar.plate_u8))) == 2
    assert list(render_frames(avatar, states, [], avatar.plate_u8)) == []
