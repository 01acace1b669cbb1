"""Metrics of faces, read by judges: identity, landmarks, pose, expression, emotion; distance of features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fourdface.metrics.base import Direction, MetricInfo, PairMetric
from fourdface.metrics.picture import Picture, Sample, face_window

RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 36, 45


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors [D]; raises ValueError for one of length zero."""
    norm = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norm == 0:
        raise ValueError("cosine of a vector of length zero")
    return float(a @ b) / norm


def landmark_error(a: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of 68 points [68,2] over the truth's outer-eye distance (normalised mean error, NME)."""
    unit = float(np.linalg.norm(truth[RIGHT_EYE_OUTER] - truth[LEFT_EYE_OUTER]))
    if unit == 0:
        raise ValueError("the truth's outer eye corners coincide")
    return float(np.linalg.norm(a - truth, axis=1).mean()) / unit


def keypoint_distance(a: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of 68 points [68,2] in pixels (average keypoint distance, AKD)."""
    return float(np.linalg.norm(a - truth, axis=1).mean())


def mean_difference(a: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute difference of two vectors."""
    return float(np.abs(np.asarray(a) - np.asarray(truth)).mean())


def distance(a: np.ndarray, truth: np.ndarray) -> float:
    """Euclidean distance of two vectors."""
    return float(np.linalg.norm(np.asarray(a) - np.asarray(truth)))


def unit_distance(a: np.ndarray, truth: np.ndarray) -> float:
    """Euclidean distance of two vectors, both at length 1; raises ValueError for one of length zero."""
    return float(np.sqrt(max(0.0, 2 - 2 * cosine(a, truth))))


def feature_distance(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> float:
    """Mean over layers of the mean squared difference of maps [1,C,h,w] normed over channels (unweighted LPIPS)."""

    def normed(value: np.ndarray) -> np.ndarray:
        return value / (np.linalg.norm(value, axis=1, keepdims=True) + 1e-8)

    layers = [float(np.square(normed(x) - normed(y)).sum(axis=1).mean()) for x, y in zip(a, b, strict=True)]
    return float(np.mean(layers))


def turn(sample: Sample) -> float | None:
    """Degrees between the views of source and reference, for tables by angle; None where unknown.

    Where cameras do not say it, |yaw - yaw*| of the heads, by which Portrait4D's Table 1 groups its pairs.
    """
    if sample.angle is not None:
        return sample.angle
    if sample.source is None or sample.reference is None:
        return None
    a, b = sample.source.read("pose"), sample.reference.read("pose")
    return None if a is None or b is None else abs(float(a[0] - b[0]))


@dataclass(frozen=True)
class _Kind:
    """What `FaceMetric` compares: readings of `role`, of the prediction and of the reference (or the source photo)."""

    title: str
    unit: str
    direction: Direction
    formula: str
    source: str
    crop: str
    role: str
    compare: Callable[[np.ndarray, np.ndarray], float]
    against: str = "reference"


_ALIGNED = "five-point alignment to 112 pixels"
_COSINE: tuple[str, Direction, str] = ("-1..1", "higher", "cosine of identity embeddings")
KINDS: dict[str, _Kind] = {
    "id": _Kind("ID to the reference", *_COSINE, "ArcFace", _ALIGNED, "identity", cosine),
    "csim": _Kind(
        "CSIM to the photo", *_COSINE, "CSIM of the reenactment papers", _ALIGNED, "identity", cosine, "source"
    ),
    "i2oid": _Kind("I2OID, photo to views", *_COSINE, "Gen3D-Face", _ALIGNED, "identity", cosine, "source"),
    "reid_distance": _Kind(
        "Re-ID distance", "0..2", "lower", "|e/|e| - e*/|e*||_2", "Re-ID (dist) of Gen3D-Face (there: dlib ResNet)",
        _ALIGNED, "identity", unit_distance,
    ),
    "nme": _Kind(
        "NME, 68 points", "outer-eye distances", "lower", "mean |p - p*| / |p*36 - p*45|", "300-W protocol", "face box",
        "landmarks", landmark_error,
    ),
    "akd": _Kind(
        "AKD, 68 points", "pixels", "lower", "mean |p - p*|", "average keypoint distance (Siarohin et al. 2019)",
        "face box", "landmarks", keypoint_distance,
    ),
    "pose": _Kind(
        "head pose error (APD)", "degrees", "lower", "mean of |yaw|, |pitch|, |roll| differences",
        "APD of the reenactment papers", "face box", "pose", mean_difference,
    ),
    "aed": _Kind(
        "AED, 52 coefficients", "0..1", "lower", "mean |c - c*|", "AED of the papers, on ARKit coefficients",
        "the network's own", "coefficients", mean_difference,
    ),
    "expr": _Kind(
        "expression distance", "coefficients", "lower", "|c - c*|_2", "Expr of Coherent3D (there: Maxine AR)",
        "the network's own", "coefficients", distance,
    ),
    "aed_f": _Kind(
        "AED_f, emotion features", "features", "lower", "|f - f*|_2", "AED_f of Portrait4D-v2", "face box", "emotion",
        distance,
    ),
    "motion": _Kind(
        "motion distance", "features", "lower", "|m - m*|_2", "motion embedding of Portrait4D-v2 (PD-FGC)",
        "the encoder's own", "motion", distance,
    ),
}  # fmt: skip
"""Metrics by name; `motion` compares PD-FGC's 548 numbers of eyes, emotion and mouth."""


class FaceMetric(PairMetric):
    """The metric `name` of KINDS; None (left out) where either picture has no face, or there is nothing to compare."""

    def __init__(self, name: str, network: str = "") -> None:
        super().__init__()
        kind = self.kind = KINDS[name]
        self.info = MetricInfo(
            name, kind.title, kind.unit, kind.direction, kind.formula, kind.source, network, kind.crop
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        other: Picture | None = sample.reference if self.kind.against == "reference" else sample.source
        if other is None:
            return None
        a, b = sample.prediction.read(self.kind.role), other.read(self.kind.role)
        return None if a is None or b is None else self.kind.compare(a, b)


class ReidMatch(FaceMetric):
    """Re-ID match of Gen3D-Face: part of the frames within the judge's threshold of the true person."""

    def __init__(self, network: str = "", threshold: float = 1.0) -> None:
        super().__init__("reid_distance", network)
        self._threshold = threshold
        self.info = MetricInfo(
            "reid_match", "Re-ID match", "0..1", "higher", f"part of frames with Re-ID distance <= {threshold:g}",
            "Re-ID (match) of Gen3D-Face (there: dlib ResNet, 0.6)", network, _ALIGNED,
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`: 1 for a match, else 0."""
        value = super().measure(sample)
        return None if value is None else float(value <= self._threshold)


class FeatureDistance(PairMetric):
    """Perceptual distance of a feature network over the reference's face."""

    def __init__(self, network: str = "") -> None:
        super().__init__()
        self.info = MetricInfo(
            "feature_distance", "feature distance", "0..4", "lower",
            "mean over layers of |f/|f| - f*/|f*||^2, unweighted", "LPIPS without learned weights (Zhang et al. 2018)",
            network, "reference's face box and a third of its height around it",
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        reference = sample.reference
        window = None if reference is None else face_window(reference)
        if reference is None or window is None or reference.judges is None:
            return None
        pair = [Picture(picture.image_u8[window], reference.judges) for picture in (sample.prediction, reference)]
        return feature_distance(*(picture.read("features") for picture in pair))
