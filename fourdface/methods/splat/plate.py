"""What stands behind and beside the person: the background plate and foreground colours without its spill."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .inpaint import fill_with_patches

MARGIN = 0.012
"""Width, over the picture's longest side, of the rim around the matte in which single hairs and halos may be."""
RIM = 0.02
"""Depth, over the picture's longest side, to which the first guess behind the person is the mirror image."""


def fill_smoothly(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill the unknown pixels of `image` [H,W,C] (float) by push-pull over an image pyramid.

    `known` [H,W] weights in [0,1]; known pixels keep their value, holes take the smooth average of what lies around
    them at the finest scale that reaches it. Returns [H,W,C] float32.
    """
    image = np.asarray(image, np.float32)
    weight = np.clip(known, 0, 1).astype(np.float32)[..., None]
    levels: list[tuple[np.ndarray, np.ndarray]] = [(image * weight, weight)]
    while max(levels[-1][0].shape[:2]) > 1:
        colour, total = levels[-1]
        levels.append((_halve(colour), _halve(total)))
    filled = levels[-1][0] / np.maximum(levels[-1][1], 1e-6)
    for colour, total in reversed(levels[:-1]):
        below = _double(filled, colour.shape[:2])
        share = np.minimum(total, 1)
        filled = share * colour / np.maximum(total, 1e-6) + (1 - share) * below
    return filled


def _halve(field: np.ndarray) -> np.ndarray:
    height, width = field.shape[:2]
    padded = np.pad(field, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return 0.25 * (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2])


def _double(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    # bilinear with half-pixel centres, so that the fill shows no blocks
    rows = np.clip((np.arange(shape[0]) + 0.5) / 2 - 0.5, 0, field.shape[0] - 1)
    columns = np.clip((np.arange(shape[1]) + 0.5) / 2 - 0.5, 0, field.shape[1] - 1)
    top, left = rows.astype(int), columns.astype(int)
    bottom, right = np.minimum(top + 1, field.shape[0] - 1), np.minimum(left + 1, field.shape[1] - 1)
    down, across = (rows - top)[:, None, None], (columns - left)[None, :, None]
    upper = field[top][:, left] * (1 - across) + field[top][:, right] * across
    lower = field[bottom][:, left] * (1 - across) + field[bottom][:, right] * across
    return (upper * (1 - down) + lower * down).astype(np.float32)


def fill_behind(image: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Fill the unknown pixels of `image` [H,W,3]: near the rim, which a moving head uncovers, with the mirror image
    of what lies outside, so that edges and textures go on; deeper inside, where nothing is known, smoothly."""
    smooth = fill_smoothly(image, known)
    distance, nearest = ndimage.distance_transform_edt(~known, return_indices=True)
    rows, columns = np.mgrid[: known.shape[0], : known.shape[1]]
    mirrored_rows = np.clip(2 * nearest[0] - rows, 0, known.shape[0] - 1)
    mirrored_columns = np.clip(2 * nearest[1] - columns, 0, known.shape[1] - 1)
    usable = known[mirrored_rows, mirrored_columns]
    at = np.where(usable, mirrored_rows, nearest[0]), np.where(usable, mirrored_columns, nearest[1])
    continued = ndimage.gaussian_filter(image[at], (1.0, 1.0, 0))
    share = np.exp(-distance / (RIM * max(known.shape)))[..., None]
    filled = share * continued + (1 - share) * smooth
    return np.where(known[..., None], image, filled).astype(np.float32)


def background_plate(image: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """The photo without the person: `image` [H,W,3] float in [0,1], `matte` [H,W] -> plate [H,W,3].

    The fill continues what lies a little beyond the matte's rim, which still holds hair and skin, and fades into the
    photo there, so that no outline of the person stays behind.
    """
    margin = max(2, round(MARGIN * max(matte.shape)))
    person = matte > 0.02
    distance = ndimage.distance_transform_edt(~person)
    if not (distance > margin).any():
        return np.broadcast_to(image.mean((0, 1)), image.shape).astype(np.float32)
    known = distance > margin
    fill = fill_with_patches(image, known, fill_behind(image, known))
    t = np.clip((distance - 1) / margin, 0, 1)[..., None]
    share = t * t * (3 - 2 * t)
    return np.clip(share * image + (1 - share) * fill, 0, 1).astype(np.float32)


def sharpen_matte(image: np.ndarray, matte: np.ndarray) -> np.ndarray:
    """Matte [H,W] with its rim decided by colour: image [H,W,3] in [0,1], matte [H,W] -> [H,W].

    A network's matte is right to a few pixels. Within that band the colour itself says how much of a pixel is person,
    where the colours inside and outside (carried over smoothly) differ enough: alpha is the position of the pixel's
    colour on the line between the two.
    """
    band = max(2, round(0.008 * max(matte.shape)))
    outside = ndimage.distance_transform_edt(matte < 0.5)
    inside = ndimage.distance_transform_edt(matte >= 0.5)
    near = (outside <= band) & (inside <= band)
    if not near.any() or (inside > band).sum() < 16 or (outside > band).sum() < 16:
        return matte
    back = fill_smoothly(image, outside > band)
    front = fill_smoothly(image, inside > band)
    axis = front - back
    contrast = np.linalg.norm(axis, axis=-1)
    position = ((image - back) * axis).sum(-1) / np.maximum(contrast**2, 1e-4)
    # a third colour at the rim (hair between skin and background) lies beside that line, and says nothing
    beside = np.linalg.norm(image - back - np.clip(position, 0, 1)[..., None] * axis, axis=-1)
    trust = np.clip((contrast - 0.12) / 0.2, 0, 1) * np.clip(2 - 4 * beside / np.maximum(contrast, 1e-3), 0, 1) * near
    return ((1 - trust) * matte + trust * np.clip(position * 1.15 - 0.05, 0, 1)).astype(np.float32)


def foreground_colours(image: np.ndarray, matte: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Colours F [H,W,3] with matte*F + (1-matte)*plate = image, kept in range and calm where the matte is thin."""
    alpha = np.clip(matte, 0, 1)[..., None]
    exact = np.clip((image - (1 - alpha) * plate) / np.maximum(alpha, 0.25), 0, 1)
    inside = fill_smoothly(image, matte > 0.97)
    trust = np.clip((alpha - 0.6) / 0.35, 0, 1)
    return (trust * exact + (1 - trust) * inside).astype(np.float32)
