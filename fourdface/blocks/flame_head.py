"""FLAME as a head of this project: the user's imported file in the arrays of `HeadModel`.

Li et al., "Learning a model of facial shape and expression from 4D scans" (SIGGRAPH Asia 2017). FLAME's file holds
template, bases, joints, skinning and pose correctives. It has no uv map, no landmarks and no ARKit expressions; the
regions come with FLAME's mask file, and 68 landmarks with the checkpoints of Portrait4D, where those were imported.
Joints follow the shape alone (the paper's J(beta)); published layers let the expression move them by a hair too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fourdface.assets.cache import place_of
from fourdface.assets.registry import get_asset
from fourdface.assets.weights import load_weights

__all__ = ["FLAME_NAMES", "flame_arrays", "load_flame"]

FLAME_NAMES = ("flame2020", "flame2023")
"""Assets that are FLAME models."""
SHAPES = 300
"""Of FLAME's 400 modes the first are identity, the others expression."""
CHECKPOINTS = ("genhead-ffhq512", "portrait4d-v2-vfhq512", "portrait4d-genhead512", "portrait4d-static-genhead512")
_LAYER = "deformer.flame_deform.flame_model."
_SIDES = ("left_", "right_")


def load_flame(name: str) -> dict[str, Any]:
    """Arrays for `HeadModel.from_arrays` of an imported FLAME, with regions and landmarks where they are here too.

    Raises FourdError, with the steps that get it, where the asset is missing.
    """
    model = load_weights(name)
    masks = load_weights("flame-masks") if place_of(get_asset("flame-masks")).is_file() else {}
    plain = {key: value.numpy() for key, value in model.items()}
    return flame_arrays(plain, {key: value.numpy() for key, value in masks.items()}, _landmarks(plain), name)


def flame_arrays(
    model: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray] | None = None,
    landmarks68: tuple[np.ndarray, np.ndarray] | None = None, name: str = "flame",
) -> dict[str, Any]:  # fmt: skip
    """FLAME's arrays in the names of `HeadModel`, moved so that the mean head's neck joint is the origin.

    Args:
        model: f [F, 3], v_template [V, 3], shapedirs [V, 3, 400], posedirs [V, 3, 36], J_regressor [5, V], weights
            [V, 5]; metres, y up, looking along +z. masks: vertex indices by FLAME's names of regions.
        landmarks68: triangles [68] and barycentric weights [68, 3].
    """
    regressor = np.asarray(model["J_regressor"], np.float64)
    template = np.asarray(model["v_template"], np.float64)
    modes = np.asarray(model["shapedirs"], np.float32).transpose(2, 0, 1)
    weights = np.asarray(model["weights"], np.float32)
    arrays: dict[str, Any] = {
        "name": name,
        "template": (template - (regressor @ template)[1]).astype(np.float32),
        "faces": np.asarray(model["f"]).astype(np.int64),
        "shape_basis": modes[:SHAPES],
        "expression_basis": modes[SHAPES:],
        "pose_basis": np.asarray(model["posedirs"], np.float32).transpose(2, 0, 1),
        "joint_regressor": regressor.astype(np.float32),
        "skinning_weights": weights,
        "expression_names": [f"flame_expression_{k:03d}" for k in range(len(modes) - SHAPES)],
        "regions": _regions(masks or {}, weights),
    }
    if landmarks68 is not None:
        arrays |= {"landmark68_faces": landmarks68[0], "landmark68_barycentric": landmarks68[1]}
    return arrays


def _regions(masks: Mapping[str, np.ndarray], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Masks [V] with the project's names: left_eyeball becomes eyeball_left. Eyeballs are there without masks too."""
    regions = {"eyeball_left": weights[:, 3] > 0.5, "eyeball_right": weights[:, 4] > 0.5}
    for name, index in masks.items():
        side = next((side for side in _SIDES if name.startswith(side)), "")
        mask = np.zeros(len(weights), bool)
        mask[index] = True
        regions[name.removeprefix(side) + ("_" + side[:-1] if side else "")] = mask
    return regions


def _landmarks(model: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
    """Triangles and weights of 68 landmarks out of an imported checkpoint of the same mesh; None where there is none.

    The checkpoints embed 70 points, of which the first 68 are taken for Multi-PIE's; whether they are is looked at.
    """
    from safetensors import safe_open

    for asset in CHECKPOINTS:
        place: Path = place_of(get_asset(asset))
        if not place.is_file():
            continue
        with safe_open(str(place), "np") as file:
            keys = [_LAYER + key for key in ("faces_tensor", "full_lmk_faces_idx", "full_lmk_bary_coords")]
            if not set(keys) <= set(file.keys()):
                continue
            mesh, faces, weights = (file.get_tensor(key) for key in keys)
        faces, weights = faces.reshape(-1)[:68].astype(np.int64), weights.reshape(-1, 3)[:68].astype(np.float32)
        if np.array_equal(mesh, model["f"]) and _is_a_face(model, faces, weights):
            return faces, weights
    return None


def _is_a_face(model: Mapping[str, np.ndarray], faces: np.ndarray, weights: np.ndarray) -> bool:
    """Whether the points lie as Multi-PIE's do: eyes left and right, above the nose, the nose above the mouth."""
    if len(faces) != 68 or not (faces.min() >= 0 and faces.max() < len(model["f"])):
        return False
    corners = np.asarray(model["v_template"], np.float64)[np.asarray(model["f"]).astype(np.int64)[faces]]
    points = (corners * weights[..., None]).sum(1)
    right, left, nose, mouth = points[36:42].mean(0), points[42:48].mean(0), points[33], points[48:].mean(0)
    return bool(right[0] < nose[0] < left[0] and min(right[1], left[1]) > nose[1] > mouth[1])
