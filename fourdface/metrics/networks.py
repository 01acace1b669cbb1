"""Metrics by public networks that are assets: LPIPS and its crops, features of Inception and CLIP.

Nothing is downloaded here: a metric whose files are missing is left out, and the reason names the commands.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fourdface.assets import asset_path, find_asset, get_asset, load_weights
from fourdface.blocks.inception import load_inception
from fourdface.blocks.perceptual import BACKBONES, SMALLEST, load_lpips
from fourdface.errors import FourdError
from fourdface.metrics.base import MetricInfo, PairMetric
from fourdface.metrics.face import cosine
from fourdface.metrics.image import CroppedMetric, crop_window, cropped
from fourdface.metrics.picture import Picture, Sample

if TYPE_CHECKING:
    from fourdface.blocks.inception import FidInception
    from fourdface.blocks.perceptual import Lpips

TITLES = {"alex": "LPIPS", "vgg": "LPIPS (VGG-16)", "squeeze": "LPIPS (SqueezeNet)"}
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIZE = 224
CLIP_CONFIG: dict[str, int] = {}
"""Sizes that differ from the defaults of transformers, which are those of ViT-B/32."""


def lpips_assets(network: str) -> tuple[str, ...]:
    """The assets that LPIPS needs with one of its networks."""
    return BACKBONES[network], f"lpips-{network}"


def missing_assets(assets: tuple[str, ...], package: str = "") -> str:
    """Why networks cannot be used, as the commands that get them; "" where all is there."""
    commands = []
    for asset_id in assets:
        if find_asset(asset_id) is None:
            accept = " --accept-licence" if get_asset(asset_id).needs_acceptance else ""
            commands.append(f"`fourd assets fetch {asset_id}{accept}`")
    if package and importlib.util.find_spec(package) is None:
        commands.append(f"`pip install {package}`")
    return f"its network is missing: run {' and '.join(commands)}" if commands else ""


class LpipsMetric(CroppedMetric):
    """LPIPS over the whole picture, the reference's face, or its head."""

    def __init__(self, crop: str = "full", network: str = "alex") -> None:
        self.network = network
        super().__init__(crop)

    def _info(self, suffix: str, crop: str) -> MetricInfo:
        base = "lpips" if self.network == "alex" else f"lpips_{self.network}"
        return MetricInfo(
            "lpips_h" if suffix == "_head" else f"{base}{suffix}", TITLES[self.network], "0..1", "lower",
            "sum over layers of mean w . (f/|f| - f*/|f*|)^2, version 0.1, RGB",
            "Zhang et al. 2018" + (", LPIPS_h of Portrait4D" if suffix == "_head" else ""),
            "assets " + " and ".join(lpips_assets(self.network)), crop,
            f"crops under {SMALLEST} pixels are left out and counted in the coverage",
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`; the reference is read once for all systems, and crops that coincide are read once."""
        pair, reference = cropped(sample, self.crop), sample.reference
        if pair is None or reference is None or min(pair[0].shape[-2:]) < SMALLEST:
            return None
        network, (a, b) = _lpips(self.network), pair
        masked = self.crop == "head" and reference.alpha is not None
        key = (self.network, masked, str(crop_window(reference, self.crop)))

        def distance() -> float:
            truth = reference.once(key, lambda: network.read(b[None]))
            return float(network.compare(network.read(a[None]), truth))

        with torch.inference_mode():
            return float(sample.once(key, distance))


@lru_cache(maxsize=3)
def _lpips(network: str) -> Lpips:
    return load_lpips(network)


@lru_cache(maxsize=1)
def _inception() -> FidInception:
    return load_inception()


def inception_features(picture: Picture) -> np.ndarray:
    """Pooled features [2048] of the whole picture, read once."""

    def read() -> np.ndarray:
        image = torch.from_numpy(np.ascontiguousarray(picture.image_u8.transpose(2, 0, 1)))[None]
        with torch.inference_mode():
            return np.asarray(_inception()(image)[0].double().numpy())

    value: np.ndarray = picture.once("inception", read)
    return value


def clip_input(image_u8: np.ndarray) -> Tensor:
    """uint8 [H,W,3] -> [1,3,224,224] as CLIP takes it: shorter side to 224 (bicubic), middle, normalised."""
    image = Image.fromarray(image_u8)
    factor = CLIP_SIZE / min(image.size)
    size = [max(CLIP_SIZE, int(length * factor)) for length in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    left, top = (size[0] - CLIP_SIZE) // 2, (size[1] - CLIP_SIZE) // 2
    middle = np.asarray(image.crop((left, top, left + CLIP_SIZE, top + CLIP_SIZE)), np.float32) / 255
    return torch.from_numpy(((middle - CLIP_MEAN) / CLIP_STD).astype(np.float32).transpose(2, 0, 1))[None]


@lru_cache(maxsize=1)
def _clip() -> Any:
    """CLIP's picture tower."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise FourdError("CLIP needs the package transformers: pip install transformers") from error
    network = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**CLIP_CONFIG))
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(load_weights(asset_path("clip-vit-b32"), shapes))
    return network.eval()


def clip_features(picture: Picture) -> np.ndarray:
    """CLIP's embedding [512] of the whole picture, read once."""

    def read() -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(_clip()(clip_input(picture.image_u8)).image_embeds[0].double().numpy())

    value: np.ndarray = picture.once("clip", read)
    return value


class ClipSimilarity(PairMetric):
    """Cosine of CLIP's embeddings, to the photo (`clip_i`) or to the true picture (`clip`)."""

    def __init__(self, against: str = "source") -> None:
        super().__init__()
        self._against = against
        names = {"source": ("clip_i", "CLIP-I to the photo", "CLIP-I of FaceCraft4D, CLIP of Gen3D-Face on FFHQ"),
                 "reference": ("clip", "CLIP similarity to the truth", "CLIP of Gen3D-Face on H3DS")}  # fmt: skip
        name, title, source = names[against]
        self.info = MetricInfo(
            name, title, "-1..1", "higher", "cosine of CLIP's picture embeddings", source,
            "asset clip-vit-b32", "shorter side to 224 pixels, middle square",
        )  # fmt: skip

    def measure(self, sample: Sample) -> float | None:
        """See `PairMetric`."""
        other = sample.source if self._against == "source" else sample.reference
        return None if other is None else cosine(clip_features(sample.prediction), clip_features(other))
