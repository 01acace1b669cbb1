"""Portrait4D's camera labels: 25 numbers, OpenGL axes, the head enlarged three times. Used in this adapter alone.

A label is a camera-to-world matrix (16 numbers, row by row) and intrinsics divided by the picture's size (9). The
camera looks along -z with y up; its world is ours times `WORLD_SCALE`, with the same axes and origin (neck joint).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.priors.genhead.head import HeadGeometry, HeadPose

__all__ = [
    "FOCAL",
    "WORLD_SCALE",
    "camera_from_label",
    "conditioning_label",
    "decompose_camera_pose",
    "frontal_label",
    "invert_rigid",
    "join_label",
    "label_from_camera",
    "look_at_label",
    "split_label",
]

WORLD_SCALE = 3.0
FOCAL = 1 / (2 * math.tan(math.radians(6)))
"""Focal length over picture size of the field of view of 12 degrees that all of Portrait4D uses."""
_AXES = (1.0, -1.0, -1.0)  # between OpenGL (y up, looks along -z) and OpenCV (y down, looks along +z)


def split_label(label: Tensor) -> tuple[Tensor, Tensor]:
    """[B, 25] -> camera_to_world [B, 4, 4] (OpenGL axes) and intrinsics [B, 3, 3] (of a picture of size 1)."""
    if label.ndim != 2 or label.shape[1] != 25:
        raise ValueError(f"a camera label must be [B, 25], got {tuple(label.shape)}")
    return label[:, :16].reshape(-1, 4, 4), label[:, 16:].reshape(-1, 3, 3)


def join_label(camera_to_world: Tensor, intrinsics: Tensor) -> Tensor:
    """The inverse of `split_label`."""
    return torch.cat([camera_to_world.reshape(-1, 16), intrinsics.reshape(-1, 9)], dim=1)


def invert_rigid(matrix: Tensor) -> Tensor:
    """Inverse [B, 4, 4] of rigid transforms [B, 4, 4]."""
    rotation = matrix[:, :3, :3].transpose(1, 2)
    out = torch.zeros_like(matrix)
    out[:, :3, :3] = rotation
    out[:, :3, 3:] = -rotation @ matrix[:, :3, 3:]
    out[:, 3, 3] = 1
    return out


def frontal_label(translation: tuple[float, float, float] = (0.0, 0.01, 4.2), batch: int = 1) -> Tensor:
    """Label [B, 25] of a camera at `translation` that looks along -z; the default is Portrait4D's for inference."""
    matrix = torch.eye(4).repeat(batch, 1, 1)
    matrix[:, :3, 3] = torch.tensor(translation)
    return join_label(matrix, _default_intrinsics(batch))


def conditioning_label(batch: int = 1) -> Tensor:
    """Label [B, 25] on which GenHead's planes are conditioned at inference: frontal, four units away."""
    return frontal_label((0.0, 0.0, 4.0), batch)


def _default_intrinsics(batch: int) -> Tensor:
    return torch.tensor([[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1.0]]).repeat(batch, 1, 1)


def look_at_label(yaw: Tensor, pitch: Tensor, roll: Tensor, pivot: Tensor, radius: Tensor) -> Tensor:
    """Labels [B, 25] of cameras on a sphere about the origin that look at `pivot` [B, 3].

    Angles [B, 1] in radians: zero is in front (+z); positive yaw moves to -x, positive pitch up. The height on the
    sphere is 2 pitch / pi, so that a uniform pitch is uniform on it (EG3D). roll turns about the line of sight. radius
    [B, 1] is in units of the label's world (metres times `WORLD_SCALE`).
    """
    azimuth, polar = math.pi / 2 + yaw, torch.arccos(2 * pitch / math.pi)
    offset = torch.cat([polar.sin() * azimuth.cos(), polar.cos(), polar.sin() * azimuth.sin()], dim=1)
    position = radius * offset
    backward = torch.nn.functional.normalize(position - pivot, dim=1)
    up = torch.tensor([0.0, 1.0, 0.0], dtype=position.dtype, device=position.device)
    right = torch.nn.functional.normalize(torch.linalg.cross(up.expand_as(backward), backward), dim=1)
    up = torch.linalg.cross(backward, right)
    right, up = roll.cos() * right - roll.sin() * up, roll.sin() * right + roll.cos() * up
    matrix = torch.eye(4, dtype=position.dtype, device=position.device).repeat(len(position), 1, 1)
    matrix[:, :3, :3] = torch.stack([right, up, backward], dim=2)
    matrix[:, :3, 3] = position
    return join_label(matrix, _default_intrinsics(len(position)).to(matrix))


def label_from_camera(world_to_camera: Tensor, intrinsics: Tensor, width: int, height: int) -> Tensor:
    """Labels [B, 25] of cameras of this project: OpenCV axes, metres, pixels.

    Args:
        world_to_camera: [B, 4, 4]. intrinsics: [B, 3, 3] pixels. width, height: of the picture in pixels.
    """
    axes = torch.tensor(_AXES, dtype=world_to_camera.dtype, device=world_to_camera.device)
    matrix = invert_rigid(world_to_camera)
    matrix = torch.cat([matrix[:, :, :3] * axes, matrix[:, :, 3:]], dim=2)
    matrix[:, :3, 3] *= WORLD_SCALE
    scale = torch.tensor([[1 / width], [1 / height], [1.0]], dtype=intrinsics.dtype, device=intrinsics.device)
    return join_label(matrix, intrinsics * scale)


def camera_from_label(label: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """The inverse of `label_from_camera`: world_to_camera [B, 4, 4] and intrinsics [B, 3, 3]."""
    matrix, intrinsics = split_label(label)
    axes = torch.tensor(_AXES, dtype=label.dtype, device=label.device)
    matrix = torch.cat([matrix[:, :, :3] * axes, matrix[:, :, 3:]], dim=2)
    matrix[:, :3, 3] /= WORLD_SCALE
    scale = torch.tensor([[width], [height], [1.0]], dtype=label.dtype, device=label.device)
    return invert_rigid(matrix), intrinsics * scale


def decompose_camera_pose(label: Tensor, head: HeadGeometry, pose: HeadPose) -> Tensor:
    """Take the rotation of the neck out of a camera that carries the whole rotation of the head.

    The given label [B, 25] shows the head with neck rotation zero; the returned one shows it with the neck rotation of
    `pose`: it is turned by the inverse of that rotation and moved so that the neck joint stays where the camera saw it.
    """
    matrix, intrinsics = split_label(label)
    view = invert_rigid(matrix)
    still = pose.without_neck()
    before = head.joints(still.without_eyes())[:, 1]
    after = head.joints(pose.without_eyes())[:, 1]
    seen = (view[:, :3, :3] @ before[:, :, None]) + view[:, :3, 3:]
    rotation = view[:, :3, :3] @ axis_angle_to_matrix(pose.neck).transpose(1, 2)
    out = torch.zeros_like(view)
    out[:, :3, :3] = rotation
    out[:, :3, 3:] = seen - rotation @ after[:, :, None]
    out[:, 3, 3] = 1
    return join_label(invert_rigid(out), intrinsics)
