"""FID, KID and pairwise identity: independent formulas, and parts that merge into the whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import linalg

from fourdface.metrics import Picture, Sample
from fourdface.metrics.sets import KEPT, Fid, Kid, PairwiseIdentity, frechet_distance, kernel_distance


def features(count: int, size: int = 12, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((count, size)) @ generator.standard_normal((size, size)) + shift


class Named(Picture):
    """A picture that is its own feature."""

    def __init__(self, feature: np.ndarray) -> None:
        super().__init__(np.zeros((1, 1, 3), np.uint8))
        self.feature = feature


def feature_of(picture: Picture) -> np.ndarray:
    assert isinstance(picture, Named)
    return picture.feature


def fed(metric, fake: np.ndarray, real: np.ndarray, frames=None):
    for k in frames if frames is not None else range(len(fake)):
        metric.update(Sample("s", k, Named(fake[k]), Named(real[k])))
    return metric


def test_fid_equals_the_formula_with_a_matrix_root():
    a, b = features(60), features(60, seed=1, shift=0.3)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    root = linalg.sqrtm(cov_a @ cov_b).real
    shift = a.mean(0) - b.mean(0)
    want = float(shift @ shift + np.trace(cov_a + cov_b - 2 * root))
    assert fed(Fid(feature_of, ""), a, b).compute() == pytest.approx(want, rel=1e-8)


def test_fid_equals_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid", reason="torchmetrics is not installed")
    import torch

    a, b = features(50), features(50, seed=1, shift=0.3)
    moments = []
    for rows in (a, b):
        moments += [torch.from_numpy(rows.mean(0)), torch.from_numpy(np.cov(rows.T))]
    want = float(fid._compute_fid(*moments))
    assert fed(Fid(feature_of, ""), a, b).compute() == pytest.approx(want, abs=1e-4)


def test_fid_of_the_same_set_is_zero_also_when_singular():
    a = features(5, size=20)
    assert fed(Fid(feature_of, ""), a, a).compute() == pytest.approx(0, abs=1e-6)
    assert frechet_distance(np.zeros(3), np.eye(3), np.ones(3), np.eye(3)) == pytest.approx(3.0, abs=1e-12)


def test_kid_by_its_definition():
    a, b = features(7, size=3), features(5, size=3, seed=1)

    def k(x, y):
        return (x @ y / 3 + 1) ** 3

    want = sum(k(a[i], a[j]) for i in range(7) for j in range(7) if i != j) / 42
    want += sum(k(b[i], b[j]) for i in range(5) for j in range(5) if i != j) / 20
    want -= 2 * sum(k(x, y) for x in a for y in b) / 35
    assert kernel_distance(a, b) == pytest.approx(want, rel=1e-10)
    assert math.isnan(kernel_distance(a[:1], b))


@pytest.mark.parametrize("make", [lambda: Fid(feature_of, ""), lambda: Kid(feature_of, ""),
                                  lambda: PairwiseIdentity(feature_of, "")])  # fmt: skip
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_parts_merge_into_the_whole(make, parts):
    a, b = features(40), features(40, seed=1)
    whole = fed(make(), a, b).compute()
    total = make()
    for part in range(parts):
        piece = fed(make(), a, b, range(part, 40, parts))
        again = make()
        again.load_state(piece.state())  # through what a report stores
        total.merge(again)
    assert total.compute() == pytest.approx(whole, rel=1e-6)  # KID keeps float32 features
    with pytest.raises(ValueError, match="cannot merge"):
        total.merge(Fid(feature_of, "another network"))


def test_kid_keeps_the_same_features_whichever_way_the_work_is_split():
    count = KEPT + 200
    a, b = features(count, size=2), features(count, size=2, seed=1)
    whole = fed(Kid(feature_of, ""), a, b)
    total = Kid(feature_of, "")
    for part in range(3):
        total.merge(fed(Kid(feature_of, ""), a, b, range(part, count, 3)))
    assert total.compute() == whole.compute()
    assert len(whole.state()["fake_rows"]) == KEPT


def test_pairwise_identity_by_hand():
    metric = PairwiseIdentity(feature_of, "")
    for k, row in enumerate(([1.0, 0.0], [0.0, 2.0], [3.0, 0.0])):
        metric.update(Sample("s", k, Named(np.array(row))))
    assert metric.compute() == pytest.approx(1 / 3, abs=1e-7)  # one pair of three agrees
    metric.update(Sample("alone", 0, Named(np.array([1.0, 1.0]))))
    assert metric.compute() == pytest.approx(1 / 3, abs=1e-7)  # one picture makes no pair
    values = metric.sequence_values()
    assert values["s"] == pytest.approx(1 / 3, abs=1e-7) and math.isnan(values["alone"])
