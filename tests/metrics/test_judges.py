"""Judges from yaml: what they see equals a direct use of the networks; wrong files are refused in one sentence."""

from __future__ import annotations

import numpy as np
import pytest

from fourdface.errors import FourdError
from fourdface.metrics import Picture
from fourdface.metrics.judges import load_judges
from fourdface.metrics.warp import ARCFACE_POINTS, box_to_crop, similarity, warp
from fourdface.stages.protocols import configuration, embedded_judges


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- 1", "must map roles"),
        ("nose: {onnx: a.onnx}", "must map roles .* got nose"),
        ("pose: {onnx: a.onnx, speed: 3}", "pose may have .* got onnx, speed"),
        ("pose: {onnx: a.onnx}", "names the network a.onnx, which is not in"),
        ("pose: [", "no yaml of judges"),
    ],
)
def test_wrong_yaml(text, sentence, tmp_path):
    file = tmp_path / "judges.yaml"
    file.write_text(text)
    with pytest.raises(FourdError, match=sentence):
        load_judges(file)


def test_a_file_that_is_no_network(tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    (tmp_path / "a.onnx").write_bytes(b"junk")
    (tmp_path / "j.yaml").write_text("features: {onnx: a.onnx, size: [8, 8]}")
    judges = load_judges(tmp_path / "j.yaml")
    with pytest.raises(FourdError, match=r"a\.onnx does not load as an ONNX network"):
        judges.read("features", Picture(np.zeros((8, 8, 3), np.uint8)))


def test_similarity_finds_what_was_done():
    angle, scale, shift = 0.3, 1.7, np.array([4.0, -2.0])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = similarity(ARCFACE_POINTS, scale * ARCFACE_POINTS @ rotation.T + shift)
    assert np.allclose(matrix, np.hstack([scale * rotation, shift[:, None]]))


def test_warp_by_whole_pixels_copies_and_is_black_outside():
    image = np.random.default_rng(0).integers(1, 255, (6, 9, 3), dtype=np.uint8)
    crop = warp(image, np.array([[1.0, 0, -2.0], [0, 1.0, 1.0]]), (4, 5))
    assert np.allclose(crop[1:], image[:3, 2:7], atol=1e-3)
    assert np.allclose(crop[0], 0, atol=1e-3)


def test_a_box_fills_its_crop():
    matrix = box_to_crop(np.array([10.0, 20.0, 30.0, 60.0]), 1.0, 112)
    assert np.allclose(matrix @ [20, 40, 1], [56, 56]) and np.allclose(matrix @ [20, 20, 1], [56, 0])


@pytest.mark.real
def test_the_open_judges_see_a_face(test_data):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from fourdface.media.image import read_image

    judges = load_judges(configuration("judges.yaml"), test_data / "models")
    picture = Picture(read_image(test_data / "portraits" / "man_profile_90.png"), judges)
    frontal = Picture(read_image(test_data / "portraits" / "woman_denim_smile.png"), judges)
    other = Picture(read_image(test_data / "portraits" / "man_indoor_smile.png"), judges)
    landmarks = frontal.read("landmarks")
    left, right = landmarks[36:42].mean(0), landmarks[42:48].mean(0)
    mouth = landmarks[48:68].mean(0)
    assert left[0] < right[0] and mouth[1] > max(left[1], right[1])
    assert abs(frontal.read("pose")[0]) < 20 < abs(picture.read("pose")[0])
    assert frontal.read("identity") @ frontal.read("identity") == pytest.approx(1.0, abs=1e-5)
    assert frontal.read("identity") @ other.read("identity") < 0.5
    assert int(np.argmax(frontal.read("emotion"))) == 1  # happy
    assert [tap.shape[1] for tap in frontal.read("features")] == [96, 128, 256, 384, 384, 512, 512]
    assert Picture(np.zeros((64, 64, 3), np.uint8), judges).read("landmarks") is None


@pytest.mark.real
def test_the_embedded_judges_agree_with_the_open_ones(test_data):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    from fourdface.media.image import read_image

    image = read_image(test_data / "portraits" / "woman_denim_smile.png")
    ours = Picture(image, embedded_judges())
    theirs = Picture(image, load_judges(configuration("judges.yaml"), test_data / "models"))
    unit = np.linalg.norm(theirs.read("landmarks")[36] - theirs.read("landmarks")[45])
    assert np.linalg.norm(ours.read("landmarks") - theirs.read("landmarks"), axis=1).mean() < 0.15 * unit
    assert ours.read("coefficients").shape == (52,) and ours.read("box").shape == (4,)
    assert ours.read("identity") is None
