"""Metrics of faces, flicker and score matrices by hand, with judges that say what the test wants."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fourdface.metrics import Cost, Picture, Sample
from fourdface.metrics.face import FaceMetric, FeatureDistance, cosine
from fourdface.metrics.judges import JudgeSet
from fourdface.metrics.matrix import matrix_scores
from fourdface.metrics.registry import METRICS, build_metrics
from fourdface.metrics.temporal import LandmarkFlicker, PixelFlicker, PoseFlicker


def seen(**readings) -> Picture:
    judges = JudgeSet(readers={role: (lambda picture, value=value: value) for role, value in readings.items()})
    return Picture(np.zeros((8, 8, 3), np.uint8), judges)


def value(metric, prediction: Picture, reference: Picture | None, source: Picture | None = None) -> float:
    metric.update(Sample("s", 0, prediction, reference, source))
    return metric.compute()


def points(shift: float = 0.0) -> np.ndarray:
    out = np.zeros((68, 2))
    out[45] = [4.0, 3.0]  # outer corners five apart
    return out + shift


def test_landmarks():
    a, b = seen(landmarks=points(1.0)), seen(landmarks=points())
    assert value(FaceMetric("nme"), a, b) == pytest.approx(math.sqrt(2) / 5)
    assert value(FaceMetric("akd"), a, b) == pytest.approx(math.sqrt(2))


def test_pose_expression_emotion():
    a, b = np.array([3.0, -1.0, 0.0]), np.array([0.0, 1.0, 1.0])
    assert value(FaceMetric("pose"), seen(pose=a), seen(pose=b)) == pytest.approx(2.0)
    assert value(FaceMetric("aed"), seen(coefficients=a), seen(coefficients=b)) == pytest.approx(2.0)
    assert value(FaceMetric("expr"), seen(coefficients=a), seen(coefficients=b)) == pytest.approx(math.sqrt(14))
    assert value(FaceMetric("aed_f"), seen(emotion=a), seen(emotion=b)) == pytest.approx(math.sqrt(14))


def test_identity_to_reference_and_to_source():
    a, b, c = np.array([1.0, 0.0]), np.array([1.0, 1.0]), np.array([0.0, -2.0])
    assert value(FaceMetric("id"), seen(identity=a), seen(identity=b)) == pytest.approx(math.sqrt(0.5))
    assert value(FaceMetric("csim"), seen(identity=a), seen(identity=b), seen(identity=c)) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="length zero"):
        cosine(a, np.zeros(2))


def test_a_frame_without_a_face_is_left_out_and_counted():
    metric = FaceMetric("pose")
    metric.update(Sample("s", 0, seen(pose=None), seen(pose=np.zeros(3))))
    metric.update(Sample("s", 1, seen(pose=np.ones(3)), seen(pose=np.zeros(3))))
    assert metric.compute() == 1.0
    assert [math.isnan(v) for v in metric.frame_values().values()] == [True, False]


def test_feature_distance_of_orthogonal_features():
    def features(picture: Picture) -> list[np.ndarray]:
        out = np.zeros((1, 2, 3, 3))
        out[:, int(picture.image_u8.mean() > 1)] = 5.0
        return [out, out]

    judges = JudgeSet(readers={"features": features, "box": lambda picture: np.array([1.0, 1.0, 6.0, 6.0])})
    dark, light = (Picture(np.full((8, 8, 3), level, np.uint8), judges) for level in (0, 200))
    assert value(FeatureDistance(), dark, dark) == 0.0
    assert value(FeatureDistance(), dark, light) == pytest.approx(2.0, abs=1e-6)


def track(metric, predicted, true, frames=None):
    for k, (p, t) in enumerate(zip(predicted, true, strict=True)):
        metric.update(Sample("s", frames[k] if frames else k, p, t))
    return metric


def test_flicker_sees_trembling_and_not_motion():
    steady = [seen(pose=np.array([2.0 * k, 0, 0])) for k in range(5)]
    still = [seen(pose=np.zeros(3)) for _ in range(5)]
    shaking = [seen(pose=np.array([0.0, 0, (-1) ** k])) for k in range(5)]
    assert track(PoseFlicker(), steady, still).compute() == pytest.approx(0)
    assert track(PoseFlicker(), shaking, still).compute() == pytest.approx(4 / 3)
    assert track(PoseFlicker(), shaking, shaking).compute() == pytest.approx(0)
    assert math.isnan(track(PoseFlicker(), shaking, still, frames=[0, 5, 10, 15, 20]).compute())


def test_landmark_flicker_is_in_eye_distances():
    shaking = [seen(landmarks=points(0.5 * (-1) ** k)) for k in range(4)]
    still = [seen(landmarks=points()) for _ in range(4)]
    assert track(LandmarkFlicker(), shaking, still).compute() == pytest.approx(2.0 / 5)


def test_pixel_flicker_looks_where_the_truth_stands_still():
    def frame(left: int, right: int) -> Picture:
        image = np.zeros((4, 8, 3), np.uint8)
        image[:, :4], image[:, 4:] = left, right
        return Picture(image)

    truth = [frame(10, 20 * k) for k in range(3)]
    result = [frame(10 + 51 * (k % 2), 0) for k in range(3)]
    assert track(PixelFlicker(), result, truth).compute() == pytest.approx(2 * 51 / 255, abs=1e-6)


def test_score_matrix_by_hand():
    s = np.array([[[4.0, 2.0], [0.0, 2.0]], [[4.0, 4.0], [4.0, 4.0]]])
    scores = matrix_scores(s)
    assert scores.synthesis == pytest.approx(3.0)  # equation 12
    assert scores.novel_view == pytest.approx(2.5)  # equation 13: 2, 0, 4, 4
    assert scores.novel_view_variation == pytest.approx(0.5)  # rows: 1, 1, 0, 0
    assert scores.input_view_variation == pytest.approx(0.5)  # columns: 2, 0, 0, 0
    s[0, 0, 1] = np.nan
    assert matrix_scores(s).synthesis == pytest.approx(22 / 7)
    with pytest.raises(ValueError, match=r"\[T, N, N\], got \[2, 3\]"):
        matrix_scores(np.zeros((2, 3)))


def test_re_identification_by_hand():
    def told(name: str, angle: float, threshold: float | None = None) -> float:
        vectors = {"prediction": np.array([3.0, 0.0]), "reference": np.array([np.cos(angle), np.sin(angle)])}

        class Told(JudgeSet):
            def read(self, role: str, picture: Picture):
                return vectors["prediction" if picture is sample.prediction else "reference"]

            @property
            def reid_threshold(self) -> float:
                return threshold or super().reid_threshold

        judges = Told(words={"identity": "x", "landmarks": "x"})
        image = np.zeros((4, 4, 3), np.uint8)
        sample = Sample("s", 0, *(Picture(image, judges) for _ in range(3)), cost=Cost(0.25, 512.0))
        metric = METRICS[name].make(judges)
        metric.update(sample)
        return metric.compute()

    assert told("reid_distance", np.pi / 2) == pytest.approx(np.sqrt(2))
    assert told("i2oid", np.pi / 3) == pytest.approx(0.5)
    assert [told("reid_match", angle) for angle in (0.9, 1.2)] == [1.0, 0.0]  # 60 degrees are a distance of 1
    assert told("reid_match", 1.2, threshold=1.3) == 1.0
    assert told("seconds", 0.0) == 0.25 and told("memory", 0.0) == 512.0


def test_the_motion_metric_takes_an_encoder_that_is_given():
    codes = iter([np.zeros(548), np.ones(548)])
    judges = JudgeSet(readers={"motion": lambda picture: next(codes)}, words={"motion": "PD-FGC"})
    image = np.zeros((4, 4, 3), np.uint8)
    metric = METRICS["motion"].make(judges)
    metric.update(Sample("s", 0, Picture(image, judges), Picture(image, judges)))
    assert metric.compute() == pytest.approx(np.sqrt(548)) and metric.info.network == "PD-FGC"
    made, left_out = build_metrics(("motion",), JudgeSet())
    assert not made and "`fourd assets import motion_model.pth`" in left_out["motion"]
