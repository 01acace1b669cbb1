"""Metrics of faces, read by judges: identity, landmarks, pose, expression, emotion; distance of features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fourdface.metrics.base import MetricInfo, PairMetric
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


class _FaceMetric(PairMetric):
    """A function of one role's readings of the prediction and of the reference (or the source photo)."""

    role = ""
    against = "reference"

    def __init__(self, network: str = "") -> None:
        super().__init__()
        self.info = self._info(network)

    def _info(self, network: str) -> MetricInfo:
        raise NotImplementedError

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """The value for two readings."""
        raise NotImplementedError

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        other: Picture | None = sample.reference if self.against == "reference" else sample.source
        if other is None:
            return None
        a, b = sample.prediction.read(self.role), other.read(self.role)
        return None if a is None or b is None else self.compare(a, b)


class IdentityToReference(_FaceMetric):
    """ID: is it the person of the true frame?"""

    role = "identity"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("id", "ID to the reference", "-1..1", "higher", "cosine of identity embeddings", "ArcFace",
                          network, "five-point alignment to 112 pixels")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """See `cosine`."""
        return cosine(a, b)


class IdentityToSource(IdentityToReference):
    """CSIM: is it the person of the photo?"""

    against = "source"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("csim", "CSIM to the photo", "-1..1", "higher", "cosine of identity embeddings",
                          "CSIM of the reenactment papers", network, "five-point alignment to 112 pixels")  # fmt: skip


class InputToOutputIdentity(IdentityToSource):
    """I2OID of Gen3D-Face: CSIM over the views of one photo."""

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("i2oid", "I2OID, photo to views", "-1..1", "higher", "cosine of identity embeddings",
                          "Gen3D-Face", network, "five-point alignment to 112 pixels")  # fmt: skip


class ReidDistance(_FaceMetric):
    """Re-ID distance of Gen3D-Face, with the identity judge where the paper has dlib's 128 numbers."""

    role = "identity"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("reid_distance", "Re-ID distance", "0..2", "lower", "|e/|e| - e*/|e*||_2",
                          "Re-ID (dist) of Gen3D-Face (there: dlib ResNet)", network,
                          "five-point alignment to 112 pixels")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """Distance of the embeddings at length 1."""
        return float(np.sqrt(max(0.0, 2 - 2 * cosine(a, b))))


class ReidMatch(ReidDistance):
    """Re-ID match of Gen3D-Face: part of the frames within the judge's threshold of the true person."""

    def __init__(self, network: str = "", threshold: float = 1.0) -> None:
        self._threshold = threshold
        super().__init__(network)

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("reid_match", "Re-ID match", "0..1", "higher",
                          f"part of frames with Re-ID distance <= {self._threshold:g}",
                          "Re-ID (match) of Gen3D-Face (there: dlib ResNet, 0.6)", network,
                          "five-point alignment to 112 pixels")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """1 for a match, else 0."""
        return float(super().compare(a, b) <= self._threshold)


class LandmarkError(_FaceMetric):
    """NME of the 68 points."""

    role = "landmarks"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("nme", "NME, 68 points", "outer-eye distances", "lower",
                          "mean |p - p*| / |p*36 - p*45|", "300-W protocol", network, "face box")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """See `landmark_error`."""
        return landmark_error(a, b)


class KeypointDistance(_FaceMetric):
    """AKD of the 68 points."""

    role = "landmarks"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("akd", "AKD, 68 points", "pixels", "lower", "mean |p - p*|",
                          "average keypoint distance (Siarohin et al. 2019)", network, "face box")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """See `keypoint_distance`."""
        return keypoint_distance(a, b)


class PoseError(_FaceMetric):
    """APD in degrees."""

    role = "pose"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("pose", "head pose error (APD)", "degrees", "lower",
                          "mean of |yaw|, |pitch|, |roll| differences", "APD of the reenactment papers", network,
                          "face box")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """See `mean_difference`."""
        return mean_difference(a, b)


class ExpressionError(_FaceMetric):
    """AED over the 52 coefficients."""

    role = "coefficients"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("aed", "AED, 52 coefficients", "0..1", "lower", "mean |c - c*|",
                          "AED of the papers, on ARKit coefficients", network, "the network's own")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """See `mean_difference`."""
        return mean_difference(a, b)


class ExpressionDistance(ExpressionError):
    """Euclidean distance of the 52 coefficients (Coherent3D's Expr with another network)."""

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("expr", "expression distance", "coefficients", "lower", "|c - c*|_2",
                          "Expr of Coherent3D (there: Maxine AR)", network, "the network's own")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """Euclidean distance."""
        return float(np.linalg.norm(np.asarray(a) - np.asarray(b)))


class EmotionError(_FaceMetric):
    """AED_f: Euclidean distance of emotion features."""

    role = "emotion"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("aed_f", "AED_f, emotion features", "features", "lower", "|f - f*|_2",
                          "AED_f of Portrait4D-v2", network, "face box")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """Euclidean distance."""
        return float(np.linalg.norm(np.asarray(a) - np.asarray(b)))


class MotionDistance(_FaceMetric):
    """Distance of motion embeddings (PD-FGC's 548 numbers of eyes, emotion and mouth)."""

    role = "motion"

    def _info(self, network: str) -> MetricInfo:
        return MetricInfo("motion", "motion distance", "features", "lower", "|m - m*|_2",
                          "motion embedding of Portrait4D-v2 (PD-FGC)", network, "the encoder's own")  # fmt: skip

    def compare(self, a: np.ndarray, b: np.ndarray) -> float:
        """Euclidean distance."""
        return float(np.linalg.norm(np.asarray(a) - np.asarray(b)))


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
