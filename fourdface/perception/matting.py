"""Person mattes: a small U-Net on the region round the person, then a guided filter at the picture's own resolution."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from fourdface.perception.geometry import landmark_box
from fourdface.perception.networks import MATTE_INPUT, MatteNet

REACH = (3.6, 2.6, 5.5)
"""Extent of the region in face sizes: to each side, up, and down from the face's centre."""
GUIDE_SIZE = 640
"""Longer side at which the guided filter's coefficients are found."""
GUIDE_RADIUS = 7
GUIDE_EPSILON = 1e-3
SHARPNESS = 2.0
"""Factor on the network's logits: it is less sure of clothes and hair than it is right about them."""
CONNECTED = 0.25
"""Alpha through which hair and limbs hang together with the face."""
FRINGE = 10
"""Pixels of the coarse matte kept round the person: loose hair."""
LARGEST_HOLE = 0.02
"""Enclosed holes under this share of the person are closed; larger ones are gaps between arm and body."""
EDGE_LOW, EDGE_HIGH = 0.06, 0.94
"""Alphas beyond these become 0 and 1."""


def matte_region(box: npt.NDArray[np.float32], width: int, height: int) -> tuple[int, int, int, int]:
    """Pixel rectangle (x0, y0, x1, y1) that can hold the person whose face is in `box`, cut at the picture."""
    x, y = (box[:2] + box[2:]) / 2
    size = float((box[2:] - box[:2]).max())
    x0 = int(np.clip(x - REACH[0] * size, 0, width - 1))
    x1 = int(np.clip(np.ceil(x + REACH[0] * size), x0 + 1, width))
    y0 = int(np.clip(y - REACH[1] * size, 0, height - 1))
    y1 = int(np.clip(np.ceil(y + REACH[2] * size), y0 + 1, height))
    return x0, y0, x1, y1


def face_map(box: Tensor, height: int, width: int) -> Tensor:
    """Soft ellipse [B,1,height,width] at face boxes [B,4] (x0, y0, x1, y1 in its pixels): whose matte is wanted."""
    centre, half = (box[:, :2] + box[:, 2:]) / 2, ((box[:, 2:] - box[:, :2]) / 2).clamp_min(0.5)
    y = (torch.arange(height) + 0.5)[None, :, None]
    x = (torch.arange(width) + 0.5)[None, None, :]
    u = (x - centre[:, 0, None, None]) / half[:, 0, None, None]
    v = (y - centre[:, 1, None, None]) / half[:, 1, None, None]
    return torch.exp(-(u.square() + v.square()))[:, None]


class MatteModel:
    """Runs a fused MatteNet; `__call__(image_u8, landmarks)` gives alpha [H,W]."""

    def __init__(self, network: MatteNet) -> None:
        self._network = network

    def __call__(self, image_u8: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """`image_u8` [H,W,3], `landmarks` [478,2] pixels -> float32 [H,W] in 0..1; 0 outside the person's region."""
        height, width = image_u8.shape[:2]
        box = landmark_box(landmarks)
        x0, y0, x1, y1 = matte_region(box, width, height)
        with torch.inference_mode():
            region = torch.from_numpy(np.array(image_u8[y0:y1, x0:x1], order="C")).permute(2, 0, 1)[None].float() / 255
            coarse = self._coarse(region, torch.from_numpy(box - np.array([x0, y0, x0, y0], dtype=np.float32)))
            refined = refine_alpha(region, coarse)
        alpha = np.zeros((height, width), dtype=np.float32)
        alpha[y0:y1, x0:x1] = refined[0, 0].numpy()
        return alpha

    def _coarse(self, region: Tensor, box: Tensor) -> Tensor:
        """Network alpha [1,1,256,256] of the region [1,3,h,w]."""
        size = (MATTE_INPUT, MATTE_INPUT)
        small = functional.interpolate(region, size=size, mode="bilinear", antialias=True, align_corners=False)
        height, width = region.shape[-2:]
        scale = torch.tensor([size[1] / width, size[0] / height] * 2)
        where = face_map((box * scale)[None], *size)
        both = torch.cat([small, where], dim=1).contiguous(memory_format=torch.channels_last)
        alpha = torch.sigmoid(self._network(both) * SHARPNESS)
        return torch.from_numpy(one_person(alpha[0, 0].numpy(), where[0, 0].numpy() > 0.5))[None, None]


def one_person(alpha: npt.NDArray[np.float32], face: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """`alpha` [h,w] without pieces that do not hang together with `face` [h,w], small enclosed holes closed."""
    solid = alpha > CONNECTED
    pieces, _ = ndimage.label(solid)
    touched = np.bincount(pieces[face & solid], minlength=2)
    if touched[1:].sum() == 0:
        return alpha
    person = pieces == 1 + int(touched[1:].argmax())
    near = ndimage.binary_dilation(person, iterations=FRINGE)
    inside = person & (alpha > 0.7)
    holes, count = ndimage.label(ndimage.binary_fill_holes(inside) & ~inside)
    areas = np.bincount(holes.ravel(), minlength=count + 1)
    small = np.flatnonzero(areas < LARGEST_HOLE * person.sum())
    closed = (holes > 0) & np.isin(holes, small)
    return np.where(closed, np.float32(1), np.where(near, alpha, np.float32(0))).astype(np.float32)


def refine_alpha(image: Tensor, coarse: Tensor) -> Tensor:
    """Alpha [1,1,h,w] at the resolution of `image` [1,3,h,w] from a coarse one, edges drawn to those of the picture.

    Fast guided filter (He and Sun 2015) with the colour picture as guide, where the coarse alpha is undecided.
    """
    height, width = image.shape[-2:]
    scale = min(1.0, GUIDE_SIZE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    small = (
        functional.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
        if scale < 1
        else image
    )
    guess = functional.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    slope, base = guided_coefficients(small, guess, GUIDE_RADIUS, GUIDE_EPSILON)
    both = functional.interpolate(
        torch.cat([slope, base], dim=1), size=(height, width), mode="bilinear", align_corners=False
    )
    filtered = (both[:, :3] * image).sum(dim=1, keepdim=True) + both[:, 3:]
    undecided = functional.max_pool2d(((guess > 0.03) & (guess < 0.97)).float(), 2 * GUIDE_RADIUS + 1, 1, GUIDE_RADIUS)
    share = functional.interpolate(
        functional.avg_pool2d(undecided, 3, 1, 1), size=(height, width), mode="bilinear", align_corners=False
    )
    plain = functional.interpolate(coarse, size=(height, width), mode="bilinear", align_corners=False)
    mixed = torch.lerp(plain, filtered, share)
    return ((mixed - EDGE_LOW) / (EDGE_HIGH - EDGE_LOW)).clamp(0, 1)


def guided_coefficients(guide: Tensor, target: Tensor, radius: int, epsilon: float) -> tuple[Tensor, Tensor]:
    """Slopes [1,3,h,w] and base [1,1,h,w] of target = slope . guide + base, locally (He et al. 2013, eq. 14-15)."""

    def mean(value: Tensor) -> Tensor:
        rows = functional.avg_pool2d(value, (1, 2 * radius + 1), 1, (0, radius), count_include_pad=False)
        return functional.avg_pool2d(rows, (2 * radius + 1, 1), 1, (radius, 0), count_include_pad=False)

    average, level = mean(guide), mean(target)
    pairs = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    products = mean(torch.cat([guide[:, i : i + 1] * guide[:, j : j + 1] for i, j in pairs], dim=1))
    xx, xy, xz, yy, yz, zz = (products[:, k] - average[:, i] * average[:, j] for k, (i, j) in enumerate(pairs))
    xx, yy, zz = xx + epsilon, yy + epsilon, zz + epsilon
    cross = mean(guide * target) - average * level
    a, b, c = cross[:, 0], cross[:, 1], cross[:, 2]
    # inverse of the symmetric 3x3 covariance by cofactors
    c00, c01, c02 = yy * zz - yz * yz, xz * yz - xy * zz, xy * yz - xz * yy
    c11, c12, c22 = xx * zz - xz * xz, xy * xz - xx * yz, xx * yy - xy * xy
    determinant = xx * c00 + xy * c01 + xz * c02
    slope = torch.stack([c00 * a + c01 * b + c02 * c, c01 * a + c11 * b + c12 * c, c02 * a + c12 * b + c22 * c], dim=1)
    slope = slope / determinant.clamp_min(1e-12)[:, None]
    base = level - (slope * average).sum(dim=1, keepdim=True)
    return mean(slope), mean(base)
