"""Colours for what the photo does not show: the far side of the face, lids, mouth, eyeballs.

Order of trust: the photo itself, its mirror image (matched in colour to its surroundings), a smooth harmonic fill
over the mesh. Teeth, tongue and mouth bag that the photo hides get colours of their own, in the photo's light.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve

INTERIOR_COLOURS = {
    "mouth_bag": (0.20, 0.07, 0.07),
    "tongue": (0.55, 0.25, 0.25),
    "gums": (0.55, 0.27, 0.27),
    "teeth_upper": (0.80, 0.76, 0.70),
    "teeth_lower": (0.70, 0.66, 0.60),
}
"""sRGB of a mouth's inside under a light that shows a fair face at 0.72."""
FAIR_FACE = 0.72


def graph_laplacian(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """Uniform graph Laplacian [V,V] of a triangle mesh (faces [F,3])."""
    first = np.concatenate([faces[:, 0], faces[:, 1], faces[:, 2]])
    second = np.concatenate([faces[:, 1], faces[:, 2], faces[:, 0]])
    adjacency = sparse.coo_matrix((np.ones(len(first)), (first, second)), shape=(count, count)).tocsr()
    adjacency = (adjacency + adjacency.T).sign()  # an edge of two triangles counts once
    degree = np.asarray(adjacency.sum(1))[:, 0]
    return (sparse.diags(degree) - adjacency).tocsr()


def harmonic_fill(laplacian: sparse.csr_matrix, values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Smoothest field [V,C] on the mesh that keeps `values` where `known` [V] (bool)."""
    if known.all() or not known.any():
        return values
    free = np.flatnonzero(~known)
    fixed = np.flatnonzero(known)
    system = laplacian[free][:, free] + sparse.identity(len(free)) * 1e-6
    mean = values[fixed].mean(0)
    right = -laplacian[free][:, fixed] @ values[fixed] + 1e-6 * mean
    out = values.astype(np.float64).copy()
    out[free] = spsolve(system.tocsc(), right).reshape(len(free), -1)
    return out


def sample_image(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Bilinear colours [N,C] of image [H,W,C] at pixel positions [N,2] (centres at +0.5), edges clamped."""
    coordinates = [pixels[:, 1] - 0.5, pixels[:, 0] - 0.5]
    return np.stack(
        [ndimage.map_coordinates(image[..., c], coordinates, order=1, mode="nearest") for c in range(image.shape[2])],
        -1,
    )


def interior_colours(
    regions: dict[str, np.ndarray], light: float, depth_inside: np.ndarray, facing: np.ndarray,
    teeth: np.ndarray | None,
) -> np.ndarray:  # fmt: skip
    """Colours [V,3] of the mouth's inside; NaN elsewhere.

    light: mean luminance of the face; depth_inside [V]: metres behind the lips, where less light comes in; facing
    [V]: cosine between normals and the head's forward direction, which rounds the teeth; teeth [3]: their colour
    where the photo shows some.
    """
    colours = np.full((len(depth_inside), 3), np.nan)
    gain = float(np.clip(light / FAIR_FACE, 0.25, 1.25))
    for name, colour in INTERIOR_COLOURS.items():
        mask = regions[name]
        fade = np.exp(-np.clip(depth_inside[mask], 0, None) / 0.03)[:, None]
        own = np.array(colour) * gain
        shade = 0.25 + 0.75 * fade
        if name.startswith("teeth"):
            own = teeth if teeth is not None else own
            shade = shade * (0.5 + 0.5 * np.clip(facing[mask], 0, 1)[:, None])
        colours[mask] = own * shade
    return colours
