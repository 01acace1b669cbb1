"""Losses of the landmark network and how it starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fourdface.perception import geometry
from fourdface.perception.networks import LandmarkNet, normalised_shape
from perception.landmark_data import LandmarkData

WING = 0.01  # crop units: errors below about 0.6 px of the 128-px crop are met linearly

# Pairs whose distance carries an expression: lids, lips, brow to lid, mouth corners.
PAIRS = (
    (159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373), (13, 14), (82, 87), (312, 317), (0, 17),
    (61, 291), (78, 308), (105, 159), (334, 386), (66, 158), (296, 385), (107, 336), (468, 33), (473, 263), (468, 159),
    (473, 386), (468, 145), (473, 374), (61, 2), (291, 2), (17, 152), (1, 0),
)  # fmt: skip


def landmark_weights() -> Tensor:
    """[478]: eyes, irises and lips count more than cheeks."""
    weights = torch.ones(geometry.LANDMARK_COUNT)
    for group, weight in (
        (geometry.BROW_LEFT + geometry.BROW_RIGHT, 1.5),
        (geometry.LIPS_OUTER + geometry.LIPS_INNER, 2.5),
        (geometry.EYE_LEFT + geometry.EYE_RIGHT, 3.0),
        (geometry.IRIS_LEFT + geometry.IRIS_RIGHT, 3.0),
        (geometry.LANDMARK68, 1.5),
    ):
        weights[list(group)] = torch.clamp(weights[list(group)], min=weight)
    return weights / weights.mean()


class LandmarkTask:
    """Network, data and loss of the landmark network for scripts/perception/train.py."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.data = LandmarkData(work)
        self.weights = landmark_weights()
        self.pairs = torch.tensor(PAIRS)
        self.network = LandmarkNet()

    def start(self) -> None:
        """Begin at the mean shape with the principal modes of warped labels as the basis."""
        with torch.no_grad():
            shapes = torch.cat([self.data.batch(64)["landmarks"] for _ in range(24)])
            flat = shapes.flatten(1)
            mean = flat.mean(0)
            _, scale, modes = torch.linalg.svd(flat - mean, full_matrices=False)
            count = min(LandmarkNet.CODE, len(scale))
            self.network.basis.bias.copy_(mean)
            self.network.basis.weight[:, :count] = (modes[:count] * (scale[:count] / len(flat) ** 0.5)[:, None]).T
            normal = normalised_shape(shapes).flatten(1)
            self.network.shape_mean.copy_(normal.mean(0))
            self.network.shape_scale.copy_(0.5 / normal.std(0).clamp_min(1e-3))

    def refresh(self) -> bool:
        """Reload the data when shards were added; True if so."""
        from perception.shards import finished_shards

        if finished_shards(self.work) == self.data.shards:
            return False
        self.data = LandmarkData(self.work)
        return True

    def batch(self, count: int) -> dict[str, Tensor]:
        """A training batch."""
        return self.data.batch(count)

    def loss(self, network: LandmarkNet, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Named terms; their sum is minimised."""
        out = network(batch["image"].contiguous(memory_format=torch.channels_last))
        face = batch["face"]
        present = face / face.sum().clamp_min(1)

        def shape_error(points: Tensor) -> Tensor:
            wing = torch.log1p((points - batch["landmarks"]).abs() / WING).sum(2)
            return ((wing * self.weights).mean(1) * present).sum()

        def spans(points: Tensor) -> Tensor:
            return points[:, self.pairs[:, 0]] - points[:, self.pairs[:, 1]]

        span = torch.log1p((spans(out["landmarks"]) - spans(batch["landmarks"])).abs() / WING).sum(2).mean(1)
        target = batch["coefficients"]
        guess = torch.sigmoid(out["coefficients"])
        shape = ((guess - target).abs() * (1 + 2 * target)).mean(
            1
        ) + 0.25 * functional.binary_cross_entropy_with_logits(out["coefficients"], target, reduction="none").mean(1)
        pose = (out["rotation"] - batch["rotation"]).square().sum((1, 2))
        presence = functional.binary_cross_entropy_with_logits(out["presence"], face)
        return {
            "coarse": 0.4 * shape_error(out["coarse"]),
            "fine": shape_error(out["landmarks"]),
            "span": 0.5 * (span * present).sum(),
            "coefficients": 12.0 * (shape * present).sum(),
            "pose": 3.0 * (pose.clamp_min(1e-8).sqrt() * present).sum(),
            "presence": 0.5 * presence,
        }

    def figures(self, network: LandmarkNet) -> dict[str, float]:
        """Held-out errors on nominal crops: landmarks over outer-eye distance, coefficients' mean absolute error."""
        from perception.label import CROP_SPAN
        from perception.shards import FACE_COLUMNS, load_columns

        if not hasattr(self, "_held"):
            columns = load_columns(self.data.shards, FACE_COLUMNS)
            rows = np.nonzero(columns["held_out"].astype(bool))[0]
            clip = np.array(["clip" in s.name for s in self.data.shards])[columns["source"][rows]]
            crops = torch.from_numpy(columns["crops"][rows]).permute(0, 3, 1, 2).float() / 255
            grid = functional.affine_grid(
                torch.tensor([[[1.0, 0, 0], [0, 1.0, 0]]]) / CROP_SPAN, [1, 3, 128, 128], align_corners=False
            )
            images = functional.grid_sample(crops, grid.expand(len(rows), -1, -1, -1), align_corners=False)
            self._held = (
                images,
                columns["landmarks"][rows],
                columns["coefficients"][rows],
                columns["rotation"][rows],
                clip,
            )
        images, landmarks, coefficients, rotation, clip = self._held
        network.eval()
        with torch.inference_mode():
            outs = [network(part.contiguous(memory_format=torch.channels_last)) for part in images.split(64)]
        network.train()
        points = torch.cat([o["landmarks"] for o in outs]).numpy()
        unit = np.linalg.norm(landmarks[:, 263] - landmarks[:, 33], axis=1)
        error = np.linalg.norm(points - landmarks, axis=2).mean(1) / unit
        guess = torch.sigmoid(torch.cat([o["coefficients"] for o in outs])).numpy()
        gap = np.abs(guess - coefficients).mean(1)
        turned = torch.cat([o["rotation"] for o in outs]).numpy().transpose(0, 2, 1) @ rotation
        degrees = np.degrees(np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1)))
        out = {}
        for name, rows in (("pictures", ~clip), ("clips", clip)):
            out[f"nme_{name}"] = float(error[rows].mean())
            out[f"mae_{name}"] = float(gap[rows].mean())
            out[f"degrees_{name}"] = float(degrees[rows].mean())
        return out
