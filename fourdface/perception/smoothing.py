"""The One-Euro filter (Casiez, Roussel, Vogel 2012): a low-pass whose cut-off rises with speed.

It adds no latency: the value of a frame is out before the next frame comes; what smoothing costs is a lag that shrinks
as things move faster.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


class OneEuroFilter:
    """Smooths an array that comes frame by frame.

    `minimum_cutoff` Hz at rest, `speed_weight` Hz per (unit/s), `speed_cutoff` Hz of the speed's own low-pass. Speeds
    are measured in `value / scale` so that the same numbers serve any size of picture (the outer-eye distance).
    """

    latency_frames = 0

    def __init__(self, minimum_cutoff: float = 1.5, speed_weight: float = 4.0, speed_cutoff: float = 1.0) -> None:
        if minimum_cutoff <= 0 or speed_weight < 0 or speed_cutoff <= 0:
            raise ValueError("cut-offs must be positive and the speed weight must not be negative")
        self.minimum_cutoff = minimum_cutoff
        self.speed_weight = speed_weight
        self.speed_cutoff = speed_cutoff
        self.reset()

    def reset(self) -> None:
        """Forget the past: call it at a cut or after a lost face."""
        self._value: npt.NDArray[np.float64] | None = None
        self._speed: npt.NDArray[np.float64] | None = None
        self._time = 0.0

    def __call__(self, value: npt.ArrayLike, time: float, scale: float = 1.0) -> npt.NDArray[np.float32]:
        """Filtered `value` (any shape) at `time` seconds; a time that does not advance returns the last output."""
        current = np.asarray(value, dtype=np.float64)
        if self._value is None or self._speed is None or self._value.shape != current.shape:
            self._value, self._speed, self._time = current, np.zeros_like(current), time
            return current.astype(np.float32)
        step = time - self._time
        if step > 0:
            speed = (current - self._value) / (scale * step)
            self._speed = self._speed + self._gain(self.speed_cutoff, step) * (speed - self._speed)
            gain = self._gain(self.minimum_cutoff + self.speed_weight * np.abs(self._speed), step)
            self._value = self._value + gain * (current - self._value)
            self._time = time
        return self._value.astype(np.float32)

    @staticmethod
    def _gain(cutoff: float | npt.NDArray[np.float64], step: float) -> npt.NDArray[np.float64]:
        """Share of the new value for a first-order low-pass of `cutoff` Hz sampled every `step` seconds."""
        turn = 2 * math.pi * np.asarray(cutoff, dtype=np.float64) * step
        return turn / (turn + 1)
