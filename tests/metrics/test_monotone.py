"""Every metric orders identical, light blur, heavy blur, other frame and other person as an eye would."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from fourdface.metrics import Picture, Sample
from fourdface.metrics.judges import JudgeSet, load_judges
from fourdface.metrics.registry import METRICS
from fourdface.stages.protocols import configuration

ORDERS = {
    # which of the five a metric tells apart; blur leaves pose and identity almost alone
    "psnr": ("identical", "light blur", "heavy blur", "other person"),
    "psnr_face": ("identical", "light blur", "heavy blur", "other person"),
    "ssim": ("identical", "light blur", "heavy blur", "other person"),
    "ssim_face": ("identical", "light blur", "heavy blur", "other person"),
    "l1": ("identical", "light blur", "heavy blur", "other person"),
    "feature_distance": ("identical", "light blur", "heavy blur", "other person"),
    "id": ("identical", "heavy blur", "other frame", "other person"),
    "nme": ("identical", "heavy blur", "other frame"),
    "akd": ("identical", "heavy blur", "other frame"),
    "pose": ("identical", "heavy blur", "other frame"),
    "aed": ("identical", "light blur", "other frame"),
    "expr": ("identical", "light blur", "other frame"),
}


@pytest.fixture(scope="module")
def pictures(test_data) -> dict[str, np.ndarray]:
    from fourdface.media.video import open_video

    clip = open_video(test_data / "driving" / "woman_extreme.mp4")
    frames = [frame.image_u8 for frame, _ in zip(clip, range(61), strict=False)]
    other = next(iter(open_video(test_data / "driving" / "man_neutral_jaw.mp4"))).image_u8
    image = Image.fromarray(frames[0])
    resized = Image.fromarray(other).resize(image.size)
    return {
        "identical": frames[0],
        "light blur": np.asarray(image.filter(ImageFilter.GaussianBlur(1.0))),
        "heavy blur": np.asarray(image.filter(ImageFilter.GaussianBlur(4.0))),
        "other frame": frames[60],
        "other person": np.asarray(resized),
    }


@pytest.fixture(scope="module")
def judges(test_data) -> JudgeSet:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    return load_judges(configuration("judges.yaml"), test_data / "models")


@pytest.mark.real
@pytest.mark.parametrize("name", ORDERS)
def test_order(name, pictures, judges):
    if name in ("aed", "expr"):
        pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    reference = Picture(pictures["identical"], judges)
    values = []
    for kind in ORDERS[name]:
        metric = METRICS[name].make(judges)
        metric.update(Sample("s", 0, Picture(pictures[kind], judges), reference))
        values.append(metric.compute())
    sign = 1 if metric.info.direction == "lower" else -1
    badness = [sign * value for value in values]
    told = dict(zip(ORDERS[name], values, strict=True))
    assert badness == sorted(badness) and len(set(badness)) == len(badness), told
