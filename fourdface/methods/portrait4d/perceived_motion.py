"""Motion read from pictures by the embedded landmark network: what stands for PD-FGC where its weights are missing.

In pictures whose camera is known nothing needs to be detected: the crop is where the mean head's landmarks are seen.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from fourdface.assets import asset_path
from fourdface.blocks.head_model import HeadModel
from fourdface.methods.portrait4d.config import COEFFICIENT_MOTION
from fourdface.perception.features import PERCEPTION_ASSET
from fourdface.perception.geometry import CROP_MARGIN
from fourdface.perception.networks import LANDMARK_INPUT, LandmarkNet
from fourdface.priors.genhead.camera import camera_from_label

__all__ = ["PerceivedMotion"]

_PREFIX = "landmarks."


class PerceivedMotion(nn.Module):
    """Pictures [B, 3, S, S] in -1..1 with labels [B, 25] of heads that look along +z -> motion [B, 61].

    Jaw and eyes are zero: the coefficients `jawOpen` and `eyeLook*` carry them. Frozen; no gradients.
    """

    points: Tensor

    def __init__(self, weights: Path | None = None) -> None:
        super().__init__()
        self.network = LandmarkNet(fused=True)
        state = load_file(weights or asset_path(PERCEPTION_ASSET))
        self.network.load_state_dict(
            {name.removeprefix(_PREFIX): value.float() for name, value in state.items() if name.startswith(_PREFIX)}
        )
        head = HeadModel.load("open")
        self.register_buffer("points", head.landmarks(head(None, None), "dense")[0], persistent=False)
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, image_pm1: Tensor, label: Tensor) -> Tensor:
        """See the class."""
        centre, half = self._crops(label)
        move = torch.zeros(len(label), 2, 3, device=label.device)
        move[:, 0, 0] = move[:, 1, 1] = half
        move[:, :, 2] = centre
        grid = affine_grid(move, [len(label), 3, LANDMARK_INPUT, LANDMARK_INPUT], align_corners=False)
        crop = grid_sample((image_pm1.float() + 1) / 2, grid, padding_mode="border", align_corners=False)
        coefficients = torch.sigmoid(self.network(crop.clamp(0, 1))["coefficients"])
        rest = coefficients.new_zeros(len(label), COEFFICIENT_MOTION - coefficients.shape[1])
        return torch.cat([coefficients, rest], 1)

    def _crops(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Centre [B, 2] and half side [B] of the crops, in -1..1 of the picture."""
        world_to_camera, intrinsics = camera_from_label(label, 1, 1)
        seen = self.points @ world_to_camera[:, :3, :3].transpose(1, 2) + world_to_camera[:, None, :3, 3]
        seen = seen @ intrinsics.transpose(1, 2)
        places = 2 * seen[..., :2] / seen[..., 2:] - 1
        low, high = places.amin(1), places.amax(1)
        return (low + high) / 2, (high - low).amax(1) / 2 * CROP_MARGIN
