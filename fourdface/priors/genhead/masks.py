"""What of the head's mesh a camera sees: silhouettes of its parts and the map of canonical coordinates.

GenHead blends its two radiance fields by these masks (Portrait4D, section 3.1), and its discriminator sees the map
beside the picture. Nothing here has gradients.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from fourdface.ops.rasterize_mesh import MeshRaster, rasterize_mesh
from fourdface.ops.rasterize_mesh import interpolate as spread
from fourdface.ops.upfirdn2d import upfirdn2d
from fourdface.priors.genhead.camera import invert_rigid, split_label
from fourdface.priors.genhead.head import HeadGeometry, HeadPose

__all__ = ["PartMasks", "correspondence_map", "part_masks", "rasterize_part"]

_NEAR = 0.1
_CANONICAL_SCALE = 1 / 0.6  # spreads the coordinates over the picture's range
_EYE_SHIFT = 0.5  # tells the eyeballs from the skin around them
_ERODE = 7  # pixels; thinner slits are no open mouth


@dataclass(frozen=True)
class PartMasks:
    """Parts in the picture, [B, 1, S, S] in 0..1.

    eyes, mouth, head: at the size of the volume render, without aliasing. eyes_full, mouth_full: at the size of the
    final picture, softened.
    """

    eyes: Tensor
    mouth: Tensor
    head: Tensor
    eyes_full: Tensor
    mouth_full: Tensor


@torch.no_grad()
def rasterize_part(vertices: Tensor, faces: Tensor, label: Tensor, size: int, *, cull_back: bool) -> list[MeshRaster]:
    """Rasterise one mesh [B, V, 3] per camera label [B, 25] at size x size pixels; depth in the label's units."""
    matrix, intrinsics = split_label(label)
    axes = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0])).to(matrix)  # the rasteriser's axes are OpenCV's
    views = axes @ invert_rigid(matrix)
    scale = torch.tensor([[size], [size], [1.0]]).to(intrinsics)
    return [
        rasterize_mesh(mesh, faces, view, camera, size, size, cull_back=cull_back, near=_NEAR)
        for mesh, view, camera in zip(vertices, views, intrinsics * scale, strict=True)
    ]


def _silhouette(vertices: Tensor, faces: Tensor, label: Tensor, size: int, *, cull_back: bool = True) -> Tensor:
    """[B, 1, size, size], 1 where the mesh is seen."""
    rasters = rasterize_part(vertices, faces, label, size, cull_back=cull_back)
    return torch.stack([raster.face_index >= 0 for raster in rasters])[:, None].to(vertices.dtype)


@torch.no_grad()
def part_masks(
    head: HeadGeometry, pose: HeadPose, label: Tensor, render_size: int, full_size: int, eyelids: Tensor | None = None
) -> PartMasks:
    """Masks of eyes, mouth and head of posed heads [B] in the cameras of labels [B, 25].

    Eyes: where eyeballs are seen and skin is not. Mouth: where the head is seen and not its skin without the inner
    mouth. `eyelids`: expression [B, E] of the eyelids instead of the pose's own.
    """
    with torch.autocast(label.device.type, enabled=False):  # rasterising and resizing need float32
        return _part_masks(head, pose, label, render_size, full_size, eyelids)


def _part_masks(
    head: HeadGeometry, pose: HeadPose, label: Tensor, render_size: int, full_size: int, eyelids: Tensor | None
) -> PartMasks:
    vertices = head.vertices(pose, eyelids)
    skin = head.face_mask[~torch.isin(head.face_mask, head.eye_idxs)]
    eyeballs = _silhouette(vertices, head.faces_within(head.eye_idxs), label, full_size)
    eyes = eyeballs * (1 - _silhouette(vertices, head.faces_within(skin), label, full_size))
    whole = _silhouette(head.coarse(vertices), head.simplify_faces, label, full_size, cull_back=False)
    closed = _silhouette(vertices, head.faces_within(head.noinmouth_idxs), label, full_size)
    mouth = whole * (1 - closed)
    small_mouth = _resized(mouth, render_size)
    margin = _ERODE // 2
    opened = max_pool2d(-max_pool2d(-mouth, _ERODE, 1, margin), _ERODE, 1, margin)
    mouth_full = (_blurred(opened, 2) + _resized(small_mouth, full_size)).clamp(max=1)
    return PartMasks(
        eyes=_resized(eyes, render_size),
        mouth=small_mouth,
        head=_resized(whole, render_size),
        eyes_full=_blurred(eyes, 1),
        mouth_full=mouth_full,
    )


@torch.no_grad()
def correspondence_map(head: HeadGeometry, pose: HeadPose, label: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Canonical coordinates of the face and eyeballs that each pixel sees.

    Returns the map [B, 3, size, size] (coordinates / 0.6, eyeballs 0.5 further back, 0 beside the face), the mask
    [B, 1, size, size] bool and the depth along the camera's axis [B, 1, size, size] in the label's units (0 beside).
    """
    colours = head.canonical_shape[0] * _CANONICAL_SCALE
    colours[head.eye_idxs, 2] -= _EYE_SHIFT
    faces = head.faces_within(head.face_mask)
    rasters = rasterize_part(head.vertices(pose), faces, label, size, cull_back=True)
    pictures = torch.stack([spread(colours, faces, r.face_index, r.barycentrics) for r in rasters])
    mask = torch.stack([raster.face_index >= 0 for raster in rasters])[:, None]
    depth = torch.stack([raster.depth_z for raster in rasters])[:, None]
    return pictures.permute(0, 3, 1, 2).contiguous(), mask, depth


def _resized(x: Tensor, size: int) -> Tensor:
    return interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=True)


def _blurred(x: Tensor, sigma: int) -> Tensor:
    """Filter with 2^-(x/sigma)², cut at three sigma."""
    reach = 3 * sigma
    line = (torch.arange(-reach, reach + 1, dtype=x.dtype, device=x.device) / sigma).square().neg().exp2()
    line = line / line.sum()
    return upfirdn2d(x, torch.outer(line, line), padding=(reach, reach, reach, reach))
