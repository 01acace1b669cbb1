"""Exact frame rates from container time stamps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# The numerator becomes an MP4 track's time scale (32 bits); every rate in use has far smaller terms.
MAX_TERM = 1_000_000


@dataclass(frozen=True)
class Timing:
    """What time stamps say: `rate` [frames/s], whether frames lie unevenly (`variable`), and `count` of frames."""

    rate: Fraction
    variable: bool
    count: int


def fit_timing(
    stamps: np.ndarray, time_base: Fraction, candidates: Iterable[Fraction | None], last_duration: int = 0
) -> Timing:
    """Find the exact rate of a stream.

    A rate fits when every stamp lies within rounding (one tick of the time base) of a regular grid. A rate that the
    container declares is preferred to one computed from stamps, because coarse stamps (Matroska: 1 ms) hold many rates.
    Without a fit the rate is variable, and `rate` is the mean: frames / (end of the last frame - start of the first),
    so that frames written at `rate` last as long as the original.

    Args:
        stamps: int64 [N] presentation (or decoding) time stamps in ticks, any order.
        time_base: seconds a tick.
        candidates: rates that the container declares, best first; None and nonsense are skipped.
        last_duration: ticks that the last frame lasts, 0 if unknown (then the median distance).
    """
    declared = [rate for rate in candidates if rate is not None and 0 < rate <= 1000]
    stamps = np.unique(np.asarray(stamps, np.int64))
    count = len(stamps)
    if count < 2:
        return Timing(limit(declared[0]) if declared else Fraction(25), False, count)
    ticks = stamps - stamps[0]
    steps = np.diff(ticks)
    even = [1 / (int(steps[0]) * time_base)] if (steps == steps[0]).all() else []
    # Exact grids first: a declared mean may be off by an edit list (600 frames "in 20.07 s") where the grid is not.
    for tolerance, rates in (
        (1e-6, [*declared, *(even if time_base <= Fraction(1, 9000) else [])]),
        (1.0, [*declared, *even]),
    ):
        for rate in rates:
            if _grid_error(ticks, time_base, rate) <= tolerance:
                return Timing(limit(rate), False, count)
    span = (int(ticks[-1]) + (last_duration or int(np.median(steps)))) * time_base
    mean = count / span
    close = [rate for rate in declared if abs(rate - mean) <= mean / 500]
    return Timing(limit(close[0] if close else mean), True, count)


def _grid_error(ticks: np.ndarray, time_base: Fraction, rate: Fraction) -> float:
    """Largest distance [ticks] of the stamps to the grid k / rate, with the grid's origin chosen best."""
    step = 1.0 / float(rate * time_base)
    error = ticks - np.arange(len(ticks)) * step
    return float(error.max() - error.min()) / 2


def limit(rate: Fraction) -> Fraction:
    """The nearest rate whose terms fit a container; exact for every rate with a numerator up to 1,000,000."""
    if rate.numerator <= MAX_TERM and rate.denominator <= MAX_TERM:
        return rate
    if rate >= 1:
        return 1 / (1 / rate).limit_denominator(MAX_TERM)
    return rate.limit_denominator(MAX_TERM)


def median_step(times: Sequence[float], default: float) -> float:
    """Median distance of sorted times, or `default` for fewer than two."""
    return float(np.median(np.diff(times))) if len(times) > 1 else default
