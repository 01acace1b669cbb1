"""GenHead: a generator of heads that can be posed and looked at from any side (Portrait4D, section 3.1, figure 2).

    z, camera, shape --mapping, synthesis--> two tri-planes (eyes and mouth; head)          equation 1
    rays --samples, deformation from a head model--> canonical points --tri-planes--> features and transmittance
    z --background--> features behind, super-resolution --> picture

Camera labels are Portrait4D's (`camera.py`); world units are its own, three to a metre.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from fourdface.blocks.decoder import OSGDecoder
from fourdface.blocks.rays import camera_from_label, camera_rays, plane_limits
from fourdface.blocks.stylegan2 import NoiseMode, StyleGAN2Generator
from fourdface.blocks.superresolution import Superresolution, constant_style
from fourdface.blocks.volume_renderer import Rays, RaySampling, Rendered, Samples, as_image, render_samples
from fourdface.priors.genhead.config import GenHeadConfig
from fourdface.priors.genhead.deformation import HeadDeformer
from fourdface.priors.genhead.head import HeadGeometry, HeadPose
from fourdface.priors.genhead.masks import PartMasks, part_masks
from fourdface.priors.genhead.parts import HeadField

__all__ = ["GenHead", "GenHeadPictures", "HeadSamples"]


@dataclass(frozen=True)
class HeadSamples:
    """Where a render looked, for losses on densities: the field, its rays and their samples."""

    field: HeadField
    rays: Rays
    samples: Samples


@dataclass(frozen=True)
class GenHeadPictures:
    """What `GenHead.render` makes, for B heads; r is the side of the volume render, R that of the picture.

    image [B, 3, R, R]: the picture in -1..1. render [B, 3, r, r]: the same before super-resolution. features
    [B, K, r, r]: render and the channels after it, -1..1. background [B, K, r, r]: what is behind, -1..1.
    ray_distance [B, 1, r, r]: in the label's units. transmittance [B, 1, r, r]: how much of the background is seen.
    masks: of eyes and mouth. samples: where `keep_samples` asked for them.
    """

    image: Tensor
    render: Tensor
    features: Tensor
    background: Tensor
    ray_distance: Tensor
    transmittance: Tensor
    masks: PartMasks
    samples: HeadSamples | None = None

    @property
    def silhouette(self) -> Tensor:
        """[B, 1, r, r] in -1..1, 1 where the head is opaque: the discriminator's last channel."""
        return 1 - 2 * self.transmittance


class GenHead(nn.Module):
    """The generator; names of parameters are those of the published checkpoint (`genhead-ffhq512`).

    `head` is the head that is posed: `HeadGeometry.from_checkpoint`, `.from_flame` or `.from_head_model`. The label of
    the mapping network has 25 numbers for the camera and `head.shape_count` for the identity (325 with FLAME).
    """

    def __init__(self, head: HeadGeometry, config: GenHeadConfig = GenHeadConfig()) -> None:  # noqa: B008 (frozen)
        super().__init__()
        self.config = config
        self.register_buffer("dataset_label_std", torch.zeros([], dtype=torch.int64))  # carried along, not read
        self.backbone = StyleGAN2Generator(
            config.z_dim,
            25 + head.shape_count,
            config.w_dim,
            config.plane_resolution,
            6 * config.plane_channels,
            mapping_layers=config.mapping_layers,
            channel_base=config.channel_base,
            channel_max=config.channel_max,
        )
        self.background = StyleGAN2Generator(
            config.z_dim,
            0,
            config.w_dim,
            config.background_resolution,
            config.plane_channels,
            mapping_layers=config.background_mapping_layers,
            channel_base=config.background_channel_base,
            channel_max=config.channel_max,
        )
        self.superresolution = Superresolution(config.plane_channels, config.superresolution_config, w_dim=config.w_dim)
        self.decoder = OSGDecoder(config.plane_channels, config.plane_channels, hidden=config.decoder_hidden, heads=2)
        self.deformer = HeadDeformer(head, config.box_size)

    @property
    def head(self) -> HeadGeometry:
        """The head that is posed."""
        return self.deformer.flame_deform

    def planes(
        self,
        z: Tensor,
        shape: Tensor,
        conditioning: Tensor,
        *,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        noise_mode: NoiseMode = "const",
        update_average: bool = False,
    ) -> Tensor:
        """Both tri-planes of an identity (equation 1): [B, 6, C, H, W], eyes and mouth first.

        Args:
            z: [B, z_dim] latents. shape: [B, S] identity of the head model. conditioning: [B, 25] camera label, at
                inference `camera.conditioning_label`. truncation: towards the mean style, of the first
                `truncation_cutoff` styles. update_average: let the mean style follow (training).
        """
        label = torch.cat([conditioning, shape], dim=1)
        ws = self.backbone.mapping(
            z, label, truncation=truncation, truncation_cutoff=truncation_cutoff, update_average=update_average
        )
        planes, _ = self.backbone.synthesis(ws, noise_mode)
        return planes.unflatten(1, (6, self.config.plane_channels))

    def background_features(self, z: Tensor, noise_mode: NoiseMode = "const") -> Tensor:
        """Features [B, C, h, w] in 0..1 of what is behind, from latents z [B, z_dim]."""
        return torch.sigmoid(self.background(z, None, noise_mode))

    def forward(
        self,
        z: Tensor,
        pose: HeadPose,
        label: Tensor,
        *,
        conditioning: Tensor | None = None,
        truncation: float = 1.0,
        truncation_cutoff: int | None = None,
        render_size: int | None = None,
        sampling: RaySampling | None = None,
        noise_mode: NoiseMode = "const",
    ) -> GenHeadPictures:
        """Pictures of heads with latents z [B, z_dim] and poses [B] in cameras of labels [B, 25].

        `conditioning` [B, 25] is the camera that the planes know of, by default the picture's own. The background is
        made from the same z. Other arguments as in `planes` and `render`.
        """
        planes = self.planes(
            z,
            pose.shape,
            label if conditioning is None else conditioning,
            truncation=truncation,
            truncation_cutoff=truncation_cutoff,
            noise_mode=noise_mode,
        )
        background = self.background_features(z, noise_mode)
        return self.render(planes, background, pose, label, render_size=render_size, sampling=sampling)

    def render(
        self,
        planes: Tensor,
        background: Tensor,
        pose: HeadPose,
        label: Tensor,
        *,
        render_size: int | None = None,
        sampling: RaySampling | None = None,
        eyelids: Tensor | None = None,
        keep_samples: bool = False,
        superresolve: bool = True,
    ) -> GenHeadPictures:
        """Render heads whose planes and background are at hand.

        Args:
            planes: [B, 6, C, H, W]. background: [B, C, h, w] in 0..1. pose: of B heads. label: [B, 25] cameras.
            render_size: side of the volume render, by default the configuration's. Above it the two fields are blended
                by density in the mouth; above the input of super-resolution it must be the picture's own size, and only
                the background goes through super-resolution.
            sampling: of the rays; by default the configuration's numbers without chance (centres of the strata).
            eyelids: expression [B, E] of the eyelids instead of the pose's own.
            keep_samples: return the samples of the rays too (their gradients take memory).
            superresolve: False leaves the picture of small renders at the render, for who wants its features alone.
        """
        config = self.config
        size = config.render_size if render_size is None else render_size
        if size > config.superresolution_input and size != config.resolution:
            raise ValueError(
                f"render_size must be at most {config.superresolution_input}, or {config.resolution} without "
                f"super-resolution, got {size}"
            )
        if sampling is None:
            sampling = RaySampling(config.coarse_samples, config.fine_samples, placement="centres")
        masks = part_masks(self.head, pose, label, min(size, config.render_size), config.resolution, eyelids)
        rendered, samples = self._volume(planes, pose, label, size, masks, sampling, eyelids)
        behind = _resized(background, size)
        transmittance, distance = (as_image(x, size, size) for x in (rendered.transmittance, rendered.ray_distance))
        style = constant_style(len(planes), config.w_dim, planes)
        if size <= config.superresolution_input:
            features = 2 * (as_image(rendered.features, size, size) + transmittance * behind) - 1
            image = self.superresolution(features[:, :3], features, style) if superresolve else features[:, :3]
        else:
            sharp = self.superresolution(2 * behind[:, :3] - 1, 2 * behind - 1, style)
            features = as_image(rendered.features, size, size)
            image = 2 * (features[:, :3] + transmittance * (sharp + 1) / 2) - 1
            features = torch.cat([image, 2 * features[:, 3:] - 1], dim=1)
        kept = samples if keep_samples else None
        return GenHeadPictures(image, features[:, :3], features, 2 * behind - 1, distance, transmittance, masks, kept)

    def _volume(
        self,
        planes: Tensor,
        pose: HeadPose,
        label: Tensor,
        size: int,
        masks: PartMasks,
        sampling: RaySampling,
        eyelids: Tensor | None,
    ) -> tuple[Rendered, HeadSamples]:
        """Volume render [B, size², ...] of the posed heads alone."""
        with torch.autocast(label.device.type, enabled=False):
            view, intrinsics = camera_from_label(label, size, axes="opengl")
            origins, directions = camera_rays(view, intrinsics, size, size)
        rays = Rays(origins, directions, *plane_limits(view, size * size, self.config.box_size))
        larger = size > self.config.render_size
        eyes, mouth = (masks.eyes_full, masks.mouth_full) if larger else (masks.eyes, masks.mouth)
        field = HeadField(
            planes,
            self.decoder,
            self.deformer.part_field(pose, eyelids=eyelids),
            _resized(eyes, size).flatten(1),
            _resized(mouth, size).flatten(1),
            self.config.box_size,
            blend_densities=larger,
        )
        rendered, samples = render_samples(field, rays, sampling, over_batch=True)
        return rendered, HeadSamples(field, rays, samples)


def _resized(x: Tensor, size: int) -> Tensor:
    """[B, C, h, w] -> [B, C, size, size], bilinear; the same where it has that size."""
    if x.shape[-1] == size:
        return x
    return interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
