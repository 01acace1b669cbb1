"""What every metric is: it states itself, takes samples one by one, and merges exactly with its like.

Values are kept by (sequence, frame), eight bytes a frame, so that a total does not depend on the order of updates nor
on how the work was split: means are taken over the frames of a sequence, then over sequences.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fourdface.metrics.picture import Sample

Direction = Literal["higher", "lower"]
Key = tuple[str, int]


@dataclass(frozen=True)
class MetricInfo:
    """How a metric is to be read; everything that two numbers must share to be comparable.

    `missing` says what happens where it cannot be measured (no face, no reference).
    """

    name: str
    title: str
    unit: str
    direction: Direction
    formula: str
    source: str
    network: str = ""
    crop: str = "whole picture"
    missing: str = "the frame is left out of the mean and counted in the coverage"


class Metric:
    """Base of all metrics. `name` in tables is `info.name`."""

    info: MetricInfo

    def look(self, sample: Sample) -> None:
        """Do the part of `update` that needs no other frame, in any thread; sample and pictures keep what is read.

        Optional: it lets an evaluation read several frames at a time while `update` takes them in their order.
        """

    def update(self, sample: Sample) -> None:
        """Take one frame."""
        raise NotImplementedError

    def compute(self) -> float:
        """The value over everything taken so far; NaN where nothing could be measured."""
        raise NotImplementedError

    def merge(self, other: Metric) -> None:
        """Take over what `other`, a metric of the same kind, has taken; raises ValueError for another kind."""
        raise NotImplementedError

    def state(self) -> dict[str, np.ndarray]:
        """Arrays from which `load_state` restores this metric, for reports and shards."""
        raise NotImplementedError

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        raise NotImplementedError

    def frame_values(self) -> dict[Key, float]:
        """Value of each frame that was taken, NaN where it could not be measured; empty for metrics of whole sets."""
        return {}

    def sequence_values(self) -> dict[str, float]:
        """Value of each sequence, for metrics that have one but none a frame."""
        return {}

    def _require_same(self, other: Metric) -> None:
        if type(other) is not type(self) or other.info != self.info:
            raise ValueError(f"cannot merge {other.info.name} into {self.info.name}")


class PairMetric(Metric):
    """A metric with one value a frame: subclasses say `measure`, which depends on nothing but the sample."""

    def __init__(self) -> None:
        self._values: dict[Key, float] = {}

    def measure(self, sample: Sample) -> float | None:
        """The value of one frame, or None where it cannot be measured."""
        raise NotImplementedError

    def look(self, sample: Sample) -> None:
        """See `Metric`."""
        sample.once(self.info, lambda: self.measure(sample))

    def update(self, sample: Sample) -> None:
        """Take one frame; raises ValueError for one that was taken before."""
        key = (sample.sequence, sample.frame)
        if key in self._values:
            raise ValueError(f"{self.info.name}: frame {sample.frame} of {sample.sequence} was given twice")
        value = sample.once(self.info, lambda: self.measure(sample))
        self._values[key] = math.nan if value is None else float(value)

    def value_of(self, sample: Sample) -> float:
        """The value of a frame that was taken; NaN where it could not be measured."""
        return self._values[sample.sequence, sample.frame]

    def compute(self) -> float:
        """Mean over sequences of the means over frames."""
        return mean_of(list(sequence_means(self._values).values()))

    def merge(self, other: Metric) -> None:
        """Union of the frames; raises ValueError for frames that both have."""
        self._require_same(other)
        values = other.frame_values()
        both = self._values.keys() & values.keys()
        if both:
            name, frame = min(both)
            raise ValueError(f"{self.info.name}: frame {frame} of {name} is in both parts")
        self._values.update(values)

    def state(self) -> dict[str, np.ndarray]:
        """Nothing: the frames' values say all."""
        return {}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Nothing to restore beside the frames' values."""

    def restore(self, values: Mapping[Key, float]) -> None:
        """Take values of frames that were measured before."""
        self._values.update(values)

    def frame_values(self) -> dict[Key, float]:
        """Value of each frame that was taken."""
        return dict(self._values)


def sequence_means(values: Mapping[Key, float]) -> dict[str, float]:
    """Mean of the measured frames of each sequence, by name in order; NaN where none was measured."""
    rows: dict[str, list[float]] = defaultdict(list)
    for name, frame in sorted(values):
        rows[name].append(values[name, frame])
    return {name: mean_of(row) for name, row in rows.items()}


def mean_of(values: list[float]) -> float:
    """Mean of the numbers among `values` (exactly rounded sum: the order does not matter); NaN for none."""
    numbers = [value for value in values if not math.isnan(value)]
    if any(math.isinf(value) for value in numbers):
        return sum(numbers)
    return math.fsum(numbers) / len(numbers) if numbers else math.nan


def bootstrap_interval(values: list[float], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean over sequences by the percentile bootstrap (Efron, 1979); NaN for under two of them."""
    numbers = np.asarray([value for value in values if math.isfinite(value)])
    if len(numbers) < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    means = numbers[generator.integers(0, len(numbers), (draws, len(numbers)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
