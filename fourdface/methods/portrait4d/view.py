"""Where Portrait4D's camera stands for a head that is turned: adapters between its labels and this project's cameras.

The published program always looks from (0, 0.01, 4.2); a portrait crop, however, is aligned by the face, so that the
face of a turned head stays in the middle. Here the camera is moved by what the turn about the neck displaces the face;
for a head that looks straight ahead it stands where the published one does.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fourdface.blocks.camera import CameraPose
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.priors.genhead.camera import camera_from_label, frontal_label, label_from_camera
from fourdface.priors.genhead.head import HeadGeometry

__all__ = ["FACE_ANCHOR", "OPEN_FACE_ANCHOR", "OPEN_HEAD", "camera_of_label", "face_anchor", "label_of_camera",
           "moved_label", "portrait_label"]  # fmt: skip

FACE_ANCHOR = (0.0, 0.01, 0.1)
"""Origin of the mean face of the alignment (`alignment.FACE_POINTS` and `OFFSET`) in Portrait4D's world: it is seen in
the middle of the crop from the published camera, and lies 0.53 of its units behind the eyes."""


OPEN_FACE_ANCHOR = (0.0, 0.215, 0.273)
"""The same of the open head, whose neck joint, the world's origin, lies lower and further back than FLAME's."""
OPEN_HEAD = tuple(ours - flame for ours, flame in zip(OPEN_FACE_ANCHOR, FACE_ANCHOR, strict=True))
"""From FLAME's world to the open head's: what to add to a camera's place so that it sees the same of a face."""
OPEN_EXPRESSIONS = 52
"""Expression modes of the open head, by which it is told from FLAME."""


def face_anchor(head: HeadGeometry | None) -> tuple[float, float, float]:
    """Where the middle of a straight face is in the world of a network that was trained on `head` (None: FLAME)."""
    return OPEN_FACE_ANCHOR if head is not None and head.expression_count == OPEN_EXPRESSIONS else FACE_ANCHOR


def moved_label(label: Tensor, offset: Sequence[float]) -> Tensor:
    """Labels [..., 25] of the cameras moved by `offset` [3] in the labels' units."""
    out = label.clone()
    out[..., [3, 7, 11]] += label.new_tensor(offset)
    return out


def portrait_label(rotation: Tensor, anchor: tuple[float, float, float] = FACE_ANCHOR) -> Tensor:
    """Label [B, 25] that shows the face of heads turned by `rotation` [B, 3] (axis-angle, radians) in the middle.

    anchor: of the network's head, see `face_anchor`; the camera stands as far before it as the published one.
    """
    offset = (axis_angle_to_matrix(rotation) @ rotation.new_tensor(anchor)) - rotation.new_tensor(FACE_ANCHOR)
    label = frontal_label(batch=len(rotation)).to(rotation)
    label[:, [3, 7, 11]] += offset
    return label


def camera_of_label(label: Tensor, size: int) -> CameraPose:
    """The camera of a label [1, 25] in this project's conventions, for a square picture of `size` pixels."""
    world_to_camera, intrinsics = camera_from_label(label, size, size)
    return CameraPose(world_to_camera[0].double().numpy(), intrinsics[0].double().numpy(), size, size)


def label_of_camera(camera: CameraPose) -> Tensor:
    """The label [1, 25] of a camera."""
    matrix = torch.from_numpy(camera.world_to_camera).float()[None]
    intrinsics = torch.from_numpy(camera.intrinsics).float()[None]
    return label_from_camera(matrix, intrinsics, camera.width, camera.height)
