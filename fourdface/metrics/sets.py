"""Metrics of whole sets of pictures: FID and KID from features of any network, and pairwise identity.

Statistics are sums in float64, so parts merge and memory does not grow with the number of pictures; KID and the
pairwise ones keep a bounded, deterministic choice of features.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping

import numpy as np
from scipy import linalg

from fourdface.metrics.base import Metric, MetricInfo, mean_of
from fourdface.metrics.picture import Picture, Sample

Features = Callable[[Picture], np.ndarray | None]
KEPT = 2048
"""Features kept for KID: those with the lowest hash of their name, the same whichever way the work is split."""


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """Squared Wasserstein-2 distance of two normal distributions (FID: Heusel et al., 2017): means [D], covariances.

    tr sqrt(A B) is taken as the sum of roots of the eigenvalues of A^(1/2) B A^(1/2), which are real and >= 0 up to
    rounding.
    """
    values, vectors = linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    inner = linalg.eigvalsh(root @ cov_b @ root)
    trace = float(np.sqrt(np.clip(inner, 0, None)).sum())
    shift = mean_a - mean_b
    return max(0.0, float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * trace))  # rounding may give -1e-5


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared MMD with the kernel (x.y / D + 1)^3 (KID: Binkowski et al., 2018) of features [n,D], [m,D].

    NaN for fewer than two features in either.
    """
    n, m = len(a), len(b)
    if n < 2 or m < 2:
        return math.nan
    size = a.shape[1]

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.asarray((x @ y.T / size + 1) ** 3)

    aa, bb, ab = kernel(a, a), kernel(b, b), kernel(a, b)
    within_a = (aa.sum() - np.trace(aa)) / (n * (n - 1))
    within_b = (bb.sum() - np.trace(bb)) / (m * (m - 1))
    return float(within_a + within_b - 2 * ab.mean())


def _look(features: Features, sample: Sample) -> None:
    """Read the features of both pictures, which keep them."""
    for picture in (sample.prediction, sample.reference):
        if picture is not None:
            features(picture)


class _Moments:
    """Count, sum [D] and sum of outer products [D,D] of features."""

    def __init__(self) -> None:
        self.count = 0
        self.total = np.zeros(0)
        self.outer = np.zeros((0, 0))

    def add(self, feature: np.ndarray) -> None:
        value = np.asarray(feature, np.float64).reshape(-1)
        if not self.count:
            self.total, self.outer = np.zeros(value.size), np.zeros((value.size, value.size))
        self.count += 1
        self.total += value
        self.outer += np.outer(value, value)

    def merge(self, other: _Moments) -> None:
        if not other.count:
            return
        if not self.count:
            self.total, self.outer = np.zeros_like(other.total), np.zeros_like(other.outer)
        self.count += other.count
        self.total = self.total + other.total
        self.outer = self.outer + other.outer

    def mean_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        mean = self.total / self.count
        return mean, (self.outer - self.count * np.outer(mean, mean)) / (self.count - 1)

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        return {f"{prefix}_count": np.array([self.count]), f"{prefix}_total": self.total, f"{prefix}_outer": self.outer}

    def load(self, prefix: str, state: Mapping[str, np.ndarray]) -> None:
        self.count = int(state[f"{prefix}_count"][0])
        self.total, self.outer = np.array(state[f"{prefix}_total"]), np.array(state[f"{prefix}_outer"])


class Fid(Metric):
    """FID between all predictions and all references; `fd` for other features than Inception's."""

    def __init__(self, features: Features, network: str, name: str = "fid") -> None:
        self._features = features
        title = {"fid": "FID", "fd": "Frechet distance of the judge's features"}[name]
        self.info = MetricInfo(
            name, title, "squared feature distance", "lower",
            "|m - m*|^2 + tr(C + C* - 2 (C C*)^(1/2)), covariances over n - 1", "Heusel et al. 2017", network,
            missing="pictures without features are left out; NaN under two pictures on a side",
        )  # fmt: skip
        self._fake, self._real = _Moments(), _Moments()

    def look(self, sample: Sample) -> None:
        """See `Metric`."""
        _look(self._features, sample)

    def update(self, sample: Sample) -> None:
        """Take the pictures of one frame."""
        for picture, side in ((sample.prediction, self._fake), (sample.reference, self._real)):
            feature = None if picture is None else self._features(picture)
            if feature is not None:
                side.add(feature)

    def compute(self) -> float:
        """See `frechet_distance`."""
        if min(self._fake.count, self._real.count) < 2:
            return math.nan
        return frechet_distance(*self._fake.mean_covariance(), *self._real.mean_covariance())

    def merge(self, other: Metric) -> None:
        """Add up the sums."""
        self._require_same(other)
        if isinstance(other, Fid):
            self._fake.merge(other._fake)
            self._real.merge(other._real)

    def state(self) -> dict[str, np.ndarray]:
        """The sums."""
        return {**self._fake.state("fake"), **self._real.state("real")}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        self._fake.load("fake", state)
        self._real.load("real", state)


class _Kept:
    """At most KEPT vectors, those whose names have the lowest hashes."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, str], np.ndarray] = {}

    def add(self, name: str, value: np.ndarray) -> None:
        self.rows[zlib.crc32(name.encode()), name] = np.asarray(value, np.float32).reshape(-1)
        if len(self.rows) > KEPT:
            del self.rows[max(self.rows)]

    def merge(self, other: _Kept) -> None:
        self.rows.update(other.rows)
        for key in sorted(self.rows)[KEPT:]:
            del self.rows[key]

    def array(self) -> np.ndarray:
        rows = [self.rows[key] for key in sorted(self.rows)]
        return np.stack(rows).astype(np.float64) if rows else np.zeros((0, 0))

    def state(self, prefix: str) -> dict[str, np.ndarray]:
        names = "\n".join(name for _, name in sorted(self.rows)).encode()
        return {f"{prefix}_names": np.frombuffer(names, np.uint8), f"{prefix}_rows": self.array().astype(np.float32)}

    def load(self, prefix: str, state: Mapping[str, np.ndarray]) -> None:
        names = bytes(np.asarray(state[f"{prefix}_names"], np.uint8)).decode()
        for name, row in zip(names.split("\n") if names else [], state[f"{prefix}_rows"], strict=True):
            self.add(name, np.asarray(row))


class _KeptMetric(Metric):
    """A metric of sets that keeps a bounded choice of features of both sides."""

    def __init__(self, features: Features) -> None:
        self._features = features
        self._sides = {"fake": _Kept(), "real": _Kept()}

    def look(self, sample: Sample) -> None:
        """See `Metric`."""
        _look(self._features, sample)

    def _take(self, side: str, name: str, picture: Picture | None) -> None:
        feature = None if picture is None else self._features(picture)
        if feature is not None:
            self._sides[side].add(name, feature)

    def merge(self, other: Metric) -> None:
        """Keep the lowest hashes of both."""
        self._require_same(other)
        if isinstance(other, _KeptMetric):
            for side, kept in self._sides.items():
                kept.merge(other._sides[side])

    def state(self) -> dict[str, np.ndarray]:
        """The kept features."""
        return {key: value for side, kept in self._sides.items() for key, value in kept.state(side).items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """The inverse of `state`."""
        for side, kept in self._sides.items():
            kept.load(side, state)


class Kid(_KeptMetric):
    """KID between predictions and references; `kd` for other features than Inception's."""

    def __init__(self, features: Features, network: str, name: str = "kid") -> None:
        super().__init__(features)
        title = {"kid": "KID", "kd": "kernel distance of the judge's features"}[name]
        self.info = MetricInfo(
            name, title, "squared MMD", "lower", "unbiased MMD^2, kernel (x.y / D + 1)^3, up to 2048 pictures a side",
            "Binkowski et al. 2018", network, missing="pictures without features are left out",
        )  # fmt: skip

    def update(self, sample: Sample) -> None:
        """Take the pictures of one frame."""
        name = f"{sample.sequence}/{sample.frame}"
        self._take("fake", name, sample.prediction)
        self._take("real", name, sample.reference)

    def compute(self) -> float:
        """See `kernel_distance`."""
        return kernel_distance(self._sides["fake"].array(), self._sides["real"].array())


class PairwiseIdentity(_KeptMetric):
    """O2OID of Gen3D-Face: do all pictures of one sequence show one person? Cons. of Portrait4D-v2 likewise."""

    def __init__(self, features: Features, network: str, name: str = "o2oid") -> None:
        super().__init__(features)
        title = {"o2oid": "O2OID, view to view", "cons": "Cons., driver to driver"}[name]
        source = {"o2oid": "Gen3D-Face", "cons": "Portrait4D-v2 (identity over drivers)"}[name]
        self.info = MetricInfo(
            name, title, "-1..1", "higher", "mean cosine over all pairs of predictions of a sequence, then over those",
            source, network, "five-point alignment to 112 pixels", "pictures without a face are left out",
        )  # fmt: skip

    def update(self, sample: Sample) -> None:
        """Take the prediction of one frame."""
        self._take("fake", f"{sample.sequence}/{sample.frame}", sample.prediction)

    def compute(self) -> float:
        """Mean over sequences with two faces or more."""
        return mean_of(list(self.sequence_values().values()))

    def sequence_values(self) -> dict[str, float]:
        """Mean cosine of the pairs of each sequence; NaN where there are none."""
        groups: dict[str, list[np.ndarray]] = {}
        for _, name in sorted(self._sides["fake"].rows):
            row = self._sides["fake"].rows[zlib.crc32(name.encode()), name]
            groups.setdefault(name.rpartition("/")[0], []).append(row / max(float(np.linalg.norm(row)), 1e-12))
        means = {}
        for name, rows in sorted(groups.items()):
            total, n = np.asarray(np.stack(rows).sum(axis=0, dtype=np.float64)), len(rows)
            means[name] = float((total @ total - n) / (n * (n - 1))) if n > 1 else math.nan
        return means
