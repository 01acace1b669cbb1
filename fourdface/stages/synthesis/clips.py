"""Motions and poses of tracked clips, as a table to draw from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ...artifacts import HeadTrack, Motion, Tracked
from ...artifacts.tracked import STATUS_MISSING
from ...blocks.rotation import axis_angle_to_matrix
from ...errors import FourdError
from .cameras import portrait_rotation
from .expressions import HeadMotion, draw_motion


@dataclass(frozen=True)
class Clip:
    """T frames of one person: expression [T,52], eyes [T,6], rotation [T,3,3] of the head against a camera before it;
    shape [S], None where only the motion is known."""

    name: str
    expression: np.ndarray
    eyes: np.ndarray
    rotation: np.ndarray
    shape: np.ndarray | None = None


def clip_of(artifact: Tracked | Motion, name: str) -> Clip:
    """The frames with a face of a fitted tracked artifact, or of a motion. Raises FourdError where there are none."""
    head: HeadTrack | Motion = artifact.head() if isinstance(artifact, Tracked) else artifact
    seen = artifact.status != STATUS_MISSING
    if not seen.any():
        raise FourdError(f"{name} shows no face in any frame; leave it out of --clips")
    turned = axis_angle_to_matrix(torch.from_numpy(head.rotation[seen]).double()).numpy()
    against = np.diag([1.0, -1.0, -1.0]) @ head.world_to_camera[:3, :3].astype(np.float64) @ turned
    shape = None if isinstance(head, Motion) else head.shape
    return Clip(name, head.expression[seen], head.eyes[seen], against, shape)


def frame_of(clip: Clip | None, rng: np.random.Generator) -> HeadMotion:
    """The expression of one frame of a clip, with the gaze of another (Portrait4D draws eyes on their own); without a
    clip an expression out of the general ones."""
    if clip is None:
        return draw_motion(rng)
    one, other = rng.integers(len(clip.expression), size=2)
    expression, eyes = clip.expression[one].astype(np.float64), clip.eyes[other].astype(np.float64)
    return HeadMotion(np.clip(expression, 0, 1), eyes)


def rotation_of(clips: tuple[Clip, ...], rng: np.random.Generator) -> np.ndarray:
    """How a head [3,3] stands in a portrait: as in a frame of any clip, or as in portraits in general."""
    if not clips:
        return portrait_rotation(rng)
    clip = clips[int(rng.integers(len(clips)))]
    return np.asarray(clip.rotation[int(rng.integers(len(clip.rotation)))])
