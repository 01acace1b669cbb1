"""Settings of GenHead's adversarial training; the defaults are those of Portrait4D and its published code."""

from __future__ import annotations

from dataclasses import dataclass, field

from fourdface.blocks.discriminator import DiscriminatorConfig
from fourdface.errors import UsageError
from fourdface.priors.genhead.config import GenHeadConfig
from fourdface.training import TrainOptions

__all__ = ["GenHeadData", "GenHeadLosses", "GenHeadScores", "GenHeadTraining", "GenHeadUpdates"]


@dataclass(frozen=True)
class GenHeadLosses:
    """Weights and schedules; lengths of schedules are in pictures seen."""

    r1_picture: float = 1.0
    """R1 (half-gamma form) on picture and render."""
    r1_correspondence: float = 10.0
    r1_silhouette: float = 1.0
    head_density: float = 10.0
    """Against density of the head's planes inside of eyes and mouth, which would hide what is there."""
    distortion: float = 100.0
    """For density of eyes and mouth in one place along a ray (mip-NeRF 360, equation 15)."""
    transmittance: float = 100.0
    """Against holes in eyes and mouth."""
    density_variation: float = 0.25
    """For density that changes little from a point to one beside it."""
    variation_distance: float = 0.004
    """Deviation of that step, in half sides of the planes' cube."""
    variation_points: int = 1000
    blur_sigma: float = 10.0
    """Blur, in pixels, of what is judged at first; it falls to 0."""
    blur_images: int = 200_000
    swap_start: float = 1.0
    """Probability that the planes are told another sample's camera and identity, at first."""
    swap_end: float = 0.5
    swap_images: int = 1_000_000


@dataclass(frozen=True)
class GenHeadUpdates:
    """Optimizers: Adam without momentum. *_every: steps between lazy regularisations."""

    generator_lr: float = 0.0025
    discriminator_lr: float = 0.002
    density_every: int = 4
    r1_every: int = 16
    reuse_pictures: bool = False
    """The discriminator judges the pictures that the generator was just trained on instead of new ones: a third less
    work in a step, pictures one update old."""


@dataclass(frozen=True)
class GenHeadData:
    """How the pictures are taken.

    rebalance_degrees: rows whose camera stands this far (or twice, ...) to the side count twice (or three times, ...),
    at most `rebalance_most` times; 0 leaves all alike. zoom: the middle of the picture, 1 / zoom of its side, is taken
    and its camera with it (faces that fill their photos leave repeated borders in the standard crop).
    """

    rebalance_degrees: float = 0.0
    rebalance_most: int = 4
    zoom: float = 1.0


@dataclass(frozen=True)
class GenHeadScores:
    """FID and KID during the training. pictures: how many are generated; features: "auto" takes Inception where its
    weights are and else the embedded perception network, whose scores carry its name (`kid_perception`)."""

    pictures: int = 5000
    features: str = "auto"
    batch: int = 8


@dataclass(frozen=True)
class GenHeadTraining:
    """All of it. The discriminator's pictures must have the network's resolution."""

    network: GenHeadConfig = field(default_factory=GenHeadConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    loss: GenHeadLosses = field(default_factory=GenHeadLosses)
    update: GenHeadUpdates = field(default_factory=GenHeadUpdates)
    data: GenHeadData = field(default_factory=GenHeadData)
    score: GenHeadScores = field(default_factory=GenHeadScores)
    train: TrainOptions = field(
        default_factory=lambda: TrainOptions(steps=781_250, batch=32, save_every=5000, image_every=2500)
    )

    def __post_init__(self) -> None:
        """Raise UsageError for parts that do not fit together."""
        if self.discriminator.resolution != self.network.resolution:
            raise UsageError(
                f"discriminator.resolution is {self.discriminator.resolution} and network.resolution "
                f"{self.network.resolution}: give both the same"
            )
        if self.discriminator.img_channels != 10:
            raise UsageError("discriminator.img_channels must be 10: picture, render, correspondence map, silhouette")
