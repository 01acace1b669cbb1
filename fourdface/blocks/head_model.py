"""The parametric head: linear identity and expression, five joints with linear blend skinning (FLAME's form).

Li et al., "Learning a model of facial shape and expression from 4D scans" (FLAME), SIGGRAPH Asia 2017, equations 1-3,
with pose correctives where the data set has them. Data sets differ in the number of vertices and modes, and in what
they lack beyond the mesh.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fourdface.blocks.arkit import ARKIT_NAMES
from fourdface.blocks.flame_head import FLAME_NAMES, load_flame
from fourdface.blocks.rotation import axis_angle_to_matrix
from fourdface.errors import FourdError

JOINT_NAMES = ("root", "neck", "jaw", "eye_left", "eye_right")
_REQUIRED = ("template", "faces", "shape_basis", "expression_basis", "joint_regressor", "skinning_weights")
_OPTIONAL = {
    "uv": "uv map",
    "faces_uv": "uv map",
    "landmark68_faces": "embedding of the 68 landmarks",
    "landmark68_barycentric": "embedding of the 68 landmarks",
    "dense_faces": "embedding of the 478 dense landmarks",
    "dense_barycentric": "embedding of the 478 dense landmarks",
    "mirror_vertices": "list of mirrored vertices",
    "pose_basis": "pose correctives",
}
"""What a data set may lack, in words."""


class _Lacking(FourdError, AttributeError):
    """What a data set does not hold was asked for; an AttributeError too, for `hasattr`."""


def decode_open_head(path: Path) -> dict[str, Any]:
    """Read a head file of `scripts/build_open_head.py` into plain arrays for `HeadModel.from_arrays`.

    Args:
        path: safetensors file; expression modes are stored as the vertices that move, masks as packed bits.

    Raises:
        FourdError: the file is missing or is no head file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as handle:
            metadata = handle.metadata() or {}
            data: dict[str, Any] = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FourdError(f"Head model file {path} cannot be read ({error}); reinstall the package.") from error
    if "fourd_head" not in metadata:
        raise FourdError(f"{path} is not a head model file; its metadata has no entry fourd_head.")
    content = json.loads(metadata["fourd_head"])
    names = content["names"]
    vertices = len(data["template"])
    offsets = data.pop("expression_offsets")
    moved, deltas = data.pop("expression_vertices"), data.pop("expression_deltas")
    expression = np.zeros((len(offsets) - 1, vertices, 3), np.float32)
    for k in range(len(offsets) - 1):
        part = slice(int(offsets[k]), int(offsets[k + 1]))
        expression[k, moved[part]] = deltas[part]
    masks = np.unpackbits(data.pop("region_bits"), axis=1, count=vertices).astype(bool)
    return {
        **data,
        "expression_basis": expression,
        "name": content["name"],
        "expression_names": names["expression"],
        "regions": dict(zip(names["regions"], masks, strict=True)),
    }


class HeadModel(torch.nn.Module):
    """Vertices from identity, expression and pose.

    World conventions: metres, y up, the neutral head looks along +z, origin at the neck joint of the mean head.
    Joints: root (the origin), neck, jaw, eye_left, eye_right; left and right are the subject's.

    Buffers: template [V, 3]; shape_basis [S, V, 3] (one standard deviation each); expression_basis [E, V, 3]; faces
    [F, 3]; joint_regressor [5, V]; skinning_weights [V, 5]; uv [Vt, 2]; faces_uv [F, 3]; landmark68_faces [68];
    landmark68_barycentric [68, 3]; dense_faces [478]; dense_barycentric [478, 3]; mirror_vertices [V].
    `regions` maps names to bool masks [V] (buffers too, they follow `.to(device)`). FLAME's pose_basis [36, V, 3]: what
    the rotation matrices of neck, jaw and eyes, less the identity, add to the vertices.

    From the uv map on, a data set may lack them: asking for one then raises a FourdError that says so.
    """

    template: Tensor
    faces: Tensor
    shape_basis: Tensor
    expression_basis: Tensor
    joint_regressor: Tensor
    skinning_weights: Tensor
    uv: Tensor
    faces_uv: Tensor
    landmark68_faces: Tensor
    landmark68_barycentric: Tensor
    dense_faces: Tensor
    dense_barycentric: Tensor
    mirror_vertices: Tensor
    pose_basis: Tensor

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        """Build from arrays; `from_arrays` is the public way."""
        super().__init__()
        missing = [key for key in (*_REQUIRED, "expression_names", "regions") if key not in arrays]
        if missing:
            raise ValueError(f"Head model arrays lack {', '.join(missing)}.")
        self.name = str(arrays.get("name", "unnamed"))
        self.expression_names: tuple[str, ...] = tuple(str(n) for n in arrays["expression_names"])
        for key in (*_REQUIRED, *(key for key in _OPTIONAL if key in arrays)):
            value = np.asarray(arrays[key])
            kind = torch.float32 if value.dtype.kind == "f" else torch.int64
            self.register_buffer(
                key,
                torch.as_tensor(np.ascontiguousarray(value).astype(np.float32 if kind == torch.float32 else np.int64)),
                persistent=False,
            )
        self._region_names = tuple(arrays["regions"])
        for key, mask in arrays["regions"].items():
            self.register_buffer(f"region_{key}", torch.as_tensor(np.asarray(mask, bool)), persistent=False)
        self._check_shapes()
        self._precompute()

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> HeadModel:
        """A model from a dict of arrays with the buffers' names, `expression_names`, `regions` and maybe `name`.

        uv map, landmarks, mirrored vertices and pose correctives may be absent.

        Raises:
            ValueError: keys are missing or shapes do not agree.
        """
        return cls(arrays)

    @classmethod
    def load(cls, name: str = "open") -> HeadModel:
        """Load a head by data set name; `open` is embedded in the package, `flame2020` and `flame2023` are imported.

        Raises:
            FourdError: unknown name, unreadable file, or a FLAME that was not imported (with the steps that get it).
        """
        if name in FLAME_NAMES:
            return cls(load_flame(name))
        if name != "open":
            raise FourdError(f"Unknown head model {name!r}; available: open, {', '.join(FLAME_NAMES)}.")
        with resources.as_file(resources.files("fourdface").joinpath("assets/files/open_head.safetensors")) as path:
            return cls(decode_open_head(path))

    def __getattr__(self, name: str) -> Any:
        """Buffers, as torch finds them; FourdError for one that this data set lacks."""
        if name in _OPTIONAL and name not in self.__dict__.get("_buffers", {}):
            raise _Lacking(f"the head model {self.name} has no {_OPTIONAL[name]}; use the head model open")
        return super().__getattr__(name)

    def has(self, *names: str) -> bool:
        """Whether the data set has all of these optional arrays."""
        return all(name in self._buffers for name in names)

    def require_arkit(self) -> None:
        """FourdError unless the expressions are the 52 ARKit coefficients, which tracking and motions speak."""
        if self.expression_names != ARKIT_NAMES:
            raise FourdError(
                f"the head model {self.name} has {self.expression_count} expressions of its own and no mapping from "
                f"the {len(ARKIT_NAMES)} ARKit coefficients; use the head model open"
            )

    @property
    def regions(self) -> dict[str, Tensor]:
        """Bool masks [V] by region name."""
        return {key: getattr(self, f"region_{key}") for key in self._region_names}

    @property
    def shape_count(self) -> int:
        """Number of identity modes S."""
        return self.shape_basis.shape[0]

    @property
    def expression_count(self) -> int:
        """Number of expression modes E."""
        return self.expression_basis.shape[0]

    @property
    def vertex_count(self) -> int:
        """Number of vertices V."""
        return self.template.shape[0]

    def _check_shapes(self) -> None:
        v, e = self.vertex_count, len(self.expression_names)
        expected = {
            "template": (v, 3),
            "shape_basis": (self.shape_basis.shape[0], v, 3),
            "expression_basis": (e, v, 3),
            "joint_regressor": (len(JOINT_NAMES), v),
            "skinning_weights": (v, len(JOINT_NAMES)),
            "mirror_vertices": (v,),
            "faces_uv": tuple(self.faces.shape),
            "pose_basis": (9 * (len(JOINT_NAMES) - 1), v, 3),
        }
        for key, shape in expected.items():
            if key in self._buffers and tuple(getattr(self, key).shape) != shape:
                raise ValueError(f"Head model {key}: expected shape {shape}, got {tuple(getattr(self, key).shape)}.")

    def _precompute(self) -> None:
        """Flat bases for one matrix product, and joints as linear functions of the shape coefficients."""
        s, v = self.shape_basis.shape[0], self.vertex_count
        basis = torch.cat([self.shape_basis, self.expression_basis]).reshape(-1, 3 * v)
        self.register_buffer("_basis", basis.contiguous(), persistent=False)
        # Views, so that the bases are held in memory once.
        self.shape_basis = basis[:s].view(s, v, 3)
        self.expression_basis = basis[s:].view(-1, v, 3)
        joints = self.joint_regressor.double()
        self.register_buffer("_joint_template", (joints @ self.template.double()).float(), persistent=False)
        self.register_buffer(
            "_joint_basis",
            torch.einsum("jv,svc->sjc", joints, self.shape_basis.double()).float().reshape(s, -1),
            persistent=False,
        )

    def _displaced(self, shape: Tensor | None, expression: Tensor | None, batch: int) -> Tensor:
        basis: Tensor = self._basis  # type: ignore[assignment]
        s = self.shape_count
        flat = self.template.reshape(1, -1)
        if shape is not None and expression is not None:
            flat = torch.addmm(flat, torch.cat([shape, expression], 1), basis)
        elif shape is not None:
            flat = torch.addmm(flat, shape, basis[:s])
        elif expression is not None:
            flat = torch.addmm(flat, expression, basis[s:])
        return flat.expand(batch, -1).view(batch, -1, 3)

    def shaped(self, shape: Tensor | None) -> Tensor:
        """Neutral vertices [B, V, 3] in metres of identities [B, S] (None: the mean, B = 1)."""
        return self._displaced(shape, None, 1 if shape is None else shape.shape[0])

    def joints(self, shape: Tensor | None = None) -> Tensor:
        """Rest positions [B, 5, 3] in metres of the joints of identities [B, S] (None: the mean, B = 1)."""
        template: Tensor = self._joint_template  # type: ignore[assignment]
        if shape is None:
            return template[None]
        basis: Tensor = self._joint_basis  # type: ignore[assignment]
        return torch.addmm(template.reshape(1, -1), shape, basis).view(-1, len(JOINT_NAMES), 3)

    def joint_transforms(
        self,
        joints: Tensor,
        rotation: Tensor | None,
        translation: Tensor | None,
        neck: Tensor | None,
        jaw: Tensor | None,
        eyes: Tensor | None,
    ) -> Tensor:
        """Transforms [B, 5, 3, 4] from rest to posed space, root to eyes.

        Args:
            joints: [B, 5, 3] rest positions. rotation, translation: [B, 3] of the root, about the origin. neck, jaw:
                [B, 3]; eyes: [B, 6], left then right. Angles are axis-angle radians; None is no rotation.
        """
        batch = joints.shape[0]
        zero = joints.new_zeros(batch, 3)
        pair = (zero, zero) if eyes is None else (eyes[:, :3], eyes[:, 3:])
        local = axis_angle_to_matrix(
            torch.stack([zero if r is None else r for r in (rotation, neck, jaw)] + list(pair), 1)
        )
        shift = joints - (local @ joints[..., None])[..., 0]
        root = torch.cat([local[:, :1], (zero if translation is None else translation)[:, None, :, None]], -1)
        neck_turn = root[:, :, :, :3] @ local[:, 1:2]
        neck_shift = root[:, :, :, :3] @ shift[:, 1:2, :, None] + root[:, :, :, 3:]
        leaf_turn = neck_turn @ local[:, 2:]
        leaf_shift = neck_turn @ shift[:, 2:, :, None] + neck_shift
        return torch.cat([root, torch.cat([neck_turn, neck_shift], -1), torch.cat([leaf_turn, leaf_shift], -1)], 1)

    def forward(
        self,
        shape: Tensor | None = None,
        expression: Tensor | None = None,
        rotation: Tensor | None = None,
        translation: Tensor | None = None,
        neck: Tensor | None = None,
        jaw: Tensor | None = None,
        eyes: Tensor | None = None,
    ) -> Tensor:
        """Posed vertices [B, V, 3] in metres.

        Args:
            shape: [B, S] identity coefficients in standard deviations.
            expression: [B, E], order of `expression_names`, 1 = full expression.
            rotation, translation: [B, 3] of the whole head about the origin; axis-angle radians, metres.
            neck, jaw: [B, 3] axis-angle radians about their joints. eyes: [B, 6] left xyz, right xyz.
            None stands for zeros; every given tensor has the same B (B = 1 when all are None).

        Raises:
            ValueError: batch sizes or coefficient counts do not agree.
        """
        batch = self._batch(shape, expression, rotation, translation, neck, jaw, eyes)
        rest = self._displaced(shape, expression, batch)
        if all(p is None for p in (rotation, translation, neck, jaw, eyes)):
            return rest
        rest = self._corrected(rest, neck, jaw, eyes)
        joints = self.joints(shape).expand(batch, -1, -1)
        transforms = self.joint_transforms(joints, rotation, translation, neck, jaw, eyes)
        blended = (self.skinning_weights @ transforms.reshape(batch, len(JOINT_NAMES), 12)).view(batch, -1, 3, 4)
        # Products and a sum: a batched matrix product of this many 3x3 matrices is a hundred times slower.
        return (blended[..., :3] * rest[..., None, :]).sum(-1) + blended[..., 3]

    def _corrected(self, rest: Tensor, neck: Tensor | None, jaw: Tensor | None, eyes: Tensor | None) -> Tensor:
        """Vertices at rest [B, V, 3] with what the pose of neck, jaw and eyes adds (FLAME, equation 3)."""
        if "pose_basis" not in self._buffers or all(angles is None for angles in (neck, jaw, eyes)):
            return rest
        zero = rest.new_zeros(len(rest), 3)
        pair = (zero, zero) if eyes is None else (eyes[:, :3], eyes[:, 3:])
        angles = torch.stack([zero if a is None else a for a in (neck, jaw)] + list(pair), 1)
        bend = axis_angle_to_matrix(angles) - torch.eye(3, device=rest.device, dtype=rest.dtype)
        return rest + (bend.flatten(1) @ self.pose_basis.flatten(1)).view_as(rest)

    def _batch(self, *given: Tensor | None) -> int:
        widths = (self.shape_count, self.expression_count, 3, 3, 3, 3, 6)
        names = ("shape", "expression", "rotation", "translation", "neck", "jaw", "eyes")
        sizes = set()
        for name, width, value in zip(names, widths, given, strict=True):
            if value is None:
                continue
            if value.ndim != 2 or value.shape[1] != width:
                raise ValueError(f"{name}: expected [B, {width}], got {tuple(value.shape)}.")
            sizes.add(value.shape[0])
        if len(sizes) > 1:
            raise ValueError(f"Head parameters have different batch sizes {sorted(sizes)}.")
        return sizes.pop() if sizes else 1

    def landmarks(self, vertices: Tensor, kind: Literal["dense", "68"] = "dense") -> Tensor:
        """Landmarks [B, K, 3] on vertices [B, V, 3]: K = 478 MediaPipe points (`dense`) or 68 Multi-PIE points (`68`).

        Raises:
            ValueError: unknown kind.
        """
        faces, weights = self._embedding(kind)
        return (vertices[:, self.faces[faces]] * weights[None, :, :, None]).sum(2)

    def _embedding(self, kind: str) -> tuple[Tensor, Tensor]:
        if kind == "dense":
            return self.dense_faces, self.dense_barycentric
        if kind == "68":
            return self.landmark68_faces, self.landmark68_barycentric
        raise ValueError(f"Landmark kind {kind!r}: expected 'dense' or '68'.")

    def landmark_vertices(self, kind: Literal["dense", "68"] = "dense") -> tuple[Tensor, Tensor]:
        """Vertex indices [K, 3] and weights [K, 3] of the landmarks of a kind."""
        faces, weights = self._embedding(kind)
        return self.faces[faces], weights

    def subset(self, vertex_indices: Tensor) -> HeadSubset:
        """The same head evaluated at chosen vertices [K] only, for fitting."""
        return HeadSubset(self, vertex_indices)


class HeadSubset(torch.nn.Module):
    """A `HeadModel` restricted to some vertices; `forward` and `shaped` take the same arguments and give [B, K, 3]."""

    def __init__(self, model: HeadModel, vertex_indices: Tensor) -> None:
        """Args: model: the whole head. vertex_indices: [K] int64."""
        super().__init__()
        self._joint_source = [model]  # in a list, so that it is no submodule
        index = vertex_indices.to(model.template.device)
        self.register_buffer("vertex_indices", index, persistent=False)
        self.register_buffer("template", model.template[index], persistent=False)
        self.register_buffer("skinning_weights", model.skinning_weights[index], persistent=False)
        if model.has("pose_basis"):
            self.register_buffer("pose_basis", model.pose_basis[:, index], persistent=False)
        whole = torch.cat([model.shape_basis[:, index], model.expression_basis[:, index]])
        self.register_buffer("_basis", whole.reshape(len(whole), -1).contiguous(), persistent=False)
        self.shape_count, self.expression_count = model.shape_count, model.expression_count

    _displaced = HeadModel._displaced
    _corrected = HeadModel._corrected
    _batch = HeadModel._batch
    shaped = HeadModel.shaped
    forward = HeadModel.forward

    def joints(self, shape: Tensor | None = None) -> Tensor:
        """Rest positions [B, 5, 3] of the whole head's joints."""
        return self._joint_source[0].joints(shape)

    def joint_transforms(self, *args: Any) -> Tensor:
        """Transforms [B, 5, 3, 4]; see `HeadModel.joint_transforms`."""
        return self._joint_source[0].joint_transforms(*args)
