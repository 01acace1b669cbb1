"""Colours for what is not seen: harmonic fills, sampling, the mouth's inside."""

from __future__ import annotations

import numpy as np
import pytest

from fourdface.methods.splat.appearance import (
    INTERIOR_COLOURS,
    graph_laplacian,
    harmonic_fill,
    interior_colours,
    sample_image,
)


def strip(count: int = 10) -> np.ndarray:
    """Triangles of a strip with 2 x count vertices: k and count + k face each other."""
    lower = [[k, k + 1, count + k] for k in range(count - 1)]
    upper = [[k + 1, count + k + 1, count + k] for k in range(count - 1)]
    return np.array(lower + upper)


def test_laplacian_is_of_edges_that_count_once() -> None:
    matrix = graph_laplacian(np.array([[0, 1, 2], [1, 3, 2]]), 4).toarray()
    assert matrix.tolist() == [[2, -1, -1, 0], [-1, 3, -1, -1], [-1, -1, 3, -1], [0, -1, -1, 2]]


def test_harmonic_fill_keeps_what_is_known_and_is_smooth_between() -> None:
    values, known = np.zeros((20, 2)), np.zeros(20, bool)
    known[[0, 10, 9, 19]] = True
    values[[9, 19]] = [1.0, -2.0]
    filled = harmonic_fill(graph_laplacian(strip(), 20), values, known)
    assert np.array_equal(filled[known], values[known])
    along = filled[:10, 0]
    assert (np.diff(along) > 0.05).all() and along.min() >= 0 and along.max() <= 1
    assert np.allclose(filled[:, 1], -2 * filled[:, 0], atol=1e-6)


@pytest.mark.parametrize("known", [np.ones(20, bool), np.zeros(20, bool)])
def test_nothing_to_fill_or_nothing_to_fill_from(known: np.ndarray) -> None:
    values = np.random.default_rng(0).random((20, 3))
    assert np.array_equal(harmonic_fill(graph_laplacian(strip(), 20), values, known), values)


def test_a_part_without_known_values_takes_the_mean() -> None:
    """Two strips that do not touch, of which one is unknown."""
    faces = np.concatenate([strip(), strip() + 20])
    values, known = np.zeros((40, 1)), np.zeros(40, bool)
    values[:20, 0], known[:20] = 0.6, True
    filled = harmonic_fill(graph_laplacian(faces, 40), values, known)
    assert np.allclose(filled[20:], 0.6, atol=1e-3)


def test_sampling_at_pixel_centres_gives_pixels() -> None:
    image = np.random.default_rng(0).random((5, 7, 3))
    rows, columns = np.mgrid[:5, :7]
    points = np.stack([columns + 0.5, rows + 0.5], -1).reshape(-1, 2)
    assert np.allclose(sample_image(image, points), image.reshape(-1, 3))
    between = sample_image(image, np.array([[3.0, 2.5]]))[0]
    assert np.allclose(between, (image[2, 2] + image[2, 3]) / 2)
    assert np.allclose(sample_image(image, np.array([[-9.0, 99.0]]))[0], image[4, 0]), "clamped"


def interior(light: float = 0.72, teeth: np.ndarray | None = None, deep: float = 0.0) -> dict[str, np.ndarray]:
    names = list(INTERIOR_COLOURS)
    regions = {name: np.arange(len(names) + 1) == k for k, name in enumerate(names)}
    count = len(names) + 1
    colours = interior_colours(regions, light, np.full(count, deep), np.ones(count), teeth)
    assert np.isnan(colours[-1]).all(), "what is not the mouth's is not touched"
    return {name: colours[k] for k, name in enumerate(names)}


def test_teeth_are_brighter_than_the_bag_and_light_falls_off_inwards() -> None:
    near, far = interior(), interior(deep=0.06)
    assert near["teeth_upper"].mean() > 2 * near["mouth_bag"].mean()
    assert near["tongue"][0] > near["tongue"][2], "red"
    assert all((far[name] < 0.7 * near[name]).all() for name in near)


def test_the_mouth_is_in_the_photos_light() -> None:
    assert (interior(light=0.3)["tongue"] < 0.6 * interior(light=0.72)["tongue"]).all()


def test_teeth_that_the_photo_shows_lend_their_colour() -> None:
    seen = np.array([0.5, 0.6, 0.9])
    assert np.allclose(interior(teeth=seen)["teeth_upper"], seen)
