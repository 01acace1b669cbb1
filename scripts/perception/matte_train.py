"""Training pictures and loss of the matte network: the teacher's mattes, exact mattes of cut-out masks, new grounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fourdface.perception.matting import face_map
from fourdface.perception.networks import MATTE_INPUT, MatteNet
from perception.augment import chance, degrade, uniform, without_person
from perception.faceless import faceless_pictures, textures
from perception.shards import SCENE_COLUMNS, finished_shards, load_columns


def load_masked(folders: list[Path], size: int) -> tuple[Tensor, Tensor]:
    """Pictures [n,3,size,size] and masks [n,1,size,size] uint8 of folders with images/ and fg_masks/ (letterboxed)."""
    from PIL import Image

    pictures, masks = [], []
    for folder in folders:
        for path in sorted((folder / "images").iterdir()):
            mask = folder / "fg_masks" / f"{path.stem}.png"
            if not mask.exists():
                continue
            pair = []
            for file, mode in ((path, "RGB"), (mask, "L")):
                picture = Image.open(file).convert(mode)
                picture.thumbnail((size, size), Image.Resampling.BOX)
                array = np.zeros((size, size, 3) if mode == "RGB" else (size, size), np.uint8)
                array[: picture.height, : picture.width] = np.asarray(picture)
                pair.append(torch.from_numpy(array))
            pictures.append(pair[0].permute(2, 0, 1))
            masks.append(pair[1][None])
    return torch.stack(pictures), torch.stack(masks)


class MatteData:
    """Scenes and their mattes in memory; `batch(n)` crops, warps and changes grounds."""

    def __init__(self, work: Path, masks: list[Path]) -> None:
        self.shards = finished_shards(work)
        columns = load_columns(self.shards, SCENE_COLUMNS)
        exact = tuple(f"pictures_{m.name}-" for m in masks)
        masked = np.array([s.name.startswith(exact) for s in self.shards], dtype=bool)
        empty = np.array(["synthetic_360" in s.name or s.name.startswith("turned") for s in self.shards], dtype=bool)
        seen = ~np.isnan(columns["scene_landmarks"][:, 0, 0, 0])
        keep = seen & ~columns["scene_held_out"].astype(bool) & ~empty[columns["source"]] & ~masked[columns["source"]]
        self.scenes = torch.from_numpy(columns["scenes"][keep]).permute(0, 3, 1, 2)
        self.alpha = torch.from_numpy(columns["alpha"][keep])[:, None]
        self.extent = torch.from_numpy(columns["extent"][keep]).float()
        self.landmarks = torch.from_numpy(columns["scene_landmarks"][keep][:, 0])
        sources = columns["source"][keep]
        if masks:  # exact masks replace the teacher's where there are any
            use = masked[columns["source"]] & seen & ~columns["scene_held_out"].astype(bool)
            pictures, alpha = load_masked(masks, self.scenes.shape[-1])
            everywhere = masked[columns["source"]]
            self.scenes = torch.cat([self.scenes, pictures[seen[everywhere]]])
            self.alpha = torch.cat([self.alpha, alpha[seen[everywhere]]])
            self.extent = torch.cat([self.extent, torch.from_numpy(columns["extent"][use]).float()])
            self.landmarks = torch.cat([self.landmarks, torch.from_numpy(columns["scene_landmarks"][use][:, 0])])
            sources = np.concatenate([sources, columns["source"][use]])
        counts = np.bincount(sources, minlength=len(self.shards))
        self.weights = torch.from_numpy(counts[sources] ** -0.4)
        self.exact = torch.from_numpy(masked[sources])
        self.faceless = faceless_pictures(self.scenes.shape[-1])

    def batch(self, count: int) -> dict[str, Tensor]:
        """image [B,4,256,256] (RGB, face map) and alpha [B,1,256,256]."""
        size = MATTE_INPUT
        rows = torch.multinomial(self.weights, count, replacement=True)
        stack = torch.cat([self.scenes[rows], self.alpha[rows]], dim=1).float() / 255
        grid, box = self._view(rows, count)
        view = functional.grid_sample(stack, grid, padding_mode="border", align_corners=False)
        image, alpha = view[:, :3], view[:, 3:]
        flip = chance(count, 0.5)
        image[flip], alpha[flip] = image[flip].flip(-1), alpha[flip].flip(-1)
        box[flip] = torch.stack([size - box[flip, 2], box[flip, 1], size - box[flip, 0], box[flip, 3]], dim=1)
        swap = chance(count, 0.5) | self.exact[rows] & chance(count, 0.8)
        if swap.any():
            image[swap] = self._other_ground(image[swap], alpha[swap])
        where = face_map(box * uniform(count, -0.06, 0.06).exp()[:, None], size, size)
        return {"image": torch.cat([degrade(image, styled=0.1), where], dim=1), "alpha": alpha}

    def _view(self, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Random crop of the scene that holds the face, stretched to a square: sampling grid and face box."""
        size, side = MATTE_INPUT, self.scenes.shape[-1]
        points, extent = self.landmarks[rows], self.extent[rows]
        low, high = points.amin(1), points.amax(1)
        face = (high - low).amax(1, keepdim=True)
        room_low, room_high = low - 0.25 * face, extent - high - 0.25 * face
        tight = torch.rand(count, 2, 2).pow(2) * chance(count, 0.7)[:, None, None]
        first = (room_low.clamp_min(0) * tight[:, 0]).clamp_min(0)
        last = extent - room_high.clamp_min(0) * tight[:, 1]
        centre, half = (first + last) / 2, (last - first) / 2
        turn = uniform(count, -1, 1).pow(3) * math.radians(35)
        cosine, sine = torch.cos(turn), torch.sin(turn)
        axes = torch.stack(
            [
                torch.stack([cosine * half[:, 0], -sine * half[:, 1]], 1),
                torch.stack([sine * half[:, 0], cosine * half[:, 1]], 1),
            ],
            1,
        )
        affine = torch.cat([axes / (side / 2), (centre / (side / 2) - 1)[:, :, None]], dim=2)
        grid = functional.affine_grid(affine, [count, 4, size, size], align_corners=False)
        limit = (extent - 1)[:, None, None] / (side / 2) - 1  # repeat the picture's edge, not the empty margin
        grid = torch.minimum(grid, limit)
        moved = torch.linalg.solve(axes, (points - centre[:, None]).transpose(1, 2)).transpose(1, 2)
        pixels = (moved + 1) * (size / 2)
        return grid, torch.cat([pixels.amin(1), pixels.amax(1)], dim=1)

    def _other_ground(self, image: Tensor, alpha: Tensor) -> Tensor:
        count, size = len(image), MATTE_INPUT
        ground = textures(count, size)
        kind = torch.rand(count)
        rows = torch.multinomial(self.weights, count, replacement=True)
        scenes = functional.interpolate(
            self.scenes[rows].float() / 255, size=(160, 160), mode="bilinear", antialias=True
        )
        mattes = functional.interpolate(
            self.alpha[rows].float() / 255, size=(160, 160), mode="bilinear", antialias=True
        )
        empty = functional.interpolate(without_person(scenes, mattes), size=(size, size), mode="bilinear")
        ground[kind < 0.45] = empty[kind < 0.45]
        photos = self.faceless[torch.randint(len(self.faceless), (count,))][:, :, 32:288, 32:288].float() / 255
        use = (kind > 0.45) & (kind < 0.7)
        ground[use] = photos[use]
        plain = kind > 0.85
        ground[plain] = torch.rand(count, 3, 1, 1)[plain].expand(-1, -1, size, size)
        # the fringe of a soft matte carries the old ground's colour: replace it by colour from inside
        solid = (alpha > 0.95).float()
        inner = functional.avg_pool2d(image * solid, 9, 1, 4) / functional.avg_pool2d(solid, 9, 1, 4).clamp_min(1e-3)
        near = functional.max_pool2d(solid, 9, 1, 4)
        person = torch.where(alpha > 0.95, image, torch.where(near > 0, inner, image))
        return person * alpha + ground * (1 - alpha)


class MatteTask:
    """Network, data and loss of the matte network for scripts/perception/train.py."""

    def __init__(self, work: Path, masks: list[Path]) -> None:
        self.work, self.masks = work, masks
        self.data = MatteData(work, masks)
        self.network = MatteNet()

    def start(self) -> None:
        """Nothing to prepare."""

    def refresh(self) -> bool:
        """The matte needs no later data."""
        return False

    def batch(self, count: int) -> dict[str, Tensor]:
        """A training batch."""
        return self.data.batch(count)

    def loss(self, network: MatteNet, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy, L1 of alpha, L1 of its gradients."""
        logit = network(batch["image"].contiguous(memory_format=torch.channels_last))
        alpha = batch["alpha"]
        guess = torch.sigmoid(logit)
        edge = (functional.max_pool2d(alpha, 9, 1, 4) + functional.max_pool2d(-alpha, 9, 1, 4) > 0.3).float()
        cross = functional.binary_cross_entropy_with_logits(logit, alpha, weight=1 + 2 * edge)
        across = (guess.diff(dim=3) - alpha.diff(dim=3)).abs().mean() + (
            guess.diff(dim=2) - alpha.diff(dim=2)
        ).abs().mean()
        return {"cross": cross, "flat": (guess - alpha).abs().mean(), "edges": 2 * across}

    def figures(self, network: MatteNet) -> dict[str, float]:
        """Held-out scenes with a face, stretched to 256x256: mean IoU at alpha 0.5, mean absolute difference."""
        columns = load_columns(self.data.shards, SCENE_COLUMNS)
        studio = np.array(["studio" in s.name for s in self.data.shards])[columns["source"]]
        keep = columns["scene_held_out"].astype(bool) & ~np.isnan(columns["scene_landmarks"][:, 0, 0, 0]) & ~studio
        network.eval()
        overlaps, gaps = [], []
        for index in np.nonzero(keep)[0]:
            width, height = columns["extent"][index]
            scene = torch.from_numpy(columns["scenes"][index][:height, :width]).permute(2, 0, 1)[None].float() / 255
            truth = torch.from_numpy(columns["alpha"][index][:height, :width])[None, None].float() / 255
            size = (MATTE_INPUT, MATTE_INPUT)
            both = functional.interpolate(torch.cat([scene, truth], 1), size=size, mode="bilinear", antialias=True)
            points = columns["scene_landmarks"][index][0] * [MATTE_INPUT / width, MATTE_INPUT / height]
            box = torch.from_numpy(np.concatenate([points.min(0), points.max(0)]).astype(np.float32))[None]
            with torch.inference_mode():
                guess = torch.sigmoid(network(torch.cat([both[:, :3], face_map(box, *size)], 1)))
            a, b = guess > 0.5, both[:, 3:] > 0.5
            overlaps.append(float((a & b).sum() / (a | b).sum().clamp_min(1)))
            gaps.append(float((guess - both[:, 3:]).abs().mean()))
        network.train()
        return {
            "iou": float(np.mean(overlaps)),
            "iou_p05": float(np.quantile(overlaps, 0.05)),
            "gap": float(np.mean(gaps)),
        }
