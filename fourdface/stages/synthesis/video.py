"""Clips of one camera made to have several (Portrait4D-v2, equation 3): a static reconstructor looks at every frame and
shows it from random cameras. Motion scale 0: the reconstructor's cross attention is off, so it needs no driver.

View 0 of a motion is the frame itself; the others are made by the network. What is behind is known to the network only
within a picture, so that no background is kept; nor is depth, which is not known for the frames.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...blocks.camera import CameraPose
from ...media.resize import resize
from ...methods.portrait4d.engine import Engine
from ...methods.portrait4d.view import OPEN_FACE_ANCHOR, label_of_camera
from .cameras import ORBIT, intrinsics_of, random_camera
from .rows import Person, ViewPlan, ViewRow


def multi_view_person(frames: Person, engine: Engine, plan: ViewPlan, seed: int, number: int) -> Person:
    """Add views to the aligned frames of a clip, one row a frame and `engine.size` pixels large."""
    rows = [row for k, frame in enumerate(frames.rows) for row in _views(frame, engine, plan, (seed, number, k))]
    return replace(frames, rows=rows, backgrounds=[])


def _views(frame: ViewRow, engine: Engine, plan: ViewPlan, numbers: tuple[int, ...]) -> list[ViewRow]:
    size = plan.size
    picture_u8 = np.ascontiguousarray(resize(frame.image_u8, size, size))
    matte_u8 = np.round(np.clip(frame.opacity, 0, 1) * 255).astype(np.uint8)
    alpha = resize(matte_u8, size, size) / 255.0
    shown = replace(
        frame, motion=numbers[-1], view=0, image_u8=picture_u8, opacity=alpha, depth_z=None,
        intrinsics=intrinsics_of(size), background=-1,
    )  # fmt: skip
    rows = [shown]
    still = torch.zeros(1, engine.network.config.motion)
    source = engine.adopt(engine.encode(frame.image_u8, still))
    planes = engine.planes(source, still)
    for v in range(1, plan.views):
        camera = random_camera(np.random.default_rng([*numbers, v]))
        made = engine.render(planes, source.background, label_in(engine, camera))
        picture_u8 = np.ascontiguousarray(resize(made.picture_u8, size, size))
        alpha = resize(np.round(made.alpha * 255).astype(np.uint8), size, size) / 255.0
        rows.append(replace(shown, view=v, image_u8=picture_u8, opacity=alpha, world_to_camera=camera))
    return rows


def label_in(engine: Engine, world_to_camera: np.ndarray) -> torch.Tensor:
    """Label [1,25] of a camera [4,4] about the open head, in the world of the network's own head."""
    matrix = world_to_camera.copy()
    if engine.face_anchor != OPEN_FACE_ANCHOR:  # FLAME's neck joint is the origin
        matrix[:3, 3] += matrix[:3, :3] @ ORBIT
    return label_of_camera(CameraPose(matrix, intrinsics_of(engine.size), engine.size, engine.size))
