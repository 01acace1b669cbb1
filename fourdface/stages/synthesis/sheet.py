"""A contact sheet: some pictures of some people of a shard at a glance."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from ...artifacts import Views
from ...media.image import MAX_PIXELS, decode_png


def contact_sheet(views: Views, people: int = 8, across: int = 12) -> np.ndarray:
    """Picture uint8 [H,W,3]: a row for each of the first people, with at most `across` of that person's pictures.

    The last two columns are depth and opacity of the person's first picture where they are known.
    """
    rows = []
    across = max(1, min(across, int(np.unique(views.identity, return_counts=True)[1].max(initial=0))))
    for number in np.unique(views.identity)[:people]:
        mine = np.flatnonzero(views.identity == number)
        chosen = mine[np.unique(np.linspace(0, len(mine) - 1, across).round().astype(int))]
        tiles = [decode_picture(views.images[k]) for k in chosen]
        tiles += [np.zeros_like(tiles[0])] * (across - len(tiles))
        if views.depths is not None and views.opacities is not None:
            tiles += [_depth_tile(views.depths[mine[0]], tiles[0].shape), _grey(decode_png(views.opacities[mine[0]]))]
        rows.append(np.concatenate(tiles, axis=1))
    return np.concatenate(rows, axis=0)


def decode_picture(data: bytes) -> np.ndarray:
    """A PNG or JPEG of a shard as uint8 [H,W,3]."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"a picture of {image.width}x{image.height} pixels is beyond the limit")
        return np.array(image.convert("RGB"))


def _depth_tile(depth: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Near is bright; enlarged to the picture's size."""
    seen = depth[depth > 0].astype(np.float32)
    near, far = (seen.min(), seen.max()) if len(seen) else (0.0, 1.0)
    grey = np.where(depth > 0, 1 - 0.8 * (depth.astype(np.float32) - near) / max(far - near, 1e-6), 0)
    image = Image.fromarray(np.asarray(grey * 255, np.uint8)).resize((shape[1], shape[0]), Image.Resampling.NEAREST)
    return _grey(np.asarray(image))


def _grey(picture_u8: np.ndarray) -> np.ndarray:
    return np.repeat(picture_u8[..., None], 3, axis=2)
