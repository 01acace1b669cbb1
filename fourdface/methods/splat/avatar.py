"""The avatar at work: pose the rig, move the Gaussians with it, splat them over a background."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...ops.bind_gaussians import bind_gaussians
from ...ops.splat import SplatOutput, splat, splat_to_u8
from .lift import Bound, Lifted
from .rig import HeadState, Rig
from .surface import View

SPLAT_DILATION = 0.1
"""Variance in pixels^2 that the renderer adds to every Gaussian: less than the usual 0.3, because these are pixels."""


RIM_CHANGE, LIKE_THE_PHOTO = 0.12, 33.0
"""How far the colours of the person's outermost pixels may be refined, unless the photo would stay below so many dB."""


@dataclass(frozen=True)
class Camera:
    """A camera to render from: world_to_camera [4,4] (OpenCV axes), intrinsics [3,3] pixels, width, height."""

    world_to_camera: Tensor
    intrinsics: Tensor
    width: int
    height: int

    @staticmethod
    def of(view: View) -> Camera:
        """The photo's own camera."""
        return Camera(
            torch.from_numpy(np.asarray(view.world_to_camera, np.float32)),
            torch.from_numpy(np.asarray(view.intrinsics, np.float32)), view.width, view.height,
        )  # fmt: skip

    def scaled(self, width: int, height: int) -> Camera:
        """The same view in another size; the field of view follows the height, the centre stays."""
        factor = height / self.height
        intrinsics = self.intrinsics.clone()
        intrinsics[:2, :2] *= factor
        intrinsics[0, 2] = width / 2 + (self.intrinsics[0, 2] - self.width / 2) * factor
        intrinsics[1, 2] = height / 2 + (self.intrinsics[1, 2] - self.height / 2) * factor
        return replace(self, intrinsics=intrinsics, width=width, height=height)


class SplatAvatar:
    """Gaussians on a rig, with the photo's camera and background plate (uint8 [H,W,3])."""

    def __init__(self, rig: Rig, gaussians: Bound, view: View, plate_u8: np.ndarray) -> None:
        self.rig = rig
        self.view = view
        self.plate_u8 = plate_u8
        self.camera = Camera.of(view)
        self.triangle = torch.from_numpy(np.ascontiguousarray(gaussians.triangle, np.int32))
        self.local_mean = torch.from_numpy(np.ascontiguousarray(gaussians.local_mean, np.float32))
        self.local_covariance = torch.from_numpy(np.ascontiguousarray(gaussians.local_covariance, np.float32))
        self.colours = torch.from_numpy(np.array(gaussians.colours, np.float32))  # a copy: it gets refined
        self.max_trace = torch.from_numpy(np.ascontiguousarray(gaussians.max_trace, np.float32))
        self.opacity = torch.from_numpy(np.ascontiguousarray(gaussians.opacity, np.float32))

    def __len__(self) -> int:
        return len(self.triangle)

    def gaussians(self, state: HeadState) -> tuple[Tensor, Tensor]:
        """Means [N,3] and covariances [N,6] in the world for one pose."""
        vertices = self.rig.pose(state)
        return bind_gaussians(
            vertices, self.rig.faces, self.triangle, self.local_mean, self.local_covariance, max_trace=self.max_trace
        )

    def render(self, state: HeadState, camera: Camera | None = None, background: Tensor | None = None) -> SplatOutput:
        """Float picture of one pose: image [H,W,3] (over `background` [3], default none), alpha, depth_z."""
        camera = camera or self.camera
        means, covariances = self.gaussians(state)
        return splat(
            means, covariances, self.colours, self.opacity, camera.world_to_camera, camera.intrinsics, camera.width,
            camera.height, background=background, eps2d=SPLAT_DILATION,
        )  # fmt: skip

    def render_u8(self, state: HeadState, background_u8: np.ndarray, camera: Camera | None = None) -> np.ndarray:
        """Picture [H,W,3] uint8 of one pose over a background [H,W,3] uint8 of the camera's size."""
        camera = camera or self.camera
        means, covariances = self.gaussians(state)
        return splat_to_u8(
            means, covariances, self.colours, self.opacity, camera.world_to_camera, camera.intrinsics, background_u8,
            eps2d=SPLAT_DILATION,
        )  # fmt: skip


def refine_colours(avatar: SplatAvatar, lifted: Lifted, image: np.ndarray, rounds: int = 6) -> list[float]:
    """Sharpen the pixels' colours until the photo's own view is reproduced; returns the PSNR (dB) on the person
    before each round and after the last.

    Every Gaussian is wider than its pixel, so the first picture is a little soft. Each round adds what is missing at
    a Gaussian's own pixel (a Landweber iteration on colours only): no gradients, one render a round.
    """
    target = torch.from_numpy(np.ascontiguousarray(image, np.float32))
    matte = lifted.matte
    alpha = torch.from_numpy(np.clip(matte, 0, 1).astype(np.float32))[..., None]
    solid = ((alpha - 0.3) / 0.4).clamp(0, 1)  # what is hardly there says little about its colour
    # a rim driven towards the background's colour would be a fringe as soon as it turns before something else
    least = -torch.nn.functional.max_pool2d(-alpha[None, ..., 0], 3, stride=1, padding=1)[0]
    allowed = (RIM_CHANGE + ((least - 0.3) / 0.4).clamp(0, 1)).reshape(-1, 1)[torch.from_numpy(lifted.pixel_index)]
    plate = torch.from_numpy(avatar.plate_u8.astype(np.float32) / 255)
    index = torch.from_numpy(lifted.pixel_index)
    four = torch.from_numpy(lifted.cell == 2)[:, None]
    count = len(index)
    person = matte > 0.5
    start = avatar.colours[:count].clone()
    history = []
    for step in range(rounds + 1):
        output = avatar.render(avatar.rig.source)
        picture = output.image + (1 - output.alpha[..., None]) * plate
        missing = target - picture
        history.append(_psnr(missing.numpy()[person]))
        if step == rounds:
            break
        if step == rounds // 2 and history[-1] < LIKE_THE_PHOTO:
            allowed = torch.full_like(allowed, 2.0)
        gain = 0.8 * missing * solid
        padded = torch.nn.functional.pad(gain.permute(2, 0, 1)[None], (0, 1, 0, 1), mode="replicate")
        pooled = torch.nn.functional.avg_pool2d(padded, 2, stride=1)[0].permute(1, 2, 0)
        update = torch.where(four, pooled.reshape(-1, 3)[index], gain.reshape(-1, 3)[index])
        change = (avatar.colours[:count] + update - start).clamp(-allowed, allowed)
        avatar.colours[:count] = (start + change).clamp(-0.25, 1.25)
    return history


def _psnr(difference: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean(np.square(difference)) + 1e-10))
