"""Portrait4D as it is run: its networks in one precision on one device; the source once, then frame by frame."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fourdface.blocks.volume_renderer import RaySampling
from fourdface.errors import UsageError
from fourdface.methods.portrait4d.alignment import motion_crop
from fourdface.methods.portrait4d.config import coefficient_motion
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor, Source, Warp
from fourdface.priors.genhead.head import HeadGeometry, HeadPose

__all__ = ["PRECISIONS", "RENDER_SIZES", "Engine", "EngineOptions", "Frame", "neck_pose"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RENDER_SIZES = (64, 128, 256, 512)
STRAIGHT = 1e-4
"""Rotations of the neck (radians) below which it is not deformed."""


@dataclass(frozen=True)
class EngineOptions:
    """precision: of the convolutions and transformers (rays and decoder stay fp32). render_size: side of the rendered
    features, None for the network's own. seed: None renders without chance, a number draws the samples' places."""

    precision: str = "fp32"
    render_size: int | None = None
    seed: int | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Frame:
    """A rendered frame: picture_u8 [S, S, 3], and alpha [S, S] float32 of the person in 0..1."""

    picture_u8: np.ndarray
    alpha: np.ndarray


class Engine:
    """Psi and PD-FGC; `motion_scale` 0 is the static lifter. It needs no motion encoder, nor does a Psi that moves by
    coefficients (`by_coefficients`)."""

    def __init__(
        self, network: Reconstructor, motion_encoder: MotionEncoder | None, motion_scale: float = 1.0,
        options: EngineOptions | None = None,
    ) -> None:  # fmt: skip
        self.options = options or EngineOptions()
        if self.options.precision not in PRECISIONS:
            raise UsageError(f"--precision is {self.options.precision}, expected one of {', '.join(PRECISIONS)}")
        if self.options.precision == "fp16" and self.options.device == "cpu":
            raise UsageError("--precision fp16 is for GPUs; on a CPU use bf16 or fp32")
        self.by_coefficients = network.config.motion_encoder == "coefficients"
        if motion_encoder is None and motion_scale != 0 and not self.by_coefficients:
            raise ValueError("a motion scale above 0 needs the motion encoder")
        self.dtype = PRECISIONS[self.options.precision]
        self.motion_scale = motion_scale
        self.network = _prepared(network, self.dtype, self.options.device)
        self.motion_encoder = None if motion_encoder is None else motion_encoder.to(self.options.device)
        self.size = network.config.resolution

    @torch.inference_mode()
    def motion(self, crop_u8: np.ndarray, matrix: np.ndarray) -> Tensor:
        """Motion embedding [1, 548] of a portrait crop uint8 [S, S, 3]; matrix: `motion_matrix` of its landmarks."""
        if self.motion_encoder is None:
            return torch.zeros(1, self.network.config.motion, device=self.options.device)
        return self.motion_encoder(motion_crop(self._image(crop_u8), matrix)).embedding()

    def coefficients(self, expression: np.ndarray, jaw: np.ndarray, eyes: np.ndarray) -> Tensor:
        """Motion [1, 61] of head parameters [52], [3] and [6], for a Psi that moves by them."""
        return torch.from_numpy(coefficient_motion(expression, jaw, eyes))[None].to(self.options.device)

    @torch.inference_mode()
    def encode(self, crop_u8: np.ndarray, motion: Tensor) -> Source:
        """What depends on the photo alone; see `adopt` before it is animated."""
        image = self._image(crop_u8).to(self.dtype)
        return self.network.encode_source(image, motion.to(self.dtype), self.motion_scale)

    @torch.inference_mode()
    def adopt(self, source: Source) -> Source:
        """A source that was stored, in this engine's precision; the background at the size at which it is rendered."""
        size = self.options.render_size or self.network.config.render_size
        background = source.background.to(self.options.device).float()
        if background.shape[-1] != size:
            background = interpolate(background, size=(size, size), mode="bilinear", align_corners=False)
        detail = source.detail.to(self.options.device, self.dtype, memory_format=torch.channels_last)
        return Source(source.tokens.to(self.options.device, self.dtype), source.size, detail, background)

    @torch.inference_mode()
    def planes(self, source: Source, motion: Tensor) -> Tensor:
        """Tri-planes [1, 3, C, R, R] float32 of the source with a driver's motion [1, 548]."""
        return self.network.planes(source, motion.to(self.dtype), self.motion_scale).float()

    @torch.inference_mode()
    def render(self, planes: Tensor, background: Tensor, label: Tensor, rotation: Tensor | None = None) -> Frame:
        """A frame from a camera label [1, 25], with the neck turned by `rotation` [3] (axis-angle) or straight."""
        label = label.to(self.options.device)
        picture = self.network.render(
            planes, label, background.float(), warp=self.warp(rotation), size=self.options.render_size,
            sampling=self._sampling(),
        )  # fmt: skip
        side = picture.picture.shape[-1]
        alpha = 1 - interpolate(picture.transmittance, size=(side, side), mode="bilinear", align_corners=False)
        levels = (picture.picture[0].float().permute(1, 2, 0) * 127.5 + 127.5).round().clamp(0, 255)
        return Frame(levels.to(torch.uint8).cpu().numpy(), alpha[0, 0].clamp(0, 1).cpu().numpy())

    @torch.inference_mode()
    def warp(self, rotation: Tensor | None) -> Warp | None:
        """The field of a turned neck, None for a straight one."""
        deformer = self.network.deformer
        if rotation is None or deformer is None or float(rotation.norm()) < STRAIGHT:
            return None
        return self.network.warp_grid(neck_pose(deformer.flame_deform, rotation[None]))

    def _image(self, crop_u8: np.ndarray) -> Tensor:
        image = torch.from_numpy(np.ascontiguousarray(crop_u8)).to(self.options.device)
        return image.permute(2, 0, 1)[None].float() / 127.5 - 1

    def _sampling(self) -> RaySampling | None:
        config, seed = self.network.config, self.options.seed
        if seed is None:
            return None
        return RaySampling(config.coarse_samples, config.fine_samples, placement="jitter", seed=seed)


def neck_pose(head: HeadGeometry, rotation: Tensor) -> HeadPose:
    """The mean head at rest with the neck turned by `rotation` [B, 3] (axis-angle, radians).

    The person's own shape hardly matters for the neck (Portrait4D, figure 9), and its expression is in the planes.
    """
    return replace(head.neutral(len(rotation)), neck=rotation.to(head.canonical_shape))


def _prepared(network: Reconstructor, dtype: torch.dtype, device: str) -> Reconstructor:
    """Convolutions and transformers in `dtype` and channels-last; decoder, rays and head geometry stay float32."""
    network.to(device)
    for name in ("encoder_global", "encoder_detail", "encoder_canonical", "generator_triplane", "background",
                 "superresolution"):  # fmt: skip
        module = network.get_submodule(name).to(dtype)
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network
