"""Sizes of the reconstructor. `paper` is the published network; the others are the same in small."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from fourdface.errors import FourdError

__all__ = ["COEFFICIENT_MOTION", "MOTION_ENCODERS", "SIZES", "SOURCE_FRAMES", "ReconstructorConfig",
           "coefficient_motion"]  # fmt: skip

MOTION_ENCODERS = ("pdfgc", "coefficients")
SOURCE_FRAMES = ("picture", "plane")
COEFFICIENT_MOTION = 52 + 3 + 6
"""Length of a motion of coefficients: expression, jaw, eyes."""


def coefficient_motion(expression: np.ndarray, jaw: np.ndarray, eyes: np.ndarray) -> np.ndarray:
    """What stands for PD-FGC's embedding without it: expression [52], jaw [3], eyes [6] -> [61] float32."""
    return np.concatenate([expression, jaw, eyes], axis=-1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class ReconstructorConfig:
    """Of `Reconstructor`; defaults are the published values. Resolutions in pixels, widths in channels.

    resolution: side of the source picture and of the result. Planes have half of it.
    render_size: side of the rendered features at inference. enlargement: of the super-resolution, 4 or 2, which starts
    from so small a part of `resolution`. decoder_units: width of the layer between planes and density and colour.
    width, heads, blocks: of Phi's transformer, `blocks` for each half. decoder_width, decoder_heads: of G_T's.
    motion, motion_hidden, motion_tokens: motion embedding, its two layers, tokens that it becomes.
    motion_encoder: what `motion` numbers are: "pdfgc" (548 from a picture of the face) or "coefficients" (61: the 52
    coefficients, jaw 3 and eyes 6 of the head model).
    box_size: side of the cube that the planes cover, in Portrait4D's units (three to a metre).
    source_frame: how the encoders of the planes see the photo. "picture": as it is (published). "plane": laid onto the
    xy-plane, where a straight face lies behind its own pixels: `frame_width` of the box's units wide, its middle at the
    height `frame_height`. A tri-plane is upside down (its rows go with y), and shows more than the photo; convolutions
    cannot undo that, so a network that sees the picture learns it by attention alone, from millions of pictures.
    """

    resolution: int = 512
    render_size: int = 128
    global_width: int = 64
    global_depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    global_channels: int = 256
    detail_stem: int = 64
    feature_channels: int = 96
    width: int = 1024
    heads: int = 4
    blocks: int = 4
    decoder_width: int = 1024
    decoder_heads: int = 2
    decoder_hidden: tuple[int, int] = (256, 128)
    motion: int = 548
    motion_hidden: int = 512
    motion_tokens: int = 64
    convs: int = 128
    plane_channels: int = 32
    background_width: int = 64
    superresolution: tuple[int, int] = (256, 128)
    w_dim: int = 512
    box_size: float = 1.3
    coarse_samples: int = 48
    fine_samples: int = 48
    enlargement: int = 4
    decoder_units: int = 64
    motion_encoder: str = "pdfgc"
    source_frame: str = "picture"
    frame_width: float = 0.82
    frame_height: float = 0.215

    def __post_init__(self) -> None:
        """Refuse sizes that the network cannot have."""
        if self.resolution % 64:
            raise FourdError(f"resolution must be a multiple of 64, got {self.resolution}")
        if self.enlargement not in (2, 4):
            raise FourdError(f"enlargement must be 2 or 4, got {self.enlargement}")
        if self.motion_encoder not in MOTION_ENCODERS:
            raise FourdError(f"motion_encoder is {self.motion_encoder!r}, expected one of {', '.join(MOTION_ENCODERS)}")
        if self.source_frame not in SOURCE_FRAMES:
            raise FourdError(f"source_frame is {self.source_frame!r}, expected one of {', '.join(SOURCE_FRAMES)}")
        if self.motion_encoder == "coefficients" and self.motion != COEFFICIENT_MOTION:
            raise FourdError(f"motion is {self.motion}, and coefficients with jaw and eyes are {COEFFICIENT_MOTION}")
        for name in ("width", "decoder_width"):
            if getattr(self, name) % 4:
                raise FourdError(f"{name} must be a multiple of 4, got {getattr(self, name)}")

    @classmethod
    def from_json(cls, text: str) -> ReconstructorConfig:
        """Read what `to_json` wrote; FourdError for anything else."""
        try:
            values = json.loads(text)
            known = {field.name: field for field in dataclasses.fields(cls)}
            if not isinstance(values, dict) or not set(values) <= set(known):
                raise ValueError("it names other settings than the reconstructor has")
            return cls(**{name: _like(known[name].default, value, name) for name, value in values.items()})
        except (ValueError, RecursionError) as error:
            raise FourdError(f"the network's settings cannot be read: {error}") from None

    def to_json(self) -> str:
        """All settings as JSON."""
        return json.dumps(dataclasses.asdict(self))


def _like(default: Any, value: Any, name: str) -> Any:
    """`value` in the type of `default`, numbers positive and not absurd."""
    if isinstance(default, tuple):
        if not isinstance(value, list) or len(value) != len(default):
            raise ValueError(f"{name} must be {len(default)} numbers")
        return tuple(_like(first, item, name) for first, item in zip(default, value, strict=True))
    if isinstance(default, str):
        if not isinstance(value, str) or len(value) > 64:
            raise ValueError(f"{name} must be a word")
        return value
    if isinstance(value, bool) or not isinstance(value, (int, type(default))) or not 0 < value <= 1 << 16:
        raise ValueError(f"{name} is {value!r}, expected a {type(default).__name__} above 0")
    return type(default)(value)


SIZES = {
    "tiny": ReconstructorConfig(
        resolution=128, render_size=64, global_width=16, global_depths=(1, 1, 1, 1), global_channels=64,
        detail_stem=16, feature_channels=32, width=192, blocks=2, decoder_width=64, decoder_hidden=(48, 32),
        motion=61, motion_hidden=128, motion_tokens=16, convs=48, plane_channels=16, background_width=8,
        superresolution=(32, 16), w_dim=32, box_size=1.2, coarse_samples=16, fine_samples=16, enlargement=2,
        decoder_units=32, motion_encoder="coefficients", source_frame="plane",
    ),
    "small": ReconstructorConfig(
        resolution=256, render_size=64, global_width=32, global_depths=(2, 2, 2, 2), global_channels=128,
        detail_stem=32, feature_channels=64, width=512, blocks=3, decoder_width=256, decoder_hidden=(128, 64),
        motion_hidden=256, motion_tokens=32, convs=96, background_width=32,
        superresolution=(128, 64), w_dim=256, coarse_samples=32, fine_samples=32,
    ),
    "paper": ReconstructorConfig(),
}  # fmt: skip
"""Named sizes: tiny trains in half an hour on two CPU cores and moves by coefficients, small trains on one GPU in under
an hour, paper is the published network."""
