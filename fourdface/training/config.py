"""Options of every training run, and how a run's configuration is put together (DESIGN.md section 8).

A recipe's schema is a frozen dataclass; YAML files hold what differs from its defaults, `--set a.b=c` what differs once
more. Unknown keys and wrong types are errors of one sentence.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from fourdface.errors import FourdError, UsageError

C = TypeVar("C")
SIZES = ("tiny", "small", "paper")
PRECISIONS = ("fp32", "bf16")
DECAYS = ("constant", "cosine")


@dataclass(frozen=True)
class TrainOptions:
    """What the engine needs to know; a recipe's schema holds one as its field `train`."""

    steps: int = 1000
    """Length of the run in steps; a step sees one batch and runs every phase that is due."""
    batch: int = 8
    """Samples of one step, over all ranks and micro-batches: the result does not depend on how they are split."""
    accumulate: int = 1
    """Micro-batches into which a rank's part of the batch is cut, to save memory."""
    seed: int = 0
    """Seeds the order of the data and all that is drawn at random."""
    precision: str = "fp32"
    """fp32, or bf16: the recipe's step under autocast (weights, gradients and optimizers stay float32)."""
    clip: float = 0.0
    """Largest norm of a phase's gradient; 0: not clipped."""
    warmup: int = 0
    """Steps over which the learning rates rise from 0."""
    decay: str = "constant"
    """How the learning rates go on after that: constant, or cosine (to 0 at `steps`)."""
    ema_half_life: float = 10_000.0
    """Images after which a weight counts half in the averaged networks."""
    ema_ramp: float = 0.05
    """The half-life is at most this part of the images seen so far (so that the start is forgotten soon); 0: off."""
    skip_limit: int = 10
    """Updates in a row that may be skipped because a loss or gradient is not finite, before the run stops."""
    keep: int = 2
    """Checkpoints that are kept, the newest ones."""
    save_every: int = 500
    """Steps between checkpoints (0: only at the end)."""
    log_every: int = 20
    """Steps over which scalars are averaged into one line of the log."""
    image_every: int = 500
    """Steps between image grids (0: none)."""
    score_every: int = 0
    """Steps between scores (0: none)."""

    def __post_init__(self) -> None:
        """Refuse what no run can do; raises UsageError."""
        for name, least in (("steps", 0), ("batch", 1), ("accumulate", 1), ("skip_limit", 1), ("keep", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"train.{name} is {getattr(self, name)}, and at least {least} is needed")
        for name in ("seed", "clip", "warmup", "ema_half_life", "ema_ramp", "save_every", "log_every"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"train.{name} is {getattr(self, name)}, and a number of at least 0 is needed")
        for name, choices in (("precision", PRECISIONS), ("decay", DECAYS)):
            if getattr(self, name) not in choices:
                raise UsageError(f"train.{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}")

    def rate_factor(self, step: int) -> float:
        """Factor on all learning rates at a step: linear warm-up, then constant or half a cosine."""
        from math import cos, pi

        warm = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        if self.decay == "constant":
            return warm
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return warm * 0.5 * (1 + cos(pi * min(1.0, max(0.0, done))))


RUN_LENGTH = ("steps", "keep", "save_every", "log_every", "image_every", "score_every", "skip_limit", "accumulate")
"""Fields of TrainOptions that may change when a run is continued: they do not change what has been learned so far."""


def config_file(recipe: str, size: str) -> Path:
    """The file of a named size of a recipe: configs/RECIPE/train-SIZE.yaml in the package."""
    return Path(str(importlib.resources.files("fourdface.configs"))) / recipe / f"train-{size}.yaml"


def load_config(schema: type[C], source: str | None, overrides: Sequence[str] = (), *, recipe: str = "") -> C:
    """The configuration of a run: defaults of `schema`, then a file or named size, then `KEY=VALUE` overrides.

    `source` is tiny, small, paper, the path of a YAML file, or None (defaults alone). Raises UsageError for unknown
    keys, values of a wrong type and files that are absent or no YAML.
    """
    layers: list[Any] = [OmegaConf.structured(schema)]
    try:
        if source is not None:
            path = config_file(recipe, source) if source in SIZES else Path(source)
            layers.append(_loaded(path, source, recipe))
        merged = OmegaConf.merge(*layers)
    except OmegaConfBaseException as error:
        raise UsageError(f"the configuration {source} does not fit: {_sentence(error)}") from error
    for text in overrides:
        key, equals, _ = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--set is {text!r}, expected KEY=VALUE such as train.steps=100")
        try:
            merged = OmegaConf.merge(merged, OmegaConf.from_dotlist([text]))
        except (OmegaConfBaseException, YAMLError) as error:
            raise UsageError(f"--set {text} does not fit: {_sentence(error)}") from error
    try:
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
    except OmegaConfBaseException as error:
        if isinstance(error.__cause__, FourdError):
            raise error.__cause__ from error
        raise UsageError(f"the configuration does not fit: {_sentence(error)}") from error


def _loaded(path: Path, source: str, recipe: str) -> Any:
    try:
        loaded = OmegaConf.load(path)
    except FileNotFoundError as error:
        known = [size for size in SIZES if recipe and config_file(recipe, size).is_file()]
        raise UsageError(
            f"there is no configuration {source}; give {', '.join([*known, 'the path of a YAML file'])}"
        ) from error
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from error
    if not OmegaConf.is_dict(loaded):
        raise UsageError(f"{path} holds no YAML mapping of keys to values")
    return loaded


def _sentence(error: Exception) -> str:
    """What OmegaConf says, without the lines that describe its own objects."""
    first = str(error).strip().splitlines()[0]
    key = getattr(error, "full_key", None)
    if "not in" in first and key:
        return f"there is no key {key}"
    return f"{key}: {first}" if key and str(key) not in first else first


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values for JSON."""
    return OmegaConf.to_container(OmegaConf.structured(config))  # type: ignore[return-value]


def lasting(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a configuration that must stay the same for a run to be continued."""
    train = {key: value for key, value in config.get("train", {}).items() if key not in RUN_LENGTH}
    if train.get("decay") == "cosine":  # the learning rate then depends on the length
        train["steps"] = config["train"]["steps"]
    return {**config, "train": train}


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    """Keys whose values differ, as "a.b (1, now 2)"."""
    found: list[str] = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append(f"{prefix}{key} ({before}, now {after})")
    return found


def with_train(config: C, **values: Any) -> C:
    """The configuration with other values of its TrainOptions."""
    train = dataclasses.replace(config.train, **values)  # type: ignore[attr-defined]
    return dataclasses.replace(config, train=train)  # type: ignore[type-var]
