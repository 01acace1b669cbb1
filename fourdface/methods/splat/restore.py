"""From the avatar artifact back to something that can be posed and rendered."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ...artifacts import Avatar
from ...blocks.head_model import HeadModel
from ...errors import FourdError, UsageError
from ...media.image import decode_png
from .avatar import SplatAvatar
from .lift import Bound
from .rig import HeadState, Rig
from .surface import View

_NEEDED: dict[str, tuple[int, ...]] = {
    "triangle": (), "local_mean": (3,), "local_covariance": (6,), "colour": (3,), "opacity": (), "max_trace": (),
}  # fmt: skip
"""Tensors of an avatar and the shape of one Gaussian's row in each."""


def restore_avatar(avatar: Avatar) -> SplatAvatar:
    """Make a `SplatAvatar` of a Gaussian avatar artifact.

    Raises UsageError for another representation and FourdError where the tensors do not fit each other or the head.
    """
    if avatar.representation != "gaussians":
        raise UsageError(f"this command renders gaussians avatars, and this one is {avatar.representation}")
    model = HeadModel.load(avatar.head_model)
    if len(avatar.shape) != model.shape_basis.shape[0]:
        raise FourdError(
            f"the avatar has {len(avatar.shape)} identity coefficients, and head model {avatar.head_model} has "
            f"{model.shape_basis.shape[0]}; lift the photo again"
        )
    state = HeadState.from_arrays(avatar.expression, avatar.rotation, avatar.translation, avatar.eyes, avatar.jaw)
    offset = avatar.tensors.get("head_offset")
    if offset is not None and offset.shape != tuple(model.template.shape):
        raise FourdError(f"the avatar's head_offset is {offset.shape}, expected {tuple(model.template.shape)}")
    rig = Rig(model, torch.from_numpy(avatar.shape), state, None if offset is None else torch.from_numpy(offset))
    _check_tensors(avatar.tensors, len(rig.faces))
    tensors = avatar.tensors
    bound = Bound(
        tensors["triangle"], tensors["local_mean"], tensors["local_covariance"],
        tensors["colour"].astype(np.float32), tensors["opacity"].astype(np.float32), tensors["max_trace"],
    )  # fmt: skip
    view = View(avatar.world_to_camera, avatar.intrinsics, avatar.width, avatar.height)
    if avatar.background_blob is None:
        plate = np.full((avatar.height, avatar.width, 3), 255, np.uint8)
    else:
        plate = decode_png(avatar.background_blob)
    if plate.shape != (avatar.height, avatar.width, 3):
        raise FourdError(f"the avatar's background is {plate.shape[:2]}, expected {(avatar.height, avatar.width)}")
    return SplatAvatar(rig, bound, view, plate)


def _check_tensors(arrays: Mapping[str, np.ndarray], faces: int) -> None:
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise FourdError(f"the avatar lacks the tensors {', '.join(missing)}; lift the photo again")
    count = len(arrays["triangle"])
    for name, row in _NEEDED.items():
        if arrays[name].shape != (count, *row):
            raise FourdError(f"the avatar's tensor {name} has shape {arrays[name].shape}, expected {(count, *row)}")
    triangle = arrays["triangle"]
    if count and (triangle.min() < 0 or triangle.max() >= faces):
        raise FourdError(f"the avatar's triangles reach {triangle.max()}, and its rig has {faces}")
