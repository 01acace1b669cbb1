"""The photo's camera, and the inflated proxy behind every pixel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from fourdface.methods.splat.lift import shell_of
from fourdface.methods.splat.scene import make_scene
from fourdface.methods.splat.surface import Shell, blend_to_mesh
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
    return shell_of(make_scene(photo.image, photo.matte, photo.view, open_head(), photo.rig))


def test_the_front_is_before_the_back(shell: Shell) -> None:
    inside = make_photo(SIZE).matte > 0.5
    assert all(np.isfinite(field).all() for field in (shell.front, shell.back, shell.head_share, shell.rho))
    assert (shell.front[inside] <= shell.back[inside] + 1e-6).all()
    deep = ndimage.binary_erosion(inside, iterations=15) & (shell.head_share == 1)
    assert (shell.back - shell.front)[deep].min() > 0.05, "metres: a head has a volume"


def test_it_closes_at_the_outline(shell: Shell) -> None:
    """Front and back meet where the hair ends."""
    outside = make_photo(SIZE).matte < 0.5
    at_top = outside & (shell.head_share == 1) & (np.arange(SIZE)[:, None] < 0.3 * SIZE)
    assert (shell.back - shell.front)[at_top].max() < 0.06
    assert shell.rho.min() >= 0 and shell.rho.max() <= 1


def test_it_has_the_depth_of_a_head(shell: Shell) -> None:
    middle = shell.back[SIZE // 3, SIZE // 2] - shell.front[SIZE // 3, SIZE // 2]
    assert 0.12 < middle < 0.35


def test_head_above_torso_below(shell: Shell) -> None:
    assert shell.head_share[: SIZE // 2].min() == 1 and shell.head_share[-5:].max() == 0
    assert (np.diff(shell.head_share[:, SIZE // 2]) <= 1e-6).all()


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
