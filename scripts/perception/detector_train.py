"""Training scenes and loss of the face detector: labelled pictures and cut-out persons pasted on other grounds."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fourdface.perception.networks import DETECTOR_INPUT, DETECTOR_STRIDE, DetectorNet
from perception.augment import chance, degrade, uniform
from perception.faceless import Faceless
from perception.shards import SCENE_COLUMNS, finished_shards, load_columns

LAYERS = 3
TURN = math.radians(50)


class DetectorData:
    """Scenes in memory; `batch(n)` composes."""

    def __init__(self, work: Path) -> None:
        self.shards = finished_shards(work)
        self.faceless = Faceless(self.shards)
        self.scenes, self.alpha, self.extent = self.faceless.scenes, self.faceless.alpha, self.faceless.extent
        self.landmarks, self.weights = self.faceless.landmarks, self.faceless.weights

    def batch(self, count: int) -> dict[str, Tensor]:
        """image [B,3,192,192] and targets: heat [B,24,24], box [B,4,24,24], weight [B,24,24]."""
        size = DETECTOR_INPUT
        canvas, boxes = self.faceless.draw(count, size), torch.zeros(count, 0, 4)
        kind = torch.rand(count)
        for layer in range(LAYERS):
            active = (kind < 0.88) if layer == 0 else (kind > 0.38) & (kind < 0.88) & chance(count, 0.55)
            whole = (kind < 0.4) if layer == 0 else torch.zeros(count, dtype=torch.bool)
            image, alpha, box = self._layer(count, whole)
            if boxes.shape[1]:
                active &= _overlap(box[:, 0], boxes).amax(1) < 0.15
            alpha = alpha * active[:, None, None, None]
            canvas = canvas * (1 - alpha) + image * alpha
            boxes = torch.cat([boxes, torch.where(active[:, None, None], box, torch.nan)], dim=1)
        flip = chance(count, 0.5)
        canvas[flip] = canvas[flip].flip(-1)
        mirrored = torch.stack([size - boxes[..., 2], boxes[..., 1], size - boxes[..., 0], boxes[..., 3]], dim=2)
        boxes = torch.where(flip[:, None, None], mirrored, boxes)
        return {"image": degrade(canvas, styled=0.2), **targets(boxes, size // DETECTOR_STRIDE)}

    def _layer(self, count: int, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One labelled picture per row placed at random: image, alpha (whole picture or the person), boxes [B,4,4]."""
        size, side = DETECTOR_INPUT, self.scenes.shape[-1]
        rows = torch.multinomial(self.weights, count, replacement=True)
        points = self.landmarks[rows]
        first = points[:, 0]
        low, high = first.amin(1), first.amax(1)
        wanted = (uniform(count, math.log(11), math.log(165))).exp()
        scale = wanted / (high - low).amax(1)
        turn = uniform(count, -1, 1).pow(3) * TURN
        stretch = uniform(count, -0.25, 0.25).exp()
        room = (size - wanted * 0.7).clamp_min(1)
        place = torch.rand(count, 2) * room[:, None] + (wanted * 0.35)[:, None]
        cosine, sine = torch.cos(turn), torch.sin(turn)
        axes = (
            torch.stack([torch.stack([cosine * stretch, -sine], 1), torch.stack([sine * stretch, cosine], 1)], 1)
            * scale[:, None, None]
        )
        offset = place - (axes @ ((low + high) / 2)[:, :, None])[:, :, 0]  # scene pixels -> canvas pixels
        moved = torch.einsum("bij,bfpj->bfpi", axes, points) + offset[:, None, None]
        back = torch.linalg.inv(axes)
        to_scene = back * (size / side)
        centre = (back @ (size / 2 - offset)[:, :, None])[:, :, 0] / (side / 2) - 1
        affine = torch.cat([to_scene, centre[:, :, None]], dim=2)
        inside = torch.arange(side)[None, :] < self.extent[rows][:, :1]
        valid = inside[:, None, None, :] & (torch.arange(side)[None, :] < self.extent[rows][:, 1:])[:, None, :, None]
        mask = (
            torch.where(whole[:, None, None, None], torch.full((1,), 255, dtype=torch.uint8), self.alpha[rows]) * valid
        )
        stack = torch.cat([self.scenes[rows], mask], dim=1).float() / 255
        sampled = torch.empty(count, 4, size, size)
        shrink = (1 / scale).clamp_min(1)
        for level, low_shrink, high_shrink in ((1, 0.0, 1.7), (2, 1.7, 3.4), (4, 3.4, 1e9)):
            use = (shrink >= low_shrink) & (shrink < high_shrink)
            if use.any():
                part = stack[use] if level == 1 else functional.avg_pool2d(stack[use], level)
                sampled[use] = _sample(part, affine[use], size, "zeros")
        alpha = sampled[:, 3:]
        image = sampled[:, :3] / torch.where(whole[:, None, None, None], alpha.clamp_min(1e-3), 1.0)
        return image.clamp(0, 1), alpha, torch.cat([moved.amin(2), moved.amax(2)], dim=2)


def _similarity(turn: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    cosine, sine = torch.cos(turn) * scale, torch.sin(turn) * scale
    return torch.stack([torch.stack([cosine, -sine, shift[:, 0]], 1), torch.stack([sine, cosine, shift[:, 1]], 1)], 1)


def _sample(image: Tensor, affine: Tensor, size: int, padding: str) -> Tensor:
    grid = functional.affine_grid(affine, [len(image), image.shape[1], size, size], align_corners=False)
    return functional.grid_sample(image, grid, padding_mode=padding, align_corners=False)


def _overlap(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over the smaller area of `box` [B,4] and `others` [B,K,4]; 0 for NaN."""
    low = torch.maximum(box[:, None, :2], others[..., :2])
    high = torch.minimum(box[:, None, 2:], others[..., 2:])
    common = (high - low).clamp_min(0).prod(2)
    area = torch.minimum((box[:, 2:] - box[:, :2]).prod(1)[:, None], (others[..., 2:] - others[..., :2]).prod(2))
    return torch.nan_to_num(common / area, nan=0.0)


def targets(boxes: Tensor, cells: int) -> dict[str, Tensor]:
    """Boxes [B,K,4] pixels (NaN: none) -> heat [B,n,n] (1 at centres), box [B,4,n,n], weight [B,n,n] of the boxes."""
    unit = boxes / DETECTOR_STRIDE
    centre, extent = (unit[..., :2] + unit[..., 2:]) / 2, (unit[..., 2:] - unit[..., :2]).clamp_min(0.3)
    valid = ~torch.isnan(unit[..., 0]) & (centre > 0).all(2) & (centre < cells).all(2)
    place = torch.arange(cells) + 0.5
    x, y = place[None, None, None, :], place[None, None, :, None]
    dx, dy = torch.broadcast_tensors(centre[..., 0, None, None] - x, centre[..., 1, None, None] - y)
    sigma = (extent.amax(2) * 0.11).clamp_min(0.45)[..., None, None]
    heat = torch.exp(-(dx.square() + dy.square()) / (2 * sigma.square()))
    heat = torch.where(valid[..., None, None], heat, torch.zeros(()))
    best, owner = heat.max(dim=1)
    exact = ((dx.abs() <= 0.5) & (dy.abs() <= 0.5) & valid[..., None, None]).any(1)
    values = torch.stack([dx, dy, *(extent.log()[..., i, None, None].expand_as(dx) for i in range(2))], dim=2)
    box = values.gather(1, owner[:, None, None].expand(-1, 1, 4, -1, -1))[:, 0]
    return {
        "heat": torch.where(exact, torch.ones(()), best),
        "box": torch.nan_to_num(box),
        "weight": best * (best > 0.4),
    }


class DetectorTask:
    """Network, data and loss of the face detector for scripts/perception/train.py."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.data = DetectorData(work)
        self.network = DetectorNet()

    def start(self) -> None:
        """Faces are rare: begin with a low score everywhere."""
        with torch.no_grad():
            self.network.head[1].bias[0] = -4.0

    def refresh(self) -> bool:
        """Reload the data when shards were added; True if so."""
        if finished_shards(self.work) == self.data.shards:
            return False
        self.data = DetectorData(self.work)
        return True

    def batch(self, count: int) -> dict[str, Tensor]:
        """A training batch."""
        return self.data.batch(count)

    def loss(self, network: DetectorNet, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Focal loss of the centres (penalty reduced near them) and L1 of the boxes."""
        out = network(batch["image"].contiguous(memory_format=torch.channels_last))
        logit, heat = out[:, 0], batch["heat"]
        score = torch.sigmoid(logit).clamp(1e-5, 1 - 1e-5)
        exact = heat >= 0.999
        positive = -torch.log(score) * (1 - score).square()
        negative = -torch.log(1 - score) * score.square() * (1 - heat).pow(4)
        faces = exact.sum().clamp_min(1)
        focal = torch.where(exact, positive, negative).sum() / faces
        gap = (out[:, 1:] - batch["box"]).abs().sum(1)
        box = (gap * batch["weight"]).sum() / batch["weight"].sum().clamp_min(1)
        return {"centres": focal, "box": 0.5 * box}

    def figures(self, network: DetectorNet) -> dict[str, float]:
        """On held-out scenes squeezed to 192x192: share found with box IoU over 0.5 at score 0.35, mean IoU."""
        columns = load_columns(self.data.shards, SCENE_COLUMNS)
        keep = columns["scene_held_out"].astype(bool) & ~np.isnan(columns["scene_landmarks"][:, 0, 0, 0])
        scenes = torch.from_numpy(columns["scenes"][keep]).permute(0, 3, 1, 2).float() / 255
        image = functional.interpolate(scenes, size=(192, 192), mode="bilinear", antialias=True)
        points = columns["scene_landmarks"][keep][:, 0] * (192 / scenes.shape[-1])
        truth = np.concatenate([points.min(1), points.max(1)], axis=1)
        network.eval()
        with torch.inference_mode():
            out = torch.cat([network(part.contiguous(memory_format=torch.channels_last)) for part in image.split(64)])
        network.train()
        cells = out.shape[-1]
        score, where = torch.sigmoid(out[:, 0]).flatten(1).max(1)
        values = out[:, 1:].flatten(2).gather(2, where[:, None, None].expand(-1, 4, 1))[..., 0]
        centre = torch.stack([where % cells, where // cells], 1) + 0.5 + values[:, :2]
        half = values[:, 2:].exp() / 2
        boxes = (torch.cat([centre - half, centre + half], 1) * DETECTOR_STRIDE).numpy()
        common = np.clip(np.minimum(boxes[:, 2:], truth[:, 2:]) - np.maximum(boxes[:, :2], truth[:, :2]), 0, None).prod(
            1
        )
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1)
        iou = common / (areas - common)
        empty = self.data.faceless.draw(128, DETECTOR_INPUT)
        network.eval()
        with torch.inference_mode():
            false = torch.sigmoid(network(empty)[:, 0]).flatten(1).max(1).values
        network.train()
        return {
            "found": float(((iou > 0.5) & (score.numpy() > 0.35)).mean()), "iou": float(iou.mean()),
            "score_p01": float(score.quantile(0.01)), "false": float((false > 0.35).float().mean()),
        }  # fmt: skip
