"""Pictures from fixed latents that show whether a generator's heads move and turn: one person per row."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fourdface.blocks.arkit import ARKIT_INDEX, ARKIT_NAMES
from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.head import HeadPose
from fourdface.priors.genhead.training_data import Pictures, pose_of, turned

__all__ = ["MOTIONS", "VIEWS", "Examples", "grids", "moved_heads"]

COLUMNS = 8
PEOPLE = 4
VIEWS = tuple(math.radians(40 * (2 * k / (COLUMNS - 1) - 1)) for k in range(COLUMNS))
"""Yaw of the cameras of the grid `views`, radians about the camera that looks from the front."""
GAZE = 0.35

MOTIONS: tuple[tuple[str, dict[str, float], float], ...] = (
    ("neutral", {}, 0.0),
    ("jaw open", {"jawOpen": 0.8}, 0.0),
    ("smile", {"mouthSmileLeft": 0.9, "mouthSmileRight": 0.9}, 0.0),
    ("pucker", {"mouthPucker": 0.9}, 0.0),
    ("blink", {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, 0.0),
    ("brows up", {"browInnerUp": 0.9, "browOuterUpLeft": 0.9, "browOuterUpRight": 0.9}, 0.0),
    ("gaze left", {}, GAZE),
    ("gaze right", {}, -GAZE),
)
"""Columns of the grid `expressions`: name, coefficients, turn of both eyes about the vertical axis (radians)."""


@dataclass(frozen=True)
class Examples:
    """What grids show: latents z [K, Z], cameras and heads of K samples, and the camera from the front [25]."""

    z: Tensor
    labels: Tensor
    pose: HeadPose
    front: Tensor

    @classmethod
    def of(cls, pictures: Pictures, z_dim: int, device: torch.device, count: int = PEOPLE * COLUMNS) -> Examples:
        """`count` samples evenly spread over the data, latents from a seed of their own."""
        samples = {name: value.to(device) for name, value in pictures.spread(count).items()}
        z = torch.randn(len(samples["label"]), z_dim, generator=torch.Generator().manual_seed(0))
        return cls(z.to(device), samples["label"], pose_of(samples), pictures.most_frontal().to(device))


def moved_heads(pose: HeadPose) -> list[HeadPose]:
    """The heads [B] of `pose` in each of `MOTIONS`; for a head model without ARKIT modes, along its first modes."""
    out = []
    for k, (_, coefficients, gaze) in enumerate(MOTIONS):
        expression = torch.zeros_like(pose.expression)
        if expression.shape[1] == len(ARKIT_NAMES):
            for name, value in coefficients.items():
                expression[:, ARKIT_INDEX[name]] = value
        elif coefficients:
            expression[:, k % expression.shape[1]] = 2.0
        eyes = torch.zeros_like(pose.eyes)
        eyes[:, 1] = eyes[:, 4] = gaze
        out.append(replace(pose, expression=expression, eyes=eyes, jaw=torch.zeros_like(pose.jaw)).without_neck())
    return out


def grids(network: GenHead, examples: Examples) -> dict[str, Tensor]:
    """`samples` in their own cameras and poses; `expressions` and `views`: PEOPLE rows of one latent each; 0..1."""
    front = examples.front.expand(PEOPLE, -1)
    told = {"conditioning": front}
    z, people = examples.z[:PEOPLE], examples.pose[:PEOPLE]
    sample = torch.cat([_picture(network, *part) for part in _chunks(examples)])
    motions = [_picture(network, z, pose, front, **told) for pose in moved_heads(people)]
    cameras = turned(examples.front, torch.tensor(VIEWS, device=z.device))
    calm = moved_heads(people)[0]
    views = [_picture(network, z, calm, camera.expand(PEOPLE, -1), **told) for camera in cameras]
    return {"samples": sample, "expressions": _by_person(motions), "views": _by_person(views)}


def _picture(network: GenHead, z: Tensor, pose: HeadPose, label: Tensor, conditioning: Tensor | None = None) -> Tensor:
    return ((network(z, pose, label, conditioning=conditioning).image + 1) / 2).clamp(0, 1)


def _chunks(examples: Examples) -> Iterator[tuple[Tensor, HeadPose, Tensor]]:
    for first in range(0, len(examples.z), COLUMNS):
        part = slice(first, first + COLUMNS)
        yield examples.z[part], examples.pose[part], examples.labels[part]


def _by_person(columns: list[Tensor]) -> Tensor:
    """Columns of PEOPLE pictures each -> all pictures, row by row."""
    return torch.stack(columns, dim=1).flatten(0, 1)
