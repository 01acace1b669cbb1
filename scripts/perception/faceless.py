"""Pictures without a face: textures, photos of things, shuffled tiles, grounds and bodies of labelled pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from perception.augment import chance, uniform, without_person
from perception.shards import SCENE_COLUMNS, load_columns

# Pictures without a face that scikit-image ships inside its wheel.
PICTURES = (
    "chelsea", "coffee", "brick", "grass", "gravel", "coins", "moon", "page", "text", "clock", "horse", "rocket",
    "cell", "hubble_deep_field", "colorwheel", "binary_blobs",
)  # fmt: skip

PICTURE_SIZE = 640


def faceless_pictures(size: int) -> Tensor:
    """[n,3,size,size] uint8 of those pictures that load without a download."""
    import skimage.data
    from PIL import Image

    out = []
    for name in PICTURES:
        try:
            picture = np.asarray(getattr(skimage.data, name)())
        except Exception:  # not in the wheel and no network: any error of its downloader
            continue
        if picture.dtype == bool:
            picture = picture.astype(np.uint8) * 255
        rgb = Image.fromarray(picture.astype(np.uint8)).convert("RGB").resize((size, size))
        out.append(torch.from_numpy(np.array(rgb)).permute(2, 0, 1))
    return torch.stack(out)


class Faceless:
    """Draws pictures without a face out of labelled shards and photos of things."""

    def __init__(self, shards: list[Path]) -> None:
        columns = load_columns(shards, SCENE_COLUMNS)
        seen = ~np.isnan(columns["scene_landmarks"][:, 0, 0, 0])
        keep = seen & ~columns["scene_held_out"].astype(bool)
        self.scenes = torch.from_numpy(columns["scenes"][keep]).permute(0, 3, 1, 2)
        self.alpha = torch.from_numpy(columns["alpha"][keep])[:, None]
        self.extent = torch.from_numpy(columns["extent"][keep]).float()
        points = torch.from_numpy(columns["scene_landmarks"][keep])
        self.landmarks = points
        self.boxes = torch.cat([points.amin(2), points.amax(2)], dim=2)  # [n,4,4], NaN where no face
        counts = np.bincount(columns["source"][keep])
        self.weights = torch.from_numpy(counts[columns["source"][keep]] ** -0.35)
        self.pictures = faceless_pictures(PICTURE_SIZE)

    def draw(self, count: int, size: int) -> Tensor:
        """[count,3,size,size] in 0..1."""
        out = textures(count, size)
        kind = torch.rand(count)
        for low, high, make in (
            (0.15, 0.4, self.photos),
            (0.4, 0.55, self.shuffled),
            (0.55, 0.7, self.empty),
            (0.7, 1.0, self.beside),
        ):
            rows = (kind >= low) & (kind < high)
            if rows.any():
                out[rows] = make(int(rows.sum()), size)
        return out

    def photos(self, count: int, size: int) -> Tensor:
        """Turned and scaled photos of things and animals."""
        rows = torch.randint(len(self.pictures), (count,))
        turn, scale = uniform(count, -math.pi, math.pi), uniform(count, math.log(0.12), math.log(1.1)).exp()
        shift = uniform(2 * count, -0.5, 0.5).view(count, 2)
        return _look(self.pictures[rows], turn, scale[:, None].expand(-1, 2), shift, size)

    def shuffled(self, count: int, size: int) -> Tensor:
        """Labelled pictures cut into tiles and shuffled: skin, hair and eyes, but no face."""
        rows = torch.multinomial(self.weights, count, replacement=True)
        small = functional.interpolate(
            self.scenes[rows].float() / 255, size=(192, 192), mode="bilinear", antialias=True
        )
        side = 24 if torch.rand(1) < 0.5 else 32
        tiles = functional.unfold(small, side, stride=side)
        mixed = functional.fold(tiles[:, :, torch.randperm(tiles.shape[2])], (192, 192), side, stride=side)
        return functional.interpolate(mixed, size=(size, size), mode="bilinear")

    def empty(self, count: int, size: int) -> Tensor:
        """Labelled pictures with the person filled in from the surroundings."""
        rows = torch.multinomial(self.weights, count, replacement=True)
        scenes = functional.interpolate(
            self.scenes[rows].float() / 255, size=(160, 160), mode="bilinear", antialias=True
        )
        alpha = functional.interpolate(self.alpha[rows].float() / 255, size=(160, 160), mode="bilinear", antialias=True)
        return functional.interpolate(without_person(scenes, alpha), size=(size, size), mode="bilinear")

    def beside(self, count: int, size: int) -> Tensor:
        """Squares of labelled pictures that hold clothes, hair, hands or ground and little of a face."""
        side = self.scenes.shape[-1]
        out = torch.empty(count, 3, size, size)
        rows = torch.multinomial(self.weights, count, replacement=True)
        for index, row in enumerate(rows.tolist()):
            extent = self.extent[row]
            for _ in range(8):
                half = float(torch.empty(1).uniform_(14, 70))
                centre = torch.rand(2) * extent
                if float(_share(self.boxes[row], centre, half)) < 0.12:
                    break
            else:
                out[index] = textures(1, size)[0]
                continue
            turn, scale = uniform(1, -0.6, 0.6), torch.full((1, 2), half * 2 / side)
            out[index] = _look(self.scenes[row : row + 1], turn, scale, centre[None] * 2 / side - 1, size)[0]
        return out


def _share(boxes: Tensor, centre: Tensor, half: float) -> Tensor:
    """Largest intersection of faces [4,4] with a square, over the smaller of the two areas."""
    low = torch.maximum(boxes[:, :2], centre - half)
    high = torch.minimum(boxes[:, 2:], centre + half)
    common = (high - low).clamp_min(0).prod(1)
    return torch.nan_to_num(
        common / torch.clamp((boxes[:, 2:] - boxes[:, :2]).prod(1), max=4 * half * half), nan=0.0
    ).max()


def _look(pictures: Tensor, turn: Tensor, scale: Tensor, shift: Tensor, size: int) -> Tensor:
    """Turned, scaled [n,2] and shifted [n,2] views (in half sides) of uint8 pictures."""
    cosine, sine = torch.cos(turn), torch.sin(turn)
    axes = torch.stack([torch.stack([cosine, -sine], 1), torch.stack([sine, cosine], 1)], 1) * scale[:, None]
    affine = torch.cat([axes, shift[:, :, None]], dim=2)
    grid = functional.affine_grid(affine, [len(pictures), 3, size, size], align_corners=False)
    return functional.grid_sample(pictures.float() / 255, grid, padding_mode="reflection", align_corners=False)


def textures(count: int, size: int) -> Tensor:
    """Faceless pictures [count,3,size,size]: smooth noise of several scales, ramps, stripes and blobs of colour."""
    out = torch.rand(count, 3, 1, 1).expand(count, 3, size, size).clone()
    for cells in (2, 4, 8, 16, 32):
        strength = uniform(count, 0, 0.3) * chance(count, 0.6)
        noise = torch.randn(count, 3, cells, cells) * strength[:, None, None, None]
        mono = chance(count, 0.5)[:, None, None, None]
        noise = torch.where(mono, noise[:, :1].expand_as(noise), noise)
        out = out + functional.interpolate(noise, size=(size, size), mode="bilinear" if cells < 32 else "nearest")
    angle, pitch = uniform(count, 0, math.pi), uniform(count, 2, 40)
    y = torch.linspace(-1, 1, size)[None, :, None]
    x = torch.linspace(-1, 1, size)[None, None, :]
    phase = (x * torch.cos(angle)[:, None, None] + y * torch.sin(angle)[:, None, None]) * pitch[:, None, None]
    stripes = torch.sin(phase).sign() * (uniform(count, 0, 0.3) * chance(count, 0.3))[:, None, None]
    return (out + stripes[:, None]).clamp(0, 1)
