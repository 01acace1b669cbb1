"""The avatar artifact of this family: what depends on the photo alone, in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fourdface.artifacts import Avatar
from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.alignment import PortraitCrop
from fourdface.methods.portrait4d.config import ReconstructorConfig
from fourdface.methods.portrait4d.network import Source

__all__ = ["PortraitAvatar", "pack_source", "restore_portrait"]

_AXES = {"tokens": "N,C", "grid": "2", "detail": "C,H,W", "background": "C,H,W", "motion": "M", "crop": "7"}
_UNITS = {
    "tokens": "features", "grid": "tokens (rows, columns)", "detail": "features", "background": "features, 0..1",
    "motion": "embedding", "crop": "pixels: source width, height, scaled width, height, left, top, size",
}  # fmt: skip


@dataclass(frozen=True)
class PortraitAvatar:
    """An avatar ready to be animated: the photo's features, its own motion [1, 548], and its crop."""

    source: Source
    motion: Tensor
    crop: PortraitCrop


def pack_source(portrait: PortraitAvatar) -> tuple[dict[str, np.ndarray], dict[str, str], dict[str, str]]:
    """Tensors of the artifact with their axes and units. FourdError where half precision cannot hold the features."""
    source, crop = portrait.source, portrait.crop
    tensors = {
        "tokens": _half(source.tokens[0]), "grid": np.array(source.size, np.int32), "detail": _half(source.detail[0]),
        "background": _half(source.background[0]), "motion": portrait.motion[0].float().cpu().numpy(),
        "crop": np.array([*crop.source, *crop.scaled, crop.left, crop.top, crop.size], np.int32),
    }  # fmt: skip
    return tensors, dict(_AXES), dict(_UNITS)


def restore_portrait(avatar: Avatar, config: ReconstructorConfig, device: str = "cpu") -> PortraitAvatar:
    """Read an avatar artifact for a network of these settings.

    Raises UsageError for another representation, FourdError where the tensors do not fit the network.
    """
    if avatar.representation != "portrait4d":
        raise UsageError(f"Portrait4D animates its own avatars, and this one is {avatar.representation}")
    tensors = avatar.tensors
    _check(tensors, config)
    source = Source(
        torch.from_numpy(tensors["tokens"]).to(device)[None],
        (int(tensors["grid"][0]), int(tensors["grid"][1])),
        torch.from_numpy(tensors["detail"]).to(device)[None],
        torch.from_numpy(tensors["background"]).to(device)[None],
    )
    width, height, scaled_width, scaled_height, left, top, size = (int(v) for v in tensors["crop"])
    crop = PortraitCrop((width, height), (scaled_width, scaled_height), left, top, size)
    return PortraitAvatar(source, torch.from_numpy(tensors["motion"]).to(device)[None], crop)


def _half(values: Tensor) -> np.ndarray:
    array = values.to(torch.float16).cpu().numpy()
    if not np.isfinite(array).all():
        raise FourdError("the photo's features are not finite in half precision; the weights do not fit this method")
    return array


def _check(tensors: Mapping[str, np.ndarray], config: ReconstructorConfig) -> None:
    half, side = config.resolution // 2, config.resolution // 16
    wanted = {
        "tokens": (side * side, config.width), "grid": (2,), "detail": (config.feature_channels, half, half),
        "background": (config.plane_channels, config.resolution, config.resolution), "motion": (config.motion,),
        "crop": (7,),
    }  # fmt: skip
    for name, shape in wanted.items():
        found = tensors[name].shape if name in tensors else "missing"
        if found != shape:
            raise FourdError(
                f"the avatar's tensor {name} is {found}, and the network wants {shape}; give the weights that it was "
                "lifted with (--weights), or lift the photo again"
            )
    crop = tensors["crop"]
    if tuple(tensors["grid"]) != (side, side) or (crop[:4] < 1).any() or (np.abs(crop) > 1 << 20).any() or crop[6] < 1:
        raise FourdError("the avatar's crop or grid is not possible; lift the photo again")
