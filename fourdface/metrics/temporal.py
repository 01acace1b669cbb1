"""Flicker: how much more a video trembles than the true one, by second differences in time."""

from __future__ import annotations

import numpy as np

from fourdface.metrics.base import MetricInfo, PairMetric
from fourdface.metrics.face import LEFT_EYE_OUTER, RIGHT_EYE_OUTER
from fourdface.metrics.picture import Picture, Sample

STILL = 2.0 / 255
"""A pixel of the reference counts as static while it moves by less than this between neighbouring frames."""


class _Flicker(PairMetric):
    """Mean |second difference of the prediction - that of the reference| of a quantity; needs consecutive frames.

    Without a reference the reference's second difference counts as zero.
    """

    def __init__(self, network: str = "") -> None:
        super().__init__()
        self.info = self._info(network)
        self._past: dict[str, list[tuple[int, np.ndarray | None, np.ndarray | None]]] = {}

    def _info(self, network: str) -> MetricInfo:
        raise NotImplementedError

    def quantity(self, picture: Picture) -> np.ndarray | None:
        """What is followed over time."""
        raise NotImplementedError

    def unit(self, sample: Sample) -> float | None:
        """What differences are divided by."""
        return 1.0

    def look(self, sample: Sample) -> None:
        """See `Metric`: the value itself needs the frames before."""
        for picture in (sample.prediction, sample.reference):
            if picture is not None:
                self.quantity(picture)

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`; frames must come in their order, and the first two frames of a run have no value."""
        past = self._past.setdefault(sample.sequence, [])
        reference = None if sample.reference is None else self.quantity(sample.reference)
        past.append((sample.frame, self.quantity(sample.prediction), reference))
        del past[:-3]
        if [frame for frame, *_ in past] != [sample.frame - 2, sample.frame - 1, sample.frame]:
            return None
        return self._value(sample, [p for _, p, _ in past], [r for _, _, r in past])

    def _value(self, sample: Sample, predicted: list[np.ndarray | None], true: list[np.ndarray | None]) -> float | None:
        difference = _second(predicted)
        unit = self.unit(sample)
        if difference is None or not unit:
            return None
        if sample.reference is not None:
            expected = _second(true)
            if expected is None or expected.shape != difference.shape:
                return None
            difference = difference - expected
        return float(np.abs(difference).mean()) / unit


def _second(values: list[np.ndarray | None]) -> np.ndarray | None:
    a, b, c = values
    if a is None or b is None or c is None:
        return None
    return np.asarray(a - 2 * b + c)


class PoseFlicker(_Flicker):
    """Trembling of the head's rotation."""

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("flicker_pose", "pose flicker", "degrees", "lower",
                          "mean |d2 pose - d2 pose*|, d2 = second difference in time", "this project", network,
                          "face box", "the first two frames of a run have none")  # fmt: skip

    def quantity(self, picture: Picture) -> np.ndarray | None:
        """Angles [3]."""
        value: np.ndarray | None = picture.read("pose")
        return value


class LandmarkFlicker(_Flicker):
    """Trembling of the 68 points."""

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("flicker_landmarks", "landmark flicker", "outer-eye distances", "lower",
                          "mean |d2 p - d2 p*| over the outer-eye distance", "this project", network, "face box",
                          "the first two frames of a run have none")  # fmt: skip

    def quantity(self, picture: Picture) -> np.ndarray | None:
        """Points [68,2]."""
        value: np.ndarray | None = picture.read("landmarks")
        return value

    def unit(self, sample: Sample) -> float | None:
        """Outer-eye distance of the reference, or of the prediction without one."""
        points = (sample.reference or sample.prediction).read("landmarks")
        return None if points is None else float(np.linalg.norm(points[RIGHT_EYE_OUTER] - points[LEFT_EYE_OUTER]))


class PixelFlicker(_Flicker):
    """Trembling of pixels that stand still in the reference."""

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("flicker_pixels", "pixel flicker", "0..1", "lower",
                          "mean |d2 grey| where the reference changes by under 2/255 between neighbouring frames",
                          "this project", missing="the first two frames; frames without still pixels")  # fmt: skip

    def quantity(self, picture: Picture) -> np.ndarray | None:
        """Grey picture [H,W] in 0..1."""
        grey: np.ndarray = picture.once("grey", lambda: picture.image.mean(dim=0).numpy())
        return grey

    def _value(self, sample: Sample, predicted: list[np.ndarray | None], true: list[np.ndarray | None]) -> float | None:
        difference = _second(predicted)
        if difference is None:
            return None
        a, b, c = true
        if a is None or b is None or c is None:
            return float(np.abs(difference).mean())
        still = (np.abs(b - a) < STILL) & (np.abs(c - b) < STILL)
        if still.shape != difference.shape or not still.any():
            return None
        return float(np.abs(difference[still]).mean())
