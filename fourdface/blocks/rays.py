"""Rays of cameras, and where they start and end: per pixel, by a box, or by two planes."""

from __future__ import annotations

import torch
from torch import Tensor

from ..ops import _native
from ..ops._ray_marching import Rays

__all__ = ["Rays", "box_limits", "camera_from_label", "camera_rays", "constant_limits", "plane_limits"]


def camera_rays(world_to_camera: Tensor, intrinsics: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Return origins and unit directions [B, height * width, 3] of the rays through the pixel centres, row by row.

    world_to_camera [B, 4, 4] (rigid, OpenCV axes), intrinsics [B, 3, 3] in pixels of this picture (skew allowed).
    """
    _native.check_shape("world_to_camera", world_to_camera, ("B", 4, 4))
    _native.check_shape("intrinsics", intrinsics, (int(world_to_camera.shape[0]), 3, 3))
    if width < 1 or height < 1:
        raise ValueError(f"width and height must be at least 1, got {width} x {height}")
    like = intrinsics
    columns = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5
    rows = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5
    fx, skew, cx = like[:, 0, 0], like[:, 0, 1], like[:, 0, 2]
    fy, cy = like[:, 1, 1], like[:, 1, 2]
    y = ((rows[None] - cy[:, None]) / fy[:, None])[:, :, None]  # [B, H, 1]
    x = (columns - cx[:, None, None] - skew[:, None, None] * y) / fx[:, None, None]  # [B, H, W]
    seen = torch.stack([x, y.expand_as(x), torch.ones_like(x)], dim=-1).flatten(1, 2)
    rotation = world_to_camera[:, :3, :3]
    directions = torch.nn.functional.normalize(seen @ rotation, dim=-1)
    origins = -(world_to_camera[:, None, :3, 3] @ rotation)
    return origins.expand_as(directions), directions


def constant_limits(origins: Tensor, near: float, far: float) -> tuple[Tensor, Tensor]:
    """Return near and far [B, R], the same for all rays."""
    return origins.new_full(origins.shape[:2], near), origins.new_full(origins.shape[:2], far)


def box_limits(origins: Tensor, directions: Tensor, box_size: float, *, fill: bool = True) -> tuple[Tensor, Tensor]:
    """Return where rays [B, R, 3] enter and leave the cube of side `box_size` around the origin, [B, R] each.

    Slab test (Kay and Kajiya, 1986). A ray that misses gets, with `fill`, the smallest entry as near and the largest
    entry as far of all rays that hit (EG3D's "auto" limits: the far one is an entry too), else -1 and -2.
    """
    inverse = 1.0 / directions
    low, high = (-box_size / 2 - origins) * inverse, (box_size / 2 - origins) * inverse
    near = torch.minimum(low, high).amax(dim=-1)
    far = torch.maximum(low, high).amin(dim=-1)
    hit = far >= near
    near, far = torch.where(hit, near, -torch.ones_like(near)), torch.where(hit, far, -2 * torch.ones_like(far))
    if not fill:
        return near, far
    inside = far > near
    infinite = torch.full_like(near, float("inf"))
    smallest = torch.where(inside, near, infinite).amin() if near.numel() else near.sum()
    largest = torch.where(inside, near, -infinite).amax() if near.numel() else near.sum()
    some = inside.any()
    near = torch.where(inside | ~some, near, smallest)
    return near, torch.where(inside | ~some, far, largest)


def plane_limits(world_to_camera: Tensor, rays: int, box_size: float) -> tuple[Tensor, Tensor]:
    """Return near and far [B, rays]: the distance of the world's origin along the camera's axis -+ box_size / 2.

    Portrait4D's "auto-plane" limits (Deng et al., 2024), measured along the ray although the planes are not.
    """
    middle = world_to_camera[:, 2, 3].abs()[:, None].expand(-1, rays)
    return middle - box_size / 2, middle + box_size / 2


def camera_from_label(label: Tensor, size: int, *, axes: str = "opencv") -> tuple[Tensor, Tensor]:
    """Turn camera labels [B, 25] into world_to_camera [B, 4, 4] (OpenCV) and intrinsics [B, 3, 3] in pixels of `size`.

    A label is camera_to_world, 16 numbers row by row, and intrinsics in units of the picture, 9 numbers (EG3D's data
    format). `axes` "opencv" looks along +z with y down (EG3D), "opengl" along -z with y up (Portrait4D).
    """
    _native.check_shape("label", label, ("B", 25))
    if axes not in ("opencv", "opengl"):
        raise ValueError(f"axes must be opencv or opengl, got {axes!r}")
    camera_to_world = label[:, :16].reshape(-1, 4, 4)
    if axes == "opengl":
        camera_to_world = camera_to_world * camera_to_world.new_tensor([1.0, -1.0, -1.0, 1.0])
    rotation = camera_to_world[:, :3, :3].transpose(1, 2)
    world_to_camera = torch.zeros_like(camera_to_world)
    world_to_camera[:, :3, :3] = rotation
    world_to_camera[:, :3, 3] = -(rotation @ camera_to_world[:, :3, 3:])[..., 0]
    world_to_camera[:, 3, 3] = 1.0
    intrinsics = label[:, 16:].reshape(-1, 3, 3) * label.new_tensor([[size], [size], [1.0]])
    return world_to_camera, intrinsics
