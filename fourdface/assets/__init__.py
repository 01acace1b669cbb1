"""Model files: which there are, where they lie, how they come and under which licence."""

from __future__ import annotations

from fourdface.assets.cache import asset_folder, asset_path, find_asset, place_of, sha256_of
from fourdface.assets.registry import Asset, get_asset, load_registry
from fourdface.assets.weights import load_extras, load_record, load_weights

__all__ = [
    "Asset",
    "asset_folder",
    "asset_path",
    "find_asset",
    "get_asset",
    "load_extras",
    "load_record",
    "load_registry",
    "load_weights",
    "place_of",
    "sha256_of",
]
