"""The head as Portrait4D sees it: numbers of its FLAME layer, entries of its checkpoints, and heads of this project."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from parity.rule import assert_close, manifest_shapes, parity_arrays, parity_module

from fourdface.blocks.head_model import HeadModel
from fourdface.priors.genhead.deformation import HeadDeformer
from fourdface.priors.genhead.head import HeadGeometry, HeadPose
from fourdface.priors.genhead.topology import local_faces, neighbours, simplify
from support.heads import parity_pose, synthetic_flame

PREFIX = "deformer.flame_deform."
GIVEN = ("smallface", "dynamic_idxs", "eyelids", "simplif", "canonical_shape_coarse", "vertices_region_idxs")
"""Entries whose sizes follow from lists that Portrait4D ships."""


@pytest.fixture(scope="module")
def head() -> HeadGeometry:
    return synthetic_flame()


@pytest.fixture(scope="module")
def open_head() -> HeadGeometry:
    return HeadGeometry.from_head_model(HeadModel.load())


def test_flame_numbers(head: HeadGeometry) -> None:
    numbers = parity_arrays("flame_forward.npz")
    vertices, joints = head.flame_model(parity_pose())
    assert_close(vertices[:, ::10], numbers["vertices_sub"], absolute=1e-6)
    assert_close(joints, numbers["joints"], absolute=1e-6)
    assert_close(head.canonical_shape[:, ::10], numbers["canonical_shape_sub"], absolute=1e-6)
    assert_close(head.flame_model.v_template[::10], numbers["v_template_sub"], absolute=1e-6)


@pytest.mark.parametrize("manifest", ["genhead_generator", "portrait4d_psi"])
def test_published_entries(head: HeadGeometry, manifest: str) -> None:
    shapes = manifest_shapes(f"{manifest}_state_dict_manifest.json")
    expected = {key.removeprefix(PREFIX): shape for key, shape in shapes.items() if key.startswith(PREFIX)}
    found = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    assert set(found) == set(expected)
    different = {key for key in expected if found[key] != expected[key]}
    assert all(any(word in key for word in GIVEN) for key in different), different


def test_a_checkpoint_carries_its_head(head: HeadGeometry) -> None:
    state = {PREFIX + key: value for key, value in head.state_dict().items()}
    again = HeadGeometry.from_checkpoint(state)
    assert torch.equal(again.face_mask, head.face_mask)
    assert torch.equal(again.vertices(parity_pose()), head.vertices(parity_pose()))
    assert (again.shape_count, again.expression_count) == (300, 100)
    with pytest.raises(ValueError, match="carries no head model"):
        HeadGeometry.from_checkpoint({"w_avg": torch.zeros(3)})


def test_given_topology_is_taken(head: HeadGeometry) -> None:
    model, masks = parity_module("synthetic_flame.py").build()
    topology = {
        "simplify_idxs": np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
        "simplify_baris": np.full((3, 3), 1 / 3),
        "simplify_faces": np.array([[0, 1, 2]]),
        "vertices_region_idxs": np.zeros((5023, 10), np.int64),
    }
    given = HeadGeometry.from_flame(model, masks, topology)
    assert given.canonical_shape_coarse.shape == (1, 3, 3)
    assert_close(given.canonical_shape_coarse[0, 1], head.canonical_shape[0, 3:6].mean(0))
    assert given.vertices_region_idxs.shape == (5023, 10)


def test_missing_lists_are_named() -> None:
    model, masks = parity_module("synthetic_flame.py").build()
    with pytest.raises(ValueError, match="masks have no noinmouth"):
        HeadGeometry.from_flame(model, {key: value for key, value in masks.items() if key != "noinmouth"})
    with pytest.raises(ValueError, match="topology lacks simplify_baris, simplify_faces, vertices_region_idxs"):
        HeadGeometry.from_flame(model, masks, {"simplify_idxs": np.zeros((3, 3))})


def test_what_is_not_in_the_state_follows_it(head: HeadGeometry) -> None:
    """Loading another head of the same sizes brings its face mask and its neighbours of triangles."""
    other = HeadDeformer(HeadGeometry.from_checkpoint(head.state_dict(), prefix=""))
    other.flame_deform.simplify_faces = other.flame_deform.simplify_faces.flip(0)
    target = HeadDeformer(HeadGeometry.from_checkpoint(head.state_dict(), prefix=""))
    target.flame_deform.face_mask = target.flame_deform.face_mask[:3]
    before = target.around_faces.clone()
    target.load_state_dict(other.state_dict())
    assert torch.equal(target.flame_deform.face_mask, head.face_mask)
    assert not torch.equal(target.around_faces, before)


def test_open_head(open_head: HeadGeometry) -> None:
    """Three times the size of our head, the neck joint at the origin, the mouth open in the canonical pose."""
    model = HeadModel.load()
    assert (open_head.shape_count, open_head.expression_count) == (model.shape_count, model.expression_count)
    vertices, joints = open_head.flame_model(open_head.neutral())
    assert joints[0, 1].abs().max() < 1e-6
    assert_close(vertices, model.template[None] * 3, absolute=1e-5)
    pose = HeadPose(
        torch.randn(2, model.shape_count) * 0.5, torch.rand(2, model.expression_count) * 0.3,
        torch.randn(2, 3) * 0.2, torch.rand(2, 3) * 0.1, torch.randn(2, 6) * 0.1,
    )  # fmt: skip
    expected = model(pose.shape, pose.expression, neck=pose.neck, jaw=pose.jaw, eyes=pose.eyes)
    # FLAME's joints follow the expression too, those of our model the shape alone: some tenths of a millimetre.
    assert_close(open_head.vertices(pose), 3 * expected, absolute=3e-3)
    chin = (open_head.canonical_shape - vertices)[0, open_head.lips_idxs, 1].min()
    assert chin < -0.02


def test_eyelids_may_blink_alone(open_head: HeadGeometry) -> None:
    rest = open_head.neutral()
    closed = torch.rand(1, open_head.expression_count, generator=torch.Generator().manual_seed(0))
    vertices = open_head.vertices(rest, closed)
    moved = (vertices - open_head.vertices(rest)).abs().amax(-1)[0] > 0
    assert moved.any()
    assert set(torch.nonzero(moved)[:, 0].tolist()) <= set(open_head.eyelids_idxs.tolist())


def test_heads_need_their_regions() -> None:
    model = HeadModel.load()
    model._region_names = ("face",)
    with pytest.raises(ValueError, match="has no regions lips, eyelids"):
        HeadGeometry.from_head_model(model)


def test_wrong_number_of_coefficients(head: HeadGeometry) -> None:
    pose = HeadPose(torch.zeros(1, 10), torch.zeros(1, 10), torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1, 6))
    with pytest.raises(ValueError, match="20 coefficients together, the head model has 400"):
        head.vertices(pose)


def test_neighbours_and_local_faces() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3]])
    lists = neighbours(faces, 5)
    assert [sorted(row[row < 5].tolist()) for row in lists] == [[0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3], [4]]
    assert lists[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert neighbours(faces, 5, width=2).shape == (5, 2)
    assert local_faces(torch.tensor([3, 1, 2]), faces).tolist() == [[2, 1, 0]]


def test_simplified_mesh_stays_near(head: HeadGeometry, open_head: HeadGeometry) -> None:
    for geometry in (head, open_head):
        vertices, faces = geometry.canonical_shape[0], geometry.faces_within(geometry.face_idxs)
        kept, small = simplify(vertices, faces, 600)
        assert 400 < len(kept) < 900
        assert small.max() < len(kept)
        assert all(len(set(face)) == 3 for face in small.tolist())
        distance = torch.cdist(vertices[faces.unique()], vertices[kept]).amin(1)
        assert float(distance.max()) < 0.09  # three centimetres of the head in its own size


def test_the_coarse_mesh_does_not_hang_on_threads() -> None:
    """Which vertex stands for a cell is the same every time, and is one of those nearest to the cell's mean."""
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(20000, 3, generator=generator)
    vertices /= vertices.norm(dim=1, keepdim=True)
    faces = torch.randint(0, 20000, (40000, 3), generator=generator)
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        runs = [simplify(vertices, faces, 200) for _ in range(6)]
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(kept, runs[0][0]) and torch.equal(small, runs[0][1]) for kept, small in runs)
