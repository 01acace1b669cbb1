"""FLAME's layer in torch: a head's vertices and joints from shape, expression and pose.

Li et al., "Learning a model of facial shape and expression from 4D scans" (SIGGRAPH Asia 2017), equations 1-4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn

from fourdface.blocks.rotation import axis_angle_to_matrix

__all__ = ["FlameLayer", "HeadPose"]


def _none(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def _limits(*degrees: tuple[float, float]) -> Tensor:
    return torch.tensor(degrees) * (math.pi / 180)


FLAME_CARRIED: dict[str, Tensor] = {
    "lmk_faces_idx": _none(53),
    "lmk_bary_coords": torch.zeros(53, 3),
    "dynamic_lmk_faces_idx": _none(79, 17),
    "dynamic_lmk_bary_coords": torch.zeros(79, 17, 3),
    "full_lmk_faces_idx": _none(1, 70),
    "full_lmk_bary_coords": torch.zeros(1, 70, 3),
    "neck_kin_chain": torch.tensor([1, 0]),
    "global_limits": _limits((-20, 20), (-90, 90), (-20, 20)),
    "neck_limits": _limits((-90, 90), (-60, 60), (-80, 80)),
    "jaw_limits": _limits((-5, 60), (-0.1, 0.1), (-0.1, 0.1)),
    "eye_limits": _limits((-50, 50), (-50, 50), (-0.1, 0.1)),
}
"""Entries of the checkpoints that nothing here reads: landmark embeddings, and limits that no configuration uses."""


@dataclass(frozen=True)
class HeadPose:
    """What a head does: shape [B, S], expression [B, E], neck and jaw [B, 3], eyes [B, 6] (left, right); radians."""

    shape: Tensor
    expression: Tensor
    neck: Tensor
    jaw: Tensor
    eyes: Tensor

    def __post_init__(self) -> None:
        for name, width in (("neck", 3), ("jaw", 3), ("eyes", 6)):
            value = getattr(self, name)
            if value.ndim != 2 or value.shape != (self.shape.shape[0], width):
                raise ValueError(f"{name} must be [{self.shape.shape[0]}, {width}], got {tuple(value.shape)}")

    @classmethod
    def from_flame(cls, shape: Tensor, expression: Tensor, pose: Tensor, eyes: Tensor) -> HeadPose:
        """From Portrait4D's four vectors; pose [B, 6] is neck, then jaw."""
        return cls(shape, expression, pose[:, :3], pose[:, 3:], eyes)

    def without_neck(self) -> HeadPose:
        """The same with the neck straight."""
        return replace(self, neck=torch.zeros_like(self.neck))

    def without_eyes(self) -> HeadPose:
        """The same with the eyes straight ahead."""
        return replace(self, eyes=torch.zeros_like(self.eyes))

    def without_expression(self) -> HeadPose:
        """The same with the expression at rest; the jaw keeps its pose."""
        return replace(self, expression=torch.zeros_like(self.expression))

    def __getitem__(self, index: slice) -> HeadPose:
        return HeadPose(*(getattr(self, field.name)[index] for field in fields(self)))


class FlameLayer(nn.Module):
    """Linear blend skinning with pose correctives; entries have the names of FLAME's torch layer."""

    faces_tensor: Tensor
    v_template: Tensor
    shapedirs: Tensor
    posedirs: Tensor
    J_regressor: Tensor
    parents: Tensor
    lbs_weights: Tensor
    full_lmk_faces_idx: Tensor
    full_lmk_bary_coords: Tensor

    def __init__(self, entries: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in ("eye_pose", "neck_pose"):
            value = entries.get(name, torch.zeros(1, 6 if name == "eye_pose" else 3))
            self.register_parameter(name, nn.Parameter(value.clone(), requires_grad=False))
        for name, value in entries.items():
            if name not in self._parameters:
                self.register_buffer(name, value.clone())
        for name, value in FLAME_CARRIED.items():
            if name not in entries:
                self.register_buffer(name, value.clone())

    def forward(self, pose: HeadPose) -> tuple[Tensor, Tensor]:
        """Posed vertices [B, V, 3] and joints [B, 5, 3], in the geometry's units."""
        coefficients = torch.cat([pose.shape, pose.expression], dim=1)
        if coefficients.shape[1] != self.shapedirs.shape[2]:
            raise ValueError(
                f"shape and expression have {coefficients.shape[1]} coefficients together, the head model has "
                f"{self.shapedirs.shape[2]}"
            )
        batch = len(coefficients)
        rest = self.v_template + (coefficients @ self.shapedirs.flatten(0, 1).T).reshape(batch, -1, 3)
        joints = self.J_regressor @ rest
        angles = [torch.zeros_like(pose.neck), pose.neck, pose.jaw, pose.eyes[:, :3], pose.eyes[:, 3:]]
        rotations = axis_angle_to_matrix(torch.stack(angles, dim=1))
        if self.posedirs.shape[0]:
            bend = (rotations[:, 1:] - torch.eye(3, device=rest.device)).flatten(1)
            rest = rest + (bend @ self.posedirs).reshape(batch, -1, 3)
        turned, moved = self._chain(rotations, joints)
        shift = moved - (turned @ joints[..., None])[..., 0]
        blend = torch.cat([turned.flatten(2), shift], dim=2)  # [B, 5, 12]
        per_vertex = self.lbs_weights @ blend
        matrix = per_vertex[..., :9].reshape(batch, -1, 3, 3)
        return (matrix * rest[:, :, None]).sum(-1) + per_vertex[..., 9:], moved

    def _chain(self, rotations: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Rotations [B, 5, 3, 3] and positions [B, 5, 3] of the joints in the world, root to eyes."""
        turned, moved = [rotations[:, 0]], [joints[:, 0]]
        for j, parent in enumerate(self.parents.tolist()):
            if j == 0:
                continue
            turned.append(turned[parent] @ rotations[:, j])
            bone = (joints[:, j] - joints[:, parent])[..., None]
            moved.append(moved[parent] + (turned[parent] @ bone)[..., 0])
        return torch.stack(turned, dim=1), torch.stack(moved, dim=1)
