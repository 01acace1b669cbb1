"""From a posed head to the canonical one: GenHead's deformation fields (Portrait4D, section 3.1, equation 2).

Two steps, both derived from meshes and without gradients. First the rotation of the neck is undone by an offset field
on two regular grids (this step is also the whole deformation of the reconstructor, section 3.3). Then eyes, head and
mouth are brought to the canonical pose separately, by the offsets of the nearest vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d, grid_sample, pad, relu

from fourdface.ops.nearest_vertices import nearest_vertices
from fourdface.ops.surface_field import surface_field, surface_numbers
from fourdface.priors.genhead.head import HeadGeometry, HeadPose
from fourdface.priors.genhead.ties import around_faces, settle_ties

__all__ = ["HeadDeformer", "NeckField", "PartCoordinates", "PartField", "grid_points"]

FINE, COARSE = 24, 8
"""Points along each side of the two grids."""
MIN_TRIANGLE_AREA = 5e-3
"""Triangles below this area count as their three edges when the nearest one is sought; with heads of this size nearly
all do. Published networks were trained so."""
SURFACE_DISTANCE = 3e-3
"""Squared distance to the mesh up to which the fine grid counts alone."""
_FAR = 1e3  # where neighbours that a vertex does not have are put
_EYE_MARGIN = 1.2


@dataclass(frozen=True)
class PartCoordinates:
    """Canonical coordinates of points by part, [B, N, 3] each, and what tells the parts apart.

    distance_*: [B, N] to the nearest vertex of the part, in the geometry's units. inside_eyes: [B, N] bool, in the box
    of an eyeball. `mouth` and its distance are None where they were not asked for.
    """

    eyes: Tensor
    head: Tensor
    mouth: Tensor | None
    distance_eyes: Tensor
    distance_head: Tensor
    distance_mouth: Tensor | None
    inside_eyes: Tensor


def grid_points(resolution: int, box_size: float) -> Tensor:
    """Centres [R³, 3] of the cells of a cube about the origin; x changes slowest."""
    line = ((torch.arange(resolution) + 0.5) / resolution - 0.5) * box_size
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(-1, 3)


class NeckField:
    """Moves points as if the neck were straight; made by `HeadDeformer.neck_field`.

    fine_offset [B, 3, 24, 24, 24] and fine_distance [B, 1, 24, 24, 24] (squared, to the mesh), coarse_offset
    [B, 3, 8, 8, 8]: values at `grid_points`.
    """

    def __init__(self, fine_offset: Tensor, fine_distance: Tensor, coarse_offset: Tensor, box_size: float) -> None:
        self.fine = torch.cat([fine_offset, fine_distance], dim=1)
        self.coarse = _smooth(_smooth(coarse_offset))
        self.box_size = box_size
        self.straight = False

    @classmethod
    def none(cls, batch: int, like: Tensor, box_size: float) -> NeckField:
        """The field of straight necks, which moves nothing."""
        fine, coarse = (like.new_zeros(batch, 4, n, n, n) for n in (FINE, COARSE))
        field = cls(fine[:, :3], fine[:, 3:], coarse[:, :3], box_size)
        field.straight = True
        return field

    def __call__(self, points: Tensor) -> Tensor:
        """[B, N, 3] -> [B, N, 3]. Far from the mesh the fine grid jumps, so the smoothed coarse one takes over."""
        if self.straight:
            return points
        fine = _at(self.fine, points, self.box_size)
        coarse = _at(self.coarse, points, self.box_size)
        near = torch.exp(-1000 * relu(fine[..., 3:] - SURFACE_DISTANCE))
        return points + near * fine[..., :3] + (1 - near) * coarse


def _smooth(grid: Tensor) -> Tensor:
    """Mean of 3x3x3 cells, the border repeated."""
    kernel = grid.new_full((3, 1, 3, 3, 3), 1 / 27)
    return conv3d(pad(grid, (1,) * 6, mode="replicate"), kernel, groups=3)


def _at(grid: Tensor, points: Tensor, box_size: float) -> Tensor:
    """Values [B, N, C] of a grid [B, C, R, R, R] at points [B, N, 3]; zero outside of the outermost cell centres."""
    half = (0.5 - 0.5 / grid.shape[-1]) * box_size
    where = (points / half).flip(-1)[:, :, None, None]
    found = grid_sample(grid, where, mode="bilinear", padding_mode="zeros", align_corners=True)
    return found[:, :, :, 0, 0].transpose(1, 2)


class PartField:
    """Canonical coordinates of points, part by part; made by `HeadDeformer.part_field`."""

    def __init__(
        self, head: HeadGeometry, pose: HeadPose, neck: NeckField, mouth: bool, eyelids: Tensor | None
    ) -> None:
        self.head, self.neck = head, neck
        still = pose.without_neck()
        self.posed = head.vertices(still, eyelids)
        self.speaking = head.vertices(still.without_expression().without_eyes()) if mouth else None
        half = len(head.eye_idxs) // 2
        self.boxes = [_box(self.posed[:, index]) for index in (head.eye_idxs[:half], head.eye_idxs[half:])]

    def __call__(self, points: Tensor) -> PartCoordinates:
        """Points [B, N, 3] of the posed head, deformed for every part."""
        points = self.neck(points)
        eyes, distance_eyes = self.moved(points, "eyes")
        face, distance_face = self.moved(points, "head")
        mouth, distance_mouth = self.moved(points, "mouth") if self.speaking is not None else (None, None)
        return PartCoordinates(eyes, face, mouth, distance_eyes, distance_face, distance_mouth, self.in_eyes(points))

    def in_eyes(self, points: Tensor) -> Tensor:
        """Which points [B, N, 3] with a straight neck are in the box of an eyeball: [B, N] bool."""
        inside = torch.zeros(points.shape[:2], dtype=torch.bool, device=points.device)
        for centre, half in self.boxes:
            inside |= ((points - centre).abs() < half).all(dim=-1)
        return inside

    def moved(self, points: Tensor, part: str, item: int | None = None) -> tuple[Tensor, Tensor]:
        """Add the offset to the canonical pose, averaged over the nearest vertex of a part and its neighbours.

        Weights are inverse squared distances.

        Args:
            points: [B, N, 3] with a straight neck; [1, N, 3] of one head of the batch where `item` says which.
            part: "eyes", "head" or "mouth".

        Returns:
            Points [B, N, 3] and distances [B, N] to the nearest vertex.
        """
        vertices, subset = self._part(part)
        if item is not None:
            vertices = vertices[item : item + 1]
        nearest, squared = nearest_vertices(points, vertices, 1, subset=subset)
        region = self.head.vertices_region_idxs[nearest[..., 0]]  # [B, N, R], V where there is none
        batch = torch.arange(len(points), device=points.device)[:, None, None]
        around = pad(vertices, (0, 0, 0, 1), value=_FAR)[batch, region]
        offset = pad(self.head.canonical_shape - vertices, (0, 0, 0, 1))[batch, region]
        weight = 1 / ((points[:, :, None] - around).square().sum(-1) + 1e-10)
        weight = weight / weight.sum(dim=-1, keepdim=True)
        return points + (offset * weight[..., None]).sum(dim=2), (squared[..., 0] + 1e-12).sqrt()

    def _part(self, part: str) -> tuple[Tensor, Tensor]:
        if part == "mouth":
            if self.speaking is None:
                raise ValueError("this field was made without the mouth")
            return self.speaking, self.head.lips_idxs
        return self.posed, self.head.eye_idxs if part == "eyes" else self.head.face_idxs


def _box(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and half size [B, 1, 3] of the box about a part, with its margin; the centre is the vertices' mean."""
    size = vertices.amax(dim=1, keepdim=True) - vertices.amin(dim=1, keepdim=True)
    return vertices.mean(dim=1, keepdim=True), size * (_EYE_MARGIN / 2)


class HeadDeformer(nn.Module):
    """The deformation fields of one head; `flame_deform` holds the geometry, under the checkpoints' name.

    box_size: side of the cube about the neck joint that is deformed, in the geometry's units.
    """

    around_faces: Tensor

    def __init__(self, head: HeadGeometry, box_size: float = 1.3) -> None:
        super().__init__()
        self.flame_deform = head
        self.box_size = box_size
        self.register_buffer("around_faces", around_faces(head.simplify_faces), persistent=False)
        self.register_load_state_dict_post_hook(_list_again)

    @torch.no_grad()
    def neck_field(self, pose: HeadPose) -> NeckField:
        """The field that undoes the neck's rotation of heads [B]; sampled once here, cheap to apply."""
        if not pose.neck.any():  # as in all of GenHead's training: half of its time is saved
            return NeckField.none(len(pose.neck), pose.neck, self.box_size)
        with torch.autocast(pose.neck.device.type, enabled=False):  # offsets are differences of positions
            meshes = self._coarse_meshes(pose)
            fine, distance = self._offsets(*meshes, FINE)
            coarse, _ = self._offsets(*meshes, COARSE)
            return NeckField(fine, distance, coarse, self.box_size)

    @torch.no_grad()
    def part_field(
        self,
        pose: HeadPose,
        *,
        neck: NeckField | None = None,
        mouth: bool = True,
        eyelids: Tensor | None = None,
    ) -> PartField:
        """The fields of eyes, head and mouth of heads [B].

        Args:
            neck: the neck's field of this pose, made here by default.
            mouth: whether the mouth's field is wanted.
            eyelids: expression [B, E] that the eyelids take instead of the pose's own (blinks).
        """
        return PartField(self.flame_deform, pose, neck or self.neck_field(pose), mouth, eyelids)

    @torch.no_grad()
    def neck_offsets(self, pose: HeadPose, resolution: int) -> tuple[Tensor, Tensor]:
        """Offsets [B, 3, R, R, R] to the straight neck and squared distances [B, 1, R, R, R] to the mesh on a grid.

        The surface field of GNARF (Bergman et al., 2022, equation 3) on the coarse mesh: a point keeps its barycentric
        coordinates on the nearest triangle and its height above it.
        """
        return self._offsets(*self._coarse_meshes(pose), resolution)

    def _coarse_meshes(self, pose: HeadPose) -> tuple[Tensor, Tensor]:
        """The coarse mesh [B, M, 3] as posed and with a straight neck."""
        head = self.flame_deform
        return head.coarse(head.vertices(pose)), head.coarse(head.vertices(pose.without_neck()))

    def _offsets(self, posed: Tensor, straight: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
        faces, limit = self.flame_deform.simplify_faces, MIN_TRIANGLE_AREA
        points = grid_points(resolution, self.box_size).to(posed).expand(len(posed), -1, -1)
        face = surface_field(points, posed, faces, min_triangle_area=limit).face_index
        face = settle_ties(points, posed, faces, face, self.around_faces, limit)
        found = surface_numbers(points, posed, faces, face, min_triangle_area=limit)
        batch = torch.arange(len(posed), device=posed.device)[:, None, None]
        triangles = straight[batch, faces[face]]  # [B, N, 3, 3]
        edges = triangles[:, :, 1:] - triangles[:, :, :1]
        normals = torch.nn.functional.normalize(torch.linalg.cross(edges[:, :, 0], edges[:, :, 1]), dim=-1)
        surface = (triangles * found.barycentrics[..., None]).sum(dim=2)
        offset = surface + found.signed_distance[..., None] * normals - points
        shape = (len(posed), -1, resolution, resolution, resolution)
        return offset.transpose(1, 2).reshape(shape), found.squared_distance[:, None].reshape(shape)


def _list_again(deformer: nn.Module, _: object) -> None:
    """After loading a state dictionary, the neighbours follow its triangles."""
    if isinstance(deformer, HeadDeformer):
        deformer.around_faces = around_faces(deformer.flame_deform.simplify_faces)
