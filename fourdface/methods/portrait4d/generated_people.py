"""People of a GenHead as Portrait4D is trained with them (section 3.2): a latent, an identity, and nothing else.

`fourd synth-data genhead` renders them and keeps their latents; a frozen teacher of a training run makes them again.
Styles are truncated by 0.95 up to the 14th, as in the released code; the planes know the camera of a straight portrait.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fourdface.blocks.head_model import HeadModel
from fourdface.errors import FourdError
from fourdface.methods.portrait4d.alignment import FIVE_DENSE_POINTS, portrait_camera
from fourdface.priors.genhead.camera import FOCAL, label_from_camera
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.head import HeadPose
from fourdface.priors.genhead.load import load_genhead, load_trained

__all__ = ["GeneratedPeople", "label_of"]

TRUNCATION, TRUNCATION_CUTOFF = 0.95, 14


class GeneratedPeople:
    """A frozen GenHead over the open head, whose people are given by latent and identity."""

    def __init__(self, checkpoint: str | Path) -> None:
        """Open a run's weights.safetensors or an imported checkpoint.

        Raises FourdError where the file is refused, or its head is not the open one, whose expressions `views` hold.
        """
        trained = Path(checkpoint).suffix == ".safetensors"
        self.network: GenHead = load_trained(checkpoint) if trained else load_genhead(checkpoint)
        self.network.requires_grad_(False)
        self.model = HeadModel.load("open")
        counts = self.network.head.shape_count, self.network.head.expression_count
        if counts != (self.model.shape_count, self.model.expression_count):
            raise FourdError(
                f"{checkpoint} poses a head with {counts[0]} identity and {counts[1]} expression modes, and views hold "
                f"the open head's {self.model.shape_count} and {self.model.expression_count}; train one with "
                "`fourd train genhead`"
            )

    def planes(self, latent: Tensor, shape: Tensor) -> tuple[Tensor, Tensor]:
        """Planes [B, 6, C, R, R] and background features [B, C, h, w] of latents [B, D] and identities [B, S]."""
        still = self.network.head.neutral(len(shape))
        five = self.five_points(HeadPose(shape, still.expression, still.neck, still.jaw, still.eyes))
        front = torch.cat([label_of(portrait_camera(points, np.eye(3))) for points in five])
        planes = self.network.planes(
            latent, shape, front.to(latent), truncation=TRUNCATION, truncation_cutoff=TRUNCATION_CUTOFF
        )
        return planes, self.network.background_features(latent)

    def five_points(self, pose: HeadPose) -> np.ndarray:
        """Pupils, nose tip, mouth corners [B, 5, 3] of posed heads, metres."""
        values = (x.cpu() for x in (pose.shape, pose.expression, pose.neck, pose.jaw, pose.eyes))
        shape, expression, neck, jaw, eyes = values
        vertices = self.model(shape, expression, None, None, neck, jaw, eyes)
        return np.asarray(self.model.landmarks(vertices)[:, list(FIVE_DENSE_POINTS)].double().numpy())


def label_of(world_to_camera: np.ndarray) -> Tensor:
    """Label [1, 25] of a camera [4, 4] with Portrait4D's field of view."""
    intrinsics = torch.tensor([[[FOCAL, 0, 0.5], [0, FOCAL, 0.5], [0, 0, 1]]], dtype=torch.float64)
    return label_from_camera(torch.from_numpy(world_to_camera)[None], intrinsics, 1, 1).float()
