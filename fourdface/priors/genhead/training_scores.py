"""FID and KID of a generator during its training, on Inception's features or, named so, on those of our own network."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from fourdface.assets import find_asset
from fourdface.blocks.inception import ASSET, load_inception
from fourdface.errors import UsageError
from fourdface.metrics.sets import frechet_distance, kernel_distance
from fourdface.perception.features import load_face_features

__all__ = ["FEATURES", "PictureFeatures", "set_scores"]

logger = logging.getLogger(__name__)
FEATURES = ("auto", "inception", "perception")
_SIDE = 128  # at which the embedded network was trained


class PictureFeatures:
    """Features of pictures; `name` says of which network: "inception" or "perception".

    "perception" is the mean over places of four layers of the embedded landmark network [320]: it knows faces, has seen
    no other pictures, and its scores compare runs with each other, not with published ones.
    """

    def __init__(self, choice: str = "auto") -> None:
        """Raises UsageError for an unknown name, FourdError where Inception is asked for by name and missing."""
        if choice not in FEATURES:
            raise UsageError(f"score.features is {choice!r}; choose {', '.join(FEATURES)}")
        asset = find_asset(ASSET)
        self.name = choice if choice != "auto" else ("inception" if asset is not None else "perception")
        if self.name != choice:
            logger.info("FID and KID are taken on the features of: %s", self.name)
        self._read: Callable[[Tensor], Tensor]
        if self.name == "inception":
            inception = load_inception()
            self._read = lambda image: inception((image * 255).round().to(torch.uint8))
        else:
            trunk = load_face_features()
            self._read = lambda image: torch.cat([layer.mean((2, 3)) for layer in trunk.read(_enlarged(image))], dim=1)

    def __call__(self, images: Tensor) -> np.ndarray:
        """Features [B, D] float64 of pictures [B, 3, H, W] in 0..1, on the CPU."""
        with torch.inference_mode():
            return np.asarray(self._read(images.float().cpu().clamp(0, 1)).double().numpy())


def _enlarged(image: Tensor) -> Tensor:
    return interpolate(image, size=(_SIDE, _SIDE), mode="bilinear", align_corners=False, antialias=True)


def set_scores(fake: np.ndarray, real: np.ndarray, name: str) -> dict[str, float]:
    """KID and FID of features [n, D] and [m, D]; names carry the network unless it is Inception (kid, fid).

    Features other than Inception's are standardised by the real ones' mean and deviation, which sets the scale of KID's
    kernel. FID needs more pictures than features and is left out otherwise.
    """
    suffix = "" if name == "inception" else f"_{name}"
    if suffix:
        mean, deviation = real.mean(0), real.std(0) + 1e-8
        fake, real = (fake - mean) / deviation, (real - mean) / deviation
    out = {f"kid{suffix}": kernel_distance(fake, real)}
    if min(len(fake), len(real)) > fake.shape[1]:
        moments = [part for rows in (fake, real) for part in (rows.mean(0), np.cov(rows, rowvar=False))]
        out[f"fid{suffix}"] = frechet_distance(*moments)
    return out
