"""Metrics of pixels: PSNR, SSIM, MS-SSIM, L1, silhouette IoU, depth and normal errors."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fourdface.metrics.base import MetricInfo, PairMetric
from fourdface.metrics.picture import Picture, Sample, face_window, head_window

LARGEST_PSNR = 100.0
"""dB given to equal pictures, so that means stay finite."""
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def psnr(a: Tensor, b: Tensor) -> float:
    """Peak signal-to-noise ratio of pictures [...] in 0..1, dB: -10 log10(mean squared error), at most 100."""
    error = float((a.double() - b.double()).square().mean())
    return min(LARGEST_PSNR, -10 * math.log10(error)) if error > 0 else LARGEST_PSNR


def ssim(a: Tensor, b: Tensor) -> float:
    """Structural similarity of [C,H,W] in 0..1 (Wang et al., 2004): 11x11 Gaussian window of sigma 1.5, data range 1.

    Statistics are taken where the whole window lies inside the picture, with population variances; the mean goes over
    pixels and channels. Raises ValueError for pictures under 11 pixels.
    """
    return float(ssim_map(a, b).mean())


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity [C,H-10,W-10] around each pixel of [C,H,W]; see `ssim`."""
    luminance, contrast = _ssim_maps(a, b)
    return luminance * contrast


def ms_ssim(a: Tensor, b: Tensor, maps: tuple[Tensor, Tensor] | None = None) -> float:
    """Multi-scale SSIM of [C,H,W] in 0..1 (Wang et al., 2003): five scales halved by 2x2 means, weights of the paper.

    Negative contrast terms count as zero. `maps` are the luminance and contrast terms of the finest scale, where the
    caller has them. Raises ValueError for pictures under 176 pixels (the coarsest needs 11).
    """
    if min(a.shape[-2:]) < 176:
        raise ValueError(f"ms_ssim needs pictures of at least 176 x 176 pixels, got {a.shape[-1]} x {a.shape[-2]}")
    x, y, product = a.double(), b.double(), torch.ones(a.shape[0], dtype=torch.float64)
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        luminance, contrast = maps if maps is not None and scale == 0 else _ssim_maps(x, y)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        term = (luminance * contrast if last else contrast).mean(dim=(1, 2))
        product = product * term.clamp_min(0) ** weight
        x, y = functional.avg_pool2d(x, 2), functional.avg_pool2d(y, 2)
    return float(product.mean())


def _ssim_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance and contrast-structure terms float64 [C,h,w] of SSIM of [C,H,W]."""
    if min(x.shape[-2:]) < 11:
        raise ValueError(f"ssim needs pictures of at least 11 x 11 pixels, got {x.shape[-1]} x {x.shape[-2]}")
    # one plane at a time, so that it stays in the cache
    planes = [_plane_maps(a, b) for a, b in zip(x.double(), y.double(), strict=True)]
    return torch.stack([luminance for luminance, _ in planes]), torch.stack([contrast for _, contrast in planes])


def _plane_maps(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    mean_x, mean_y = _smooth(x), _smooth(y)
    both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    variances = _smooth(x.square() + y.square()) - squares
    covariance = _smooth(x * y) - both
    c1, c2 = 0.01**2, 0.03**2
    return (2 * both + c1) / (squares + c1), (2 * covariance + c2) / (variances + c2)


def _smooth(plane: Tensor) -> Tensor:
    """[H,W] -> [H-10,W-10]: Gaussian window of 11 pixels and sigma 1.5, as sums of shifted pictures."""
    weights = [math.exp(-((5 - k) ** 2) / (2 * 1.5**2)) for k in range(6)]
    total = 2 * sum(weights[:5]) + weights[5]
    for axis in (0, 1):
        length = plane.shape[axis] - 10
        out = plane.narrow(axis, 5, length) * (weights[5] / total)
        for k in range(5):
            pair = plane.narrow(axis, k, length) + plane.narrow(axis, 10 - k, length)
            out.add_(pair, alpha=weights[k] / total)
        plane = out
    return plane


def cropped(sample: Sample, crop: str) -> tuple[Tensor, Tensor] | None:
    """Prediction and reference [3,h,w] in the crop `full`, `face` or `head` (the reference's); None for none."""
    if sample.reference is None:
        return None
    a, b = sample.prediction.image, sample.reference.image
    window = crop_window(sample.reference, crop)
    if window is None:
        return None
    a, b = a[:, window[0], window[1]], b[:, window[0], window[1]]
    if crop == "head" and sample.reference.alpha is not None:
        seen = torch.from_numpy(sample.reference.alpha[window] > 0.5)
        a, b = (torch.where(seen, image, 1.0) for image in (a, b))
    return a, b


def crop_window(reference: Picture, crop: str) -> tuple[slice, slice] | None:
    """Rows and columns of the crop `full`, `face` or `head` of a picture; None where there is none."""
    if crop == "full":
        return slice(0, reference.image_u8.shape[0]), slice(0, reference.image_u8.shape[1])
    return (face_window if crop == "face" else head_window)(reference)


CROP_WORDS = {
    "full": "whole picture",
    "face": "reference's face box and a third of its height around it",
    "head": "reference's face box with 0.7 of its height above, 0.5 beside, 0.3 below; "
    "white outside of the reference's matte where it has one",
}


class CroppedMetric(PairMetric):
    """A function of two pictures, over the whole picture or the reference's face."""

    def __init__(self, crop: str = "full") -> None:
        super().__init__()
        self.crop = crop
        suffix = "" if crop == "full" else f"_{crop}"
        info = self._info(suffix, CROP_WORDS[crop])
        self.info = info if crop == "full" else dataclasses.replace(info, title=f"{info.title}, {crop}")

    def _info(self, suffix: str, crop: str) -> MetricInfo:
        raise NotImplementedError

    def compare(self, a: Tensor, b: Tensor) -> float | None:
        """The value for two pictures [3,h,w] in 0..1."""
        raise NotImplementedError

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        pair = cropped(sample, self.crop)
        return None if pair is None else self.compare(*pair)


class Psnr(CroppedMetric):
    """`psnr` over a video."""

    def _info(self, suffix: str, crop: str) -> MetricInfo:
        return MetricInfo(
            f"psnr{suffix}", "PSNR", "dB", "higher", "-10 log10 mean((a - b)^2), RGB in 0..1, at most 100",
            "standard", crop=crop,
        )  # fmt: skip

    def compare(self, a: Tensor, b: Tensor) -> float:
        """See `psnr`."""
        return psnr(a, b)


class L1(CroppedMetric):
    """Mean absolute difference over a video."""

    def _info(self, suffix: str, crop: str) -> MetricInfo:
        return MetricInfo(f"l1{suffix}", "L1", "0..1", "lower", "mean |a - b|, RGB in 0..1", "standard", crop=crop)

    def compare(self, a: Tensor, b: Tensor) -> float:
        """Mean absolute difference."""
        return float((a - b).abs().mean())


class Ssim(CroppedMetric):
    """`ssim` over a video."""

    def _info(self, suffix: str, crop: str) -> MetricInfo:
        return MetricInfo(
            f"ssim{suffix}", "SSIM", "-1..1", "higher", "11x11 Gaussian window, sigma 1.5, RGB, mean over channels",
            "Wang et al. 2004", crop=crop, missing="crops under 11 pixels are left out and counted in the coverage",
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`; a crop's value is the mean of the whole picture's map over it."""
        reference = sample.reference
        window = None if reference is None else crop_window(reference, self.crop)
        if reference is None or window is None:
            return None
        rows, columns = window
        if min(rows.stop - rows.start, columns.stop - columns.start) < 11:
            return None
        luminance, contrast = _finest(sample, reference)
        similarity = sample.once("ssim", lambda: luminance * contrast)
        return float(similarity[:, rows.start : rows.stop - 10, columns.start : columns.stop - 10].mean())


class MsSsim(CroppedMetric):
    """`ms_ssim` over a video."""

    def _info(self, suffix: str, crop: str) -> MetricInfo:
        return MetricInfo(
            f"ms_ssim{suffix}", "MS-SSIM", "0..1", "higher", "five scales, weights of the paper, RGB",
            "Wang et al. 2003", crop=crop, missing="crops under 176 pixels are left out and counted in the coverage",
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric` and `ms_ssim`; the whole picture shares its finest scale with SSIM."""
        pair, reference = cropped(sample, self.crop), sample.reference
        if pair is None or reference is None or min(pair[0].shape[-2:]) < 176:
            return None
        return ms_ssim(*pair, _finest(sample, reference) if self.crop == "full" else None)


def _finest(sample: Sample, reference: Picture) -> tuple[Tensor, Tensor]:
    """The terms of SSIM of whole pictures, computed once for all metrics."""
    a, b = sample.prediction.image, reference.image
    terms: tuple[Tensor, Tensor] = sample.once("ssim terms", lambda: _ssim_maps(a, b))
    return terms


def silhouette_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boolean masks; 1 for two empty ones."""
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


class SilhouetteIou(PairMetric):
    """Overlap of the silhouettes, where both pictures have an alpha."""

    info = MetricInfo(
        "silhouette_iou", "silhouette IoU", "0..1", "higher", "|A and B| / |A or B|, alpha > 0.5", "standard",
        missing="frames without both alphas are left out and counted in the coverage",
    )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        reference = sample.reference
        if reference is None or reference.alpha is None or sample.prediction.alpha is None:
            return None
        return silhouette_iou(sample.prediction.alpha > 0.5, reference.alpha > 0.5)


class DepthError(PairMetric):
    """Depth up to scale and shift, where both pictures have one."""

    info = MetricInfo(
        "depth_error", "depth error", "relative", "lower",
        "mean |s d + t - d*| / mean |d* - median d*| after the best s, t by least squares, where both depths are > 0",
        "scale-and-shift invariant error (Ranftl et al. 2020)", crop="where both have depth",
    )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        pair = _depths(sample)
        if pair is None:
            return None
        a, b = pair
        design = np.stack([a, np.ones_like(a)], axis=1)
        solution, *_ = np.linalg.lstsq(design, b, rcond=None)
        spread = float(np.abs(b - np.median(b)).mean())
        return float(np.abs(design @ solution - b).mean()) / spread if spread > 0 else None


class NormalError(PairMetric):
    """Angle between the normals of the two depth maps (differences of depth in pixels, cameras alike)."""

    info = MetricInfo(
        "normal_error", "normal error", "degrees", "lower",
        "mean angle of (-dz/dx, -dz/dy, 1) built from central differences of depth over its mean size of a pixel",
        "standard", crop="where both have depth",
    )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        reference = sample.reference
        if reference is None or reference.depth_z is None or sample.prediction.depth_z is None:
            return None
        a, valid_a = _normals(sample.prediction)
        b, valid_b = _normals(reference)
        valid = valid_a & valid_b
        if not valid.any():
            return None
        cosine = np.clip((a * b).sum(-1)[valid], -1, 1)
        return float(np.degrees(np.arccos(cosine)).mean())


class Seconds(PairMetric):
    """Time a frame took to make, where it was measured."""

    info = MetricInfo(
        "seconds", "time per frame", "s", "lower", "wall-clock time of making the result over its frames",
        "measured here", missing="results of other programs have none",
    )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        return None if sample.cost is None else sample.cost.seconds


class Memory(PairMetric):
    """Memory that making the result needed, where it was measured."""

    info = MetricInfo(
        "memory", "peak memory", "MiB", "lower", "largest resident memory of the process while it made the result",
        "measured here (Linux)", missing="results of other programs have none",
    )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        return None if sample.cost is None else sample.cost.memory


def _depths(sample: Sample) -> tuple[np.ndarray, np.ndarray] | None:
    reference = sample.reference
    if reference is None or reference.depth_z is None or sample.prediction.depth_z is None:
        return None
    a, b = sample.prediction.depth_z.astype(np.float64), reference.depth_z.astype(np.float64)
    valid = (a > 0) & (b > 0)
    return (a[valid], b[valid]) if int(valid.sum()) >= 3 else None


def _normals(picture: Picture) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals [H,W,3] and where they are valid (depth there and at the four neighbours)."""
    depth = np.asarray(picture.depth_z, dtype=np.float64)
    inside = depth > 0
    valid = inside.copy()
    for axis in (0, 1):
        valid &= np.roll(inside, 1, axis) & np.roll(inside, -1, axis)
    valid[[0, -1]] = False
    valid[:, [0, -1]] = False
    scale = depth[inside].mean() / max(depth.shape) if inside.any() else 1.0
    rows, columns = np.gradient(depth)
    normal = np.stack([-columns / scale, -rows / scale, np.ones_like(depth)], axis=-1)
    return normal / np.linalg.norm(normal, axis=-1, keepdims=True), valid
