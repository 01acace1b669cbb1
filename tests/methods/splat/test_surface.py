"""The photo's camera, and the inflated proxy behind every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourdface.methods.splat.lift import body_of
from fourdface.methods.splat.scene import make_scene
from fourdface.methods.splat.surface import Shell, blend_to_mesh, build_shell
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


def test_what_stands_out_from_the_skull_goes_on_smoothly() -> None:
    """Beside a ball the front stays near the depth of the ball's outline, and no step is between the two."""
    rows, columns = np.mgrid[:96, :96] + 0.5
    across = np.hypot(rows - 48, columns - 48) / 24
    hull = np.where(across < 1, 1.0 - 0.1 * np.sqrt(1 - np.minimum(across, 1) ** 2), np.nan)
    shell = build_shell(hull, np.full((96, 96), 2.0), chin_row=200.0)
    assert np.allclose(shell.front[across < 1], hull[across < 1])
    assert np.abs(shell.front[across > 1] - 1.0).max() < 0.06
    ring = (across > 1) & (across < 1.1)
    assert np.abs(np.gradient(shell.front, axis=1))[ring].max() < 0.03


def test_without_a_skull_there_is_the_torso() -> None:
    torso = np.full((8, 8), 0.7)
    assert (build_shell(np.full((8, 8), np.nan), torso, 4.0).front == np.float32(0.7)).all()


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
