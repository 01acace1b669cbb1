"""Layer 3: a coarse back of hair and torso, so that a turned head is closed."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .plate import fill_smoothly
from .scene import Layer, Scene, chain_level, pixel_covariances
from .surface import Shell


def back_layer(scene: Scene, shell: Shell, foreground: np.ndarray) -> Layer:
    """Coarse back of hair and torso: every third pixel of the matte, in a calm version of the front's colours."""
    step = 4
    view = scene.view
    columns, rows = view.grid()
    solid = ndimage.minimum_filter(scene.matte, 5) > 0.6
    pick = np.zeros_like(solid)
    pick[::step, ::step] = True
    # below the skull the mesh has a nape of its own
    drawn = scene.face_index >= 0
    skin = drawn & ~scene.face_regions["scalp"][np.maximum(scene.face_index, 0)]
    pick &= solid & (shell.rho < 0.95) & ~(skin & (shell.rho > 0.92) & (shell.head_share > 0.2))
    depth = shell.back.astype(np.float64)
    points = view.unproject(columns, rows, depth)
    colours = _back_colours(scene, shell, foreground)
    triangle = scene.rig.proxy_triangle(chain_level(scene, points, rows))
    covariance = pixel_covariances(scene, points, depth, 0.75 * step)
    return Layer(
        points[pick], covariance[pick], colours[pick], np.full(int(pick.sum()), 0.95),
        triangle[pick].astype(np.int32), np.full(int(pick.sum()), 3.0),
    )  # fmt: skip


def _back_colours(scene: Scene, shell: Shell, foreground: np.ndarray) -> np.ndarray:
    """Colours [H,W,3] of the back: where the front shows the face, the hair above it goes on downwards, mirrored."""
    drawn = scene.face_index >= 0
    skin = drawn & ~scene.face_regions["scalp"][np.maximum(scene.face_index, 0)]
    skin = ndimage.binary_dilation(skin, iterations=max(3, round(0.012 * scene.view.height)))
    upper, solid = shell.head_share > 0.3, scene.matte > 0.9
    hair = _hair_pixels(foreground, solid & upper & ~skin, skin & solid & upper)
    torso = solid & ~upper & ~skin
    share = np.clip((shell.head_share - 0.3) / 0.4, 0, 1)[..., None]
    smooth = share * fill_smoothly(foreground, hair if hair.sum() >= 50 else solid & upper)
    smooth = smooth + (1 - share) * fill_smoothly(foreground, torso if torso.sum() >= 50 else solid)
    streaks = _mirrored_down(foreground, hair)
    colours = np.where(np.isnan(streaks), smooth, 0.5 * smooth + 0.5 * streaks)
    return np.stack([ndimage.gaussian_filter(colours[..., c], (2.5, 1.2)) for c in range(3)], -1)


def _hair_pixels(colours: np.ndarray, candidates: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Those of the candidate pixels [H,W] that look like hair and not like the face's skin."""
    if candidates.sum() < 50 or face.sum() < 50:
        return candidates
    skin_colour = np.median(colours[face], axis=0)
    distance = np.linalg.norm(colours - skin_colour, axis=-1)
    hair_colour = np.median(colours[candidates & (distance >= np.median(distance[candidates]))], axis=0)
    return candidates & (np.linalg.norm(colours - hair_colour, axis=-1) < distance)


def _mirrored_down(colours: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Colours [H,W,3] of each column's topmost run of hair, continued downwards by reflection; NaN without hair."""
    height, width = hair.shape
    any_hair = hair.any(0)
    top = np.where(any_hair, hair.argmax(0), 0)
    rows = np.arange(height)[:, None]
    run = np.cumsum(~hair & (rows >= top), axis=0) == 0
    length = np.maximum((run & (rows >= top)).sum(0), 1)
    offset = np.maximum(rows - top, 0) % (2 * length)
    source = top + np.where(offset < length, offset, 2 * length - 1 - offset)
    out = colours[np.minimum(source, height - 1), np.arange(width)]
    usable = ndimage.minimum_filter1d(np.where(any_hair, length, 0), 5) >= 8
    return np.where(usable[None, :, None], out, np.nan)
