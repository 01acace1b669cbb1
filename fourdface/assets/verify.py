"""Check the files of assets against the registry."""

from __future__ import annotations

import dataclasses

from fourdface.assets.cache import place_of, sha256_of
from fourdface.assets.importer import read_record
from fourdface.assets.registry import Asset


@dataclasses.dataclass(frozen=True)
class Verdict:
    """state: ``ok``, ``unpinned`` (there, but the registry states no hash), ``missing`` or ``damaged``."""

    asset: Asset
    state: str
    sha256: str | None
    detail: str


def verify_asset(asset: Asset) -> Verdict:
    """Compare an asset's file with the registry's SHA-256 and size."""
    place = place_of(asset)
    if not place.is_file():
        return Verdict(asset, "missing", None, f"not in {place.parent}")
    found = sha256_of(place)
    size = place.stat().st_size
    if asset.converted:
        return _verify_converted(asset, found, size)
    if asset.sha256 is None:
        return Verdict(asset, "unpinned", found, f"{size} bytes; the registry states no SHA-256")
    if found != asset.sha256 or asset.bytes not in (None, size):
        detail = f"SHA-256 {found} ({size} bytes), expected {asset.sha256} ({asset.bytes} bytes)"
        return Verdict(asset, "damaged", found, f"{detail}; delete {place} and get it again")
    return Verdict(asset, "ok", found, f"{size} bytes")


def _verify_converted(asset: Asset, found: str, size: int) -> Verdict:
    """Compare converted weights with the record that the import wrote beside them."""
    record = read_record(place_of(asset).parent) or {}
    expected, source = record.get("file_sha256"), record.get("source")
    if expected is None or not isinstance(source, dict):
        return Verdict(asset, "damaged", found, "the record of its import is missing; import its file again")
    if found != expected:
        return Verdict(asset, "damaged", found, f"SHA-256 {found}, expected {expected}; import its file again")
    return Verdict(asset, "ok", found, f"{size} bytes, from {source.get('name')} with SHA-256 {source.get('sha256')}")
