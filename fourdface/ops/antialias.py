"""Outlines with gradients: `antialias` blends the two pixels on either side of a silhouette edge by how far it reaches.

A rasterised picture jumps where a triangle's outline passes a pixel centre, so it says nothing about the outline's
place. Laine et al., "Modular Primitives for High-Performance Differentiable Rendering" (2020), section 3.3, blend the
pair of pixels between which the outline passes, by its place on the segment between their centres. Here the edge is
found by walking over the mesh along that segment (near an outline triangles are often thinner than a pixel), and
each edge counts along one axis only, that which it crosses more steeply, so that the covered area comes out right.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fourdface.ops import _native
from fourdface.ops.rasterize_mesh import MeshRaster

__all__ = ["antialias", "face_neighbours"]

_STEPS = 64  # triangles that a walk of one pixel passes at most: many, where a fine mesh turns away


def antialias(
    image: Tensor,
    raster: MeshRaster,
    vertices: Tensor,
    faces: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    *,
    projection: str = "perspective",
    neighbours: Tensor | None = None,
) -> Tensor:
    """Smooth the outlines of a picture of a mesh, differentiably.

    Args:
        image: [H, W, C], what the pixels of `raster` show (colours, a mask, features), with its background.
        raster: from `rasterize_mesh` with the same mesh, camera and projection.
        vertices: [V, 3]. faces: [F, 3] integer. world_to_camera: [4, 4]. intrinsics: [3, 3].
        neighbours: `face_neighbours(faces)`, to work it out once for many pictures.

    Returns:
        [H, W, C]. Differentiable in the image, the vertices and the camera. Changes only pixels beside an outline: an
        edge of one triangle, or of two that lie on the same side of it in the picture.

    Raises:
        ValueError: wrong shapes.
    """
    height, width = raster.face_index.shape
    _native.check_shape("image", image, (height, width, "C"))
    _native.check_shape("faces", faces, ("F", 3))
    if faces.shape[0] == 0:
        return image
    links = face_neighbours(faces) if neighbours is None else neighbours
    _native.check_shape("neighbours", links, (int(faces.shape[0]), 3))
    pixels = _project(vertices, world_to_camera, intrinsics, projection)
    change = torch.zeros_like(image)
    for axis in (0, 1):
        change = change + _blended(image, raster, pixels, faces.long(), links, axis)
    return image + change


def face_neighbours(faces: Tensor) -> Tensor:
    """Which triangle lies across each edge, [F, 3] int64: 3 * its index + its edge, or -1 at a border.

    Edge i of a triangle joins its corners i and i + 1. Of three or more triangles at one edge two are neighbours.
    """
    _native.check_shape("faces", faces, ("F", 3))
    _native.check_integer("faces", faces)
    ends = torch.stack([faces.long(), faces.long().roll(-1, dims=1)], dim=2).reshape(-1, 2)
    low, high = ends.amin(dim=1), ends.amax(dim=1)
    key = low * (high.amax() + 1 if len(high) else 1) + high
    key, order = key.sort(stable=True)
    same = key[1:] == key[:-1]
    same = same & ~torch.cat([same.new_zeros(1), same])[: len(same)]  # the second of three is the first's already
    links = torch.full((len(ends),), -1, dtype=torch.int64, device=faces.device)
    first, second = order[:-1][same], order[1:][same]
    links[first], links[second] = second, first
    return links.reshape(-1, 3)


class _Pairs(NamedTuple):
    """Neighbouring pixels of which one is covered by a nearer triangle.

    covering, other: [P] flat pixel indices. face: [P], the covering triangle. start: [P] place of the covering pixel's
    centre along the axis; level: [P] its place across it; step: [P] +1 or -1, the way to the other pixel.
    """

    covering: Tensor
    other: Tensor
    face: Tensor
    start: Tensor
    level: Tensor
    step: Tensor

    def chosen(self, index: Tensor) -> _Pairs:
        """Some of the pairs."""
        return _Pairs(*(field[index] for field in self))


def _project(vertices: Tensor, world_to_camera: Tensor, intrinsics: Tensor, projection: str) -> Tensor:
    """Places [V, 2] in the picture, double; NaN behind the camera, where no edge is then found."""
    camera, scale = world_to_camera.double(), intrinsics.double()
    points = vertices.double() @ camera[:3, :3].T + camera[:3, 3]
    z = points[:, 2:]
    flat = points[:, :2]
    if projection == "perspective":
        flat = torch.where(z > 0, flat / torch.where(z > 0, z, 1.0), torch.nan)
    return flat * torch.stack([scale[0, 0], scale[1, 1]]) + scale[:2, 2]


def _blended(image: Tensor, raster: MeshRaster, pixels: Tensor, faces: Tensor, links: Tensor, axis: int) -> Tensor:
    """The change of the image by outlines between neighbours along one axis (0 x, 1 y)."""
    with torch.no_grad():
        pairs = _find_pairs(raster, axis)
        place, edge = _walk(pairs, pixels.detach(), faces, links, axis)
        pairs = pairs.chosen(place)
    ends = torch.stack([edge // 3, edge // 3]), torch.stack([edge % 3, (edge + 1) % 3])
    a, b = pixels[faces[ends]]
    reach = _crossing(a, b, pairs.level, axis)
    reach = ((reach - pairs.start) * pairs.step).to(image.dtype)[:, None]
    flat = image.reshape(-1, image.shape[2])
    covering, other = flat[pairs.covering], flat[pairs.other]
    change = torch.zeros_like(flat)
    change = change.index_add(0, pairs.covering, (0.5 - reach).clamp_min(0) * (other - covering))
    change = change.index_add(0, pairs.other, (reach - 0.5).clamp_min(0) * (covering - other))
    return change.reshape(image.shape)


def _crossing(a: Tensor, b: Tensor, level: Tensor, axis: int) -> Tensor:
    """Where along the axis the lines from a to b [..., 2] reach `level` across it."""
    along_a, across_a = a[..., axis], a[..., 1 - axis]
    along_b, across_b = b[..., axis], b[..., 1 - axis]
    return along_a + (level - across_a) / (across_b - across_a) * (along_b - along_a)


def _find_pairs(raster: MeshRaster, axis: int) -> _Pairs:
    """All pairs of neighbours along the axis that see different triangles."""
    index = raster.face_index.long()
    width = index.shape[1]
    depth = torch.where(index >= 0, raster.depth_z.double(), torch.inf)
    first = (slice(None), slice(None, -1)) if axis == 0 else (slice(None, -1), slice(None))
    second = (slice(None), slice(1, None)) if axis == 0 else (slice(1, None), slice(None))
    rows, cols = torch.nonzero(index[first] != index[second], as_tuple=True)
    here = rows * width + cols
    there = here + (1 if axis == 0 else width)
    nearer = depth.flatten()[here] <= depth.flatten()[there]
    covering, other = torch.where(nearer, here, there), torch.where(nearer, there, here)
    x, y = covering % width + 0.5, covering // width + 0.5
    start, level = (x, y) if axis == 0 else (y, x)
    return _Pairs(covering, other, index.flatten()[covering], start, level, torch.where(nearer, 1.0, -1.0))


def _walk(pairs: _Pairs, pixels: Tensor, faces: Tensor, links: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Go from each covering pixel to the other over the mesh, up to an outline.

    Returns the places in `pairs` where one was found that counts along this axis, and its edges, 3 * face + edge.
    """
    place = torch.arange(len(pairs.face), device=pixels.device)
    face, entry = pairs.face, torch.full_like(pairs.face, -1)
    found: list[tuple[Tensor, Tensor]] = []
    for _ in range(_STEPS):
        if len(place) == 0:
            break
        here = pairs.chosen(place)
        corners = pixels[faces[face]]  # [P, 3, 2]
        following = corners.roll(-1, dims=1)
        above = corners[..., 1 - axis] > here.level[:, None]
        reach = (_crossing(corners, following, here.level[:, None], axis) - here.start[:, None]) * here.step[:, None]
        usable = (above != above.roll(-1, dims=1)) & (torch.arange(3, device=pixels.device) != entry[:, None])
        reach, exit_edge = torch.where(usable, reach, -torch.inf).max(dim=1)
        link = links[face, exit_edge]
        row = torch.arange(len(face), device=pixels.device)
        a, b = corners[row, exit_edge], following[row, exit_edge]
        behind = pixels[faces[link.clamp_min(0) // 3, (link.clamp_min(0) + 2) % 3]]
        outline = (link < 0) | (_side(a, b, corners[row, (exit_edge + 2) % 3]) * _side(a, b, behind) > 0)
        inside = (reach >= 0) & (reach <= 1)
        steep = (b - a)[:, axis].abs() <= (b - a)[:, 1 - axis].abs()
        if axis == 1:
            steep &= (b - a)[:, 0].abs() != (b - a)[:, 1].abs()  # an edge at 45 degrees counts along x
        hit = outline & inside & steep
        found.append((place[hit], (3 * face + exit_edge)[hit]))
        onward = ~outline & inside
        place, face, entry = place[onward], link[onward] // 3, link[onward] % 3
    if not found:
        return place, place
    return torch.cat([p for p, _ in found]), torch.cat([e for _, e in found])


def _side(a: Tensor, b: Tensor, point: Tensor) -> Tensor:
    """Which side of the line from a to b the point lies on, by the sign [P]."""
    edge, offset = b - a, point - a
    return edge[:, 0] * offset[:, 1] - edge[:, 1] * offset[:, 0]
