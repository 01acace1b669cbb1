"""render: avatar + cameras (+ motion) -> frames; the background and size rules that reenact shares."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..blocks.camera import CameraPose, orbit_angles, turned_about, turntable_angles
from ..media.resize import fill_frame, resize
from ..methods.splat.avatar import Camera, SplatAvatar
from ..methods.splat.rig import HeadState


@dataclass(frozen=True)
class Canvas:
    """Size of the output in pixels and what stands behind the person: uint8 [H,W,3], or None for transparent."""

    width: int
    height: int
    background_u8: np.ndarray | None


def make_canvas(avatar: SplatAvatar, background: str, image_u8: np.ndarray | None, size: int | None) -> Canvas:
    """background: keep|white|transparent|image (then `image_u8`); size: longest side, None for the photo's own."""
    width, height = avatar.view.width, avatar.view.height
    if size is not None:
        factor = size / max(width, height)
        width, height = max(2, round(width * factor)), max(2, round(height * factor))
    if background == "transparent":
        return Canvas(width, height, None)
    if background == "white":
        return Canvas(width, height, np.full((height, width, 3), 255, np.uint8))
    if background == "image":
        if image_u8 is None:
            raise ValueError("background 'image' needs image_u8")
        return Canvas(width, height, fill_frame(image_u8, width, height))
    return Canvas(width, height, np.ascontiguousarray(resize(avatar.plate_u8, width, height)))


def source_camera(avatar: SplatAvatar, canvas: Canvas) -> Camera:
    """The photo's camera at the canvas' size."""
    return avatar.camera.scaled(canvas.width, canvas.height)


def as_pose(camera: Camera) -> CameraPose:
    """Camera of tensors -> camera of arrays."""
    return CameraPose(
        camera.world_to_camera.double().numpy(), camera.intrinsics.double().numpy(), camera.width, camera.height
    )


def as_camera(pose: CameraPose) -> Camera:
    """Camera of arrays -> camera of tensors."""
    return Camera(
        torch.from_numpy(pose.world_to_camera).float(), torch.from_numpy(pose.intrinsics).float(), pose.width,
        pose.height,
    )  # fmt: skip


def head_centre(avatar: SplatAvatar) -> np.ndarray:
    """World point [3] about which cameras orbit: the middle of the head's box in the photo."""
    head = avatar.rig.pose(avatar.rig.source)[: avatar.rig.model.template.shape[0]].numpy()
    skull = head[avatar.rig.model.regions["scalp"].numpy()]
    return 0.5 * (skull.min(0) + skull.max(0))


def orbit_path(avatar: SplatAvatar, canvas: Canvas, frames: int, yaw: float, pitch: float) -> Iterator[Camera]:
    """A closed sweep of +-yaw and +-pitch degrees about the head."""
    yield from _turned(avatar, canvas, orbit_angles(frames, yaw, pitch))


def turntable_path(avatar: SplatAvatar, canvas: Canvas, frames: int) -> Iterator[Camera]:
    """One full turn about the head."""
    yield from _turned(avatar, canvas, turntable_angles(frames))


def _turned(avatar: SplatAvatar, canvas: Canvas, angles: np.ndarray) -> Iterator[Camera]:
    base, centre = as_pose(source_camera(avatar, canvas)), head_centre(avatar)
    for yaw, pitch in angles:
        yield as_camera(turned_about(base, centre, float(yaw), float(pitch)))


def render_frames(
    avatar: SplatAvatar, states: Iterable[HeadState], cameras: Iterable[Camera], background_u8: np.ndarray | None
) -> Iterator[np.ndarray]:
    """One picture a pair of state and camera: uint8 [H,W,3], or [H,W,4] with straight alpha without background."""
    for state, camera in zip(states, cameras, strict=False):
        yield render_one(avatar, state, camera, background_u8)


def render_one(avatar: SplatAvatar, state: HeadState, camera: Camera, background_u8: np.ndarray | None) -> np.ndarray:
    """See `render_frames`."""
    if background_u8 is not None:
        behind = np.ascontiguousarray(resize(background_u8, camera.width, camera.height))
        return avatar.render_u8(state, behind, camera)
    output = avatar.render(state, camera)
    alpha = output.alpha[..., None].clamp(0, 1)
    colour = (output.image / alpha.clamp_min(1e-4)).clamp(0, 1)
    return (torch.cat([colour, alpha], -1) * 255).round().to(torch.uint8).numpy()
