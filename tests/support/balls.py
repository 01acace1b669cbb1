"""A `views` artifact of painted balls in place of heads: pictures, opacity and depth known in closed form."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fourdface.artifacts import Views
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.priors.genhead.camera import camera_from_label, look_at_label
from support.artifacts import make_views

RADIUS, CENTRE = 0.09, np.array([0.0, 0.0, 0.03])
"""Metres."""


def _png(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.round(values * 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def draw_ball(
    world_to_camera: np.ndarray, intrinsics: np.ndarray, size: int, colour: np.ndarray, open_: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour [S, S, 3], opacity [S, S] and depth_z [S, S] of a ball that is darker below as its `mouth` opens."""
    centre = np.arange(size) + 0.5
    cols, rows = np.meshgrid(centre, centre)
    rays = np.stack([(cols - intrinsics[0, 2]) / intrinsics[0, 0], (rows - intrinsics[1, 2]) / intrinsics[1, 1],
                     np.ones_like(cols)], -1)  # fmt: skip
    middle = world_to_camera[:3, :3] @ CENTRE + world_to_camera[:3, 3]
    a, b = (rays**2).sum(-1), rays @ middle
    root = b**2 - a * (middle @ middle - RADIUS**2)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    place = (rays * depth[..., None] - middle) @ world_to_camera[:3, :3] / RADIUS  # in the head's axes
    shade = 0.75 + 0.25 * place[..., 0:1] - open_ * (place[..., 1:2] < -0.2)
    return np.clip(colour * shade, 0, 1) * (root > 0)[..., None], (root > 0).astype(float), depth


def write_balls(
    path: Path, people: int = 3, motions: int = 2, views: int = 3, size: int = 64, **changes: object
) -> Views:
    """Write and return a `views` artifact: person k has a colour of its own, motion 1 an open mouth."""
    rng = np.random.default_rng(0)
    count = people * motions * views
    rows = np.arange(count)
    yaw = torch.from_numpy(rng.uniform(-0.5, 0.5, (count, 1)))
    zero = torch.zeros(count, 1).double()
    label = look_at_label(yaw, zero, zero, torch.zeros(count, 3).double(), zero + 4.0).float()
    world_to_camera, intrinsics = (x.numpy() for x in camera_from_label(label, size, size))
    motion = rows // views % motions
    identity = rows // (views * motions)
    background = np.full((size, size, 3), 0.5)
    images, opacities, depths = [], [], []
    for k in rows:
        colour = np.random.default_rng(int(identity[k])).uniform(0.3, 0.9, 3)
        picture, opacity, depth = draw_ball(world_to_camera[k], intrinsics[k], size, colour, 0.5 * motion[k])
        images.append(_png(picture + (1 - opacity[..., None]) * background))
        opacities.append(_png(opacity))
        depths.append(depth[::2, ::2])
    expression = np.zeros((count, 52), np.float32)
    expression[:, ARKIT_INDEX["jawOpen"]] = motion
    nothing = {name: np.zeros((count, width), np.float32) for name, width in
               (("rotation", 3), ("translation", 3), ("neck", 3), ("jaw", 3), ("eyes", 6))}  # fmt: skip
    values = {
        "width": size, "height": size, "images": images, "opacities": opacities,
        "depths": np.stack(depths).astype(np.float16), "backgrounds": [_png(background)],
        "background_index": np.zeros(count, np.int64), "index": rows, "identity": identity + 1, "motion": motion,
        "view": rows % views, "identity_name": [b"ball"] * people, "expression": expression,
        "intrinsics": intrinsics.astype(np.float32), "world_to_camera": world_to_camera.astype(np.float32),
        "embeddings": {}, "latents": None, **nothing, **changes,
    }  # fmt: skip
    artifact = make_views(count, **values)
    artifact.write(path)
    return artifact
