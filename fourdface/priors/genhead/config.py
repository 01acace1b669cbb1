"""Sizes of GenHead. `paper` is the published network; the others are the same in small."""

from __future__ import annotations

from dataclasses import dataclass

from fourdface.blocks.superresolution import SuperresolutionConfig

__all__ = ["SIZES", "GenHeadConfig"]


@dataclass(frozen=True)
class GenHeadConfig:
    """Of `GenHead`; defaults are the published values. Resolutions in pixels, widths in channels.

    head: the head model's data set, "open", "flame2020" or "flame2023" (`load.head_geometry`).
    z_dim, w_dim: latent and style. mapping_layers, background_mapping_layers: of the two mapping networks.
    plane_resolution, plane_channels: each of the six planes. channel_base, channel_max: of the planes' generator.
    background_*: the generator of the background's features. decoder_hidden: units of the decoder of both tri-planes.
    render_size: side of the volume render. resolution: side of the picture. superresolution_input: side at which
    super-resolution starts (half or a quarter of `resolution`); superresolution: channels of its two blocks.
    box_size: side of the cube that planes and deformation cover, three to a metre. *_samples: along each ray.
    """

    head: str = "flame2020"
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    background_mapping_layers: int = 8
    background_resolution: int = 64
    background_channel_base: int = 16384
    decoder_hidden: int = 64
    render_size: int = 64
    resolution: int = 512
    superresolution_input: int = 128
    superresolution: tuple[int, int] = (256, 128)
    box_size: float = 1.3
    coarse_samples: int = 48
    fine_samples: int = 48

    def __post_init__(self) -> None:
        """Raise ValueError for sizes that the network cannot have."""
        for name in ("plane_resolution", "background_resolution"):
            size = getattr(self, name)
            if size < 4 or size & (size - 1):
                raise ValueError(f"{name} must be a power of two from 4 on, got {size}")
        if self.plane_channels < 3:
            raise ValueError(f"plane_channels must be at least 3, for a picture, got {self.plane_channels}")
        _ = self.superresolution_config.factors

    @property
    def superresolution_config(self) -> SuperresolutionConfig:
        """The same in the terms of `blocks/superresolution`."""
        return SuperresolutionConfig(self.superresolution_input, self.resolution, self.superresolution)


SIZES = {
    "tiny": GenHeadConfig(
        head="open", z_dim=64, w_dim=64, plane_resolution=32, plane_channels=16, channel_base=1024, channel_max=64,
        background_mapping_layers=2, background_resolution=16, background_channel_base=512, decoder_hidden=32,
        render_size=16, resolution=64, superresolution_input=32, superresolution=(32, 16),
        coarse_samples=12, fine_samples=12,
    ),
    "small": GenHeadConfig(
        head="open", z_dim=256, w_dim=256, plane_resolution=128, channel_base=16384, channel_max=256,
        background_mapping_layers=4, background_channel_base=8192, resolution=256,
        superresolution_input=64, superresolution=(128, 64), coarse_samples=32, fine_samples=32,
    ),
    "paper": GenHeadConfig(),
}  # fmt: skip
"""Named sizes: tiny runs in tests on two CPU cores, small trains on one GPU, paper is the published network."""
