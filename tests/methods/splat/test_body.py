"""The closed body behind the photo: inflated skull, torso, and their samples."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from fourdface.methods.splat.back import FLAKE, flat_covariances, sample_mesh
from fourdface.methods.splat.hull import Hull, hull_depth, inflate_skull
from fourdface.methods.splat.scene import Scene, make_scene
from fourdface.methods.splat.torso import Torso, fit_torso, torso_turn
from support.scenes import PLACE, head_state, make_photo, open_head, photo_view

SIZE = 144


def scene_of(matte: np.ndarray | None = None, yaw: float = 0.0) -> Scene:
    photo = make_photo(SIZE, yaw)
    return make_scene(photo.image, photo.matte if matte is None else matte, photo.view, open_head(), photo.rig)


def with_hair(metres: float) -> np.ndarray:
    """Matte [H,W] of the head's mesh alone, grown by so much above the ears."""
    photo = make_photo(SIZE)
    pixels = metres * photo.view.intrinsics[0, 0] / 0.8
    distance = ndimage.distance_transform_edt(photo.head < 0.5)
    upper = np.arange(SIZE)[:, None] < 0.45 * SIZE
    return np.where(upper, distance <= pixels, photo.head > 0.5).astype(np.float32)


# ---------------------------------------------------------------------------------------------------------------- skull


@pytest.mark.parametrize("metres", [0.01, 0.03, 0.06])
def test_hair_is_as_thick_as_the_silhouette_says(metres: float) -> None:
    scene = scene_of(with_hair(metres))
    hull = inflate_skull(scene)
    skull = scene.vertices[: len(hull.vertices)]
    crown = np.argmax(skull[:, 1])
    assert hull.thickness[crown] == pytest.approx(metres, abs=0.35 * metres)
    assert np.linalg.norm(hull.vertices[crown] - skull[crown]) == pytest.approx(hull.thickness[crown], rel=1e-5)


def test_only_the_scalp_is_moved_and_outward() -> None:
    scene = scene_of(with_hair(0.03))
    hull = inflate_skull(scene)
    scalp = open_head().regions["scalp"].numpy()
    assert (hull.thickness[~scalp] == 0).all() and (hull.thickness >= 0).all()
    centre = hull.vertices[scalp].mean(0)
    away = lambda points: np.linalg.norm(points[scalp] - centre, axis=-1)  # noqa: E731
    grown = away(hull.vertices) - away(scene.vertices[: len(scalp)])
    assert (grown[hull.thickness[scalp] > 0.005] > 0).all()


def test_the_hidden_back_has_hair_too() -> None:
    """Thicker behind than a bald skull, and more so where the outline has more."""
    backs = []
    for metres in (0.0, 0.03):
        scene = scene_of(with_hair(metres))
        hull = inflate_skull(scene)
        middle = open_head().regions["scalp"].numpy() & (np.abs(hull.vertices[:, 0]) < 0.02)
        back = np.argmin(np.where(middle & (hull.vertices[:, 1] > 0), hull.vertices[:, 2], np.inf))
        backs.append(hull.thickness[back])
    assert 0.001 < backs[0] < 0.012 and backs[1] > backs[0] + 0.015


@pytest.fixture(scope="module")
def hull() -> Hull:
    return inflate_skull(scene_of())


def test_its_front_fills_the_hair_of_the_photo(hull: Hull) -> None:
    scene = scene_of()
    depth = hull_depth(scene, hull)
    hair = (scene.matte > 0.5) & (np.arange(SIZE)[:, None] < 0.3 * SIZE)
    assert np.isfinite(depth[hair]).mean() > 0.92
    outside = (ndimage.maximum_filter(scene.matte, 7) < 0.1) & np.isfinite(depth)
    assert outside.sum() < 10, "and little stands out"


# ---------------------------------------------------------------------------------------------------------------- torso


@pytest.fixture(scope="module")
def torso() -> Torso:
    return fit_torso(scene_of(), 0.75 * SIZE)


def test_it_is_as_wide_as_the_silhouette(torso: Torso) -> None:
    inside = scene_of().matte[-10] > 0.5
    columns = np.flatnonzero(inside)
    assert torso.half_width[SIZE - 10] == pytest.approx(0.5 * len(columns), abs=2)
    assert torso.middle[SIZE - 10] == pytest.approx(columns.mean() + 0.5, abs=1.5)


def test_it_is_closed_turns_outward_and_goes_on_below(torso: Torso) -> None:
    view = photo_view(SIZE)
    points, faces = torso.mesh(view, 3)
    assert len(torso.middle) > SIZE and faces.max() < len(points)
    corners = points[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    row = np.clip(view.project(corners.mean(1))[0][:, 1].astype(int), 0, len(torso.middle) - 1)
    axis = view.unproject(torso.middle[row], row + 0.5, torso.depth[row])
    outward = ((corners.mean(1) - axis) * normal).sum(-1)
    assert (outward > 0).mean() > 0.95
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert set(count) == {1, 2} and (count == 1).sum() == 2 * 64, "open at both ends only"


def test_its_front_is_its_mesh(torso: Torso) -> None:
    view = photo_view(SIZE)
    points, _ = torso.mesh(view, 1)
    pixels, depth = view.project(points)
    front = torso.front(view)
    row, column = pixels[:, 1].astype(int), pixels[:, 0].astype(int)
    rows_in = np.clip(row, 0, SIZE - 1)
    ahead = (row < SIZE) & (column >= 0) & (column < SIZE) & (depth < torso.depth[row] - 0.5 * torso.half_depth[row])
    assert ahead.sum() > 100
    error = front[rows_in, np.clip(column, 0, SIZE - 1)] - depth
    assert np.abs(error[ahead]).max() < 0.005


def test_a_torso_that_the_frame_cuts_goes_on_beside_it() -> None:
    matte = scene_of().matte.copy()
    matte[int(0.9 * SIZE) :, : SIZE // 2] = 1  # to the picture's left edge
    torso = fit_torso(scene_of(matte), 0.75 * SIZE)
    left = torso.middle - torso.half_width
    assert left[SIZE - 5] < -3 and left[int(0.8 * SIZE)] > 0


def test_an_empty_matte_has_no_width() -> None:
    torso = fit_torso(scene_of(np.zeros((SIZE, SIZE), np.float32)), 0.75 * SIZE)
    assert np.isfinite(torso.middle).all() and (torso.half_width <= 3).all()


def test_it_leans_and_turns_by_part_of_the_head() -> None:
    """Who looks up (to the picture's right) has a body that leans back (faces right), by less."""
    for rotation, which in (((-0.3, 0.0, 0.0), 0), ((0.0, 0.3, 0.0), 1)):
        scene = scene_of()
        scene.rig = type(scene.rig)(open_head(), scene.rig.shape, head_state(None, rotation, PLACE))
        turn = torso_turn(scene)
        assert 0.05 < turn[which] < 0.3 and abs(turn[1 - which]) < 0.05
    assert torso_turn(scene_of()) == pytest.approx((0, 0), abs=0.01)


def test_long_hair_is_told_from_a_neck() -> None:
    matte = scene_of().matte.copy()
    rows = slice(int(0.4 * SIZE), int(0.9 * SIZE))
    matte[rows, int(0.25 * SIZE) : int(0.75 * SIZE)] = 1
    short, hanging = fit_torso(scene_of(), 0.75 * SIZE), fit_torso(scene_of(matte), 0.75 * SIZE)
    assert short.hair == 0 and hanging.hair == 1 and hanging.first < short.first


# -------------------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("spacing", [0.03, 0.1])
def test_samples_are_even(spacing: float) -> None:
    """On a unit square of two very unlike halves: as many as the area asks for, and no large hole."""
    fine = np.linspace(0, 1, 40)
    grid = np.stack(np.meshgrid(np.concatenate([fine * 0.5, [1.0]]), fine, indexing="ij"), -1).reshape(-1, 2)
    vertices = np.concatenate([grid, np.zeros((len(grid), 1))], 1)
    a = (np.arange(40)[:, None] * 40 + np.arange(39)).reshape(-1)
    faces = np.concatenate([np.stack([a, a + 40, a + 1], -1), np.stack([a + 1, a + 40, a + 41], -1)])
    triangle, weights = sample_mesh(vertices, faces, spacing)
    assert np.allclose(weights.sum(1), 1) and (weights >= 0).all()
    assert len(triangle) == pytest.approx(1 / spacing**2, abs=1.5)
    points = (weights[..., None] * vertices[faces[triangle]]).sum(1)
    probes = np.random.default_rng(0).uniform(0.1, 0.9, (2000, 2))
    distance, _ = cKDTree(points[:, :2]).query(probes)
    assert distance.max() < 2.6 * spacing and np.median(distance) < 0.6 * spacing


def test_no_faces_no_samples() -> None:
    triangle, weights = sample_mesh(np.zeros((0, 3)), np.zeros((0, 3), int), 0.1)
    assert triangle.shape == (0,) and weights.shape == (0, 3)


def test_flakes_are_flat_and_round() -> None:
    normal = np.array([[0, 0, 1.0], [0.6, 0.8, 0]])
    covariance = flat_covariances(normal, np.array([2.0, 3.0]))
    full = covariance[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    assert np.allclose(np.einsum("ni,nij,nj->n", normal, full, normal), [0.25, 0.5625])
    assert np.allclose(np.linalg.eigvalsh(full), [[0.25, 4, 4], [0.5625, 9, 9]])
    assert 0.5 < FLAKE < 1
