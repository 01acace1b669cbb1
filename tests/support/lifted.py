"""The synthetic person of `support.scenes`, tracked and lifted: artifacts as the commands make them, made once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fourdface.artifacts import Avatar, Motion, Tracked
from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.media.image import encode_png
from fourdface.methods.splat.avatar import SplatAvatar, refine_colours
from fourdface.methods.splat.lift import Lifted, lift_photo
from fourdface.stages.lift import lift
from support.artifacts import PROVENANCE
from support.scenes import Photo, dense_landmarks, make_photo, open_head

FRAME_RATE = 25


def tracked_photo(photo: Photo) -> Tracked:
    """The photo as `fourd preprocess --fit` would track it, but with the true head parameters."""
    source = photo.rig.source
    landmarks = dense_landmarks(source, photo.view)
    zero = np.zeros((1, 3), np.float32)
    return Tracked(
        provenance=PROVENANCE, rate_numerator=1, rate_denominator=1, width=photo.view.width, height=photo.view.height,
        times=np.zeros(1), status=np.zeros(1, np.uint8),
        boxes=np.concatenate([landmarks.min(0), landmarks.max(0)])[None], crop_transforms=np.zeros((1, 2, 3), "f4"),
        landmarks=landmarks[None], coefficients=source.expression.numpy()[None],
        frame_blobs=[encode_png(photo.image_u8)],
        matte_blobs=[encode_png(np.round(photo.matte * 255).astype(np.uint8))],
        head_model="open", shape=photo.rig.shape.numpy(), expression=source.expression.numpy()[None],
        rotation=source.rotation.numpy()[None], translation=source.translation.numpy()[None], neck=zero, jaw=zero,
        eyes=source.eyes.numpy()[None], intrinsics=photo.view.intrinsics.astype(np.float32),
        world_to_camera=photo.view.world_to_camera.astype(np.float32), fit_residual=np.zeros(1, np.float32),
    )  # fmt: skip


@lru_cache(maxsize=2)
def lifted_photo(size: int = 144) -> tuple[Lifted, SplatAvatar, list[float]]:
    """The resting photo lifted by the method itself: result, avatar with refined colours, PSNR by round."""
    photo = make_photo(size)
    lifted = lift_photo(photo.image, photo.matte, photo.view, photo.rig)
    avatar = SplatAvatar(lifted.rig, lifted.gaussians, photo.view, np.round(lifted.plate * 255).astype(np.uint8))
    return lifted, avatar, refine_colours(avatar, lifted, photo.image)


@lru_cache(maxsize=1)
def avatar_artifact() -> Avatar:
    """The avatar artifact of the resting photo, 144 x 144."""
    return lift(tracked_photo(make_photo()), open_head(), PROVENANCE)[0]


def talking_motion(count: int = 6, missing: tuple[int, ...] = ()) -> Motion:
    """A motion of `count` frames: the head turns from left to right and the mouth opens."""
    photo = make_photo()
    expression = np.zeros((count, 52), np.float32)
    expression[:, ARKIT_INDEX["jawOpen"]] = np.linspace(0, 0.8, count)
    rotation = np.zeros((count, 3), np.float32)
    rotation[:, 1] = np.linspace(-0.3, 0.3, count)
    status = np.zeros(count, np.uint8)
    status[list(missing)] = 1
    zero = np.zeros((count, 3), np.float32)
    return Motion(
        provenance=PROVENANCE, rate_numerator=FRAME_RATE, rate_denominator=1, width=144, height=144,
        times=np.arange(count) / FRAME_RATE, status=status, expression=expression, rotation=rotation,
        translation=np.tile(photo.rig.source.translation.numpy(), (count, 1)), neck=zero, jaw=zero,
        eyes=np.zeros((count, 6), np.float32), intrinsics=photo.view.intrinsics.astype(np.float32),
        world_to_camera=photo.view.world_to_camera.astype(np.float32), neutral_expression=np.zeros(52, np.float32),
        head_model="open", audio=None, embeddings={},
    )  # fmt: skip
