"""Schema of the three training recipes: what a run of Psi_3d, Portrait4D or Portrait4D-v2 can be told.

Defaults are the papers' own where `configs/RECIPE/train-paper.yaml` does not say otherwise. Switch-on times are in
images, as in the papers, so that they do not depend on the batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from fourdface.errors import UsageError
from fourdface.methods.portrait4d.config import COEFFICIENT_MOTION, SIZES, ReconstructorConfig
from fourdface.training.config import TrainOptions

__all__ = ["DataConfig", "LossConfig", "TrainingConfig"]

PERCEPTUAL = ("lpips-vgg", "lpips-alex", "lpips-squeeze", "features", "none")
MOTIONS = ("truth", "perceived")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses (portrait4d.md section 4); 0 turns one off."""

    l1: float = 1.0
    """L1 of the four pictures in -1..1: the result, the render, the render without background, the background."""
    perceptual: float = 1.0
    """Perceptual distance of the same four."""
    perceptual_start: int = 0
    """Images before which there is none: at first it hinders L1 from finding colours."""
    perceptual_network: str = "lpips-vgg"
    """lpips-vgg, lpips-alex, lpips-squeeze, features (of the embedded landmark network) or none."""
    perceptual_fallback: str = "features"
    """Taken, and said so, where the weights of `perceptual_network` are missing; none or another name."""
    segmentation: float = 0.3
    """L1 of the opacity in -1..1."""
    depth: float = 1.0
    """L1 of the distance along the ray inside the person, in Portrait4D's units."""
    depth_until: int = 400_000
    """Images after which the distance is no longer compared."""
    feature_foreground: float = 1.0
    feature_background: float = 1.0
    """L1 of all rendered feature channels, without the background and of the background alone, to the `teacher`'s."""
    triplane: float = 0.1
    """L1 of the planes' features to the `teacher`'s in points that are neither of the eyes nor of the mouth."""
    features_until: int = 400_000
    """Images after which nothing is compared with the teacher."""
    identity: float = 1.0
    """1 - cosine of face recognition; off, and said so, where there is no such network."""
    identity_start: int = 400_000
    adversarial: float = 0.01
    adversarial_start: int = 1_000_000
    r1: float = 1.0
    r1_every: int = 16
    density_tv: float = 0.25
    """L1 between the densities of points and of points `density_step` of the cube beside them."""
    density_step: float = 0.004
    density_every: int = 16
    pseudo: float = 1.0
    """Perceptual distance to the frozen Psi_3d from a random camera (v2)."""
    pseudo_every: int = 4
    """Steps between pseudo views; their gradient is multiplied by as many."""


@dataclass(frozen=True)
class DataConfig:
    """How samples are drawn from `views` artifacts."""

    targets: int = 1
    """Pictures of the target moment that each reconstruction is compared with."""
    colour: float = 0.0
    """Spread of random factors on the colours of a sample, the same for all of its pictures."""
    mirror: float = 0.0
    """Probability of a sample seen in a mirror."""
    largest_yaw: float = 60.0
    """Degrees from the front to which a camera of a source or driving picture may stand."""
    held_out: int = 10
    """Every so many-th person is kept for scores; 0 trains on all."""
    static: tuple[str, ...] = ()
    """`views` artifacts of further people (those trained on anyway are left out), for the static half alone."""
    people: int = 0
    """Most people to train on; 0: all."""


@dataclass(frozen=True)
class TrainingConfig:
    """Everything about a run. Sizes in pixels, rates per step."""

    size: str = "paper"
    """tiny, small or paper: which network, see `config.SIZES`; its motion is made of coefficients."""
    loss: LossConfig = field(default_factory=LossConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainOptions = field(default_factory=TrainOptions)
    lr: float = 1e-4
    """Of Psi (Adam, betas 0.9 and 0.999, eps 1e-5) and of the discriminator."""
    cross_lr_scale: float = 1.0
    """Factor on the learning rate of the layers that take the motion in (2.5 in v2)."""
    equalised_lr_scale: float = 1.0
    """Factor on the learning rate of the decoder and the super-resolution (layers with StyleGAN2's equalised rate)."""
    density_lr_scale: float = 1.0
    """Factor, beside that one, on the layer that makes density: it starts at zero, and a hundred is opaque."""
    render_first: int = 64
    """Side of the rendered features at first; it grows to `network.render_size`."""
    growth_start: int = 1_000_000
    growth_length: int = 1_000_000
    """Images from the start of that growth to its end."""
    static: bool = False
    """Psi_3d: cross attention off, source and target show the same moment."""
    half_static: bool = True
    """Disentangled learning: the second half of every batch is static with cross attention off (v1 section 3.4)."""
    de_expression: bool = True
    """Cross attention in the first half of Phi too (off: ablation A and B of v1)."""
    self_driven: bool = False
    """v2: the target is the driving picture itself, from its own camera."""
    motion: str = "truth"
    """Of source and driver: truth (the head parameters of the data), or perceived (read from the pictures)."""
    pseudo_driver: float = 0.0
    """Probability with which the motion is perceived in a picture of the driver by Psi_3d from a random camera."""
    initial: str = ""
    """Weights that Psi starts from (a file that an earlier run wrote)."""
    synthesizer: str = ""
    """Weights of the frozen Psi_3d that makes pseudo views (v2)."""
    teacher: str = ""
    """Weights of the GenHead that made the data (`fourd synth-data genhead`), for the losses on its features."""

    def __post_init__(self) -> None:
        """Refuse words that mean nothing; UsageError."""
        for name, value, known in (
            ("loss.perceptual_network", self.loss.perceptual_network, PERCEPTUAL),
            ("loss.perceptual_fallback", self.loss.perceptual_fallback, PERCEPTUAL),
            ("motion", self.motion, MOTIONS),
            ("size", self.size, tuple(SIZES)),
        ):
            if value not in known:
                raise UsageError(f"{name} is {value!r}, expected one of {', '.join(known)}")
        if self.data.targets < 1:
            raise UsageError(f"data.targets is {self.data.targets}, expected at least 1")
        if self.teacher and self.self_driven:
            raise UsageError("teacher: Portrait4D-v2 trains on frames that no GenHead made; leave teacher out")
        if self.teacher and (self.data.colour or self.data.mirror):
            raise UsageError(
                "a teacher's features follow no changed colours or mirrors; set data.colour=0 data.mirror=0"
            )

    @property
    def network(self) -> ReconstructorConfig:
        """The network's settings."""
        return replace(SIZES[self.size], motion=COEFFICIENT_MOTION, motion_encoder="coefficients")

    def render_size(self, images: int) -> int:
        """Side of the rendered features after so many images: even, from `render_first` up to `network.render_size`."""
        last = self.network.render_size
        if images < self.growth_start or self.render_first >= last:
            return min(self.render_first, last)
        part = min(1.0, (images - self.growth_start) / max(1, self.growth_length))
        return int(self.render_first + part * (last - self.render_first)) // 2 * 2
