"""Fill a hole with the picture's own structure: patches from what is known, agreed upon from coarse to fine.

After Wexler et al. (2007): every patch that touches the hole looks for its nearest neighbour among the known patches,
and every pixel of the hole becomes the mean of what the patches over it propose. A proposal may be brightened a
little, so that shading goes on. Lines and textures continue; nothing is learned.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from ...media.resize import resize

SIZES = (32, 64, 128)
"""Longest side, pixels, of the pictures on which patches are agreed upon."""
ROUNDS = 5
PATCH = 7
FEATURES = 14
"""Principal components in which patches are compared."""
LARGEST_BIAS = 0.06
"""Most that a copied patch is brightened or darkened by."""
FEWEST_SOURCES, MOST_SOURCES = 40, 6000


def fill_with_patches(image: np.ndarray, known: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Fill the pixels of `image` [H,W,3] in [0,1] outside `known` [H,W]; start [H,W,3]: a first guess.

    Returns [H,W,3] float32, at full size with detail copied from the photo itself. Where too little is known for
    patches the start is returned.
    """
    height, width = known.shape
    agreed: tuple[np.ndarray, np.ndarray] | None = None
    for size in SIZES if known.any() and not known.all() else ():
        factor = max(max(height, width) / size, 1.0)
        shape = max(PATCH + 1, round(height / factor)), max(PATCH + 1, round(width / factor))
        certain = _coverage(known, shape) > 0.98
        if certain.all() or _sources(certain).sum() < FEWEST_SOURCES:
            continue
        guess = _resized(start if agreed is None else agreed[0], shape)
        filled = np.where(certain[..., None], _reduce(image, known, shape), guess)
        for _ in range(ROUNDS):
            filled, offsets = _agree(filled, certain)
        agreed = filled, offsets
    if agreed is None:
        return np.where(known[..., None], image, start).astype(np.float32)
    return _copied(image, known, *agreed)


def _resized(field: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    picture = np.round(np.clip(field, 0, 1) * 255).astype(np.uint8)
    return resize(picture, shape[1], shape[0]).astype(np.float32) / 255


def _coverage(known: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    mask = np.repeat(known[..., None], 3, 2).astype(np.float32)
    return _resized(mask, shape)[..., 0]


def _reduce(image: np.ndarray, known: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The known part of the picture at a smaller size, without what is unknown running into it."""
    share = _coverage(known, shape)[..., None]
    return np.clip(_resized(image * known[..., None], shape) / np.maximum(share, 0.05), 0, 1)


def _sources(certain: np.ndarray) -> np.ndarray:
    """Centres [h,w] of patches that are known altogether and lie inside the picture."""
    return ndimage.minimum_filter(certain, PATCH, mode="constant", cval=0)


def _patches(image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Patches [N,PATCH,PATCH,3] around centres; the picture's edge is repeated beyond it."""
    reach = PATCH // 2
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (PATCH, PATCH), axis=(0, 1))
    return windows[rows, columns].transpose(0, 2, 3, 1)


def _agree(image: np.ndarray, certain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One round: nearest known patches, and the mean of their proposals. Also the offsets [h,w,2] (row, column) from
    every pixel to where its own patch came from (zero outside the hole)."""
    reach = PATCH // 2
    hole = ~certain
    source_rows, source_columns = np.nonzero(_sources(certain))
    step = max(1, len(source_rows) // MOST_SOURCES)
    source_rows, source_columns = source_rows[::step], source_columns[::step]
    rows, columns = np.nonzero(ndimage.maximum_filter(hole, PATCH))
    known_patches = _patches(image, source_rows, source_columns).reshape(len(source_rows), -1)
    wanted = _patches(image, rows, columns).reshape(len(rows), -1)
    mean = known_patches.mean(0)
    _, _, axes = np.linalg.svd((known_patches - mean)[:: max(1, len(known_patches) // 1500)], full_matrices=False)
    axes = axes[:FEATURES].T
    distance, nearest = cKDTree((known_patches - mean) @ axes).query((wanted - mean) @ axes)
    bias = (wanted - known_patches[nearest]).reshape(len(rows), -1, 3).mean(1).clip(-LARGEST_BIAS, LARGEST_BIAS)
    proposal = known_patches[nearest].reshape(-1, PATCH, PATCH, 3) + bias[:, None, None]
    depth = ndimage.distance_transform_edt(hole)[rows, columns]
    # what lies near the rim is surer, and so is what matches well
    weight = 1.4**-depth * np.exp(-(distance**2) / (2 * max(float(np.percentile(distance, 75)), 1e-3) ** 2)) + 1e-9
    total = np.zeros((image.shape[0] + 2 * reach, image.shape[1] + 2 * reach, 4))
    for down in range(PATCH):
        for across in range(PATCH):
            part = total[down : down + image.shape[0], across : across + image.shape[1]]
            part[rows, columns, :3] += weight[:, None] * proposal[:, down, across]
            part[rows, columns, 3] += weight
    inner = total[reach : reach + image.shape[0], reach : reach + image.shape[1]]
    mixed = inner[..., :3] / np.maximum(inner[..., 3:], 1e-12)
    offsets = np.zeros((*certain.shape, 2), np.int64)
    offsets[rows, columns] = np.stack([source_rows[nearest] - rows, source_columns[nearest] - columns], 1)
    return np.where(hole[..., None], mixed.clip(0, 1), image).astype(np.float32), offsets


def _copied(image: np.ndarray, known: np.ndarray, filled: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The hole at full size: what the small picture agreed upon, with detail copied from where patches came from."""
    height, width = known.shape
    small_height, small_width = offsets.shape[:2]
    rows, columns = np.nonzero(~known)
    scale = np.array([height / small_height, width / small_width])
    row = np.clip((rows + 0.5) / scale[0], 0, small_height - 1e-3).astype(int)
    column = np.clip((columns + 0.5) / scale[1], 0, small_width - 1e-3).astype(int)
    moved = np.rint(offsets[row, column] * scale).astype(int)
    from_rows, from_columns = rows + moved[:, 0], columns + moved[:, 1]
    usable = (from_rows >= 0) & (from_rows < height) & (from_columns >= 0) & (from_columns < width)
    from_rows, from_columns = np.clip(from_rows, 0, height - 1), np.clip(from_columns, 0, width - 1)
    usable &= known[from_rows, from_columns]
    low = _resized(filled, (height, width))
    blur = float(scale.max())
    weight = ndimage.gaussian_filter(known.astype(np.float32), blur)[..., None]
    smooth = ndimage.gaussian_filter(image * known[..., None], (blur, blur, 0)) / np.maximum(weight, 1e-3)
    out = np.where(known[..., None], image, low).astype(np.float32)
    detail = image[from_rows, from_columns] - smooth[from_rows, from_columns]
    out[rows, columns] = np.clip(out[rows, columns] + np.where(usable[:, None], detail, 0), 0, 1)
    return out
