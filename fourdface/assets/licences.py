"""Licences of assets: which ones were accepted here, kept beside the assets in licences.json."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from fourdface.assets.cache import asset_folder
from fourdface.assets.registry import Asset
from fourdface.errors import FourdError, UsageError


def accepted_licences() -> dict[str, str]:
    """Asset id -> the licence text that was accepted on this machine."""
    try:
        stored = json.loads(_record().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise FourdError(f"cannot read {_record()}: {error}; delete it and accept the licences again") from error
    return {str(key): str(value) for key, value in stored.items()} if isinstance(stored, dict) else {}


def require_acceptance(asset: Asset, *, accept: bool) -> None:
    """Record the acceptance of an asset's licence, or raise UsageError that shows it and names the option.

    A licence that changed in the registry has to be accepted again.
    """
    if not asset.needs_acceptance:
        return
    stored = accepted_licences()
    if stored.get(asset.id) == asset.licence:
        return
    if not accept:
        use = "commercial use is allowed" if asset.commercial_use else "commercial use is not allowed"
        raise UsageError(
            f"{asset.id} comes under this licence: {asset.licence} ({use}; {asset.source}); "
            "give --accept-licence if you accept it"
        )
    _write({**stored, asset.id: asset.licence})


def _record() -> Path:
    return asset_folder() / "licences.json"


def _write(values: dict[str, str]) -> None:
    place = _record()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=".licences.", suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(values, file, indent=2, ensure_ascii=False)
        os.replace(name, place)
    except OSError as error:
        raise FourdError(f"cannot write {place}: {error.strerror}") from error
