"""Portrait4D as it is run: its networks in one precision on one device; the source once, then frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fourdface.blocks.volume_renderer import RaySampling
from fourdface.errors import UsageError
from fourdface.methods.portrait4d.alignment import motion_crop
from fourdface.methods.portrait4d.compiled import Compiled
from fourdface.methods.portrait4d.config import coefficient_motion
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor, Source, Warp
from fourdface.methods.portrait4d.view import face_anchor
from fourdface.priors.genhead.head import HeadGeometry, HeadPose

__all__ = ["PRECISIONS", "RENDER_SIZES", "Engine", "EngineOptions", "Frame", "neck_pose", "read_motion"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
RENDER_SIZES = (64, 128, 256, 512)
STRAIGHT = 1e-4
"""Rotations of the neck (radians) below which it is not deformed."""


@dataclass(frozen=True)
class EngineOptions:
    """precision: of the convolutions and transformers (rays and decoder stay fp32). render_size: side of the rendered
    features, None for the network's own. seed: None renders without chance, a number draws the samples' places. batch:
    frames at once. compile: see `compiled.Compiled`."""

    precision: str = "fp32"
    render_size: int | None = None
    seed: int | None = None
    device: str = "cpu"
    batch: int = 1
    compile: bool = False


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
        self._animate: Callable[..., Tensor] = self._animated
        self._enlarge: Callable[..., Tensor] = self.network.enlarged
        if self.options.compile:
            self._animate, self._enlarge = (
                Compiled(part, self.options.device) for part in (self._animated, self.network.enlarged)
            )

    @property
    def face_anchor(self) -> tuple[float, float, float]:
        """Where the middle of a straight face is in the network's world, see `view.face_anchor`."""
        deformer = self.network.deformer
        return face_anchor(None if deformer is None else deformer.flame_deform)

    @torch.inference_mode()
    def motion(self, crop_u8: np.ndarray, matrix: np.ndarray) -> Tensor:
        """Motion embedding [1, 548] of a portrait crop uint8 [S, S, 3]; matrix: `motion_matrix` of its landmarks."""
        if self.motion_encoder is None:
            return torch.zeros(1, self.network.config.motion, device=self.options.device)
        return read_motion(self.motion_encoder, crop_u8, matrix, self.options.device)

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
        """A source that was stored, ready to be animated: in this engine's precision, its part of G_T's first
        convolution computed, and its background at the size at which it is rendered."""
        size = self.options.render_size or self.network.config.render_size
        background = source.background.to(self.options.device).float()
        if background.shape[-1] != size:
            background = interpolate(background, size=(size, size), mode="bilinear", align_corners=False)
        detail = source.detail.to(self.options.device, self.dtype, memory_format=torch.channels_last)
        prepared = self.network.generator_triplane.prepare(detail)
        tokens = source.tokens.to(self.options.device, self.dtype)
        return Source(tokens, source.size, detail, background, prepared)

    @torch.inference_mode()
    def planes(self, source: Source, motion: Tensor) -> Tensor:
        """Tri-planes [B, 3, C, R, R] float32 of an adopted source with drivers' motions [B, 548]."""
        if source.prepared is None:
            raise ValueError("the source was not adopted by this engine")
        count, whole = len(motion), self.options.batch if self.options.compile else 0
        if count < whole:  # one shape is compiled; what is missing to it is computed and thrown away
            motion = torch.cat([motion, motion[-1:].expand(whole - count, -1)])
        motion = motion.to(self.dtype)
        return self._animate(source.tokens, source.detail, source.prepared, motion, *source.size)[:count]

    def _animated(
        self, tokens: Tensor, detail: Tensor, prepared: Tensor, motion: Tensor, height: int, width: int
    ) -> Tensor:
        source = Source(tokens, (height, width), detail, detail, prepared)  # the background is not read
        return self.network.planes(source, motion, self.motion_scale).float()

    def render(self, planes: Tensor, background: Tensor, label: Tensor, rotation: Tensor | None = None) -> Frame:
        """A frame from a camera label [1, 25], with the neck turned by `rotation` [3] (axis-angle) or straight."""
        return self.render_all(planes, background, label, None if rotation is None else rotation[None])[0]

    @torch.inference_mode()
    def render_all(
        self, planes: Tensor, background: Tensor, labels: Tensor, rotations: Tensor | None = None
    ) -> list[Frame]:
        """Frames of planes [B, ...], camera labels [B, 25] and turns of the neck [B, 3], in front of one background."""
        picture = self.network.render(
            planes, labels.to(self.options.device), background.float(), warp=self.warp(rotations),
            size=self.options.render_size, sampling=self._sampling(), enlarge=self._enlarge,
        )  # fmt: skip
        side = picture.picture.shape[-1]
        alpha = 1 - interpolate(picture.transmittance, size=(side, side), mode="bilinear", align_corners=False)
        levels = (picture.picture.float().permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255)
        pairs = zip(levels.to(torch.uint8).cpu().numpy(), alpha[:, 0].clamp(0, 1).cpu().numpy(), strict=True)
        return [Frame(*pair) for pair in pairs]

    @torch.inference_mode()
    def warp(self, rotations: Tensor | None) -> Warp | None:
        """The field of turned necks [B, 3], None where all are straight."""
        deformer = self.network.deformer
        if rotations is None or deformer is None or float(rotations.norm(dim=-1).max()) < STRAIGHT:
            return None
        return self.network.warp_grid(neck_pose(deformer.flame_deform, rotations))

    def _image(self, crop_u8: np.ndarray) -> Tensor:
        return _to_image(crop_u8, self.options.device)

    def _sampling(self) -> RaySampling | None:
        config, seed = self.network.config, self.options.seed
        if seed is None:
            return None
        return RaySampling(config.coarse_samples, config.fine_samples, placement="jitter", seed=seed)


@torch.inference_mode()
def read_motion(encoder: MotionEncoder, crop_u8: np.ndarray, matrix: np.ndarray, device: str) -> Tensor:
    """Embedding [1, 548] of a portrait crop uint8 [S, S, 3]; matrix: `motion_matrix` of its landmarks."""
    return encoder(motion_crop(_to_image(crop_u8, device), matrix)).embedding()


def _to_image(crop_u8: np.ndarray, device: str) -> Tensor:
    """uint8 [S, S, 3] -> [1, 3, S, S] in -1..1."""
    image = torch.from_numpy(np.ascontiguousarray(crop_u8)).to(device)
    return image.permute(2, 0, 1)[None].float() / 127.5 - 1


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
