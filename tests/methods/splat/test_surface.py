"""The photo's camera, and the inflated proxy behind every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdface.methods.splat.lift import body_of
from fourdface.methods.splat.scene import make_scene
from fourdface.methods.splat.surface import Shell, blend_to_mesh, hair_front
from support.scenes import make_photo, open_head, photo_view

SIZE = 144


@given(st.floats(0, SIZE), st.floats(0, SIZE), st.floats(0.1, 5))
@settings(max_examples=50, deadline=None)
def test_projection_and_its_inverse(column: float, row: float, depth: float) -> None:
    view = photo_view(SIZE)
    point = view.unproject(np.array([column]), np.array([row]), np.array([depth]))
    pixel, z = view.project(point)
    assert np.allclose(pixel, [[column, row]], atol=1e-6) and np.allclose(z, depth)


def test_the_pixel_grid_is_of_centres() -> None:
    columns, rows = photo_view(SIZE).grid()
    assert columns.shape == rows.shape == (SIZE, SIZE)
    assert columns[0, 0] == rows[0, 0] == 0.5 and columns[0, -1] == rows[-1, 0] == SIZE - 0.5


def test_axes() -> None:
    """World right is the picture's right, world up its top, and nearer things have less depth."""
    view = photo_view(SIZE)
    pixels, depth = view.project(np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]]))
    assert np.allclose(pixels[0], SIZE / 2) and pixels[1, 0] > SIZE / 2 and pixels[2, 1] < SIZE / 2
    assert depth[3] < depth[0]


@pytest.fixture(scope="module")
def shell() -> Shell:
    photo = make_photo(SIZE)
    return body_of(make_scene(photo.image, photo.matte, photo.view, open_head(), photo.rig))[0]


def test_it_has_a_depth_everywhere(shell: Shell) -> None:
    assert np.isfinite(shell.front).all() and np.isfinite(shell.head_share).all()
    assert shell.front.min() > 0.5 and shell.front.max() < 0.95, "metres: a head 0.8 m away"


def test_head_above_torso_below(shell: Shell) -> None:
    assert shell.head_share[: SIZE // 2].min() == 1 and shell.head_share[-5:].max() == 0
    assert (np.diff(shell.head_share[:, SIZE // 2]) <= 1e-6).all()


def test_hair_curves_back_to_the_middle_of_the_head() -> None:
    """Over a ball in a larger round outline: nearest before its middle, at the middle's own depth on the outline."""
    view = photo_view(SIZE)
    generator = np.random.default_rng(0)
    ball = generator.standard_normal((4000, 3))
    ball *= 0.09 / np.linalg.norm(ball, axis=1, keepdims=True)
    columns, rows = view.grid()
    middle, centre = view.project(np.zeros(3))
    radius = 1.3 * 0.09 / centre * view.intrinsics[0, 0]
    away = np.hypot(columns - middle[0], rows - middle[1])
    front = hair_front((away < radius).astype(float), view, ball)
    upper = rows < middle[1]
    assert front[upper & (away < 2)].max() < centre - 0.09
    assert np.abs(front[upper & (away > radius + 2)] - centre).max() < 1e-4
    along = front[: int(middle[1]), int(middle[0])]
    assert (np.diff(along) <= 1e-5).all(), "it comes nearer from the outline to the middle"


def test_blending_into_the_mesh() -> None:
    """The mesh where it is drawn, the shell far from it, and no step between the two."""
    covered = np.zeros((60, 60), bool)
    covered[:, :20] = True
    mesh = np.where(covered, 0.8, np.inf).astype(np.float32)
    shell = np.full((60, 60), 0.9, np.float32)
    blended = blend_to_mesh(shell, mesh, covered, 12)
    assert (blended[:, :20] == np.float32(0.8)).all() and np.allclose(blended[:, 33:], 0.9)
    assert np.abs(np.diff(blended, axis=1)).max() < 0.02 and np.isfinite(blended).all()
    assert blend_to_mesh(shell, mesh, np.zeros_like(covered), 12) is shell


def test_what_lies_behind_the_mesh_is_reached_as_soon_as_allowed() -> None:
    covered = np.zeros((20, 60), bool)
    covered[:, :20] = True
    mesh = np.where(covered, 0.8, np.inf).astype(np.float32)
    steep = np.full((20, 60), 0.02)
    steep[10:] = 0
    behind = blend_to_mesh(np.full((20, 60), 0.9, np.float32), mesh, covered, 30, steep)
    assert np.allclose(behind[0, 20:26], [0.82, 0.84, 0.86, 0.88, 0.9, 0.9], atol=1e-5)
    assert behind[10, 25] < 0.82, "where it is not allowed the blend is slow"
    before = blend_to_mesh(np.full((20, 60), 0.7, np.float32), mesh, covered, 30, steep)
    assert np.allclose(before[0], before[10]) and before[0, 22] > 0.79, "and what lies before it is left alone"
