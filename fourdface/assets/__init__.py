"""Model files: which there are, where they lie, how they come and under which licence."""

from __future__ import annotations

from fourdface.assets.cache import asset_folder, asset_path, find_asset, place_of, sha256_of
from fourdface.assets.registry import Asset, get_asset, load_registry

__all__ = ["Asset", "asset_folder", "asset_path", "find_asset", "get_asset", "load_registry", "place_of", "sha256_of"]
