"""Perceptual features: a distance that is zero for equal pictures, grows with damage, and has gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fourdface.errors import FourdError
from fourdface.perception.features import FaceFeatures, load_face_features


@pytest.fixture(scope="module")
def features() -> FaceFeatures:
    return load_face_features()


def test_distance_grows_with_blur(features: FaceFeatures) -> None:
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(2, 3, 16, 16), size=64, mode="bilinear")
    small = torch.nn.functional.interpolate
    soft = small(small(image, scale_factor=0.5, mode="area"), size=64, mode="bilinear")
    softer = small(small(image, scale_factor=0.125, mode="area"), size=64, mode="bilinear")
    assert features(image, image).abs().max() < 1e-6
    first, second = features(image, soft), features(image, softer)
    assert first.shape == (2,) and (first > 0).all() and (first < second).all() and (second < 2).all()


@pytest.mark.parametrize("size", [16, 31, 33, 128])
def test_sizes_and_gradients(features: FaceFeatures, size: int) -> None:
    image = torch.full((1, 3, size, size), 0.5, requires_grad=True)  # flat: many features are exactly zero
    features(image, torch.rand(1, 3, size, size)).sum().backward()
    assert image.grad is not None and torch.isfinite(image.grad).all() and image.grad.abs().sum() > 0
    assert not any(value.requires_grad for value in features.parameters())


def test_refusals(features: FaceFeatures, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 16"):
        features.read(torch.zeros(1, 3, 8, 8))
    (tmp_path / "none.safetensors").write_bytes(b"nothing")
    with pytest.raises(FourdError, match="landmark network"):
        load_face_features(tmp_path / "none.safetensors")
