"""What a run of `fourd train genhead` has learned: KID over its checkpoints, and where a movement changes the picture.

    python scripts/measure_genhead.py RUN --data VIEWS... [--pictures 256] [-o figure.png]

KID is that of the averaged generator at every checkpoint that was kept, and of the network before its first step. The
movements are those of the grid `expressions`; for each the mean change of the picture is given inside the masks of the
eyes and the mouth (of the moved head) and elsewhere, in 0..255. The figure has the grids of the newest checkpoint.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourdface.priors.genhead.generator import GenHead
from fourdface.priors.genhead.masks import part_masks
from fourdface.priors.genhead.training import GenHeadRecipe
from fourdface.priors.genhead.training_config import GenHeadTraining
from fourdface.priors.genhead.training_grids import MOTIONS, PEOPLE, Examples, grids, moved_heads
from fourdface.stages.train_genhead import make
from fourdface.training import TrainState
from fourdface.training.checkpoint import Checkpoint, found
from fourdface.training.config import load_config
from fourdface.training.records import grid
from fourdface.training.seeds import seed_everything

log = logging.getLogger("measure")


def recipe_of(run: Path, data: list[str], pictures: int) -> GenHeadRecipe:
    """The recipe of a run, as it was before its first step."""
    import yaml

    settings = json.loads((run / "run.json").read_text())["config"]
    settings["score"]["pictures"] = pictures
    (run / "measured.yaml").write_text(yaml.safe_dump(settings))
    config = load_config(GenHeadTraining, str(run / "measured.yaml"))
    seed_everything(config.train.seed)
    return make(config, data, torch.device("cpu"))[0]


def kid(recipe: GenHeadRecipe) -> dict[str, float]:
    """Scores of the generator as it is."""
    state = TrainState(0, 1, 1, torch.device("cpu"))
    state.begin_fixed("scores")
    return recipe.scores(recipe.networks, state)


def changes(network: GenHead, examples: Examples) -> dict[str, tuple[float, float, float]]:
    """Movement -> mean change of the picture (0..255) in the eyes' mask, in the mouth's mask, and in neither."""
    z, front = examples.z[:PEOPLE], examples.front.expand(PEOPLE, -1)
    out: dict[str, tuple[float, float, float]] = {}
    calm: Tensor | None = None
    for (name, *_), pose in zip(MOTIONS, moved_heads(examples.pose[:PEOPLE]), strict=True):
        made = network(z, pose, front, conditioning=front).image
        calm = made if calm is None else calm
        masks = part_masks(network.head, pose, front, network.config.render_size, network.config.resolution)
        change = (made - calm).abs().mean(dim=1, keepdim=True) * 127.5
        parts = (masks.eyes_full, masks.mouth_full, 1 - (masks.eyes_full + masks.mouth_full).clamp(max=1))
        eyes, mouth, rest = (float((change * m).sum() / m.sum().clamp_min(1e-6)) for m in parts)
        out[name] = (eyes, mouth, rest)
    return out


def main() -> None:
    """Measure the run that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--steps", type=int, nargs="*", help="checkpoints that are scored (default: all)")
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with torch.no_grad():
        recipe = recipe_of(arguments.run, arguments.data, arguments.pictures)
        recipe.generator.eval()
        log.info("before the first step: %s", kid(recipe))
        checkpoints = found(arguments.run)
        for step, path in checkpoints:
            stored = Checkpoint(path).matching("average/generator", recipe.generator.state_dict())
            recipe.generator.load_state_dict(stored)
            if arguments.steps is None or step in arguments.steps:
                log.info("step %d: %s", step, kid(recipe))
        examples = Examples.of(recipe.pictures, recipe.config.network.z_dim, torch.device("cpu"))
        for name, values in changes(recipe.generator, examples).items():
            log.info("%-11s changes eyes %5.1f, mouth %5.1f, the rest %5.1f", name, *values)
        if arguments.output:
            shown = grids(recipe.generator, examples)
            rows = [grid(shown["samples"][:8]), grid(shown["expressions"]), grid(shown["views"])]
            Image.fromarray(np.concatenate(rows)).save(arguments.output, quality=72)


if __name__ == "__main__":
    main()
