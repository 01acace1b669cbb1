"""Batches for the landmark network: labelled crops, balanced over sources and rare states, warped at random."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fourdface.perception.geometry import rotation_about_view
from fourdface.perception.networks import LANDMARK_INPUT
from perception.augment import chance, degrade, occlude, uniform
from perception.faceless import Faceless
from perception.label import CROP_SPAN
from perception.shards import FACE_COLUMNS, finished_shards, load_columns, mirror_permutation, mirrored_coefficients

MAX_TURN = math.radians(25)
MAX_SCALE = 0.15
MAX_SHIFT = 0.16  # of half the crop: 8 % of its side
FACELESS_SHARE = 0.14
MADE_SHARE = 0.25  # turned and rendered faces weigh much less than real pictures
SOURCE_POWER = 0.72  # a source of n faces is drawn in proportion to n^0.72, so that short clips and few portraits count


class LandmarkData:
    """All training crops in memory; `batch(n)` draws and warps."""

    def __init__(self, work: Path) -> None:
        self.shards = finished_shards(work)
        columns = load_columns(self.shards, FACE_COLUMNS)
        keep = ~columns["held_out"].astype(bool)
        self.crops = torch.from_numpy(columns["crops"][keep]).permute(0, 3, 1, 2).contiguous()
        self.landmarks = torch.from_numpy(columns["landmarks"][keep])
        self.coefficients = torch.from_numpy(columns["coefficients"][keep])
        self.rotation = torch.from_numpy(columns["rotation"][keep])
        self.weights = _weights(columns["source"][keep], columns["coefficients"][keep], columns["rotation"][keep])
        made = [s.name.startswith("turned") or not (s / "scenes.npy").exists() for s in self.shards]
        turned = torch.from_numpy(np.array(made)[columns["source"][keep]])
        self.weights = torch.where(turned, self.weights * MADE_SHARE, self.weights)
        frontal = np.abs(columns["rotation"][:, 0, 2]) < 0.2
        self.mirror = torch.from_numpy(mirror_permutation(columns["landmarks"][frontal]))
        self.faceless = Faceless(self.shards)
        self.mirror_coefficients = torch.from_numpy(mirrored_coefficients())

    def draw(self, count: int) -> Tensor:
        """Indices [count]."""
        return torch.multinomial(self.weights, count, replacement=True)

    def batch(self, count: int) -> dict[str, Tensor]:
        """image [B,3,128,128], landmarks [B,478,2], coefficients [B,52], rotation [B,3,3], face [B] (0: none)."""
        rows = self.draw(count)
        landmarks, coefficients, rotation = self.landmarks[rows], self.coefficients[rows], self.rotation[rows]
        image, landmarks, rotation, face = self._warp(rows, landmarks, rotation)
        flip = chance(count, 0.5)
        image[flip] = image[flip].flip(-1)
        landmarks[flip] = landmarks[flip][:, self.mirror] * torch.tensor([-1.0, 1.0])
        coefficients[flip] = coefficients[flip][:, self.mirror_coefficients]
        across = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
        rotation[flip] = across @ rotation[flip] @ across
        image = occlude(image, image.roll(1, 0))
        blank = chance(count, FACELESS_SHARE)
        if blank.any():
            image[blank], face[blank] = self.faceless.draw(int(blank.sum()), LANDMARK_INPUT), 0.0
        values = {"landmarks": landmarks, "coefficients": coefficients, "rotation": rotation, "face": face}
        return {"image": degrade(image), **values}

    def _warp(self, rows: Tensor, landmarks: Tensor, rotation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count = len(rows)
        wide = chance(count, 0.12)  # a few come from a poor first guess
        turn = uniform(count, -MAX_TURN, MAX_TURN) * torch.where(wide, 1.8, torch.rand(count))
        scale = (uniform(count, -MAX_SCALE, MAX_SCALE) * torch.where(wide, 1.6, 1.0)).exp()
        shift = uniform(count * 2, -MAX_SHIFT, MAX_SHIFT).view(count, 2) * torch.where(wide, 1.6, 1.0)[:, None]
        face = torch.ones(count)
        lost = chance(count, 0.05)  # crops that slid off the face or show a small part of it: presence 0
        near = chance(count, 0.02)
        scale = torch.where(near, uniform(count, 0.14, 0.36), scale)
        direction = uniform(count, 0, 2 * math.pi)
        off = torch.stack([direction.cos(), direction.sin()], 1) * uniform(count, 1.0, 1.5)[:, None]
        shift, face = torch.where(lost[:, None], off, shift), torch.where(lost | near, 0.0, face)
        stretch = uniform(count, -0.06, 0.06).exp()
        cosine, sine = torch.cos(turn) * scale, torch.sin(turn) * scale
        axes = torch.stack([torch.stack([cosine * stretch, -sine], 1), torch.stack([sine * stretch, cosine], 1)], 1)
        affine = torch.cat([axes, shift[:, :, None]], dim=2) / CROP_SPAN
        grid = functional.affine_grid(affine, [count, 3, LANDMARK_INPUT, LANDMARK_INPUT], align_corners=False)
        source = self.crops[rows].float()
        image = functional.grid_sample(source, grid, padding_mode="border", align_corners=False) / 255
        moved = torch.linalg.solve(axes, (landmarks - shift[:, None]).transpose(1, 2)).transpose(1, 2)
        turns = torch.from_numpy(np.stack([rotation_about_view(float(angle)).T for angle in turn]))
        return image, moved, turns @ rotation, face


def _weights(source: np.ndarray, coefficients: np.ndarray, rotation: np.ndarray) -> Tensor:
    counts = np.bincount(source)
    weights = counts[source] ** (SOURCE_POWER - 1.0)
    blink, jaw = coefficients[:, 8:10].max(axis=1), coefficients[:, 24]
    yaw = np.abs(np.arcsin(np.clip(rotation[:, 0, 2], -1, 1)))
    weights = weights * (1 + 2.5 * (blink > 0.4) + 1.5 * (jaw > 0.25) + 2.0 * (yaw > 0.5) + 2.0 * (yaw > 0.8))
    return torch.from_numpy(weights / weights.sum())
