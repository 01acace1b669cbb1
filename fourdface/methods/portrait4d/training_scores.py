"""What training looks at in people that were held out: novel views against two simple baselines, and pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fourdface.methods.portrait4d.network import Picture, Reconstructor
from fourdface.methods.portrait4d.training_data import PortraitViews
from fourdface.methods.portrait4d.training_lmdb import LmdbClips
from fourdface.methods.portrait4d.training_losses import truth_of

__all__ = ["held_out_batch", "novel_view_scores", "row_of_pictures", "yaw_of"]

NOVEL_YAW = (20.0, 40.0)
"""Degrees between the cameras of source and target that count as a view at 30 degrees."""
PEOPLE = 40
"""People that scores are taken of, at most."""


def held_out_batch(samples: PortraitViews | LmdbClips, count: int, device: torch.device) -> dict[str, Tensor]:
    """A sample of each of `count` people (fewer where there are no more), always the same."""
    return _stacked([samples[k] for k in samples.of_people(count)], device)


def yaw_of(label: Tensor) -> Tensor:
    """Degrees [B] by which cameras [B, 25] stand to the side of the front, + towards +x."""
    return torch.rad2deg(torch.atan2(label[..., 2], label[..., 10]))


@torch.no_grad()
def row_of_pictures(network: Reconstructor, batch: dict[str, Tensor], scale: float) -> Tensor:
    """Source, driver, result, truth and depth of each row of a batch, one after the other: [5 B, 3, S, S] in 0..1."""
    out = _rendered(network, batch, scale)
    size = batch["source"].shape[-1]
    mask, far = 1 - out.transmittance, out.ray_distance
    near = ((4.6 - far) / 1.0).clamp(0, 1) * mask
    depth = interpolate(near, size=(size, size), mode="bilinear").expand(-1, 3, -1, -1)
    columns = [
        batch["source"].float() / 255, batch["driver"].float() / 255, (out.picture.float() + 1) / 2,
        batch["targets"][:, 0].float() / 255, depth,
    ]  # fmt: skip
    return torch.stack(columns, 1).flatten(0, 1).clamp(0, 1).cpu()


@torch.no_grad()
def novel_view_scores(
    network: Reconstructor, samples: PortraitViews | LmdbClips, device: torch.device, scale: float,
    people: int = PEOPLE, read: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Of views some 30 degrees from the source's, of one moment: PSNR (dB) of the result, of the mean picture of all
    these targets, and of the source itself; and the rank correlation of depth with the truth inside the head.

    A network that is driven (`scale` 1) sees another moment of the person as its source. Clips have one camera: there
    it is another frame, seen from its own camera, and there is no depth. read: puts the motions into a batch.
    """
    from scipy.stats import spearmanr

    found: dict[str, list[float]] = {"psnr": [], "source": [], "depth": []}
    targets, results = [], []
    for sample in _scored(samples, people, scale):
        batch = _stacked([sample], device)
        batch = batch if read is None else read(batch)
        out = _rendered(network, batch, scale)
        truth = truth_of(batch, out.features.shape[-1])
        targets.append(truth.image[0].cpu())
        results.append(out.picture[0].float().clamp(-1, 1).cpu())
        found["psnr"].append(_psnr(results[-1], targets[-1]))
        found["source"].append(_psnr(batch["source"][0].float().cpu() / 127.5 - 1, targets[-1]))
        inside = (truth.distance[0] > 0) & (truth.opacity[0] > 0.9)
        if int(inside.sum()) > 10:
            rank = spearmanr(out.ray_distance[0][inside].cpu(), truth.distance[0][inside].cpu()).statistic
            found["depth"].append(float(rank))
    if not targets:
        return {}
    mean = torch.stack(targets).mean(0)
    scores = {name: float(np.mean(values)) for name, values in found.items() if values}
    return scores | {"mean-picture": float(np.mean([_psnr(mean, target) for target in targets]))}


def _scored(samples: PortraitViews | LmdbClips, people: int, scale: float) -> Iterator[dict[str, Tensor]]:
    if isinstance(samples, LmdbClips):
        yield from (samples[k] for k in samples.of_people(people))
        return
    for moments in list(samples.of_person.values())[:people]:
        sample = _novel_view(samples, moments, scale)
        if sample is not None:
            yield sample


def _novel_view(samples: PortraitViews, moments: Sequence[int], scale: float) -> dict[str, Tensor] | None:
    """Of the person's last moment: the pair of a near view and one that is most nearly 30 degrees from it."""
    moment = samples.moments[moments[-1]]
    best: tuple[float, int, int] | None = None
    for source in moment.near:
        views = samples.sample(moment, source, moment, source, moment.rows)
        apart = (yaw_of(views["labels"]) - yaw_of(views["driver_label"])).abs()
        for row, angle in zip(moment.rows, apart.tolist(), strict=True):
            if NOVEL_YAW[0] <= angle <= NOVEL_YAW[1] and (best is None or abs(angle - 30) < best[0]):
                best = (abs(angle - 30), source, row)
    if best is None:
        return None
    other = samples.moments[moments[0]] if scale else moment
    return samples.sample(other, other.near[0] if scale else best[1], moment, best[1], [best[2]])


def _rendered(network: Reconstructor, batch: dict[str, Tensor], scale: float) -> Picture:
    image = batch["source"].float() / 127.5 - 1
    return network(image, batch["source_motion"], batch["motion"], batch["labels"][:, 0], motion_scale=scale)


def _psnr(a: Tensor, b: Tensor) -> float:
    return 10 * math.log10(4 / max(float((a - b).square().mean()), 1e-8))


def _stacked(samples: Sequence[dict[str, Tensor]], device: torch.device) -> dict[str, Tensor]:
    return {name: torch.stack([sample[name] for sample in samples]).to(device) for name in samples[0]}
