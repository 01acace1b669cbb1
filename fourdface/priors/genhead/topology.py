"""Index lists and coarse mesh of a head: from FLAME's masks, a head model's regions, or derived from the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fourdface.blocks.head_model import HeadModel
from fourdface.priors.genhead.flame import FlameLayer, HeadPose

__all__ = ["CANONICAL_JAW", "flame_entries", "head_model_entries", "local_faces", "neighbours", "simplify"]

SCALE = 3.0
CANONICAL_JAW = 0.3
"""Rotation of the jaw about x in the canonical pose, radians: the mouth is open there."""
COARSE_VERTICES = 730
_FLAME_MASKS = ("face", "left_eyeball", "right_eyeball", "lips", "noinmouth")
_TOPOLOGY = ("simplify_idxs", "simplify_baris", "simplify_faces", "vertices_region_idxs")
_OPEN_INNER_MOUTH = ("mouth_bag", "teeth_upper", "teeth_lower", "tongue", "gums")
_OPEN_REGIONS = ("face", "lips", "eyelids", "eyeball_left", "eyeball_right", "eye_sockets", *_OPEN_INNER_MOUTH)


CARRIED: dict[str, Tensor] = {
    "masked_smallface_faces": torch.zeros((0, 3), dtype=torch.int64),
    "smallface_idxs": torch.zeros(0, dtype=torch.int64),
    "dynamic_idxs": torch.zeros(0, dtype=torch.int64),
    "simplify_faces_region_idxs": torch.zeros((0, 50), dtype=torch.int64),
    "if_eye_face_simplify": torch.zeros(0, dtype=torch.bool),
}
"""Entries of the checkpoints that nothing here reads; they come and go with a checkpoint, and are empty otherwise."""


def local_faces(index: Tensor, faces: Tensor) -> Tensor:
    """The triangles all of whose vertices are in `index`, renumbered by their place in it."""
    place = torch.full((int(faces.max()) + 1,), -1, dtype=torch.int64)
    place[index] = torch.arange(len(index))
    renamed = place[faces]
    return renamed[(renamed >= 0).all(dim=1)]


def neighbours(faces: Tensor, count: int, width: int | None = None) -> Tensor:
    """Each vertex and those it shares a triangle with, [count, width], filled up with `count`.

    `width` None is the longest list; shorter ones leave neighbours out.
    """
    pairs = torch.cat([faces[:, [i, j]] for i in range(3) for j in range(3) if i != j])
    pairs = torch.unique(torch.cat([pairs, torch.arange(count)[:, None].expand(-1, 2)]), dim=0)
    itself_first = torch.argsort(pairs[:, 0] * 2 + (pairs[:, 0] != pairs[:, 1]), stable=True)
    owner, other = pairs[itself_first].unbind(dim=1)
    lengths = torch.bincount(owner, minlength=count)
    place = torch.arange(len(owner)) - (lengths.cumsum(0) - lengths)[owner]
    columns = int(lengths.max()) if width is None else width
    out = torch.full((count, columns), count, dtype=torch.int64)
    kept = place < columns
    out[owner[kept], place[kept]] = other[kept]
    return out


def simplify(vertices: Tensor, faces: Tensor, target: int = COARSE_VERTICES) -> tuple[Tensor, Tensor]:
    """A coarser mesh by clustering: indices [M] of vertices that stay, triangles [N, 3] among them.

    Vertices of one cell of a grid become the one that is nearest to their mean; triangles that lose a corner go. The
    cell is chosen by the area of the mesh so that about `target` vertices stay.
    """
    corners = vertices[faces]
    area = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]).norm(dim=1).sum() / 2
    cell = torch.sqrt(area / target) * 1.09  # a surface meets more cells than its area in cells
    used = torch.unique(faces)
    _, cluster = torch.unique(torch.floor(vertices[used] / cell), dim=0, return_inverse=True)
    count = int(cluster.max()) + 1
    mean = torch.zeros(count, 3).index_add(0, cluster, vertices[used]) / torch.bincount(cluster)[:, None]
    distance = (vertices[used] - mean[cluster]).norm(dim=1)
    # The last of each cluster in this order; writing all to one place would leave the choice to the threads.
    order = torch.argsort(distance, descending=True, stable=True)
    order = order[torch.argsort(cluster[order], stable=True)]
    keeper = used[order[torch.bincount(cluster).cumsum(0) - 1]]
    of_vertex = torch.full((len(vertices),), -1, dtype=torch.int64)
    of_vertex[used] = cluster
    small = of_vertex[faces]
    whole = (small[:, 0] != small[:, 1]) & (small[:, 1] != small[:, 2]) & (small[:, 2] != small[:, 0])
    small = small[whole]
    _, first = np.unique(np.sort(small.numpy(), axis=1), axis=0, return_index=True)
    return keeper, small[torch.from_numpy(np.sort(first))]


def flame_entries(
    model: Mapping[str, Any], masks: Mapping[str, Any], topology: Mapping[str, Any] | None
) -> tuple[dict[str, Tensor], int, Tensor]:
    """Entries of `HeadGeometry` from a FLAME file's arrays; see `HeadGeometry.from_flame`."""
    if missing := [name for name in _FLAME_MASKS if name not in masks]:
        raise ValueError(
            f"FLAME's masks have no {', '.join(missing)} (noinmouth is Portrait4D's own: all vertices but those inside "
            "the mouth); take the head of an imported GenHead checkpoint, or add the list"
        )
    if topology is not None and (missing := [name for name in _TOPOLOGY if name not in topology]):
        raise ValueError(f"the topology lacks {', '.join(missing)}: give all of {', '.join(_TOPOLOGY)}, or none")
    faces = _indices(model["f"])
    basis = _floats(model["shapedirs"])[:, :, :400]
    correctives = _floats(model["posedirs"])
    layer = {
        "faces_tensor": faces,
        "v_template": _floats(model["v_template"]),
        "shapedirs": basis,
        "posedirs": correctives.reshape(-1, correctives.shape[-1]).T.contiguous(),
        "J_regressor": _floats(model["J_regressor"]),
        "parents": torch.tensor([-1, 0, 1, 1, 1]),
        "lbs_weights": _floats(model["weights"]),
    }
    eyes = torch.cat([_indices(masks[name]).unique() for name in ("left_eyeball", "right_eyeball")])
    parts = {
        "eye_idxs": eyes,
        "face_idxs": _others(eyes, len(basis)),
        "lips_idxs": _indices(masks["lips"]),
        "noinmouth_idxs": _indices(masks["noinmouth"]),
        "eyelids_idxs": _indices(masks.get("eyelids", ())),
    }
    face = torch.cat([_indices(masks["face"]), eyes]).unique()
    given = {} if topology is None else {key: torch.as_tensor(np.asarray(value)) for key, value in topology.items()}
    return _completed(layer, parts, face, given), 100, face


def head_model_entries(head: HeadModel) -> tuple[dict[str, Tensor], int, Tensor]:
    """Entries of `HeadGeometry` from a head model of this project; see `HeadGeometry.from_head_model`."""
    regions = {name: torch.nonzero(mask)[:, 0].cpu() for name, mask in head.regions.items()}
    if missing := [name for name in _OPEN_REGIONS if name not in regions]:
        raise ValueError(f"head model {head.name!r} has no regions {', '.join(missing)}, which GenHead needs")
    count = head.vertex_count
    basis = torch.cat([head.shape_basis, head.expression_basis]).permute(1, 2, 0).contiguous().cpu()
    layer = {
        "faces_tensor": head.faces.cpu(),
        "v_template": head.template.cpu(),
        "shapedirs": basis,
        "posedirs": torch.zeros(0, 3 * count),
        "J_regressor": head.joint_regressor.cpu(),
        "parents": torch.tensor([-1, 0, 1, 1, 1]),
        "lbs_weights": head.skinning_weights.cpu(),
    }
    eyes = torch.cat([regions["eyeball_left"], regions["eyeball_right"]])
    inside = torch.cat([regions[name] for name in _OPEN_INNER_MOUTH])
    hidden = torch.cat([eyes, inside, regions["eye_sockets"]])
    parts = {
        "eye_idxs": eyes,
        "face_idxs": _others(hidden, count),
        "lips_idxs": regions["lips"],
        "noinmouth_idxs": _others(inside, count),
        "eyelids_idxs": regions["eyelids"],
    }
    face = torch.cat([_without(regions["face"], hidden), eyes]).unique()
    return _completed(layer, parts, face, {}), head.expression_count, face


def _completed(
    layer: dict[str, Tensor], parts: dict[str, Tensor], face: Tensor, given: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Enlarge, put the canonical neck joint at the origin, and add what follows from mesh and parts."""
    for name in ("v_template", "shapedirs", "posedirs"):
        layer[name] = layer[name] * SCALE
    zero = torch.zeros(1, layer["shapedirs"].shape[2])
    open_jaw = torch.tensor([[CANONICAL_JAW, 0.0, 0.0]])
    pose = HeadPose(zero, zero[:, :0], torch.zeros(1, 3), open_jaw, torch.zeros(1, 6))
    canonical, joints = FlameLayer(layer)(pose)
    layer["v_template"] = layer["v_template"] - joints[0, 1:2]
    canonical = canonical - joints[:, 1:2]
    faces, count = layer["faces_tensor"], canonical.shape[1]
    coarse = given if "simplify_idxs" in given else _coarse_mesh(canonical[0], faces, parts)
    idxs, weights = coarse["simplify_idxs"].long(), coarse["simplify_baris"].float()
    out = {f"flame_model.{name}": value for name, value in layer.items()} | parts
    out |= {
        "canonical_shape": canonical,
        "canonical_shape_face_only": canonical[:, face],
        "canonical_shape_coarse": (canonical[:, idxs] * weights[None, :, :, None]).sum(dim=2),
        "simplify_idxs": idxs,
        "simplify_baris": weights,
        "simplify_faces": coarse["simplify_faces"].long(),
        "vertices_region_idxs": given.get("vertices_region_idxs", neighbours(faces, count)).long(),
        "masked_faces": local_faces(face, faces),
        "masked_eye_faces": local_faces(parts["eye_idxs"], faces),
        "masked_lips_faces": local_faces(parts["lips_idxs"], faces),
        "masked_face_wo_eye_faces": local_faces(_without(face, parts["eye_idxs"]), faces),
        "masked_noinmouth_faces": local_faces(parts["noinmouth_idxs"], faces),
        "masked_eyelids_faces": local_faces(parts["eyelids_idxs"], faces),
    }
    return {name: value.detach() for name, value in out.items()}


def _coarse_mesh(vertices: Tensor, faces: Tensor, parts: dict[str, Tensor]) -> dict[str, Tensor]:
    """The clustered mesh of skin and eyeballs in the checkpoints' form: barycentric points that are vertices."""
    outside = torch.zeros(len(vertices), dtype=torch.bool)
    outside[torch.cat([parts["face_idxs"], parts["eye_idxs"]])] = True
    kept, small = simplify(vertices, faces[outside[faces].all(dim=1)])
    weights = torch.zeros(len(kept), 3)
    weights[:, 0] = 1
    return {"simplify_idxs": kept[:, None].repeat(1, 3), "simplify_baris": weights, "simplify_faces": small}


def _floats(values: Any) -> Tensor:
    dense = values.toarray() if hasattr(values, "toarray") else values  # a regressor may be a scipy matrix
    return torch.from_numpy(np.ascontiguousarray(np.asarray(dense), dtype=np.float32))


def _indices(values: Any) -> Tensor:
    return torch.from_numpy(np.asarray(values).astype(np.int64))


def _others(index: Tensor, count: int) -> Tensor:
    """All of 0..count-1 that are not in `index`."""
    return _without(torch.arange(count), index)


def _without(values: Tensor, index: Tensor) -> Tensor:
    return values[~torch.isin(values, index)]
