"""People of a trained GenHead: the training data of Portrait4D (section 3.2), written down instead of made on the fly.

A person is a latent z (`methods/portrait4d/generated_people.py`), kept beside the pictures. Dynamic sets move it with
frames of one clip, static ones show one moment. Cameras are those of portraits and the paper's random ones, half of
each; in dynamic sets the jaw is turned by up to 0.2 rad in every second motion, on top of the expression.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from ...artifacts import Weights
from ...blocks.superresolution import constant_style
from ...media.resize import resize
from ...methods.portrait4d.alignment import portrait_camera
from ...methods.portrait4d.generated_people import GeneratedPeople, label_of
from ...priors.genhead.camera import FOCAL, WORLD_SCALE
from ...priors.genhead.generator import GenHeadPictures
from ...priors.genhead.head import HeadPose
from .cameras import intrinsics_of, random_camera
from .clips import Clip, frame_of, rotation_of
from .expressions import HeadMotion
from .rows import Person, ViewPlan, ViewRow

JAW_REPLACED, JAW_OPEN = 0.5, 0.2
"""Probability that the jaw is turned, and how far at most in radians."""


@dataclass(frozen=True)
class GenHeads:
    """A `Synthesizer`: person k is the latent drawn from (seed, k)."""

    checkpoint: str
    static: bool
    clips: tuple[Clip, ...]
    plan: ViewPlan
    seed: int
    weights: tuple[Weights, ...]
    kind: str = "genhead"
    head_model: str = "open"

    @property
    def people(self) -> int | None:
        """Without end."""
        return None

    def settings(self) -> dict[str, Any]:
        """Kind of the set, weights and clips."""
        weights = [entry.sha256 for entry in self.weights]
        return {"static": self.static, "clips": [clip.name for clip in self.clips], "weights": weights}

    def names(self, numbers: range) -> list[str]:
        """Seed and number say it all."""
        return []

    def person(self, number: int) -> Person:
        """All pictures of latent `number`."""
        return GenHeadPerson(open_network(self.checkpoint), self, number).person()


@lru_cache(maxsize=1)
def open_network(checkpoint: str) -> GeneratedPeople:
    """See `GeneratedPeople`; kept for the next call."""
    return GeneratedPeople(checkpoint)


class GenHeadPerson:
    """One latent: planes and background once, then picture by picture."""

    def __init__(self, people: GeneratedPeople, source: GenHeads, number: int) -> None:
        self.people, self.network, self.source, self.number = people, people.network, source, number
        rng = self._rng()
        clips = source.clips
        self.z = torch.from_numpy(rng.normal(size=(1, self.network.config.z_dim))).float()
        self.clip = clips[int(rng.integers(len(clips)))] if clips else None
        shapes = [clip.shape for clip in clips if clip.shape is not None]
        drawn = np.clip(rng.normal(0, 0.6, people.model.shape_count), -1.5, 1.5)
        shape = shapes[int(rng.integers(len(shapes)))] if shapes else drawn
        self.shape = np.asarray(shape, np.float32)
        with torch.inference_mode():
            self.planes, self.behind = people.planes(self.z, torch.from_numpy(self.shape)[None])

    def person(self) -> Person:
        """Render all motions and views."""
        plan = self.source.plan
        rows = [row for k in range(plan.motions) for row in self._motion(k)]
        name = f"genhead seed {self.source.seed} person {self.number}"
        return Person(name, self.shape, rows, [self._background()], latent=self.z[0].numpy())

    def _rng(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.source.seed, self.number, *numbers])

    def _motion(self, k: int) -> list[ViewRow]:
        rng = self._rng(k)
        motion = frame_of(self.clip, rng)
        if not self.source.static and rng.random() < JAW_REPLACED:
            motion = HeadMotion(motion.expression, motion.eyes, jaw=np.array([rng.uniform(0, JAW_OPEN), 0.0, 0.0]))
        pose, plan = self._pose(motion), self.source.plan
        five = self.people.five_points(pose)[0]
        rows = []
        for v in range(plan.views):
            rng = self._rng(k, v)
            portrait = v < (plan.views + 1) // 2
            camera = portrait_camera(five, rotation_of(self.source.clips, rng)) if portrait else random_camera(rng)
            with torch.inference_mode():
                made = self.network.render(self.planes, self.behind, pose, label_of(camera))
            picture, alpha, depth = unpack(made, plan.size)
            rows.append(ViewRow(k, v, picture, alpha, depth, camera, intrinsics_of(plan.size), motion))
        return rows

    def _pose(self, motion: HeadMotion) -> HeadPose:
        values = (self.shape, motion.expression, motion.neck, motion.jaw, motion.eyes)
        return HeadPose(*(torch.from_numpy(np.asarray(value, np.float32))[None] for value in values))

    def _background(self) -> np.ndarray:
        config, network = self.network.config, self.network
        with torch.inference_mode():
            size = (config.render_size, config.render_size)
            features = 2 * interpolate(self.behind, size=size, mode="bilinear", align_corners=False) - 1
            style = constant_style(1, config.w_dim, self.planes)
            return to_u8(network.superresolution(features[:, :3], features, style), self.source.plan.size)


def to_u8(image_pm1: torch.Tensor, size: int) -> np.ndarray:
    """[1,3,R,R] in -1..1 -> uint8 [size,size,3]."""
    levels = (image_pm1[0].permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).numpy()
    return np.ascontiguousarray(resize(levels, size, size))


def unpack(made: GenHeadPictures, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture uint8 [size,size,3], opacity [size,size] in 0..1 and depth_z [size,size] in metres of one head."""
    side = made.transmittance.shape[-1]
    axis = ((torch.arange(side) + 0.5) / side - 0.5) / FOCAL
    along = (1 + axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    layers = torch.cat([1 - made.transmittance, made.ray_distance / along / WORLD_SCALE], 1)
    large = interpolate(layers, size=(size, size), mode="bilinear", align_corners=False)[0].numpy()
    alpha = np.clip(large[0], 0, 1)
    return to_u8(made.image, size), alpha, np.where(alpha > 0.5, large[1], 0)
