"""FLAME's layer in torch: a head's vertices and joints from shape, expression and pose.

Li et al., "Learning a model of facial shape and expression from 4D scans" (SIGGRAPH Asia 2017), equations 1-4.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from fourdface.blocks.rotation import skew

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
    """Linear blend skinning with pose correctives; entries have the names of FLAME's torch layer.

    The order of operations is that of the published layer too, so that the numbers are the same to the last bit where
    torch's are: which of two neighbouring triangles is nearest hangs on it (`deformation.HeadDeformer`).
    """

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
        """Posed vertices [B, V, 3] and joints [B, 5, 3], in the geometry's units; in float32 under autocast too."""
        with torch.autocast(self.v_template.device.type, enabled=False):
            return self._posed(pose)

    def _posed(self, pose: HeadPose) -> tuple[Tensor, Tensor]:
        coefficients = torch.cat([pose.shape, pose.expression], dim=1)
        if coefficients.shape[1] != self.shapedirs.shape[2]:
            raise ValueError(
                f"shape and expression have {coefficients.shape[1]} coefficients together, the head model has "
                f"{self.shapedirs.shape[2]}"
            )
        batch = len(coefficients)
        shaped = self.v_template[None] + torch.einsum("bl,mkl->bmk", coefficients, self.shapedirs)
        joints = torch.einsum("bik,ji->bjk", shaped, self.J_regressor)
        angles = [torch.zeros_like(pose.neck), pose.neck, pose.jaw, pose.eyes[:, :3], pose.eyes[:, 3:]]
        rotations = _rotations(torch.cat(angles, dim=1).reshape(-1, 3)).reshape(batch, -1, 3, 3)
        if self.posedirs.shape[0]:
            bend = (rotations[:, 1:] - torch.eye(3, device=shaped.device)).reshape(batch, -1)
            shaped = (bend @ self.posedirs).reshape(batch, -1, 3) + shaped
        world = self._chain(rotations, joints)
        bound = pad(joints[..., None], (0, 0, 0, 1))  # a direction: 0 in the last row
        relative = world - pad(world @ bound, (3, 0))
        blend = (self.lbs_weights.expand(batch, -1, -1) @ relative.flatten(2)).reshape(batch, -1, 4, 4)
        posed = blend @ pad(shaped, (0, 1), value=1.0)[..., None]
        return posed[:, :, :3, 0], world[:, :, :3, 3]

    def _chain(self, rotations: Tensor, joints: Tensor) -> Tensor:
        """Transforms [B, 5, 4, 4] of the joints in the world, root to eyes."""
        bones = joints.clone()
        bones[:, 1:] -= joints[:, self.parents[1:]]
        local = torch.cat([pad(rotations, (0, 0, 0, 1)), pad(bones[..., None], (0, 0, 0, 1), value=1.0)], dim=3)
        world = [local[:, 0]]
        for j, parent in enumerate(self.parents.tolist()[1:], start=1):
            world.append(world[parent] @ local[:, j])
        return torch.stack(world, dim=1)


def _rotations(axis_angle: Tensor) -> Tensor:
    """Matrices [N, 3, 3] of axis-angle vectors [N, 3]; safe at zero by the small shift that FLAME's layer uses."""
    angle = (axis_angle + 1e-8).norm(dim=1, keepdim=True)
    cross = skew(axis_angle / angle)
    sine, cosine = angle.sin()[:, None], angle.cos()[:, None]
    return torch.eye(3, device=angle.device) + sine * cross + (1 - cosine) * torch.bmm(cross, cross)
