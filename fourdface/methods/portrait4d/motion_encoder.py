"""PD-FGC: the motion of a face, free of who it is, as 548 numbers (eyes 6, emotion 30, mouth 512).

Wang et al., "Progressive Disentangled Representation Learning for Fine-Grained Controllable Talking Head Synthesis"
(CVPR 2023). Portrait4D takes its encoder as it is, and leaves its head pose out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from fourdface.blocks.hourglass import FAN

__all__ = ["EMBEDDING", "MOTION_SIZE", "Motion", "MotionEncoder"]

EMBEDDING = "pdfgc"
"""Name of the embedding in a motion artifact."""
MOTION_SIZE = 548
CROP_SIZE = 224
"""Side of the picture that the encoder takes, in pixels."""


@dataclass(frozen=True)
class Motion:
    """head_pose [B, 6], eyes [B, 6], emotion [B, 30], mouth [B, 512] (the mouth's features before their embedding)."""

    head_pose: Tensor
    eyes: Tensor
    emotion: Tensor
    mouth: Tensor

    def embedding(self) -> Tensor:
        """What Portrait4D is driven by: [B, 548]."""
        return torch.cat([self.eyes, self.emotion, self.mouth], 1)


class _FaceFeatures(FAN):
    """FAN, whose 68 score maps are joined to one and read by a linear layer: [B, 3, 224, 224] -> [B, 512]."""

    def __init__(self, features: int = 512) -> None:
        super().__init__()
        self.bn5 = nn.BatchNorm2d(68)
        self.conv6 = nn.Conv2d(68, 1, 3, stride=2, padding=1)
        self.fc = nn.Linear((CROP_SIZE // 8) ** 2, features)

    def forward(self, image: Tensor) -> Tensor:
        maps = relu(self.bn5(super().forward(image)))
        return self.fc(relu(self.conv6(maps)).flatten(1))


def _branch(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Linear(width, width))


def _embedding(width: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.ReLU(), nn.Linear(width, size))


class MotionEncoder(nn.Module):
    """FAN and one branch each for head pose, eyes, emotion and mouth. Keys are those of the published state dict."""

    def __init__(self, width: int = 512) -> None:
        super().__init__()
        self.model = _FaceFeatures(width)
        self.to_mouth, self.mouth_embed = _branch(width), _embedding(width, 500)
        self.to_headpose, self.headpose_embed = _branch(width), _embedding(width, 6)
        self.to_eye, self.eye_embed = _branch(width), _embedding(width, 6)
        self.to_emo, self.emo_embed = _branch(width), _embedding(width, 30)

    def forward(self, face_pm1: Tensor) -> Motion:
        """Aligned face [B, 3, 224, 224] in -1..1 (see `motion_crop`) -> motion."""
        x = self.model(face_pm1)
        return Motion(
            self.headpose_embed(self.to_headpose(x)),
            self.eye_embed(self.to_eye(x)),
            self.emo_embed(self.to_emo(x)),
            self.to_mouth(x),
        )
