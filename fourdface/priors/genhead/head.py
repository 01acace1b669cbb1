"""The head model as Portrait4D sees it: three times our size, with its own canonical pose, regions and coarse mesh.

`HeadGeometry` is built from a `HeadModel` of this project, from the arrays of a FLAME file, or from the entries of a
published checkpoint; its entries carry the checkpoints' names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fourdface.blocks.head_model import HeadModel
from fourdface.priors.genhead.flame import FlameLayer, HeadPose
from fourdface.priors.genhead.topology import CARRIED, flame_entries, head_model_entries

__all__ = ["HeadGeometry", "HeadPose"]


class HeadGeometry(nn.Module):
    """A head with everything that GenHead and the reconstructor derive from it.

    Entries (names of the checkpoints): `flame_model.*`; canonical_shape [1, V, 3] (shape and expression zero, jaw open
    by 0.3 rad); simplify_idxs, simplify_baris [M, 3], simplify_faces [N, 3]: a coarse mesh of barycentric points;
    vertices_region_idxs [V, R]: a vertex and its neighbours, filled up with V; eye_idxs (left half, right half),
    face_idxs (all others of the head), lips_idxs, noinmouth_idxs, eyelids_idxs. The rest is carried along.
    """

    canonical_shape: Tensor
    canonical_shape_coarse: Tensor
    canonical_shape_face_only: Tensor
    simplify_idxs: Tensor
    simplify_baris: Tensor
    simplify_faces: Tensor
    vertices_region_idxs: Tensor
    eye_idxs: Tensor
    face_idxs: Tensor
    lips_idxs: Tensor
    noinmouth_idxs: Tensor
    eyelids_idxs: Tensor
    face_mask: Tensor

    def __init__(
        self, entries: Mapping[str, Tensor], expression_count: int = 100, face_mask: Tensor | None = None
    ) -> None:
        super().__init__()
        self.expression_count = expression_count
        layer = "flame_model."
        self.flame_model = FlameLayer({k.removeprefix(layer): v for k, v in entries.items() if k.startswith(layer)})
        for name, value in entries.items():
            if not name.startswith(layer):
                self.register_buffer(name, value.clone())
        for name, value in CARRIED.items():
            if name not in entries:
                self.register_buffer(name, value.clone())
        found = self._find_face_mask() if face_mask is None else face_mask
        self.register_buffer("face_mask", found, persistent=False)
        self.register_load_state_dict_post_hook(_find_again)

    @classmethod
    def from_head_model(cls, head: HeadModel) -> HeadGeometry:
        """The geometry of a head of `blocks/head_model`, such as the open head; needs its regions' names."""
        return cls(*head_model_entries(head))

    @classmethod
    def from_flame(
        cls,
        model: Mapping[str, Any],
        masks: Mapping[str, Any],
        topology: Mapping[str, np.ndarray | Tensor] | None = None,
    ) -> HeadGeometry:
        """The geometry of a FLAME file.

        Args:
            model: f, v_template, shapedirs [V, 3, 400], posedirs [V, 3, 36], J_regressor, kintree_table, weights.
            masks: vertex indices: face, left_eyeball, right_eyeball, lips, noinmouth (maybe eyelids).
            topology: simplify_idxs, simplify_baris, simplify_faces and vertices_region_idxs of Portrait4D, to be equal
                to it in every number; without them they are derived from the mesh.
        """
        return cls(*flame_entries(model, masks, topology))

    @classmethod
    def from_checkpoint(
        cls,
        state: Mapping[str, Tensor],
        prefix: str = "deformer.flame_deform.",
        *,
        expression_count: int = 100,
        face_mask: Tensor | None = None,
    ) -> HeadGeometry:
        """The geometry that a checkpoint carries; no FLAME file is needed.

        Args:
            state: the network's state dictionary. prefix: of the geometry's entries in it.
            expression_count: how many of the coefficients are expressions. face_mask: vertices of face and eyeballs;
                without it they are found by their positions.

        Raises:
            ValueError: the state has no such entries.
        """
        entries = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        needed = {"canonical_shape", "canonical_shape_face_only", "simplify_idxs", "flame_model.v_template"}
        if missing := sorted(needed - set(entries)):
            raise ValueError(
                f"the checkpoint has no entries {prefix}{{{', '.join(missing)}}}: it carries no head model"
            )
        return cls(entries, expression_count, face_mask)

    @property
    def shape_count(self) -> int:
        """Number of identity coefficients S."""
        return self.flame_model.shapedirs.shape[2] - self.expression_count

    def neutral(self, batch: int = 1) -> HeadPose:
        """The mean head at rest."""
        like = self.flame_model.v_template
        sizes = (self.shape_count, self.expression_count, 3, 3, 6)
        return HeadPose(*(like.new_zeros(batch, size) for size in sizes))

    def _find_face_mask(self) -> Tensor:
        """The vertices whose canonical positions a checkpoint repeats as those of the face."""
        exact = "donot_use_mm_for_euclid_dist"
        repeated, whole = self.canonical_shape_face_only[0], self.canonical_shape[0]
        distance, index = torch.cdist(repeated, whole, compute_mode=exact).min(dim=1)
        if float(distance.max()) > 1e-4:
            raise ValueError("canonical_shape_face_only holds points that are no vertices of canonical_shape")
        return index

    def vertices(self, pose: HeadPose, eyelids: Tensor | None = None) -> Tensor:
        """Posed vertices [B, V, 3], metres times three, the canonical neck joint at the origin.

        `eyelids`: expression [B, E] that the eyelids take instead of the pose's own (blinks).
        """
        vertices = self.flame_model(pose)[0]
        if eyelids is not None:
            index = self.eyelids_idxs
            vertices[:, index] = self.flame_model(replace(pose, expression=eyelids))[0][:, index]
        return vertices

    def joints(self, pose: HeadPose) -> Tensor:
        """Posed joints [B, 5, 3]: root, neck, jaw, left eye, right eye."""
        return self.flame_model(pose)[1]

    def coarse(self, vertices: Tensor) -> Tensor:
        """The coarse mesh's vertices [B, M, 3] on vertices [B, V, 3]."""
        return (vertices[:, self.simplify_idxs] * self.simplify_baris[None, :, :, None]).sum(dim=2)

    def faces_within(self, index: Tensor) -> Tensor:
        """The triangles [n, 3] all of whose vertices are in `index`."""
        faces = self.flame_model.faces_tensor
        inside = torch.zeros(self.canonical_shape.shape[1], dtype=torch.bool, device=faces.device)
        inside[index] = True
        return faces[inside[faces].all(dim=1)]


def _find_again(head: nn.Module, _: object) -> None:
    """After loading a state dictionary, what is not in it follows it."""
    if isinstance(head, HeadGeometry):
        head.face_mask = head._find_face_mask()
