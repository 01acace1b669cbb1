"""Ties between triangles that share what is nearest."""

from __future__ import annotations

import torch
from parity.rule import draw

from fourdface.ops.surface_field import surface_field
from fourdface.priors.genhead.deformation import MIN_TRIANGLE_AREA, HeadDeformer, grid_points
from fourdface.priors.genhead.ties import around_faces, settle_ties
from support.heads import parity_pose, synthetic_flame


def test_around_faces() -> None:
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [3, 4, 5], [6, 7, 8]])
    assert [set(row) for row in around_faces(faces).tolist()] == [{0, 1}, {0, 1, 2}, {1, 2}, {3}]


def test_equal_bits_go_to_the_last() -> None:
    """Above the shared edge of two small triangles, in either order."""
    vertices = torch.tensor([[[0.0, 0, 0], [0.01, 0, 0], [0.005, 0.01, 0], [0.005, -0.01, 0]]])
    point = torch.tensor([[[0.005, 0.0, 0.3]]])
    for faces in ([[0, 1, 2], [0, 1, 3]], [[0, 1, 3], [0, 1, 2]]):
        mesh = torch.tensor(faces)
        for first in (0, 1):
            chosen = settle_ties(point, vertices, mesh, torch.tensor([[first]]), around_faces(mesh), 5e-3)
            assert int(chosen) == 1


def test_large_triangles_keep_their_inside() -> None:
    """A point above a large triangle is nearer to it than to its neighbour's edges."""
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0.5]]])
    mesh = torch.tensor([[0, 1, 2], [1, 3, 2]])
    point = torch.tensor([[[0.2, 0.2, 0.1]]])
    assert int(settle_ties(point, vertices, mesh, torch.tensor([[1]]), around_faces(mesh), 5e-3)) == 0


def test_the_choice_is_as_near_as_the_nearest() -> None:
    """On a posed head, whatever triangle the search came with: distances equal up to rounding, and one answer."""
    head, pose = synthetic_flame(), parity_pose()
    mesh, faces = head.coarse(head.vertices(pose)), head.simplify_faces
    points = grid_points(12, 1.3).expand(2, -1, -1)
    found = surface_field(points, mesh, faces, min_triangle_area=MIN_TRIANGLE_AREA)
    around = around_faces(faces)
    chosen = settle_ties(points, mesh, faces, found.face_index, around, MIN_TRIANGLE_AREA)
    assert torch.equal(settle_ties(points, mesh, faces, chosen, around, MIN_TRIANGLE_AREA), chosen)
    whole = torch.arange(len(faces))[None].repeat(len(faces), 1)  # every triangle is a candidate
    some = slice(0, None, 173)
    everything = settle_ties(points[:, some], mesh, faces, found.face_index[:, some], whole, MIN_TRIANGLE_AREA)
    assert (everything == chosen[:, some]).all()


def test_the_field_is_finite_everywhere() -> None:
    deformer = HeadDeformer(synthetic_flame(), 1.3)
    moved = deformer.neck_field(parity_pose())(draw("far", (2, 100, 3)) * 3)
    assert torch.isfinite(moved).all()
