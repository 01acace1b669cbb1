"""Pixel metrics against independent implementations and hand-computed cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fourdface.metrics import Picture, Sample
from fourdface.metrics.image import (
    LARGEST_PSNR,
    DepthError,
    MsSsim,
    NormalError,
    Psnr,
    SilhouetteIou,
    Ssim,
    ms_ssim,
    psnr,
    silhouette_iou,
    ssim,
)


def noisy_pair(size: tuple[int, int] = (40, 53), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    a = gaussian_filter(generator.random((*size, 3)), (2, 2, 0))
    a = (a - a.min()) / (a.max() - a.min())
    return a, np.clip(a + 0.05 * generator.standard_normal(a.shape), 0, 1)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)


def test_psnr_equals_scikit_image():
    a, b = noisy_pair()
    assert psnr(tensor(a), tensor(b)) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1.0), abs=1e-9)


def test_psnr_by_hand():
    a = torch.zeros(3, 2, 2)
    assert psnr(a, a) == LARGEST_PSNR
    assert psnr(a, a + 0.1) == pytest.approx(20.0, abs=1e-5)


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (33, 32), (64, 49)])
def test_ssim_equals_scikit_image(size):
    a, b = noisy_pair(size)
    # scikit-image means over the picture without a border of five, which is where the whole window lies inside
    want = structural_similarity(
        a, b, data_range=1.0, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(tensor(a), tensor(b)) == pytest.approx(want, abs=1e-6)


def test_ssim_of_equal_pictures_is_one_and_small_ones_are_refused():
    a, _ = noisy_pair()
    assert ssim(tensor(a), tensor(a)) == pytest.approx(1.0, abs=1e-12)
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 10 x 12"):
        ssim(torch.zeros(3, 12, 10), torch.zeros(3, 12, 10))


def test_ms_ssim_equals_torchmetrics():
    metrics = pytest.importorskip("torchmetrics.functional.image", reason="torchmetrics is not installed")
    a, b = noisy_pair((192, 200))
    want = metrics.multiscale_structural_similarity_index_measure(
        tensor(a)[None], tensor(b)[None], data_range=1.0, kernel_size=11, sigma=1.5, normalize="relu"
    )
    # torchmetrics pads before it filters and crops after: equal inside, the coarsest scales differ at their border
    assert ms_ssim(tensor(a), tensor(b)) == pytest.approx(float(want), abs=2e-3)
    assert ms_ssim(tensor(a), tensor(a)) == pytest.approx(1.0, abs=1e-12)


def test_ms_ssim_by_its_definition():
    """The product of powers, from SSIM maps that scikit-image computes on every scale."""
    from fourdface.metrics.image import MS_SSIM_WEIGHTS, _ssim_maps

    a, b = (tensor(x)[None].double() for x in noisy_pair((180, 190), 3))
    product = torch.ones(3, dtype=torch.float64)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = (terms[None] for terms in _ssim_maps(a[0], b[0]))
        full = structural_similarity(
            a[0].permute(1, 2, 0).numpy(), b[0].permute(1, 2, 0).numpy(), data_range=1.0, channel_axis=2,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )  # fmt: skip
        assert float((luminance * contrast).mean()) == pytest.approx(full, abs=1e-9)
        product *= (luminance * contrast if scale == 4 else contrast).mean((0, 2, 3)) ** weight
        a, b = (0.25 * (x[..., :-1:2, :-1:2] + x[..., 1::2, :-1:2] + x[..., :-1:2, 1::2] + x[..., 1::2, 1::2])
                for x in (a[..., : a.shape[2] // 2 * 2, : a.shape[3] // 2 * 2],
                          b[..., : b.shape[2] // 2 * 2, : b.shape[3] // 2 * 2]))  # fmt: skip
    first = [tensor(x) for x in noisy_pair((180, 190), 3)]
    assert ms_ssim(*first) == pytest.approx(float(product.mean()), abs=1e-9)


def test_silhouette_iou_by_hand():
    a = np.zeros((4, 4), bool)
    b = a.copy()
    assert silhouette_iou(a, b) == 1.0
    a[:2], b[1:3] = True, True
    assert silhouette_iou(a, b) == pytest.approx(1 / 3)


def picture(image: np.ndarray, **more: np.ndarray) -> Picture:
    return Picture(np.round(image * 255).astype(np.uint8), None, **more)


def test_over_a_video_means_go_over_frames_then_sequences():
    a, b = noisy_pair()
    metric = Psnr()
    for sequence, count in (("one", 3), ("two", 1)):
        for frame in range(count):
            other = a if sequence == "two" else b
            metric.update(Sample(sequence, frame, picture(other), picture(a)))
    value = psnr(picture(b).image, picture(a).image)
    assert metric.compute() == pytest.approx((value + LARGEST_PSNR) / 2, abs=1e-9)
    with pytest.raises(ValueError, match="frame 0 of two was given twice"):
        metric.update(Sample("two", 0, picture(a), picture(a)))


def test_what_cannot_be_measured_is_nan_and_counted():
    a, _ = noisy_pair((20, 20))
    for metric in (MsSsim(), Ssim("face"), SilhouetteIou(), DepthError(), NormalError()):
        metric.update(Sample("s", 0, picture(a), picture(a)))
        assert math.isnan(metric.compute()) and list(metric.frame_values().values()) != []
    alone = Psnr()
    alone.update(Sample("s", 0, picture(a), None))
    assert math.isnan(alone.compute())


def test_depth_error_ignores_scale_and_shift_and_sees_shape():
    generator = np.random.default_rng(0)
    depth = 1 + generator.random((12, 15))
    depth[0] = 0  # nothing there
    image = np.zeros((12, 15, 3))

    def error(other: np.ndarray) -> float:
        metric = DepthError()
        metric.update(Sample("s", 0, picture(image, depth_z=other), picture(image, depth_z=depth)))
        return metric.compute()

    assert error(depth) == pytest.approx(0, abs=1e-12)
    assert error(np.where(depth > 0, 3 * depth + 2, 0)) == pytest.approx(0, abs=1e-9)
    assert error(np.where(depth > 0, depth[:, ::-1], 0)) > 0.3


def test_normal_error_of_a_tilted_plane_by_hand():
    columns = np.tile(np.arange(16.0), (16, 1))
    flat, tilted = np.full((16, 16), 2.0), 2.0 + 0.125 * (columns - 7.5)
    metric = NormalError()
    image = np.zeros((16, 16, 3))
    metric.update(Sample("s", 0, picture(image, depth_z=tilted), picture(image, depth_z=flat)))
    assert metric.compute() == pytest.approx(45.0, abs=1e-6)  # a pixel is 2 / 16 long, as is the step in depth
