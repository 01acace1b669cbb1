"""The rig that Gaussians hang on: the head's triangles and a chain of rigid frames from head to torso to ground.

What lies beyond the head mesh (hair, hat, shoulders) has no triangles of its own. It hangs on `CHAIN_LENGTH` proxy
triangles. Their position s on the chain says what they follow: s = 1 the skull, s = 0 the torso (which moves with
the neck joint), s = -1 nothing; in between the motions are blended, so that there is no seam anywhere.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ...blocks.head_model import HeadModel
from ...blocks.rotation import axis_angle_to_matrix, matrix_to_axis_angle

CHAIN_LENGTH = 65
PROXY_SIZE = 0.1
LID_SIZE = 0.005
NECK_GIVE = 0.12
"""Metres by which the torso's neck joint may leave the skull's."""


@dataclass(frozen=True)
class HeadState:
    """One pose: expression [52], rotation [3], translation [3] (the skull's, to world), eyes [6], jaw [3]; torso [6]:
    its rotation and translation about the neck joint since the photo, None: it follows the neck joint."""

    expression: Tensor
    rotation: Tensor
    translation: Tensor
    eyes: Tensor
    jaw: Tensor
    torso: Tensor | None = None

    @staticmethod
    def from_arrays(
        expression: ArrayLike, rotation: ArrayLike, translation: ArrayLike, eyes: ArrayLike,
        jaw: ArrayLike | None = None, torso: ArrayLike | None = None,
    ) -> HeadState:  # fmt: skip
        """Float32 tensors from array-likes of the shapes above; `jaw` (at rest) and `torso` may be None."""
        given = (expression, rotation, translation, eyes)
        values = [torch.as_tensor(np.asarray(value), dtype=torch.float32) for value in given]
        rest = torch.zeros(3) if jaw is None else torch.as_tensor(np.asarray(jaw), dtype=torch.float32)
        chest = None if torso is None else torch.as_tensor(np.asarray(torso), dtype=torch.float32)
        return HeadState(values[0], values[1], values[2], values[3], rest, chest)


def personal_model(model: HeadModel, neutral: Tensor) -> HeadModel:
    """The model with one person's neutral head [V,3] as its template: one matrix product less in every frame."""
    personal = copy.copy(model)
    personal._buffers = dict(model._buffers)
    personal.template = neutral
    personal._joint_template = model.joint_regressor @ neutral  # type: ignore[assignment]
    return personal


class Rig:
    """Head mesh plus proxy triangles for one person, posed relative to the photo's pose.

    shape [S]: identity; source: the pose in the photo; offset [V,3]: what the person's neutral head differs by from
    the model's (metres, model axes), None for nothing. `faces` [F + CHAIN_LENGTH + L, 3] are int32 triangles into the
    vertices that `pose` returns: the head's, the chain's, and one small rigid triangle at each of the L lid vertices,
    which goes where the vertex goes and turns with the skull. Lashes hang on those: on the lid's own triangles, which
    unfold to many times their size, they would smear.
    """

    def __init__(self, model: HeadModel, shape: Tensor, source: HeadState, offset: Tensor | None = None) -> None:
        self.shape = shape.float()
        self.source = source
        self.offset = torch.zeros_like(model.template) if offset is None else offset.float()
        self.neutral = model.shaped(self.shape[None])[0] + self.offset
        self.base = model
        self.model = personal_model(model, self.neutral)
        self.joints = self.model.joints()[0]
        self.source_rotation = axis_angle_to_matrix(source.rotation)
        self.anchor = self.source_rotation @ self.joints[1] + source.translation
        self._torso_share = model.skinning_weights[:, :1]
        self._levels = torch.linspace(-1, 1, CHAIN_LENGTH)
        count = model.template.shape[0]
        self.lid_vertices = torch.nonzero(model.regions["eyelids"])[:, 0]
        proxies = count + torch.arange(3 * (CHAIN_LENGTH + len(self.lid_vertices))).reshape(-1, 3)
        self.faces = torch.cat([model.faces, proxies]).to(torch.int32).contiguous()
        self.head_faces = len(model.faces)
        corners = torch.tensor([[0.0, 0, 0], [PROXY_SIZE, 0, 0], [0, PROXY_SIZE, 0]])
        self._proxy_rest = self.anchor + corners

    def proxy_triangle(self, level: np.ndarray) -> np.ndarray:
        """Triangle index of the proxies nearest to chain positions `level` (any shape, in [-1, 1])."""
        step = np.rint((np.clip(level, -1, 1) + 1) * (CHAIN_LENGTH - 1) / 2).astype(np.int32)
        return step + self.head_faces

    def lid_triangle(self, vertices: np.ndarray) -> np.ndarray:
        """Triangle index of the rigid triangles at lid vertices (ids of the head's mesh)."""
        rank = np.searchsorted(self.lid_vertices.numpy(), vertices)
        return (rank + self.head_faces + CHAIN_LENGTH).astype(np.int32)

    def pose(self, state: HeadState) -> Tensor:
        """Vertices [V + 3*(CHAIN_LENGTH + L), 3] in the world for a pose of the skull.

        The torso keeps the photo's orientation and follows the neck joint unless the state says how it moves; the neck
        bends between the two.
        """
        rotation = axis_angle_to_matrix(state.rotation)
        joint = rotation @ self.joints[1] + state.translation
        neck = matrix_to_axis_angle(self.source_rotation.T @ rotation)
        root_translation = joint - self.source_rotation @ self.joints[1]
        head = self.model(
            None, state.expression[None], self.source.rotation[None], root_translation[None],
            neck[None], state.jaw[None], state.eyes[None],
        )[0]  # fmt: skip
        torso_rotation, torso_place = self._torso(state, joint)
        if state.torso is not None:
            moved = (head - joint) @ torso_rotation.T + torso_place
            head = torch.lerp(head, moved, self._torso_share)
        corners = torch.tensor([[0.0, 0, 0], [LID_SIZE, 0, 0], [0, LID_SIZE, 0]]) @ rotation.T
        lids = (head[self.lid_vertices][:, None] + corners).reshape(-1, 3)
        with_torso = (self._proxy_rest - self.anchor) @ torso_rotation.T + torso_place
        ground = self._proxy_rest if state.torso is None else with_torso
        return torch.cat([head, self._proxies(rotation, state.translation, with_torso, ground), lids])

    def _torso(self, state: HeadState, joint: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation [3,3] of the torso since the photo, and where its neck joint is [3]: never far from the skull's."""
        if state.torso is None:
            return torch.eye(3), joint
        apart = self.anchor + state.torso[3:] - joint
        return axis_angle_to_matrix(state.torso[:3]), joint + apart * (NECK_GIVE / apart.norm().clamp_min(NECK_GIVE))

    def _proxies(self, rotation: Tensor, translation: Tensor, with_torso: Tensor, ground: Tensor) -> Tensor:
        local = (self._proxy_rest - self.source.translation) @ self.source_rotation
        with_head = local @ rotation.T + translation
        level = self._levels[:, None, None]
        upper, lower = level.clamp(0, 1), (level + 1).clamp(0, 1)
        blended = torch.where(
            level >= 0,
            upper * with_head + (1 - upper) * with_torso,
            lower * with_torso + (1 - lower) * ground,
        )
        return blended.reshape(-1, 3)
