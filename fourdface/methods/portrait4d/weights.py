"""The networks of Portrait4D with their weights: an imported asset, or a file of the user's."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fourdface.assets.cache import asset_path, find_asset, sha256_of
from fourdface.assets.registry import get_asset, load_registry
from fourdface.assets.weights import load_weights
from fourdface.blocks.head_model import HeadModel
from fourdface.errors import FourdError, UsageError
from fourdface.methods.portrait4d.config import SIZES, ReconstructorConfig
from fourdface.methods.portrait4d.motion_encoder import MotionEncoder
from fourdface.methods.portrait4d.network import Reconstructor
from fourdface.priors.genhead.deformation import HeadDeformer
from fourdface.priors.genhead.head import HeadGeometry

__all__ = ["METHODS", "MOTION_ASSET", "LoadedWeights", "Variant", "default_weights", "load_motion_encoder",
           "load_reconstructor", "packed",
           "save_reconstructor"]  # fmt: skip

log = logging.getLogger(__name__)
MOTION_ASSET = "pdfgc-motion"
_DEFORMER = "deformer."
_CONFIG = "fourd_reconstructor"
"""Key of the settings in the metadata of a safetensors file."""


@dataclass(frozen=True)
class Variant:
    """A method of this family: its published weights, whether motion moves the face (1) or not (0), and the id of small
    weights of our own, which are taken where the published ones are missing and the registry has them."""

    asset: str
    motion_scale: float
    shipped: str = ""


METHODS = {
    "portrait4d-v2": Variant("portrait4d-v2-vfhq512", 1.0, "portrait4d-v2-tiny"),
    "portrait4d": Variant("portrait4d-genhead512", 1.0),
    "lp3d": Variant("portrait4d-static-genhead512", 0.0, "portrait4d-static-tiny"),
}


def default_weights(method: str) -> str:
    """The asset that a method is run with: the published weights where they are, else our own where there are such."""
    variant = METHODS[method]
    if variant.shipped in load_registry() and find_asset(variant.asset) is None:
        log.warning(
            "%s is not here, so fourd's own small network is used (128 pixels); `fourd assets list` names the other",
            variant.asset,
        )  # fmt: skip
        return variant.shipped
    return variant.asset


@dataclass(frozen=True)
class LoadedWeights:
    """Where weights came from: asset id (or the file's name), SHA-256 of what was read, licence, commercial use."""

    asset: str
    sha256: str
    licence: str
    commercial_use: bool


def load_reconstructor(weights: str | Path) -> tuple[Reconstructor, LoadedWeights]:
    """Psi with the weights of an asset id or of a file (any format that `fourd assets import` reads), in eval mode.

    Files without settings are of the published size. The neck turns with the head that the weights carry, or else with
    the open head. Raises FourdError: missing asset, refused file, names or shapes that differ.
    """
    config = _settings(weights)
    state = load_weights(weights, None)
    with torch.device("meta"):  # sizes are compared before anything of them is allocated
        network = Reconstructor(config)
    values = {key: value.float() for key, value in state.items() if not key.startswith(_DEFORMER)}
    values.setdefault("dataset_label_std", torch.zeros([]))
    _require(values, network.state_dict(), str(weights))
    network.load_state_dict(values, assign=True)
    network.deformer = HeadDeformer(_geometry(state), config.box_size)
    return network.eval().requires_grad_(False), _origin(weights)


def load_motion_encoder(weights: str | Path = MOTION_ASSET) -> tuple[MotionEncoder, LoadedWeights]:
    """PD-FGC with the weights of an asset id or of a file, in eval mode; errors as in `load_reconstructor`."""
    network = MotionEncoder()
    state = load_weights(weights, None)
    wanted = network.state_dict()
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    values = {**counters, **{key: value for key, value in state.items() if key in wanted}}
    _require(values, wanted, str(weights))
    network.load_state_dict(values)
    return network.eval().requires_grad_(False), _origin(weights)


def packed(network: Reconstructor) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a weights file of a network of any size, without the head geometry."""
    state = {key: value for key, value in network.state_dict().items() if not key.startswith(_DEFORMER)}
    return state, {_CONFIG: network.config.to_json()}


def save_reconstructor(network: Reconstructor, path: Path) -> None:
    """Write a network of any size with its settings as safetensors, without the head geometry."""
    from safetensors.torch import save_file

    state, metadata = packed(network)
    save_file({key: value.contiguous() for key, value in state.items()}, str(path), metadata=metadata)


def _require(values: dict[str, Tensor], wanted: dict[str, Tensor], name: str) -> None:
    missing = sorted(set(wanted) - set(values))
    unknown = sorted(set(values) - set(wanted))
    wrong = [key for key in wanted if key in values and values[key].shape != wanted[key].shape]
    if wrong:
        key = wrong[0]
        raise FourdError(
            f"{name} does not fit the network: {key} is {list(values[key].shape)}, expected {list(wanted[key].shape)}; "
            "give a file of this method, or import it again"
        )
    if missing or unknown:
        raise FourdError(
            f"{name} does not fit the network: {len(missing)} entries are missing (such as {(missing or ['none'])[0]}) "
            f"and {len(unknown)} are unknown (such as {(unknown or ['none'])[0][:80]}); give a file of this method"
        )


def _settings(weights: str | Path) -> ReconstructorConfig:
    """The settings in a safetensors file, else the published ones."""
    from safetensors import SafetensorError, safe_open

    place = _place(weights)
    try:
        with safe_open(str(place), "pt") as file:
            text = (file.metadata() or {}).get(_CONFIG)
    except (SafetensorError, OSError):
        return SIZES["paper"]  # another format: what is wrong with it, if anything, the reader says
    return SIZES["paper"] if text is None else ReconstructorConfig.from_json(text)


def _place(weights: str | Path) -> Path:
    if isinstance(weights, Path) or Path(weights).is_file():
        if not Path(weights).is_file():
            raise UsageError(f"the weights {weights} do not exist; give an asset's id or a file")
        return Path(weights)
    return asset_path(weights)


def _origin(weights: str | Path) -> LoadedWeights:
    place = _place(weights)
    if isinstance(weights, Path) or Path(weights).is_file():
        return LoadedWeights(place.name, sha256_of(place), "given by the user", False)
    asset = get_asset(weights)
    return LoadedWeights(asset.id, sha256_of(place), asset.licence, asset.commercial_use)


def _geometry(state: dict[str, Tensor]) -> HeadGeometry:
    if any(key.startswith(_DEFORMER) for key in state):
        with torch.no_grad():
            return HeadGeometry.from_checkpoint(state)
    return HeadGeometry.from_head_model(HeadModel.load("open"))
