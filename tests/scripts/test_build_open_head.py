"""The steps of the head's build on small inputs, the checks of the shipped head, and its figures against the source."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fourdface.blocks.head_model import HeadModel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


def bumpy_half(n: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A half sheet x in [0, 1] with a bump, as triangles."""
    x, y = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(-1, 1, 2 * n + 1), indexing="xy")
    points = np.stack([x, y, 0.2 * np.exp(-8 * (x**2 + y**2))], -1).reshape(-1, 3)
    i = (np.arange(2 * n)[:, None] * (n + 1) + np.arange(n)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + n + 2], 1), np.stack([i, i + n + 2, i + n + 1], 1)])
    return points, faces


def test_remesh_keeps_surface_seam_and_correspondence() -> None:
    from open_head.remesh import remesh
    from open_head.sources import edges_of, make_source

    points, faces = bumpy_half()
    none = np.zeros((0, 3), np.int64)
    source = make_source(points, faces, none, np.zeros(0, np.int64), np.full(len(points), 0.14))
    weights, new_faces = remesh(source, rounds=6)
    new = weights @ points
    np.testing.assert_allclose(np.asarray(weights.sum(1)).ravel(), 1, atol=1e-12)
    assert weights.data.min() >= -1e-12
    assert 40 < len(new) < len(points) / 3
    np.testing.assert_allclose(new[:, 2], 0.2 * np.exp(-8 * (new[:, 0] ** 2 + new[:, 1] ** 2)), atol=4e-3)
    edges, count = edges_of(new_faces)
    assert count.max() == 2
    rim = new[np.unique(edges[count == 1])]
    on_border = np.isclose(rim[:, 0], 0) | np.isclose(rim[:, 0], 1) | np.isclose(np.abs(rim[:, 1]), 1)
    assert on_border.all()  # the border stays where it was
    normal = np.cross(new[new_faces[:, 1]] - new[new_faces[:, 0]], new[new_faces[:, 2]] - new[new_faces[:, 0]])
    assert (normal[:, 2] > 0).all()  # nothing folds over
    length = np.linalg.norm(new[edges[:, 0]] - new[edges[:, 1]], axis=1)
    assert 0.08 < np.median(length) < 0.2


def test_clip_leaves_the_positive_side() -> None:
    from open_head.sources import clip

    points, faces = bumpy_half(8)
    weights, kept, cut = clip(points, faces, points[:, 1] - 0.03)
    new = weights @ points
    assert new[np.unique(kept)][:, 1].min() > 0.02
    np.testing.assert_allclose(new[cut.ravel()][:, 1], 0.03, atol=2e-3)
    a, b, c = (new[kept[:, k]] for k in range(3))
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum()  # seen from above
    assert abs(area - 0.97) < 1e-2


def test_flattening_has_no_folds() -> None:
    from open_head.uvmap import boundary_loops, flatten

    points, faces = bumpy_half()
    points[:, 2] *= 6  # a steep bump
    loop = np.array(boundary_loops(faces)[0])
    angle = 2 * np.pi * np.arange(len(loop)) / len(loop)
    uv = flatten(points, faces, loop, np.stack([np.cos(angle), np.sin(angle)], 1), np.ones(len(faces)), 8)
    a, b, c = (uv[faces[:, k]] for k in range(3))
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).all()


def test_eyeball_is_closed_round_and_symmetric() -> None:
    from open_head.checks import boundary_edges
    from open_head.eyeballs import fit_sphere, mirror_eyeball, unit_eyeball

    points, faces, ring = unit_eyeball()
    edges, crowded = boundary_edges(faces)
    assert len(edges) == 0
    assert crowded == 0
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(points[mirror_eyeball()] * [-1, 1, 1], points, atol=1e-12)
    assert ring.max() == ring[-1]
    centre, radius = fit_sphere(points * 1.3 + [0.1, 0.2, -0.4])
    np.testing.assert_allclose([*centre, radius], [0.1, 0.2, -0.4, 1.3], atol=1e-9)


def test_rasteriser() -> None:
    from open_head.raster import rasterize

    far = np.array([[2.0, 2, 2], [14, 2, 2], [2, 14, 2]])
    near = np.array([[2.0, 2, 1], [8, 2, 1], [2, 8, 1]])
    face, bary, depth = rasterize(np.concatenate([far, near]), np.array([[0, 1, 2], [3, 5, 4]]), 16, 16)
    assert face[3, 3] == 1  # the nearer wins, whichever way it winds
    assert face[3, 9] == 0
    assert face[15, 15] == -1
    assert depth[3, 3] == pytest.approx(1)
    np.testing.assert_allclose(bary[face >= 0].sum(1), 1)
    assert (face >= 0).sum() == pytest.approx(72, abs=7)


def test_winding_number_tells_inside() -> None:
    from open_head.checks import winding_number
    from open_head.eyeballs import unit_eyeball

    points, faces, _ = unit_eyeball()
    inside = winding_number(np.array([[0, 0, 0], [0.5, 0.2, 0.3], [0, 0, 1.2], [3, 0, 0]], float), points, faces)
    np.testing.assert_allclose(inside, [1, 1, 0, 0], atol=1e-9)


def test_joint_regressor_reaches_its_target() -> None:
    from open_head.skeleton import fit_jaw_axis, regressor

    generator = np.random.default_rng(0)
    points = generator.standard_normal((40, 3))
    row = regressor(points, np.arange(40) < 20, np.array([0.1, -0.2, 0.3]))
    np.testing.assert_allclose([*(row @ points), row.sum()], [0.1, -0.2, 0.3, 1], atol=1e-10)
    assert (row[20:] == 0).all()
    origin, angle = np.array([0.0, -0.5, 1.7]), 0.3
    teeth = points * 0.3 + [0, -3, 9]
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    found, found_angle = fit_jaw_axis(teeth, (teeth - origin) @ turn.T + origin)
    np.testing.assert_allclose(found, origin, atol=1e-3)
    assert found_angle == pytest.approx(angle, abs=1e-4)


def test_texture_layout_has_no_overlaps(head: HeadModel) -> None:
    """No pixel centre of a fine texture lies in two faces."""
    uv, faces = head.uv.double().numpy() * 1500, head.faces_uv.numpy()
    corners = uv[faces]
    low = np.ceil(corners.min(1) - 0.5).astype(int)
    high = np.floor(corners.max(1) - 0.5).astype(int)
    size = np.maximum(high - low + 1, 0)
    total = size.prod(1)
    owner = np.repeat(np.arange(len(faces)), total)
    step = np.arange(len(owner)) - np.repeat(np.cumsum(total) - total, total)
    x = low[owner, 0] + step % np.maximum(size[owner, 0], 1)
    y = low[owner, 1] + step // np.maximum(size[owner, 0], 1)
    p = np.stack([x, y], 1) + 0.5
    a, b, c = (corners[owner, k] for k in range(3))

    def side(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return (v - u)[:, 0] * (p - u)[:, 1] - (v - u)[:, 1] * (p - u)[:, 0]

    s = np.stack([side(a, b), side(b, c), side(c, a)])
    inside = (s > 1e-9).all(0) | (s < -1e-9).all(0)
    count = np.bincount(y[inside] * 1500 + x[inside], minlength=1500 * 1500)
    assert count.max() == 1
    assert count.sum() > 0.4 * 1500 * 1500


@pytest.mark.parametrize("opened", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_lips_and_teeth_when_the_jaw_opens(head: HeadModel, opened: float) -> None:
    from open_head import checks

    shapes = [None, *torch.randn(4, head.shape_count, generator=torch.Generator().manual_seed(8))]
    deep = [checks.lips_in_teeth(head, checks.evaluate(head, s, jawOpen=opened)) for s in shapes]
    assert max(deep) < 5e-4  # metres
    assert deep[0] < 1e-4


def test_lips_in_teeth_can_fail(head: HeadModel) -> None:
    from open_head import checks

    vertices = checks.evaluate(head)
    teeth = (head.regions["teeth_upper"] | head.regions["teeth_lower"]).numpy()
    vertices[teeth, 2] += 0.006
    assert checks.lips_in_teeth(head, vertices) > 1e-3


@pytest.mark.real
def test_figures_against_the_source(head: HeadModel, test_data: Path) -> None:
    from open_head.report import Comparison
    from open_head.sources import load_ict

    comparison = Comparison(load_ict(test_data / "headmodel" / "ict_facekit"), head)
    face, whole = comparison.identity_errors(count=20)
    assert face.mean() <= 0.8  # millimetres
    assert whole.mean() <= 2.0
    assert face.max() <= 1.0
    fields = comparison.expression_errors()
    assert len(fields) == 51  # all but tongueOut
    assert max(fields.values()) <= 0.5


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_build_repeats_the_shipped_file(test_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "head.safetensors"
    command: list[Any] = [sys.executable, ROOT / "scripts/build_open_head.py", test_data / "headmodel", "-o", output]
    subprocess.run(command, check=True, cwd=ROOT, timeout=900)
    assert output.read_bytes() == (ROOT / "fourdface/assets/files/open_head.safetensors").read_bytes()
