"""Score trained Portrait4D weights on `views` of people never trained on: numbers of docs/methods/portrait4d.md.

Usage: python scripts/score_portrait4d.py VIEWS NAME=WEIGHTS... [--judges DIR] [--people 20] [--static NAME,..] [-o CSV]

Static (Psi_3d, cross attention off): PSNR of views 30 degrees from the source's, beside the mean picture and the source
itself; rank correlation of depth. Driven: the source is another moment of the person (self) or another person (cross,
seen as the source is), and
  lpips_h  perceptual distance (embedded landmark network) of the head, self
  psnr     dB, self
  id       cosine between the result and the source (identity judge), cross; id_driver: and the driver
  cons     mean cosine between results of one source under different drivers, cross (v2 table 3)
  apd      mean absolute difference of yaw, pitch and roll from the camera's, degrees (pose judge), self
  jaw, blink, smile  correlation of what the coefficient judge reads in driver and result, cross; jaw_true, ...: of the
           driver's true coefficients with what it reads in the result
--judges DIR holds the networks of configs/eval/judges.yaml; without it the judged columns stay empty.
"""

from __future__ import annotations

import argparse
import csv
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fourdface.blocks.arkit import ARKIT_INDEX
from fourdface.media.resize import resize
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.methods.portrait4d.training_config import DataConfig
from fourdface.methods.portrait4d.training_data import PortraitViews, view_files
from fourdface.methods.portrait4d.training_losses import truth_of
from fourdface.methods.portrait4d.training_scores import novel_view_scores
from fourdface.methods.portrait4d.weights import load_reconstructor
from fourdface.metrics.judges import JudgeSet, load_judges
from fourdface.metrics.picture import Picture
from fourdface.perception.features import FaceFeatures, load_face_features

JUDGED_SIDE = 256
"""Pictures are enlarged to so many pixels for the judges."""
DRIVERS = 5
TRAITS = {
    "jaw": ("jawOpen",),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
}


def picture_of(image_pm1: Tensor, judges: JudgeSet | None) -> Picture:
    """A picture [3, S, S] in -1..1 as the judges see it."""
    image = ((image_pm1.float().permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return Picture(np.ascontiguousarray(resize(image, JUDGED_SIDE, JUDGED_SIDE)), judges)


def trait(coefficients: np.ndarray, name: str) -> float:
    """The mean of a trait's coefficients."""
    return float(np.mean([coefficients[ARKIT_INDEX[key]] for key in TRAITS[name]]))


def row(samples: PortraitViews, source: int, driver: int) -> dict[str, Tensor]:
    """Source: the first moment's first view; driver and target: another moment's first and last view."""
    other, moment = samples.moments[source], samples.moments[driver]
    sample = samples.sample(other, other.near[0], moment, moment.near[0], [moment.near[-1]])
    return {name: value[None] for name, value in sample.items()}


def _pm1(image_u8: Tensor) -> Tensor:
    return image_u8[0].float() / 127.5 - 1


@torch.inference_mode()
def driven(network: Reconstructor, batch: dict[str, Tensor], label: Tensor) -> Tensor:
    """The result [3, S, S] from a camera [1, 25]."""
    image = batch["source"].float() / 127.5 - 1
    return network(image, batch["source_motion"], batch["motion"], label).picture[0].clamp(-1, 1)


def self_scores(
    network: Reconstructor, samples: PortraitViews, people: list[list[int]], features: FaceFeatures,
    judges: JudgeSet | None,
) -> dict[str, float]:
    """lpips_h, psnr and apd of each person's own other moment."""
    found: dict[str, list[float]] = {"lpips_h": [], "psnr": [], "apd": []}
    for moments in people:
        batch = row(samples, moments[0], moments[-1])
        result = driven(network, batch, batch["labels"][:, 0])
        truth = truth_of(batch, result.shape[-1])
        wanted, head = truth.image[0], truth.opacity[0]
        found["psnr"].append(-10 * float(torch.log10(((result - wanted) / 2).square().mean())))
        cut = [((image + 1) / 2 * head)[None] for image in (result, wanted)]
        found["lpips_h"].append(float(features(*cut)))
        poses = [picture_of(image, judges).read("pose") for image in (result, wanted)]
        if all(pose is not None for pose in poses):
            found["apd"].append(float(np.abs(poses[0] - poses[1]).mean()))
    return {name: float(np.mean(values)) for name, values in found.items() if values}


def cross_scores(
    network: Reconstructor, samples: PortraitViews, people: list[list[int]], judges: JudgeSet
) -> dict[str, float]:
    """id, id_driver, cons and the three correlations; every person is driven by `DRIVERS` others."""
    identity: dict[str, list[float]] = {"id": [], "id_driver": [], "cons": []}
    pairs: dict[str, list[tuple[float, float]]] = {name + kind: [] for kind in ("", "_true") for name in TRAITS}
    for k, moments in enumerate(people):
        seen = []
        for step in range(1, DRIVERS + 1):
            other = people[(k + step) % len(people)]
            batch = row(samples, moments[0], other[step % len(other)])
            picture = picture_of(driven(network, batch, batch["source_label"]), judges)
            found = picture.read("identity")
            ends = [picture_of(_pm1(batch[name]), judges).read("identity") for name in ("source", "driver")]
            if found is not None and all(end is not None for end in ends):
                seen.append(found)
                identity["id"].append(float(found @ ends[0]))
                identity["id_driver"].append(float(found @ ends[1]))
            read, shown = picture.read("coefficients"), picture_of(_pm1(batch["driver"]), judges).read("coefficients")
            if read is None or shown is None:
                continue
            for name in TRAITS:
                pairs[name].append((trait(shown, name), trait(read, name)))
                pairs[f"{name}_true"].append((trait(batch["motion"][0].numpy(), name), trait(read, name)))
        identity["cons"] += [float(a @ b) for a, b in combinations(seen, 2)]
    scores = {name: float(np.mean(values)) for name, values in identity.items() if values}
    for name, values in pairs.items():
        if len(values) > 2:
            scores[name] = float(np.corrcoef(np.array(values).T)[0, 1])
    return scores


def main() -> None:
    """Score and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("views")
    parser.add_argument("weights", nargs="+", metavar="NAME=WEIGHTS")
    parser.add_argument("--judges", type=Path)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--static", default="")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    configs = Path(__file__).resolve().parent.parent / "configs" / "eval" / "judges.yaml"
    judges = load_judges(configs, options.judges) if options.judges else None
    features = load_face_features()
    table = []
    for entry in options.weights:
        name, _, path = entry.partition("=")
        network, _ = load_reconstructor(Path(path))
        samples = PortraitViews(view_files([options.views]), network.config.resolution, DataConfig(held_out=0))
        scores: dict[str, float] = {}
        if name in options.static.split(","):
            scores = novel_view_scores(network, samples, torch.device("cpu"), 0.0, options.people)
        else:
            people = [moments for moments in samples.of_person.values() if len(moments) > 1][: options.people]
            scores |= self_scores(network, samples, people, features, judges)
            if judges is not None:
                scores |= cross_scores(network, samples, people, judges)
        table.append({"name": name} | {key: round(value, 3) for key, value in scores.items()})
    columns = list(dict.fromkeys(key for line in table for key in line))
    with options.output.open("w", newline="") if options.output else sys.stdout as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(table)


if __name__ == "__main__":
    main()
