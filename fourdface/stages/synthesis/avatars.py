"""People lifted from photos, in new expressions, views and lights: real texture with exact labels.

This is the idea of Portrait4D-v2's pseudo multi-view frames in its cheapest form: the lifter is `splat`, no network.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ...artifacts import Avatar, Source
from ...blocks.rotation import axis_angle_to_matrix, matrix_to_axis_angle
from ...errors import FourdError
from ...methods.portrait4d.alignment import FIVE_DENSE_POINTS, fit_face, portrait_camera, portrait_crop
from ...methods.splat.avatar import Camera, SplatAvatar
from ...methods.splat.restore import restore_avatar
from ...methods.splat.rig import HeadState
from .backdrops import blurred, draw_backdrop
from .cameras import intrinsics_of, portrait_rotation, random_camera
from .expressions import HeadMotion, draw_motion
from .rows import Person, ViewPlan, ViewRow

OWN_PLATE = 0.6
"""Probability that a person stays before the background of the photo."""
OVERSAMPLING = 2
"""Pictures are rendered this much larger and averaged: the photos are, and Gaussians of half a pixel would alias."""
LIGHT_CHANGE = 0.22
"""How much brighter one side of the head gets than the photo shows it, at most about."""


class PosedAvatar:
    """A splat avatar whose head stands at the origin: cameras and motions as in `Views`."""

    def __init__(self, avatar: Avatar) -> None:
        """Raises what `restore_avatar` does."""
        self.splat: SplatAvatar = restore_avatar(avatar)
        source = self.splat.rig.source
        self._rotation = axis_angle_to_matrix(source.rotation)
        self._translation = source.translation
        self.head_to_photo = np.eye(4)
        self.head_to_photo[:3, :3] = self._rotation.double().numpy()
        self.head_to_photo[:3, 3] = source.translation.double().numpy()
        self.own = HeadMotion(avatar.expression.astype(np.float64), avatar.eyes.astype(np.float64))

    def state(self, motion: HeadMotion) -> HeadState:
        """The motion in the photo's world: the neck turns the skull about its joint, the torso stays."""
        joint = self.splat.rig.joints[1]
        turned = self._rotation @ axis_angle_to_matrix(torch.from_numpy(motion.neck).float())
        place = self._rotation @ joint + self._translation - turned @ joint
        return HeadState.from_arrays(motion.expression, matrix_to_axis_angle(turned), place, motion.eyes, motion.jaw)

    def five_points(self, motion: HeadMotion) -> np.ndarray:
        """Pupils, nose tip, mouth corners [5,3] with the head at the origin, metres."""
        rig = self.splat.rig
        points = rig.model.landmarks(rig.pose(self.state(motion))[None, : rig.model.vertex_count])[0]
        return (points[list(FIVE_DENSE_POINTS)].double().numpy() - self.head_to_photo[:3, 3]) @ self.head_to_photo[
            :3, :3
        ]

    def plate(self, size: int) -> np.ndarray:
        """The photo's background uint8 [size,size,3], cut as the photo would be."""
        points = self.splat.rig.pose(self.splat.rig.source)[None, : self.splat.rig.model.vertex_count]
        five = self.splat.rig.model.landmarks(points)[0][list(FIVE_DENSE_POINTS)].double().numpy()
        camera = self.splat.camera
        seen = five @ camera.world_to_camera[:3, :3].double().numpy().T + camera.world_to_camera[:3, 3].double().numpy()
        pixels = (seen @ camera.intrinsics.double().numpy().T)[:, :2] / seen[:, 2:]
        return portrait_crop(fit_face(pixels), (camera.width, camera.height), size).apply(self.splat.plate_u8)

    def relight(self, rng: np.random.Generator) -> None:
        """Light the head a little from one side, in a tint, with another exposure, once for all pictures."""
        means, _ = self.splat.gaussians(self.splat.rig.source)
        local = (means - self._translation) @ self._rotation
        outwards = torch.nn.functional.normalize(local - torch.tensor([0.0, 0.08, 0.0]), dim=1)
        light = torch.from_numpy(rng.normal(0, [1.0, 0.6, 0.5])).float()
        light = torch.nn.functional.normalize(light, dim=0) * float(rng.uniform(0, LIGHT_CHANGE))
        tint = torch.from_numpy(np.exp(rng.normal(0, 0.04, 3) + rng.normal(0, 0.06))).float()
        self.splat.colours = (self.splat.colours * (1 + outwards @ light)[:, None] * tint).clamp(-0.25, 1.25)

    def picture(
        self, state: HeadState, world_to_camera: np.ndarray, size: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Premultiplied colour [size,size,3], opacity [size,size] in 0..1 and depth_z [size,size] of one pose."""
        large = OVERSAMPLING * size
        to_camera = world_to_camera @ np.linalg.inv(self.head_to_photo)
        camera = Camera(
            torch.from_numpy(to_camera).float(), torch.from_numpy(intrinsics_of(large)).float(), large, large
        )
        output = self.splat.render(state, camera)
        layers = torch.cat([output.image, output.alpha[..., None], (output.depth_z * output.alpha)[..., None]], -1)
        small = torch.nn.functional.avg_pool2d(layers.permute(2, 0, 1)[None], OVERSAMPLING)[0].permute(1, 2, 0).numpy()
        alpha = np.clip(small[..., 3], 0, 1)
        return small[..., :3], alpha, small[..., 4] / np.maximum(small[..., 3], 1e-6)


def avatar_person(avatar: Avatar, name: str, source: Source, plan: ViewPlan, seed: int, number: int) -> Person:
    """Render one avatar. Motion 0 is the photo's own; views of a motion are portraits, from the middle on random ones.

    Raises FourdError where nothing of the head can be seen.
    """
    posed = PosedAvatar(avatar)
    rng = np.random.default_rng([seed, number])
    posed.relight(rng)
    background = blurred(posed.plate(plan.size), rng)
    if rng.random() >= OWN_PLATE:
        background = draw_backdrop(rng, plan.size)
    rows = []
    for k in range(plan.motions):
        drawn = draw_motion(np.random.default_rng([seed, number, k]), plan.neck)
        motion = replace(posed.own, neck=drawn.neck) if k == 0 else drawn
        state, five = posed.state(motion), posed.five_points(motion)
        for v in range(plan.views):
            rng = np.random.default_rng([seed, number, k, v])
            portrait = v < (plan.views + 1) // 2
            camera = portrait_camera(five, portrait_rotation(rng), rng) if portrait else random_camera(rng)
            colour, alpha, depth = posed.picture(state, camera, plan.size)
            over = np.clip(colour + (1 - alpha[..., None]) * background / 255.0, 0, 1)
            image_u8 = np.round(over * 255).astype(np.uint8)
            rows.append(ViewRow(k, v, image_u8, alpha, depth, camera, intrinsics_of(plan.size), motion))
    if not any(row.opacity.any() for row in rows):
        raise FourdError(f"{name} shows nothing from any camera; lift the photo again")
    return Person(name, avatar.shape, rows, [background], (source,))
