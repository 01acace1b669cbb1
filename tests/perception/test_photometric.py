"""Photometric alignment: heads rendered by the mesh rasteriser in known poses, told to be a little elsewhere."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

from fourdface.blocks.head_fitting import HeadTrack
from fourdface.perception import photometric
from fourdface.perception.glimpse import Glimpse, glimpse_of
from fourdface.perception.photometric import HeadAligner, match_step
from support.scenes import (
    PLACE,
    dense_landmarks,
    head_state,
    open_head,
    photo_view,
    posed,
    render_mesh,
    vertex_colours,
)

SIZE = 160


@lru_cache(maxsize=1)
def freckles() -> np.ndarray:
    """Vertex colours [V,3] with a texture of centimetres over the skin."""
    place = open_head().template.numpy()
    wave = np.sin(310 * place[:, 0] + 1) * np.cos(270 * place[:, 1]) + np.sin(190 * place[:, 2] + 140 * place[:, 0])
    return np.clip(vertex_colours() * (1 + 0.15 * wave[:, None]), 0, 1)


@lru_cache(maxsize=16)
def frame(rotation: tuple[float, float, float], right: float = 0.0, light: float = 1.0) -> Glimpse:
    """A glimpse of the head in a pose, `right` metres beside its place, in front of grey."""
    state = head_state(rotation=rotation, translation=PLACE + np.array([right, 0, 0]))
    picture, cover = render_mesh(posed(state), photo_view(SIZE), freckles(), oversample=2)
    image = light * (picture + 0.4 * (1 - cover[..., None]))
    across = float(np.ptp(dense_landmarks(state, photo_view(SIZE)), axis=0).max())
    return glimpse_of(np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), across)


def track(rotation: tuple[float, float, float], place: np.ndarray = PLACE) -> HeadTrack:
    """What landmarks said of one frame."""
    return HeadTrack(
        SHAPE, float(photo_view(SIZE).intrinsics[0, 0]), torch.zeros(1, 52), torch.tensor([rotation]).float(),
        torch.tensor(np.asarray(place), dtype=torch.float32)[None], torch.zeros(1, 6), torch.zeros(1),
    )  # fmt: skip


SHAPE = torch.zeros(70)


def aligner() -> HeadAligner:
    """One that has seen the frontal head."""
    made = HeadAligner(open_head(), (SIZE, SIZE))
    first = track((0.0, 0.0, 0.0))
    assert made.refine(first, frame((0.0, 0.0, 0.0))) is first, "the first frame is the measure"
    return made


@pytest.mark.parametrize("rotation", [(0.0, 0.12, 0.0), (0.1, 0.0, 0.0), (0.0, 0.0, -0.1), (0.05, -0.2, 0.05)])
def test_a_leaning_pose_is_put_right(rotation: tuple[float, float, float]) -> None:
    wrong = np.array(rotation) + np.array([0.03, -0.035, 0.02])
    found = aligner().refine(track(tuple(wrong)), frame(rotation))
    before = np.degrees(np.linalg.norm(wrong - rotation))
    after = np.degrees(np.linalg.norm(found.rotation[0].numpy() - rotation))
    assert after < 0.45 * before


def test_a_shift_is_found_to_a_tenth_of_a_pixel() -> None:
    found = aligner().refine(track((0.0, 0.0, 0.0)), frame((0.0, 0.0, 0.0), right=0.004))
    pixel = (1 - PLACE[2]) / photo_view(SIZE).intrinsics[0, 0]
    moved = found.translation[0].numpy() - PLACE
    assert abs(moved[0] - 0.004) < 0.15 * pixel and abs(moved[1]) < 0.15 * pixel


def test_light_is_no_motion() -> None:
    found = aligner().refine(track((0.0, 0.0, 0.0)), frame((0.0, 0.0, 0.0), light=0.75))
    assert np.degrees(np.abs(found.rotation[0].numpy())).max() < 0.25


def test_another_picture_changes_nothing() -> None:
    """After a cut, or behind a hand, nothing matches: what landmarks said stays."""
    noise = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3)).astype(np.uint8)
    given = track((0.0, 0.1, 0.0))
    assert aligner().refine(given, glimpse_of(noise, 100)) is given


def test_a_face_outside_the_picture_changes_nothing() -> None:
    given = track((0.0, 0.0, 0.0), PLACE + np.array([3.0, 0, 0]))
    assert aligner().refine(given, frame((0.0, 0.0, 0.0))) is given


def test_keyframes_are_few() -> None:
    made = aligner()
    for yaw in np.linspace(-0.6, 0.6, 13):
        made.refine(track((0.0, float(yaw), 0.0)), frame((0.0, float(yaw), 0.0)))
    assert 1 < len(made._keyframes) <= photometric.MOST_KEYFRAMES


@pytest.mark.parametrize("count", [0, 1, 31, 257])
def test_few_points_are_no_measurement(count: int) -> None:
    rng = np.random.default_rng(1)
    hessian, push, match = match_step(rng.random(count), rng.random((count, 6)), rng.random(count), np.ones(count))
    assert hessian.shape == (6, 6) and push.shape == (6,) and np.isfinite(hessian).all() and np.isfinite(match)
    assert bool(hessian.any()) == (count >= 10)


@pytest.mark.parametrize("across", [1.0, 90.0, 400.0, 1e5])
@pytest.mark.parametrize("shape", [(33, 257), (31, 32)])
def test_a_glimpse_is_the_mean_of_its_pixels(shape: tuple[int, int], across: float) -> None:
    image = np.random.default_rng(2).integers(0, 255, (*shape, 3)).astype(np.uint8)[:, ::-1]
    small = glimpse_of(image, across)
    k = small.factor
    cut = image[: shape[0] // k * k, : shape[1] // k * k, 1].reshape(shape[0] // k, k, shape[1] // k, k)
    np.testing.assert_allclose(small.grey_u8, cut.mean((1, 3)), atol=1)


def test_samples_interpolate_a_ramp_exactly() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, :, None] * 3, (48, 64, 3))
    glimpse = glimpse_of(np.ascontiguousarray(ramp), 100)
    value, slope, inside = glimpse.blurred(np.array([20.0, 20]), np.array([40.0, 40]), 1.0).at(
        np.array([[30.5, 30.5], [31.0, 22.2], [900, 900]])
    )
    np.testing.assert_allclose(value[:2], [90.0, 91.5], atol=0.05)
    np.testing.assert_allclose(slope[:2], [[3, 0], [3, 0]], atol=0.02)
    assert inside.tolist() == [True, True, False]
