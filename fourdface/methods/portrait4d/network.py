"""Psi, the reconstructor of Portrait4D and Portrait4D-v2: a photo and two motions -> tri-planes -> a picture.

Deng et al., Portrait4D (CVPR 2024), sections 3.3 and 3.4; Portrait4D-v2 (ECCV 2024), section 4.1. Entries of the state
dict are those of the published checkpoints, one to one.

What depends on the photo alone is computed once (`encode_source`); each frame then costs `planes` and `render`.
Camera labels are Portrait4D's 25 numbers (`priors/genhead/camera`); world units are its own, three to a metre.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample, interpolate

from fourdface.blocks.conv_encoder import DetailEncoder, with_coordinates
from fourdface.blocks.decoder import OSGDecoder
from fourdface.blocks.rays import Rays, camera_from_label, camera_rays, plane_limits
from fourdface.blocks.resnet_deeplab import ResNetDeepLab
from fourdface.blocks.superresolution import Superresolution, SuperresolutionConfig
from fourdface.blocks.triplane import TriplaneField
from fourdface.blocks.unet import BackgroundUNet
from fourdface.blocks.volume_renderer import OffsetGrid, RaySampling, as_image, render_volume
from fourdface.methods.portrait4d.config import ReconstructorConfig
from fourdface.methods.portrait4d.modules import CanonicalEncoder, TriplaneDecoder
from fourdface.priors.genhead.deformation import HeadDeformer
from fourdface.priors.genhead.head import HeadGeometry, HeadPose

__all__ = ["Picture", "Reconstructor", "Source", "Warp"]

Warp = Callable[[Tensor], Tensor] | OffsetGrid
"""Points [B, ..., 3] -> points without the neck's rotation, or the same as offsets on a grid."""


@dataclass(frozen=True)
class Source:
    """All that depends on the photo alone.

    tokens [B, N, width]: neutralised features, on a grid of `size` (height, width). detail [B, C, R/2, R/2].
    background [B, K, R, R] in 0..1. prepared: the detail features' part in G_T's first convolution, where it is kept.
    """

    tokens: Tensor
    size: tuple[int, int]
    detail: Tensor
    background: Tensor
    prepared: Tensor | None = None


@dataclass(frozen=True)
class Picture:
    """What `render` gives: all pictures [B, C, S, S] in -1..1.

    picture: the result, 3 channels. features: rendered, in front of the background; their first 3 channels are the
    result before super-resolution. background: what was put behind. ray_distance: in Portrait4D's units.
    transmittance: what the background keeps, 0..1.
    """

    picture: Tensor
    features: Tensor
    background: Tensor
    ray_distance: Tensor
    transmittance: Tensor


class Reconstructor(nn.Module):
    """Psi. `head` is the geometry of the neck's deformation; without one the neck cannot be turned.

    Nothing is downloaded or read: a new network has random weights and the style `w_avg` zero, as the published one.
    """

    w_avg: Tensor
    dataset_label_std: Tensor

    def __init__(self, config: ReconstructorConfig | None = None, head: HeadGeometry | None = None) -> None:
        super().__init__()
        self.config = c = config or ReconstructorConfig()
        self.register_buffer("w_avg", torch.zeros(c.w_dim))
        self.register_buffer("dataset_label_std", torch.zeros([]))  # written by the official training, read by nothing
        self.encoder_global = ResNetDeepLab(5, c.global_channels, width=c.global_width, depths=c.global_depths)
        self.encoder_detail = DetailEncoder(5, c.detail_stem, c.feature_channels)
        self.encoder_canonical = CanonicalEncoder(
            c.global_channels, c.feature_channels, width=c.width, blocks=c.blocks, heads=c.heads, motion=c.motion,
            hidden=c.motion_hidden, tokens=c.motion_tokens, channels=c.convs,
        )  # fmt: skip
        self.generator_triplane = TriplaneDecoder(
            c.feature_channels, 3 * c.plane_channels, width=c.decoder_width, heads=c.decoder_heads,
            hidden=c.decoder_hidden,
        )  # fmt: skip
        self.background = BackgroundUNet(5, c.plane_channels, c.background_width)
        enlarge = SuperresolutionConfig(c.resolution // c.enlargement, c.resolution, c.superresolution)
        self.superresolution = Superresolution(c.plane_channels, enlarge, w_dim=c.w_dim)
        self.decoder = OSGDecoder(c.plane_channels, c.plane_channels, hidden=c.decoder_units, heads=2)
        self.deformer = None if head is None else HeadDeformer(head, c.box_size)

    def encode_source(self, image_pm1: Tensor, motion: Tensor, motion_scale: float | Tensor = 1.0) -> Source:
        """What depends on the photo alone.

        Args:
            image_pm1: portrait crops [B, 3, R, R] in -1..1. motion: of the photos [B, 548].
            motion_scale: 1, or 0 for static reconstruction; a number or [B, 1, 1].
        """
        self._check_image(image_pm1)
        seen = with_coordinates(self._in_frame(image_pm1))
        tokens, size = self.encoder_canonical.neutralise(self.encoder_global(seen), motion, motion_scale)
        background = torch.sigmoid(self.background(with_coordinates(image_pm1)))
        return Source(tokens, size, self.encoder_detail(seen), background)

    def planes(self, source: Source, motion: Tensor, motion_scale: float | Tensor = 1.0) -> Tensor:
        """Tri-planes [B, 3, C, R/2, R/2] of the source with the driver's motion [B, 548]; axes `portrait4d`.

        One source serves several motions.
        """
        tokens, detail = source.tokens, source.detail
        if len(tokens) != len(motion):
            tokens, detail = (value.expand(len(motion), *value.shape[1:]) for value in (tokens, detail))
        _, canonical = self.encoder_canonical.move(tokens, source.size, motion, motion_scale)
        planes = self.generator_triplane(canonical, detail, source.prepared)
        return planes.unflatten(1, (3, self.config.plane_channels))

    def warp(self, pose: HeadPose) -> Callable[[Tensor], Tensor]:
        """The field that takes the neck's rotation out of points of the posed head. ValueError without a head."""
        if self.deformer is None:
            raise ValueError("this network was made without a head geometry, so it cannot turn the neck")
        field = self.deformer.neck_field(pose)
        return lambda points: field(points.flatten(1, -2)).reshape(points.shape)

    def warp_grid(self, pose: HeadPose, resolution: int = 48) -> OffsetGrid:
        """`warp` sampled on a grid over the cube of the planes, which the fused renderer takes.

        Pictures differ from those of the field itself by less than a hundredth of their range (67 dB, 0.8 rad).
        """
        half = self.config.box_size / 2
        field = self.warp(pose)
        line = torch.linspace(-half, half, resolution, device=pose.neck.device)
        z, y, x = torch.meshgrid(line, line, line, indexing="ij")
        points = torch.stack([x, y, z], -1).expand(len(pose.neck), -1, -1, -1, -1)
        offsets = field(points) - points
        return OffsetGrid(offsets.permute(0, 4, 1, 2, 3).contiguous(), self.config.box_size)

    def render(
        self, planes: Tensor, label: Tensor, background: Tensor, *, warp: Warp | None = None, size: int | None = None,
        sampling: RaySampling | None = None, backend: str = "auto", enlarge: Callable[[Tensor], Tensor] | None = None,
    ) -> Picture:  # fmt: skip
        """The picture of planes [B, 3, C, R, R] seen by cameras [B, 25].

        Args:
            background: [B, C, r, r] in 0..1 (`Source.background`). warp: see `warp`; None is a straight neck.
            size: side of the rendered features; up to `resolution / enlargement` they are enlarged by the
                super-resolution, above it the render's own colours are the picture.
            sampling: None is the published number of samples at the middle of their steps, without chance.
            backend: of `render_volume`. enlarge: takes the place of `enlarged`, which may have been compiled.
        """
        size = size or self.config.render_size
        sampling = sampling or RaySampling(self.config.coarse_samples, self.config.fine_samples, placement="centres")
        rays = self._rays(label, size)
        field = TriplaneField(planes, self.decoder, axes="portrait4d", box_size=self.config.box_size)
        with torch.autocast(planes.device.type, enabled=False):  # the kernels, and distances, want float32
            rendered = render_volume(field, rays, sampling, warp=warp, over_batch=True, backend=backend)
        if background.shape[-1] != size:
            background = interpolate(background, size=(size, size), mode="bilinear", align_corners=False)
        transmittance = as_image(rendered.transmittance, size, size)
        features = 2 * (as_image(rendered.features, size, size) + transmittance * background) - 1
        picture = self.enlarged(features) if enlarge is None else enlarge(features)
        distance = as_image(rendered.ray_distance, size, size)
        return Picture(picture, features, 2 * background - 1, distance, transmittance)

    def forward(
        self, image_pm1: Tensor, source_motion: Tensor, motion: Tensor, label: Tensor, *, pose: HeadPose | None = None,
        motion_scale: float | Tensor = 1.0, size: int | None = None, sampling: RaySampling | None = None,
    ) -> Picture:  # fmt: skip
        """Everything at once: photo, its motion, the driver's motion, camera labels and (for the neck) the head's pose.

        The published whole network with `motion_scale` 1, static 3D lifting (Psi_3d) with 0.
        """
        source = self.encode_source(image_pm1, source_motion, motion_scale)
        planes = self.planes(source, motion, motion_scale)
        warp = None if pose is None else self.warp(pose)
        return self.render(planes, label, source.background, warp=warp, size=size, sampling=sampling)

    def enlarged(self, features: Tensor) -> Tensor:
        """The picture of rendered features [B, C, S, S] in -1..1; large ones are a picture already."""
        if features.shape[-1] > self.config.resolution // self.config.enlargement:
            return features[:, :3]
        seen = features.to(self.superresolution.block0.conv0.weight.dtype)
        style = self.w_avg.to(seen.dtype).expand(len(seen), 1, -1)
        return self.superresolution(seen[:, :3], seen, style, "none")

    def _rays(self, label: Tensor, size: int) -> Rays:
        with torch.autocast(label.device.type, enabled=False):
            world_to_camera, intrinsics = camera_from_label(label, size, axes="opengl")
            origins, directions = camera_rays(world_to_camera, intrinsics, size, size)
            near, far = plane_limits(world_to_camera, size * size, self.config.box_size)
        return Rays(origins, directions, near, far)

    def _in_frame(self, image_pm1: Tensor) -> Tensor:
        """The photo as the encoders of the planes see it (`source_frame`), of the same size; its border is repeated."""
        c = self.config
        if c.source_frame == "picture":
            return image_pm1
        image = image_pm1.float().contiguous()  # torch samples bfloat16 in channels-last order wrongly
        zoom, shift = c.box_size / c.frame_width, 2 * c.frame_height / c.frame_width
        move = image.new_tensor([[zoom, 0, 0], [0, -zoom, shift]])
        with torch.autocast(image.device.type, enabled=False):
            grid = affine_grid(move.expand(len(image), 2, 3), list(image.shape), align_corners=False)
            return grid_sample(image, grid, padding_mode="border", align_corners=False).to(image_pm1.dtype)

    def _check_image(self, image_pm1: Tensor) -> None:
        side = self.config.resolution
        if image_pm1.ndim != 4 or image_pm1.shape[1:] != (3, side, side):
            raise ValueError(f"the source picture must be [B, 3, {side}, {side}], got {tuple(image_pm1.shape)}")
