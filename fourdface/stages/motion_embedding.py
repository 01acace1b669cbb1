"""A motion artifact with the motion embedding of a method beside its coefficients, so that a driver is encoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..artifacts import Motion, Tracked
from ..artifacts.tracked import STATUS_MISSING
from ..errors import FourdError, UsageError
from ..media.image import decode_png
from ..methods.portrait4d.tracking import CropTracker

__all__ = ["embed_motion"]

CROP_SIZE = 512
"""Side of the portrait crop that the published networks see, of which the motion crop is cut."""


def embed_motion(
    motion: Motion, tracked: Tracked, name: str, encode: Callable[[np.ndarray, np.ndarray], np.ndarray], *,
    smooth: bool = True, size: int | None = None,
) -> Motion:  # fmt: skip
    """Add the embedding `name` [T, D] to the motion of a tracked clip that holds its frames.

    Args:
        encode: portrait crop uint8 [size, size, 3] and `motion_matrix` [2, 3] within it -> embedding [D].
        smooth: steady crops, as `reenact` makes them. size: of the crop, None for `CROP_SIZE`.

    Frames without a face take the embedding before them (the first one at the start).
    """
    if tracked.frame_blobs is None or not any(tracked.frame_blobs):
        raise UsageError(
            "an embedding is read from pictures, and the tracked artifact holds none; run `fourd preprocess "
            "--keep-frames` on the clip"
        )
    crops = CropTracker(size or CROP_SIZE, smooth)
    rows: list[np.ndarray | None] = []
    for k, time in enumerate(tracked.times):
        if tracked.status[k] == STATUS_MISSING or not tracked.frame_blobs[k]:
            crops.reset()
            rows.append(None)
            continue
        image_u8 = np.ascontiguousarray(decode_png(tracked.frame_blobs[k])[..., :3])
        found = crops.step(tracked.landmarks[k], (tracked.width, tracked.height), float(time))
        rows.append(np.asarray(encode(found.portrait.apply(image_u8), found.motion), np.float32))
    first = next((row for row in rows if row is not None), None)
    if first is None:
        raise FourdError("no frame of the tracked artifact shows a face with its picture; nothing can be encoded")
    values, last = [], first
    for row in rows:
        last = last if row is None else row
        values.append(last)
    return replace(motion, embeddings={**motion.embeddings, name: np.stack(values)})
