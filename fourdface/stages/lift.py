"""lift: a tracked and fitted photo -> avatar."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..artifacts import Avatar, Provenance, Tracked
from ..artifacts.tracked import STATUS_MISSING
from ..blocks.head_model import HeadModel
from ..errors import FourdError
from ..media.image import decode_png, encode_png
from ..methods.splat.avatar import SplatAvatar, refine_colours
from ..methods.splat.lift import lift_photo
from ..methods.splat.rig import HeadState, Rig
from ..methods.splat.surface import View


@dataclass(frozen=True)
class LiftOptions:
    """frame: which frame of the tracked artifact; refine_rounds: passes of colour refinement."""

    frame: int = 0
    refine_rounds: int = 6


SMALLEST_FACE = 32
"""Pixels from one side of the face to the other below which a photo says too little about it."""


def lift(
    tracked: Tracked, model: HeadModel, provenance: Provenance, options: LiftOptions | None = None
) -> tuple[Avatar, float]:
    """Lift one frame of a fitted `tracked` artifact that holds its picture and matte; also returns the PSNR (dB) on
    the person of the avatar rendered at the photo's own view."""
    options = options or LiftOptions()
    k = options.frame
    head = tracked.head()
    require_face(tracked, k)
    if tracked.frame_blobs is None or tracked.matte_blobs is None or not tracked.matte_blobs[k]:
        raise FourdError(
            "the tracked artifact holds no picture and matte for this frame; "
            "run `fourd preprocess --keep-frames --mattes`"
        )
    image = decode_png(tracked.frame_blobs[k]).astype(np.float32) / 255
    matte = decode_png(tracked.matte_blobs[k]).astype(np.float32) / 255
    matte = matte[..., 0] if matte.ndim == 3 else matte
    view = View(head.world_to_camera, head.intrinsics, tracked.width, tracked.height)
    state = HeadState.from_arrays(head.expression[k], head.rotation[k], head.translation[k], head.eyes[k])
    rig = Rig(model, torch.from_numpy(head.shape), state)
    lifted = lift_photo(image[..., :3], matte, view, rig)
    plate_u8 = np.round(lifted.plate * 255).astype(np.uint8)
    avatar = SplatAvatar(lifted.rig, lifted.gaussians, view, plate_u8)
    history = refine_colours(avatar, lifted, image[..., :3], options.refine_rounds)
    gaussians = replace(lifted.gaussians, colours=avatar.colours.numpy())
    tensors: dict[str, np.ndarray] = {
        "triangle": gaussians.triangle.astype(np.int32),
        "local_mean": gaussians.local_mean.astype(np.float32),
        "local_covariance": gaussians.local_covariance.astype(np.float32),
        "colour": gaussians.colours.astype(np.float16),
        "opacity": gaussians.opacity.astype(np.float16),
        "max_trace": gaussians.max_trace.astype(np.float32),
        "head_offset": lifted.rig.offset.numpy(),
    }
    return Avatar(
        provenance=provenance, representation="gaussians", head_model=model.name, width=view.width, height=view.height,
        shape=head.shape, expression=head.expression[k], rotation=head.rotation[k], translation=head.translation[k],
        neck=head.neck[k], jaw=head.jaw[k], eyes=head.eyes[k], intrinsics=head.intrinsics,
        world_to_camera=head.world_to_camera, coefficients=tracked.coefficients[k],
        background_blob=encode_png(plate_u8), source_blob=tracked.frame_blobs[k], tensors=tensors,
        tensor_axes={"triangle": "N", "local_mean": "N,3", "local_covariance": "N,6", "colour": "N,3", "opacity": "N",
                     "max_trace": "N",
                     "head_offset": "V,3"},
        tensor_units={"triangle": "index", "local_mean": "triangle frame", "local_covariance": "triangle frame squared",
                      "colour": "sRGB", "opacity": "0..1", "max_trace": "square metres", "head_offset": "metres"},
    ), history[-1]  # fmt: skip


def require_face(tracked: Tracked, frame: int) -> None:
    """Refuse a face that is too small to be lifted, or not there."""
    if tracked.status[frame] == STATUS_MISSING:
        raise FourdError(f"frame {frame} of the tracked artifact shows no face; choose one that does")
    across = float(np.ptp(tracked.landmarks[frame], axis=0).max())
    if across < SMALLEST_FACE:
        raise FourdError(
            f"the face is only {across:.0f} of the picture's {max(tracked.width, tracked.height)} pixels across, and "
            f"{SMALLEST_FACE} are needed to lift it; crop closer to it, or use a sharper photo"
        )
