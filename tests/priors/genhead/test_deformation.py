"""Deformation fields: the paper's numbers where its own index lists are not needed, and what any head must obey.

The parity data were made with the coarse mesh and neighbour lists that Portrait4D ships, which are not among them. What
does not depend on them, or on four lists alone, is compared number by number; the rest is held against loops.
"""

from __future__ import annotations

import pytest
import torch
from parity.rule import draw, parity_arrays

from fourdface.blocks.head_model import HeadModel
from fourdface.ops.nearest_vertices import nearest_vertices
from fourdface.priors.genhead.deformation import COARSE, FINE, HeadDeformer, NeckField, PartField, grid_points
from fourdface.priors.genhead.head import HeadGeometry
from support.heads import parity_pose, synthetic_flame

BOX = 1.3


@pytest.fixture(scope="module")
def deformer() -> HeadDeformer:
    return HeadDeformer(synthetic_flame(), BOX)


@pytest.fixture(scope="module")
def points() -> torch.Tensor:
    return draw("in:xt", (2, 1500, 3), "pm1") * torch.tensor([0.4, 0.55, 0.4])


STRAIGHT = NeckField(
    torch.zeros(2, 3, FINE, FINE, FINE), torch.zeros(2, 1, FINE, FINE, FINE), torch.zeros(2, 3, 8, 8, 8), BOX
)
"""For points of two heads that have a straight neck already."""


@pytest.fixture(scope="module")
def neck(deformer: HeadDeformer) -> NeckField:
    return deformer.neck_field(parity_pose())


@pytest.fixture(scope="module")
def parts(deformer: HeadDeformer) -> PartField:
    return deformer.part_field(parity_pose(), neck=STRAIGHT)


def test_coarse_grid_numbers(points: torch.Tensor) -> None:
    """Far from the mesh the smoothed coarse grid counts alone: all numbers but those near the surface are equal."""
    numbers = parity_arrays("neck_deformation.npz")
    far = torch.full((2, 1, FINE, FINE, FINE), 1.0)
    field = NeckField(torch.zeros(2, 3, FINE, FINE, FINE), far, numbers["grid8_offset"], BOX)
    close = (field(points) - numbers["canonical"]).abs().amax(-1) < 1e-4
    assert close.float().mean() > 0.5
    by_distance = parity_arrays("genhead_part_deformation.npz")["dist_to_face_surface"]
    assert close[by_distance > 0.2].float().mean() >= 0.995


def test_a_straight_neck_moves_nothing(deformer: HeadDeformer, points: torch.Tensor) -> None:
    expected = parity_arrays("neck_deformation.npz")["canonical_zero_pose"]
    moved = deformer.neck_field(parity_pose().without_neck())(points)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(moved, points, rtol=0, atol=1e-4)


def test_neck_field_is_near_the_papers(neck: NeckField, points: torch.Tensor) -> None:
    """With another coarse mesh the same field, up to what a nearest triangle decides."""
    expected = parity_arrays("neck_deformation.npz")["canonical"]
    moved = neck(points)
    assert (moved - expected).norm(dim=-1).median() < 0.25 * (points - expected).norm(dim=-1).median()


def test_grid_order() -> None:
    grid = grid_points(COARSE, BOX).reshape(COARSE, COARSE, COARSE, 3)
    assert grid[1, 0, 0, 0] > grid[0, 0, 0, 0]
    assert grid[0, 0, 1, 2] > grid[0, 0, 0, 2]
    torch.testing.assert_close(grid[0, 0, 0], torch.full((3,), -BOX * (0.5 - 0.5 / COARSE)))


def test_a_rigid_turn_is_undone(deformer: HeadDeformer, neck: NeckField) -> None:
    """Above the neck's skinning a turned head comes back to its place, on the surface and a little off it."""
    head, pose = deformer.flame_deform, parity_pose()
    turned, still = head.vertices(pose), head.vertices(pose.without_neck())
    top = head.flame_model.v_template[:, 1] > 0.35
    back = neck(turned[:, top])
    error = (back - still[:, top]).norm(dim=-1)
    assert error.median() < 0.1 * (turned - still)[:, top].norm(dim=-1).median()


def test_distances_and_eye_boxes_numbers(parts: PartField) -> None:
    numbers = parity_arrays("genhead_part_deformation.npz")
    neckless = parity_arrays("neck_deformation.npz")["canonical"]
    found = parts(neckless)
    for name, value in (("eye", found.distance_eyes), ("face", found.distance_head), ("mouth", found.distance_mouth)):
        assert value is not None
        torch.testing.assert_close(value, numbers[f"dist_to_{name}_surface"], rtol=0, atol=1e-4)
    assert torch.equal(found.inside_eyes, numbers["inside_bbox_eye"] > 0.5)


FOUR_RINGS = {
    4968: (4967, 4969, 4955, 4981, 4954, 4982),
    4981: (4980, 4982, 4968, 4994, 4967),
    4982: (4981, 4983, 4969, 4995, 4968, 4970, 4994, 4996),
    4989: (4988, 4990, 4976, 5002, 4975, 4977),
}
"""Neighbours of four vertices of FLAME's right eyeball, of those that most points of the parity data are nearest to."""


def test_eye_deformation_numbers(deformer: HeadDeformer) -> None:
    """The published numbers, for the points whose lists of neighbours are known."""
    numbers = parity_arrays("genhead_part_deformation.npz")
    neckless = parity_arrays("neck_deformation.npz")["canonical"]
    head = HeadGeometry.from_checkpoint(deformer.flame_deform.state_dict(), prefix="")
    for vertex, ring in FOUR_RINGS.items():
        head.vertices_region_idxs[vertex] = 5023
        head.vertices_region_idxs[vertex, : len(ring) + 1] = torch.tensor([vertex, *ring])
    pose = parity_pose()
    nearest = nearest_vertices(neckless, head.vertices(pose.without_neck()), 1, subset=head.eye_idxs).indices[..., 0]
    known = torch.isin(nearest, torch.tensor(list(FOUR_RINGS)))
    assert known.sum() > 600
    moved = HeadDeformer(head, BOX).part_field(pose, neck=STRAIGHT).moved(neckless, "eyes")[0]
    torch.testing.assert_close(moved[known], numbers["canonical_eye"][known], rtol=0, atol=1e-4)


def test_parts_against_a_loop(deformer: HeadDeformer, parts: PartField) -> None:
    head, pose = deformer.flame_deform, parity_pose()
    points = draw("loop", (2, 7, 3), "pm1") * 0.4
    found = parts(points)
    still = pose.without_neck()
    meshes = {
        "eyes": (head.vertices(still), head.eye_idxs),
        "head": (head.vertices(still), head.face_idxs),
        "mouth": (head.vertices(still.without_expression().without_eyes()), head.lips_idxs),
    }
    for part, (vertices, subset) in meshes.items():
        for b in range(2):
            for n in range(7):
                x = points[b, n].double()
                mesh, canonical = vertices[b].double(), head.canonical_shape[0].double()
                nearest = int(subset[(mesh[subset] - x).square().sum(1).argmin()])
                triangles = head.flame_model.faces_tensor
                around = triangles[(triangles == nearest).any(1)].unique()
                weight = 1 / ((mesh[around] - x).square().sum(1) + 1e-10)
                offset = ((canonical - mesh)[around] * (weight / weight.sum())[:, None]).sum(0)
                torch.testing.assert_close(getattr(found, part)[b, n].double(), x + offset, rtol=0, atol=1e-5)


def test_one_head_of_the_batch(deformer: HeadDeformer, parts: PartField) -> None:
    points = draw("one", (2, 9, 3), "pm1") * 0.4
    whole = parts.moved(points, "mouth")[0]
    torch.testing.assert_close(parts.moved(points[1:], "mouth", 1)[0], whole[1:])
    with pytest.raises(ValueError, match="made without the mouth"):
        deformer.part_field(parity_pose(), neck=STRAIGHT, mouth=False).moved(points, "mouth")


def test_open_head_lands_on_its_canonical_surface() -> None:
    """Vertices of a talking open head come to their canonical places, the eyes by their own field."""
    head = HeadGeometry.from_head_model(HeadModel.load())
    pose = head.neutral()
    pose.jaw[0, 0], pose.expression[0, 3:9], pose.shape[0, :5] = 0.15, 0.4, 1.0
    field = HeadDeformer(head, BOX).part_field(pose, neck=STRAIGHT)
    for part, index in (("eyes", head.eye_idxs), ("head", head.face_idxs)):
        vertices = head.vertices(pose.without_neck())[:, index]
        back, distance = field.moved(vertices, part)
        error = (back - head.canonical_shape[:, index]).norm(dim=-1)
        assert distance.max() < 1e-4
        assert error.median() < 1e-4
        assert (error < 0.01).float().mean() > 0.99
    # The box stands on the mean of the vertices, which lie closer at the iris: part of the eye's back is outside.
    assert field.in_eyes(head.vertices(pose)[:, head.eye_idxs]).float().mean() > 0.7
