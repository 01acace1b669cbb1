"""The frozen GenHead whose features Psi is compared with at first (Portrait4D, equation 4: L_f and L_tri).

The published program makes its training pictures during training and has the generator's features beside them. Here the
pictures lie in `views`, and the features are made again from each person's latent: exact, and a few numbers a person
instead of feature maps a picture. Planes are not compared with planes, which hold different geometries (the teacher's a
canonical head, Psi's one with its expression), but by their features at the same points of the posed head.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fourdface.assets import sha256_of
from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.config import SIZES
from fourdface.methods.portrait4d.generated_people import GeneratedPeople
from fourdface.methods.portrait4d.network import Picture
from fourdface.methods.portrait4d.training_config import LossConfig, TrainingConfig
from fourdface.methods.portrait4d.training_losses import foreground, resized
from fourdface.ops.triplane_sample import triplane_sample
from fourdface.priors.genhead.generator import GenHeadPictures
from fourdface.priors.genhead.head import HeadPose

__all__ = ["POINTS", "Taught", "Teacher", "open_teacher", "teacher_losses"]

log = logging.getLogger(__name__)
POINTS = 4000
"""Points of a picture in which planes are compared."""


@dataclass(frozen=True)
class Taught:
    """What the teacher says of B pictures.

    foreground, background: all feature channels [B, C, s, s] in -1..1, the former before black. features [B, N, C]: of
    its head's planes, averaged over them, at points [B, N, 3] of the posed head with a straight neck (Portrait4D's
    units); counted [B, N] bool: which are in the cube and not of eyes or mouth.
    """

    foreground: Tensor
    background: Tensor
    points: Tensor
    features: Tensor
    counted: Tensor


class Teacher:
    """A GenHead that makes people of `views` again; `sha256` is that of its file."""

    def __init__(self, people: GeneratedPeople, sha256: str = "") -> None:
        self.people, self.network, self.sha256 = people, people.network, sha256

    def pose(self, head: Tensor) -> HeadPose:
        """Of samples' `head` [B, S + 64]."""
        counts = self.network.head.shape_count, self.network.head.expression_count
        return HeadPose(*head.split([*counts, 3, 3, 6], dim=1))

    @torch.no_grad()
    def taught(self, batch: dict[str, Tensor], size: int, places: Tensor) -> Taught:
        """Of the targets of a batch (`PortraitViews.draw` with a generator), B * V pictures.

        size: side of Psi's render; the teacher renders no larger than it was trained to. places: [B * V, N, 2] in 0..1,
        which ray of the picture and how far along it.
        """
        views = batch["labels"].shape[1]
        with torch.autocast(places.device.type, enabled=False):
            planes, behind = self.people.planes(batch["latent"], batch["head"][:, : self.network.head.shape_count])
            made = self.network.render(
                planes.repeat_interleave(views, 0), behind.repeat_interleave(views, 0),
                self.pose(batch["head"].repeat_interleave(views, 0)), batch["labels"].flatten(0, 1),
                render_size=min(size, self.network.config.render_size), keep_samples=True, superresolve=False,
            )  # fmt: skip
            return Taught(foreground(made, None), made.background, *self._at_points(made, places))

    def _at_points(self, made: GenHeadPictures, places: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points with a straight neck [B, N, 3], features [B, N, C] of the head's planes there, which count [B, N]."""
        if made.samples is None:
            raise ValueError("the teacher's pictures were rendered without keep_samples")
        field, rays = made.samples.field, made.samples.rays
        count = rays.origins.shape[1]
        ray = (places[..., 0] * count).long().clamp_max(count - 1)
        near, far, eyes, mouth = (value.gather(1, ray) for value in (rays.near, rays.far, field.eyes, field.mouth))
        index = ray[..., None].expand(-1, -1, 3)
        along = near + (far - near) * places[..., 1]
        points = field.parts.neck(rays.origins.gather(1, index) + along[..., None] * rays.directions.gather(1, index))
        canonical, _ = field.parts.moved(points, "head")
        features = triplane_sample(field.planes[:, 3:], canonical, axes="portrait4d", box_size=field.box_size)
        of_parts = (mouth > 0) | ((eyes > 0) & field.parts.in_eyes(points))
        return points, features, ~of_parts & (points.abs() < field.box_size / 2).all(-1)


def teacher_losses(
    out: Picture, planes: Tensor, box_size: float, taught: Taught, weights: LossConfig
) -> dict[str, Tensor]:
    """Weighted L1 of Psi's features to the teacher's; means over pictures.

    out: of B pictures. planes [B, 3, C, R, R]: those that they were rendered from, in a cube of side box_size.
    """
    side = min(out.features.shape[-1], taught.background.shape[-1])
    pairs = {
        "feature_foreground": (foreground(out, None), taught.foreground),
        "feature_background": (out.background, taught.background),
    }
    losses = {
        name: getattr(weights, name) * (resized(ours.float(), side) - resized(theirs, side)).abs().mean()
        for name, (ours, theirs) in pairs.items()
    }
    found = triplane_sample(planes, taught.points, axes="portrait4d", box_size=box_size)
    counted = taught.counted & (taught.points.abs() < box_size / 2).all(-1)
    difference = (found - taught.features).abs().mean(-1) * counted
    losses["triplane"] = weights.triplane * (difference.sum(1) / counted.sum(1).clamp_min(1)).mean()
    return losses


def open_teacher(config: TrainingConfig, device: torch.device) -> Teacher | None:
    """The teacher of a configuration; None where there is none, which the log says where the papers have one.

    Raises UsageError for planes that do not fit the network's, FourdError for a file that is no GenHead on the open
    head.
    """
    if not config.teacher:
        if not config.self_driven:
            log.warning(
                "loss.feature_foreground, loss.feature_background and loss.triplane are off: there is no teacher "
                "(--set teacher=RUN/weights.safetensors of the GenHead that made the views)"
            )
        return None
    path = Path(config.teacher)
    if not path.is_file():
        raise FourdError(f"teacher {path} does not exist; give weights.safetensors of a run of `fourd train genhead`")
    with torch.random.fork_rng(devices=[]):  # Psi starts with the same weights as without a teacher
        people = GeneratedPeople(path)
    theirs, ours = people.network.config.plane_channels, config.network.plane_channels
    if theirs != ours:
        fitting = " or ".join(name for name, network in SIZES.items() if network.plane_channels == theirs) or "none"
        raise UsageError(
            f"teacher {path} has planes of {theirs} channels and size={config.size} has {ours}; set size={fitting}, "
            f"or give a GenHead with network.plane_channels={ours}"
        )
    people.network.to(device)
    return Teacher(people, sha256_of(path))
