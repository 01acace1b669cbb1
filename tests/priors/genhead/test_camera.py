"""Camera labels of Portrait4D against its numbers and against our own cameras."""

from __future__ import annotations

import math

import pytest
import torch
from parity.rule import parity_arrays

from fourdface.priors.genhead.camera import (
    camera_from_label,
    conditioning_label,
    decompose_camera_pose,
    frontal_label,
    invert_rigid,
    join_label,
    label_from_camera,
    look_at_label,
    split_label,
)
from fourdface.priors.genhead.head import HeadPose
from support.heads import parity_pose, synthetic_flame


def test_look_at() -> None:
    numbers = parity_arrays("camera_rays.npz")
    label = look_at_label(*(numbers[key] for key in ("yaw", "pitch", "roll", "pivot", "radius")))
    torch.testing.assert_close(split_label(label)[0], numbers["cam2world"], rtol=0, atol=1e-5)
    torch.testing.assert_close(invert_rigid(numbers["cam2world"]), numbers["world2cam"], rtol=0, atol=1e-6)


def test_neck_rotation_leaves_the_camera() -> None:
    numbers = parity_arrays("decompose_camera_pose.npz")
    out = decompose_camera_pose(numbers["c_compose"], synthetic_flame(), parity_pose())
    torch.testing.assert_close(out, numbers["c_decompose"], rtol=0, atol=1e-5)


def test_decomposed_camera_sees_the_head_as_before() -> None:
    """The head above the neck looks the same in the old camera with straight neck and in the new one with its turn."""
    head, pose = synthetic_flame(), parity_pose()
    label = frontal_label(batch=2)
    other = decompose_camera_pose(label, head, pose)
    joints = (head.joints(pose.without_neck()), head.joints(pose))
    seen = [j @ (v := invert_rigid(split_label(c)[0]))[:, :3, :3].transpose(1, 2) + v[:, None, :3, 3]
            for j, c in zip(joints, (label, other), strict=True)]  # fmt: skip
    torch.testing.assert_close(seen[0][:, 1:], seen[1][:, 1:], rtol=0, atol=1e-5)


def test_our_cameras_there_and_back() -> None:
    draw = torch.Generator().manual_seed(0)
    angles = torch.rand(4, 1, generator=draw) - 0.5
    label = look_at_label(angles, angles * 0.3, angles * 0.2, torch.zeros(4, 3), torch.full((4, 1), 4.2))
    world_to_camera, intrinsics = camera_from_label(label, 640, 480)
    torch.testing.assert_close(label_from_camera(world_to_camera, intrinsics, 640, 480), label)


def test_a_frontal_camera_in_our_axes() -> None:
    """At 1.4 m in front of the head, looking back at it: the head's up is the picture's up."""
    world_to_camera, intrinsics = camera_from_label(frontal_label((0.0, 0.0, 4.2)), 512, 512)
    point = torch.tensor([0.1, 0.2, 0.0])  # subject's left, above the neck
    seen = world_to_camera[0, :3, :3] @ point + world_to_camera[0, :3, 3]
    torch.testing.assert_close(seen, torch.tensor([0.1, -0.2, 1.4]))
    pixel = intrinsics[0] @ (seen / seen[2])
    assert pixel[0] > 256
    assert pixel[1] < 256
    assert abs(2 * math.atan(256 / float(intrinsics[0, 0, 0])) - math.radians(12)) < 1e-6


def test_labels_are_checked() -> None:
    with pytest.raises(ValueError, match=r"camera label must be \[B, 25\], got \(1, 16\)"):
        split_label(torch.zeros(1, 16))
    matrix, intrinsics = split_label(conditioning_label(2))
    assert torch.equal(join_label(matrix, intrinsics), conditioning_label(2))
    with pytest.raises(ValueError, match=r"neck must be \[2, 3\]"):
        HeadPose(torch.zeros(2, 5), torch.zeros(2, 4), torch.zeros(1, 3), torch.zeros(2, 3), torch.zeros(2, 6))
